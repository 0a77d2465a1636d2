#!/usr/bin/env python3
"""Evaluates the encoders of the study, and compares the systems pairwise.

    python evaluate_runs.py /path/to/runs /path/to/speechocean762

The first folder holds one output folder of train.py a run, called
<system>_<noise in percent>_<seed>. Writes runs/ (what training and evaluation
have found, for make_table.py) and differences.json beside this file.
"""

import json
import pathlib
import re
import sys

import numpy as np
import torch

from speechbrain_ssl.publishing.export import load_encoder
from speechbrain_ssl.verification.bootstrap import paired_difference
from speechbrain_ssl.verification.evaluation import evaluate_scores
from speechbrain_ssl.verification.protocol import load_trials, score_trials

HERE = pathlib.Path(__file__).resolve().parent
TRIALS = "dev_trials_H.txt"


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
    results["command"] = re.sub(
        r"/(?:[^/\s,]+/)+([^/\s,]+/[^/\s,]+)",
        r"/path/to/\1",
        results["command"],
    )
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
    cache = HERE / "scores.npz"
    known = dict(np.load(cache)) if cache.is_file() else {}
    for folder in sorted(pathlib.Path(runs).glob("*_*_*")):
        if (folder / "results.json").is_file() and folder.name not in known:
            known[folder.name] = evaluate(folder, trials, audio)
            np.savez(cache, **known)
    differences = []
    cells = {tuple(name.rsplit("_", 1)[0].split("_")) for name in known}
    for noise in sorted({noise for _, noise in cells}, key=int):
        for better, other in (
            ("dlglc", "nogate"),
            ("dlg", "nogate"),
            ("fixed", "nogate"),
            ("dlglc", "dlg"),
            ("dlglc", "fixed"),
        ):
            seeds = [
                s
                for s in "123"
                if {f"{x}_{noise}_{s}" for x in (better, other)} <= set(known)
            ]
            if not seeds:
                continue
            found, interval = paired_difference(
                [known[f"{better}_{noise}_{s}"] for s in seeds],
                [known[f"{other}_{noise}_{s}"] for s in seeds],
                trials,
            )
            differences.append(
                {
                    "noise": int(noise),
                    "better": better,
                    "than": other,
                    "seeds": len(seeds),
                    "difference": 100 * found,
                    "ci_low": 100 * interval.low,
                    "ci_high": 100 * interval.high,
                }
            )
    (HERE / "differences.json").write_text(json.dumps(differences, indent=1))


if __name__ == "__main__":
    main(*sys.argv[1:])
