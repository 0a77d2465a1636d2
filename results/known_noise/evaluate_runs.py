#!/usr/bin/env python3
"""Evaluates the encoders of the study, and compares the systems pairwise.

    python evaluate_runs.py /path/to/runs /path/to/speechocean762

The first folder holds one output folder of train.py a run, called
<system>_<noise in percent>_<seed>. Writes runs/ (what training and evaluation
have found, for make_table.py) and differences.json beside this file.
"""

import json
import pathlib
import sys

import torch

from speechbrain_ssl.publishing.export import load_encoder
from speechbrain_ssl.publishing.record import without_folders
from speechbrain_ssl.report.studies import compare_systems, score_runs
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


def evaluate(folder, trials, audio):
    """Scores of a run's model; its figures go to runs/."""
    name = folder.name
    encoder, features = load_encoder(folder / "model")
    scores, _ = score_trials(
        encoder, features, trials, audio, precision=torch.bfloat16
    )
    target = HERE / "runs" / name
    target.mkdir(parents=True, exist_ok=True)
    figures = evaluate_scores(scores, trials)
    (target / "evaluation.json").write_text(json.dumps(figures, indent=1))
    stage = folder / "round_1"
    results = json.loads((stage / "results.json").read_text())
    # Folders of the machine have no place in the project.
    results = without_folders(results)
    (target / "results.json").write_text(json.dumps(results, indent=1))
    gates = [
        json.loads(path.read_text())
        for path in sorted((stage / "gate").glob("epoch_*.json"))
    ]
    (target / "gate.json").write_text(json.dumps(gates))
    print(name, f"{figures['eer_percent']:.2f}", flush=True)
    return scores


def main(runs, audio):
    """Evaluates all, then compares."""
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
