#!/usr/bin/env python3
"""Ask the start rule about the encoders that the study begins with.

    python ask_rule.py --runs=/path/to/runs --corpus=/path/to/conditions \
        --labels=/path/to/speakers.csv

``runs`` holds start_<seed>, as for evaluate_runs.py; ``labels`` (ID, spk_id) are the
speakers of the training utterances, with which the rule's estimate is compared.
Writes start_rule.csv beside this file: for each K and M the share of right partners
that the rule expects without labels, and the share that is right.
"""

import argparse
import pathlib

import numpy as np
import torch

from speechbrain_ssl.clustering.replicated import clusters_of_all
from speechbrain_ssl.clustering.rows import unit_rows
from speechbrain_ssl.data.halves import HalvesDataset
from speechbrain_ssl.data.manifest import Manifest
from speechbrain_ssl.positives.neighbours import nearest_clusters
from speechbrain_ssl.positives.start_rule import (
    LEAST,
    advise,
    expected_share,
)
from speechbrain_ssl.pseudo_labels.labels import read_labels
from speechbrain_ssl.publishing.export import load_encoder
from speechbrain_ssl.report.evaluations import write_rows

HERE = pathlib.Path(__file__).resolve().parent
SECONDS = 1.5
#: Candidates: values of K, and how many times as many clusters are merged into K.
CANDIDATES = (([400, 1000, 1600, 2500], None), ([400, 1000], 2.5))
NEIGHBOURS = (0, 1)
#: Guesses of the number of speakers: the real number, half of it and twice.
GUESSES = (420, 210, 840)
COLUMNS = (
    "seed clusters merge_from neighbours expected_420 expected_210 "
    "expected_840 right start_420"
).split()


def halves(encoder, features, manifest):
    """Embed two halves of each utterance, ``[N, 2, size]``."""
    data = HalvesDataset(manifest, SECONDS, crops_per_half=1)
    loader = torch.utils.data.DataLoader(
        data, batch_size=32, collate_fn=data.collate
    )

    def embed(crops):
        found = encoder(features(crops.flatten(0, 1)))
        return found.squeeze(1).unflatten(0, (-1, 2))

    with torch.no_grad():
        return torch.cat([embed(batch.to("cpu").crops[0]) for batch in loader])


def right(view, speakers, clusters, merge_from, neighbours):
    """Return the expected share of right partners, by labels."""
    found = clusters_of_all(
        unit_rows(view, alone=True),
        torch.arange(len(view)),
        clusters,
        merge_from=merge_from,
        iterations=10,
        seed=0,
    )
    near = torch.arange(clusters)[:, None]
    if neighbours:
        near = nearest_clusters(found.centroids, found.sizes, neighbours)
    members = np.zeros((clusters, speakers.max() + 1))
    own = found.assignments.numpy()
    np.add.at(members, (own, speakers), 1)
    drawn = near[own, 0].numpy()
    same = members[drawn, speakers] - (drawn == own)
    pool = members[drawn].sum(1) - (drawn == own)
    return float(np.mean(same[pool > 0] / pool[pool > 0]))


def main():
    """Write a row for each encoder and candidate."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", required=True, type=pathlib.Path)
    parser.add_argument("--corpus", required=True, type=pathlib.Path)
    parser.add_argument("--labels", required=True)
    given = parser.parse_args()
    manifest = Manifest.read(given.corpus / "train.csv", given.corpus)
    manifest = manifest.select(
        np.flatnonzero(manifest.durations >= 2 * SECONDS)
    )
    speakers, _ = read_labels(given.labels, manifest, "spk_id", others=True)
    rows = []
    for folder in sorted(given.runs.glob("start_[0-9]")):
        encoder, features = load_encoder(folder / "model")
        views = halves(encoder, features, manifest).unbind(1)
        for counts, ratio in CANDIDATES:
            advice = advise(
                *views,
                speaker_count=GUESSES[0],
                clusters=counts,
                neighbours=NEIGHBOURS,
                merge_ratio=ratio,
            )
            for row in advice.table:
                k, m = row["clusters"], row["neighbours"]
                merged = round(ratio * k) if ratio else None
                found = right(views[0], speakers, k, merged, m)
                rows.append(
                    {
                        "seed": folder.name[-1],
                        "clusters": k,
                        "merge_from": merged or "",
                        "neighbours": m,
                        **{
                            f"expected_{guess}": f"{expected_share(row['lift'], guess):.3f}"
                            for guess in GUESSES
                        },
                        "right": f"{found:.3f}",
                        "start_420": "yes"
                        if row["expected"] >= LEAST
                        else "no",
                    }
                )
                print(*rows[-1].values(), flush=True)
    write_rows(HERE / "start_rule.csv", COLUMNS, rows)


if __name__ == "__main__":
    main()
