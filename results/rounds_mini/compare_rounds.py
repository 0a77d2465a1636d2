#!/usr/bin/env python3
"""Compare each round with stage I, over all seeds.

    python compare_rounds.py --stage_one=/path/to/stage_one_{seed} \\
        --rounds=/path/to/rounds_{seed} 1 2 3

Both options name output folders of train.py; ``{seed}`` is replaced by each of the
numbers. Writes differences.json beside this file: how many points of EER each round
is below stage I, the mean over the seeds, with a 95 % interval over speakers.
"""

import argparse
import json
import pathlib

from speechbrain_ssl.report.comparison import read_systems
from speechbrain_ssl.verification.bootstrap import paired_difference
from speechbrain_ssl.verification.trials import path_component

HERE = pathlib.Path(__file__).resolve().parent


def read(folder, seeds):
    """Return the trials, and the scores ``[T]`` of every seed."""
    trials, scores = read_systems(
        {seed: f"{folder.format(seed=seed)}/trial_scores.txt" for seed in seeds}
    )
    trials.speaker_of = path_component(1)
    return trials, list(scores.values())


def main():
    """Read the scores and compare them."""
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
