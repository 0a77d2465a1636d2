"""Give utterances of speechocean762 pictures of paired persons.

    python make_faces.py /path/to/speechocean762/train.csv /path/to/faces faces.csv

Every utterance of a speaker with a person in ``pairing.csv`` gets two of this
person's pictures, drawn by its ID; the others get none. The ID is that of the
manifest; with ``--trials``, it is the path in ``wav`` without extension, as
trial lists name it. Voice and face of a speaker are of two people.
"""

import argparse
import pathlib

import pandas as pd

from speechbrain_ssl.data.draws import permutation
from speechbrain_ssl.data.faces import write_faces
from speechbrain_ssl.data.manifest import utterance_key


def main():
    """Read the three tables, and write the face manifest."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("manifest", type=pathlib.Path)
    parser.add_argument("faces", type=pathlib.Path)
    parser.add_argument("output", type=pathlib.Path)
    parser.add_argument("--trials", action="store_true")
    args = parser.parse_args()
    utterances = pd.read_csv(args.manifest, dtype=str)
    pictures = pd.read_csv(args.faces / "manifest.csv", dtype=str)
    pairing = pd.read_csv(args.faces / "pairing.csv", dtype=str)
    person_of = dict(zip(pairing["spk_id"], pairing["person"], strict=True))
    images = pictures.groupby("person")["image"].apply(list).to_dict()
    rows = []
    for row in utterances.itertuples():
        shown = images.get(person_of.get(row.spk_id), [])
        order = permutation(len(shown), utterance_key(row.ID), "pictures")
        name = row.ID
        if args.trials:
            name = str(pathlib.PurePosixPath(row.wav).with_suffix(""))
        rows += [(name, str(args.faces / shown[i])) for i in order[:2]]
    write_faces(args.output, pd.DataFrame(rows, columns=["ID", "image"]))


if __name__ == "__main__":
    main()
