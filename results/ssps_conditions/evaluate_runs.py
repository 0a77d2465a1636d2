#!/usr/bin/env python3
"""Evaluate the encoders of the study, and compare the systems pairwise.

    python evaluate_runs.py --runs=/path/to/runs --corpus=/path/to/conditions

``runs`` holds an output folder of train.py for each run, named <system>_<seed>;
``corpus`` is what make_corpus.py wrote. Writes runs/ (what training and
evaluation found) and differences.json beside this file. Runs that are already in
scores.npz are not evaluated again: delete that file after repeating a run.

What an embedding knows of the speaker and of the recording is measured on the
probe: utterances of held-out speakers, under conditions that speakers share. The
embeddings are clustered into as many clusters as there are speakers, and
compared with the speakers (NMI); then into as many as there are conditions, and
compared with those. Both are means over five k-means. Their ratio is that of the
paper (speaker NMI / recording NMI), with conditions in the place of recordings.
"""

import argparse
import json
import pathlib

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import normalized_mutual_info_score

from speechbrain_ssl.clustering.kmeans import spherical_kmeans
from speechbrain_ssl.publishing.export import load_encoder
from speechbrain_ssl.publishing.record import without_folders
from speechbrain_ssl.report.logbook import read_metrics
from speechbrain_ssl.report.studies import (
    compare_systems,
    epoch_lines,
    read_json,
    score_runs,
)
from speechbrain_ssl.verification.evaluation import evaluate_scores
from speechbrain_ssl.verification.extract import embed_files
from speechbrain_ssl.verification.protocol import load_trials, score_trials

HERE = pathlib.Path(__file__).resolve().parent
#: Which systems are compared, over which seeds. Seeds 4 to 9 of DINO were run
#: after the interval of the first three had been seen, and the long runs of
#: seeds 2 and 3 after that of all nine.
PAIRS = (
    ("simclr_ssps", "simclr", "1 2 3"),
    ("simclr_rule", "simclr", "3"),
    ("dino_ssps_long", "dino_long", "1 2 3"),
    ("dino_ssps", "dino", "1 2 3 4 5 6 7 8 9"),
    ("dino_ssps", "dino", "1 2 3"),
    ("dino_ssps", "dino", "4 5 6 7 8 9"),
    ("ca_dino", "dino", "1 2 3"),
    ("dino_ssps_global", "dino_global", "3"),
)


def information(encoder, features, corpus):
    """Measure the NMI with speakers and with conditions, and their ratio."""
    table = pd.read_csv(corpus / "probe.csv", dtype=str)
    paths = [str(corpus / wav) for wav in table["wav"]]
    rows = embed_files(encoder, features, paths, precision=torch.bfloat16)
    found = {}
    for name, column in (("speaker", "spk_id"), ("condition", "condition")):
        groups = table[column]
        found[f"{name}_nmi"] = np.mean(
            [
                normalized_mutual_info_score(
                    groups,
                    spherical_kmeans(
                        rows, groups.nunique(), 20, seed, init="k-means++"
                    ).assignments,
                )
                for seed in range(5)
            ]
        )
    found["ratio"] = found["speaker_nmi"] / found["condition_nmi"]
    return found


def evaluate(folder, trials, corpus):
    """Return the scores of a run's model; save its figures in runs/."""
    encoder, features = load_encoder(folder / "model")
    scores, _ = score_trials(
        encoder, features, trials, corpus / "dev", precision=torch.bfloat16
    )
    found = evaluate_scores(scores, trials)
    found |= information(encoder, features, corpus)
    # Folders of the machine have no place in the project.
    results = without_folders(read_json(folder / "results.json"))
    results["evaluation"] = found
    metrics = epoch_lines(read_metrics(folder / "metrics.jsonl"))
    target = HERE / "runs" / folder.name
    target.mkdir(parents=True, exist_ok=True)
    text = json.dumps(results, indent=1, ensure_ascii=False)
    (target / "results.json").write_text(text + "\n", encoding="utf-8")
    text = "".join(json.dumps(line) + "\n" for line in metrics)
    (target / "metrics.jsonl").write_text(text, encoding="utf-8")
    print(
        folder.name,
        f"{found['eer_percent']:.2f} %, ratio {found['ratio']:.2f}",
        flush=True,
    )
    return scores


def compare(scores, trials):
    """Compare the pairs of systems, with intervals of both kinds."""
    differences = []
    for better, other, seeds in PAIRS:
        for draw_runs in (False, True):
            found = compare_systems(
                scores, better, other, trials, seeds.split(), draw_runs
            )
            if found:
                drawn = "speakers and runs" if draw_runs else "speakers"
                differences.append({**found, "among": seeds, "drawn": drawn})
    return differences


def main():
    """Evaluate all runs, then compare the systems."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", required=True, type=pathlib.Path)
    parser.add_argument("--corpus", required=True, type=pathlib.Path)
    given = parser.parse_args()
    trials = load_trials(
        given.corpus / "dev_trials_H.txt",
        given.corpus / "dev",
        speaker_component=1,
    )
    scores = score_runs(
        sorted(given.runs.glob("*_[0-9]")),
        HERE / "scores.npz",
        lambda folder: evaluate(folder, trials, given.corpus),
    )
    text = json.dumps(compare(scores, trials), indent=1)
    (HERE / "differences.json").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
