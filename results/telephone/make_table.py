#!/usr/bin/env python3
"""Make table.csv from the evaluations saved beside this file.

python make_table.py
"""

import csv
import pathlib

from speechbrain_ssl.report.studies import HEADLINE, saved_runs, write_study

HERE = pathlib.Path(__file__).resolve().parent
COLUMNS = [*HEADLINE, "min_dcf_0.01", "min_dcf_0.05"]
PLACES = {
    "eer_percent": 2,
    "ci_low": 2,
    "ci_high": 2,
    "minutes": 1,
    "min_dcf_0.01": 3,
    "min_dcf_0.05": 3,
}


def rows():
    """Yield a row for each run and list."""
    for system, seed, folder in saved_runs(HERE):
        path = folder / "evaluation.csv"
        with open(path, encoding="utf-8", newline="") as stream:
            for row in csv.DictReader(stream):
                for key, places in PLACES.items():
                    row[key] = f"{float(row[key]):.{places}f}"
                yield {**row, "system": system, "seed": seed}


if __name__ == "__main__":
    write_study(HERE, COLUMNS, rows())
