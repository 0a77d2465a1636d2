#!/usr/bin/env python3
"""Is each round better than stage I, over all seeds?

    python compare_rounds.py --stage_one=/path/to/stage_one_{seed} \\
        --rounds=/path/to/rounds_{seed} 1 2 3

Both name output folders of train.py; ``{seed}`` stands for each of the numbers.
Writes differences.json beside this file: the mean over the seeds of the EER of
stage I less that of a round, and its interval over speakers.
"""

import argparse
import json
import pathlib

import numpy as np

from speechbrain_ssl.report.comparison import read_scores
from speechbrain_ssl.verification.bootstrap import paired_difference
from speechbrain_ssl.verification.trials import path_component

HERE = pathlib.Path(__file__).resolve().parent


def read(folder, seeds):
    """The trials, and the scores ``[T]`` of every seed."""
    files = [
        pathlib.Path(folder.format(seed=seed)) / "trial_scores.txt"
        for seed in seeds
    ]
    found = [read_scores(file) for file in files]
    trials = found[0][0]
    for file, (other, _) in zip(files, found, strict=True):
        same = np.array_equal(trials.left, other.left) and np.array_equal(
            trials.right, other.right
        )
        if not (same and trials.names == other.names):
            raise SystemExit(f"{file} is of other trials than {files[0]}")
    trials.speaker_of = path_component(1)
    return trials, [scores for _, scores in found]


def main():
    """Reads the scores and compares."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--stage_one", required=True)
    parser.add_argument("--rounds", required=True)
    parser.add_argument("seeds", nargs="+")
    given = parser.parse_args()
    trials, before = read(given.stage_one, given.seeds)
    differences = {}
    for number in (1, 2):
        _, after = read(f"{given.rounds}/round_{number}", given.seeds)
        found, interval = paired_difference(after, before, trials)
        differences[f"round {number}"] = {
            "difference": round(100 * found, 2),
            "ci_low": round(100 * interval.low, 2),
            "ci_high": round(100 * interval.high, 2),
        }
    text = json.dumps(differences, indent=1)
    (HERE / "differences.json").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
