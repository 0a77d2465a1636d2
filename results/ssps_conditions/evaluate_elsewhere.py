#!/usr/bin/env python3
"""Compare the systems on other audio: other corpora, and without conditions.

    python evaluate_elsewhere.py --runs=/path/to/runs --corpus=/path/to/conditions \
        --speechocean762=/path/to/speechocean762

Scores the runs of evaluate_runs.py on speakers that no pilot has seen: the lists of
RAVDESS (acted emotions; the two sides of a trial are different sentences) and
LibriSpeech test-other (all pairs) that make_corpus.py wrote, also with a condition for
each utterance. Scores them on dev_trials_H as it was recorded, too: what conditions
cost a system is the most that it could gain by ignoring them. Writes elsewhere.json
beside this file, and the scores into the folder of the runs.
"""

import argparse
import json
import pathlib

import numpy as np
import torch
from evaluate_runs import compare

from speechbrain_ssl.publishing.export import load_encoder
from speechbrain_ssl.report.studies import score_runs
from speechbrain_ssl.verification.metrics import eer
from speechbrain_ssl.verification.protocol import load_trials, score_trials

HERE = pathlib.Path(__file__).resolve().parent


def means(scores, trials):
    """Return the mean EER of each system, in percent, and its number of runs."""
    found = {}
    for run, values in scores.items():
        rate = 100 * eer(values, trials.labels)[0]
        found.setdefault(run.rsplit("_", 1)[0], []).append(rate)
    return {
        system: {"eer_percent": np.mean(rates), "runs": len(rates)}
        for system, rates in sorted(found.items())
    }


def main():
    """Score all runs on all lists, then compare."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", required=True, type=pathlib.Path)
    parser.add_argument("--corpus", required=True, type=pathlib.Path)
    parser.add_argument("--speechocean762", required=True, type=pathlib.Path)
    given = parser.parse_args()
    clean = given.speechocean762
    lists = {"no conditions": (clean / "dev_trials_H.txt", clean)} | {
        name: (given.corpus / f"{name}_trials.txt", given.corpus / name)
        for name in ("ravdess", "librispeech")
    }
    found = {}
    for name, (path, audio) in lists.items():
        trials = load_trials(path, audio, speaker_component=1)

        def evaluate(folder, trials=trials, audio=audio, name=name):
            encoder, features = load_encoder(folder / "model")
            precision = torch.bfloat16
            print(name, folder.name, flush=True)
            return score_trials(
                encoder, features, trials, audio, precision=precision
            )[0]

        scores = score_runs(
            sorted(given.runs.glob("*_[0-9]")),
            given.runs / f"scores_{name.replace(' ', '_')}.npz",
            evaluate,
        )
        found[name] = {
            "systems": means(scores, trials),
            "differences": compare(scores, trials),
        }
    text = json.dumps(found, indent=1)
    (HERE / "elsewhere.json").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
