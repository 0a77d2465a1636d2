"""Compare rules that group recordings by speaker, the number unknown or given.

Argument: a folder with ``NAME.npz`` of each corpus, as ``speechbrain-ssl embed``
writes it, and ``NAME.spk``, one speaker a line in the order of the embeddings.
Speakers only draw the subsets and grade the rules.
"""

import csv
import pathlib
import sys

import numpy as np
from sklearn.cluster import HDBSCAN, AgglomerativeClustering
from sklearn.metrics import adjusted_rand_score, silhouette_score

from speechbrain_ssl.clustering.choice import choose_k
from speechbrain_ssl.clustering.speakers import candidates


def merged(rows, linkage, number):
    """Labels of an agglomerative clustering."""
    return AgglomerativeClustering(
        number,
        linkage=linkage,
        metric="euclidean" if linkage == "ward" else "cosine",
    ).fit_predict(rows)


def by_silhouette(rows, linkage):
    """Cut of the tree with the best silhouette of cosines."""
    cuts = [merged(rows, linkage, k) for k in candidates(len(rows))]
    scores = [silhouette_score(rows, cut, metric="cosine") for cut in cuts]
    return cuts[int(np.argmax(scores))]


def kmeans_then_average(rows):
    """The rule of version 0.1."""
    number = choose_k(rows, candidates(len(rows))).clusters
    return merged(rows, "average", number)


def density(rows):
    """HDBSCAN; what it calls noise are speakers of one file each."""
    labels = HDBSCAN(min_cluster_size=3, copy=True).fit_predict(rows)
    noise = labels < 0
    labels[noise] = labels.max() + 1 + np.arange(noise.sum())
    return labels


RULES = {
    "k-means silhouette, average": kmeans_then_average,
    "average silhouette": lambda rows: by_silhouette(rows, "average"),
    "Ward silhouette": lambda rows: by_silhouette(rows, "ward"),
    "HDBSCAN": density,
}


def main():
    """Print the table as CSV."""
    write = csv.writer(sys.stdout, lineterminator="\n").writerow
    write(["corpus", "speakers", "files", "seed", "rule", "found", "ari"])
    for path in sorted(pathlib.Path(sys.argv[1]).glob("*.npz")):
        rows = np.load(path)["embeddings"]
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        names = np.array(path.with_suffix(".spk").read_text().split())
        every = np.unique(names)
        for number in sorted({5, 10, min(len(every), 39)}):
            for seed in range(2):
                draw = np.random.default_rng(seed)
                chosen = draw.choice(every, number, replace=False)
                part = np.isin(names, chosen)
                points, truth = rows[part], names[part]
                found = {name: rule(points) for name, rule in RULES.items()}
                for linkage in ("average", "ward"):
                    found[f"{linkage}, number given"] = merged(
                        points, linkage, number
                    )
                for name, labels in found.items():
                    ari = adjusted_rand_score(truth, labels)
                    size = len(np.unique(labels))
                    start = [path.stem, number, len(points), seed]
                    write([*start, name, size, f"{ari:.3f}"])


if __name__ == "__main__":
    main()
