#!/usr/bin/env python3
"""Keep the records of all runs, and compare each system with its baseline.

    python compare_runs.py /path/to/runs

Reads the output folders of run.py. Copies their results.json to runs/ beside
this file, with public paths, and writes differences.json: how many points of EER
a system is below its baseline, the mean over the seeds, with a 95 % interval over
speakers.
"""

import pathlib
import sys

from speechbrain_ssl.report.studies import write_differences

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
    systems = sorted({name for pair in PAIRS for name in pair} | {"swav"})
    names = [f"{system}_{seed}" for system in systems for seed in "123"]
    write_differences(
        HERE, {name: final(runs / name) for name in names}, PAIRS, 1
    )


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
