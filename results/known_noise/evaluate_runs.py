#!/usr/bin/env python3
"""Evaluate the encoders of the study, and compare the systems pairwise.

    python evaluate_runs.py /path/to/runs /path/to/speechocean762

The first folder holds an output folder of train.py for each run, named
<system>_<noise in percent>_<seed>. Writes runs/ (what training and evaluation
found, for make_table.py) and differences.json beside this file.
"""

import json
import pathlib
import sys

import torch
from make_table import DRAWN

from speechbrain_ssl.publishing.export import load_encoder
from speechbrain_ssl.publishing.record import without_folders
from speechbrain_ssl.report.gate import read_epochs
from speechbrain_ssl.report.studies import (
    compare_systems,
    read_json,
    score_runs,
)
from speechbrain_ssl.verification.evaluation import evaluate_scores
from speechbrain_ssl.verification.protocol import load_trials, score_trials

HERE = pathlib.Path(__file__).resolve().parent
TRIALS = "dev_trials_H.txt"
#: What is compared with what.
PAIRS = (
    ("dlglc", "nogate"),
    ("dlg", "nogate"),
    ("fixed", "nogate"),
    ("dlglc", "dlg"),
    ("dlglc", "fixed"),
)


#: What histograms of the losses are made of.
HISTOGRAM = ("edges", "counts", "counts_right", "mixture")


def evaluate(folder, trials, audio):
    """Return the scores of a run's model; save its figures in runs/."""
    name = folder.name
    encoder, features = load_encoder(folder / "model")
    scores, _ = score_trials(
        encoder, features, trials, audio, precision=torch.bfloat16
    )
    stage = folder / "round_1"
    # Folders of the machine have no place in the project.
    results = without_folders(read_json(stage / "results.json"))
    results["evaluation"] = evaluate_scores(scores, trials)
    gates = read_epochs(stage / "gate")
    if name != DRAWN:
        for gate in gates:
            for key in HISTOGRAM:
                gate.pop(key, None)
    target = HERE / "runs" / name
    target.mkdir(parents=True, exist_ok=True)
    text = json.dumps(results, indent=1, ensure_ascii=False)
    (target / "results.json").write_text(text + "\n", encoding="utf-8")
    text = "[\n" + ",\n".join(map(json.dumps, gates)) + "\n]\n"
    (target / "gate.json").write_text(text, encoding="utf-8")
    print(name, f"{results['evaluation']['eer_percent']:.2f}", flush=True)
    return scores


def main(runs, audio):
    """Evaluate all runs, then compare the systems."""
    trials = load_trials(f"{audio}/{TRIALS}", audio, speaker_component=1)
    scores = score_runs(
        sorted(pathlib.Path(runs).glob("*_*_*")),
        HERE / "scores.npz",
        lambda folder: evaluate(folder, trials, audio),
    )
    differences = []
    for noise in sorted({int(name.split("_")[1]) for name in scores}):
        for better, other in PAIRS:
            found = compare_systems(
                scores, f"{better}_{noise}", f"{other}_{noise}", trials
            )
            if found:
                found |= {"better": better, "than": other}
                differences.append({"noise": noise, **found})
    (HERE / "differences.json").write_text(json.dumps(differences, indent=1))


if __name__ == "__main__":
    main(*sys.argv[1:])
