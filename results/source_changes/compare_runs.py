#!/usr/bin/env python3
"""Keep the records of all runs, and compare each system with its baseline.

    python compare_runs.py /path/to/runs

Reads the output folders of run.py. Copies their results.json to runs/ beside
this file, with public paths, and writes differences.json: how many points of EER
a system is below its baseline, the mean over the seeds, with a 95 % interval over
speakers.
"""

import json
import pathlib
import sys

from speechbrain_ssl.report.comparison import read_systems
from speechbrain_ssl.report.studies import compare_systems, keep_record
from speechbrain_ssl.verification.trials import path_component

HERE = pathlib.Path(__file__).resolve().parent
#: A system, and the one that it is compared with.
PAIRS = (
    ("simclr-norm", "simclr"),
    ("dino-norm", "dino"),
    ("dino-prototypes-wide", "dino"),
    ("round-correction-0.1-0.5", "round"),
    ("round-least-kept-0", "round"),
    ("swav-ssps", "swav-ssps-both"),
)


def final(run):
    """Return the folder of a run, or of its round, that holds the scores."""
    return run / "round_1" if (run / "round_1").is_dir() else run


def main(runs):
    """Copy the records and write the differences."""
    folders = {}
    for system in sorted({name for pair in PAIRS for name in pair} | {"swav"}):
        for seed in "123":
            name = f"{system}_{seed}"
            folders[name] = final(runs / name)
            keep_record(folders[name], HERE / "runs" / name)
    trials, scores = read_systems(
        {name: f"{at}/trial_scores.txt" for name, at in folders.items()}
    )
    trials.speaker_of = path_component(1)
    found = [compare_systems(scores, *pair, trials) for pair in PAIRS]
    for row in found:
        for key in ("difference", "ci_low", "ci_high"):
            row[key] = round(row[key], 2)
    text = json.dumps(found, indent=1)
    (HERE / "differences.json").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
