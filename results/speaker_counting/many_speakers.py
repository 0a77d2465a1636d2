"""Compare the rules of ``compare.py`` from 3 to 200 files and up to 421 speakers.

Argument: a folder as ``compare.py`` takes it, with the corpora that
``corpora.py`` makes.
"""

import csv
import pathlib
import sys
import warnings

import numpy as np
import torch
from compare import average, density, spectral, ward
from sklearn.cluster import AgglomerativeClustering
from sklearn.metrics import adjusted_rand_score

from speechbrain_ssl.clustering.speakers import find_speakers, half_whiten

#: Numbers of speakers; and files of each, up to so many (None: 3 to 60).
NUMBERS, SIZES = (5, 20, 100, 250), (3, 20, 200, None)
RULES = {
    "Ward, above chance": lambda rows, white, number: find_speakers(rows),
    "Ward": lambda rows, white, number: ward(white),
    "Ward, as they are": lambda rows, white, number: ward(rows),
    "average linkage": lambda rows, white, number: average(white),
    "spectral": lambda rows, white, number: spectral(white),
    "HDBSCAN": lambda rows, white, number: density(white),
    "Ward, number given": lambda rows, white, number: AgglomerativeClustering(
        number
    ).fit_predict(white),
}


def draw(names, number, most):
    """Positions of the files of some speakers."""
    rng = np.random.default_rng([number, most or 0])
    found = []
    for speaker in rng.choice(np.unique(names), number, replace=False):
        files = rng.permutation(np.flatnonzero(names == speaker))
        share = max(3, int(min(len(files), 60) * rng.random() ** 2))
        found.extend(files[: most or share])
    return np.array(found)


def main():
    """Print the table as CSV."""
    warnings.filterwarnings("ignore", message="Graph is not fully connected")
    write = csv.writer(sys.stdout, lineterminator="\n").writerow
    write("model corpus speakers files sizes rule found ari".split())
    for path in sorted(pathlib.Path(sys.argv[1]).glob("*/*.npz")):
        rows = np.load(path)["embeddings"].astype(float)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        names = np.array(path.with_suffix(".spk").read_text().split())
        every = len(np.unique(names))
        for number in sorted({*[n for n in NUMBERS if n < every], every}):
            for most in SIZES:
                part = draw(names, number, most)
                # Where the speakers have fewer files, it is another case again.
                if most and len(part) < number * most / 2:
                    continue
                white = half_whiten(torch.from_numpy(rows[part])).numpy()
                for name, rule in RULES.items():
                    labels = rule(rows[part], white, number)
                    write(
                        [path.parent.name, path.stem, number, len(part)]
                        + [most or "unequal", name, len(np.unique(labels))]
                        + [f"{adjusted_rand_score(names[part], labels):.3f}"]
                    )
                sys.stdout.flush()


if __name__ == "__main__":
    main()
