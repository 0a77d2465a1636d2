#!/usr/bin/env python3
"""Make table.csv from the runs saved beside this file.

python make_table.py
"""

import pathlib

from speechbrain_ssl.report.studies import write_runs

if __name__ == "__main__":
    here = pathlib.Path(__file__).resolve().parent
    write_runs(here, "speechocean762 dev_trials_H")
