#!/usr/bin/env python3
"""Make table.csv from the runs saved beside this file.

python make_table.py
"""

import pathlib

from speechbrain_ssl.report.studies import (
    HEADLINE,
    read_json,
    run_row,
    saved_runs,
    write_study,
)

HERE = pathlib.Path(__file__).resolve().parent
COLUMNS = [*HEADLINE, "min_dcf_0.01", "min_dcf_0.05", "epochs"]


def rows():
    """Yield a row for each run."""
    for system, seed, folder in saved_runs(HERE):
        results = read_json(folder / "results.json")
        trials = "speechocean762 dev_trials_H"
        yield {
            **run_row(system, seed, trials, results),
            "epochs": results["epochs"],
        }


if __name__ == "__main__":
    write_study(HERE, COLUMNS, rows())
