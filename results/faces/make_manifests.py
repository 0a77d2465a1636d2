"""Write the manifests and the trials of the study on real pictures.

Every picture is an utterance of its own, so that no two pictures of a person
are known to belong together. The pictures of ORL (40 persons) are for the
trials, those of the other sets (85 persons) for training::

    python results/faces/make_manifests.py /path/to/faces exp/faces
"""

import itertools
import pathlib
import sys

import numpy as np
import pandas as pd

from speechbrain_ssl.data.faces import write_faces
from speechbrain_ssl.data.manifest import write_manifest

NONTARGETS = 10000


def main(faces, output):
    """Write train.csv, faces.csv and trials_orl.txt."""
    faces, output = pathlib.Path(faces).resolve(), pathlib.Path(output)
    table = pd.read_csv(faces / "manifest.csv")
    table["ID"] = table["image"].str.removeprefix("images/")
    table["ID"] = table["ID"].str.removesuffix(".png")
    table["image"] = str(faces) + "/" + table["image"]
    write_faces(output / "faces.csv", table[["ID", "image"]])
    train = table[table["source"] != "ORL"]
    # There is no audio: the two columns are needed and not read.
    train = pd.DataFrame(
        {"ID": train["ID"], "duration": 1.0, "wav": train["image"]}
    )
    write_manifest(output / "train.csv", train)
    names = sorted(table.loc[table["source"] == "ORL", "ID"])
    pairs = list(itertools.combinations(names, 2))
    same = [a.split("/")[0] == b.split("/")[0] for a, b in pairs]
    others = np.flatnonzero(~np.array(same))
    rng = np.random.default_rng(0)
    chosen = set(rng.choice(others, NONTARGETS, replace=False).tolist())
    with open(output / "trials_orl.txt", "w", encoding="utf-8") as stream:
        stream.writelines(
            f"{int(same[i])} {a}.png {b}.png\n"
            for i, (a, b) in enumerate(pairs)
            if same[i] or i in chosen
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
