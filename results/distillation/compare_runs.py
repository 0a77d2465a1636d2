#!/usr/bin/env python3
"""Keep the records of all runs, and compare the two students.

    python compare_runs.py /path/to/runs

Reads the output folders alone_1 to distilled_3 and teacher_1 there. Copies their
results.json to runs/ beside this file, with public paths, and writes
differences.json: how many points of EER the distilled students are below those
trained alone, the mean over the seeds, with a 95 % interval over speakers.
"""

import pathlib
import sys

from speechbrain_ssl.report.studies import keep_record, write_differences

HERE = pathlib.Path(__file__).resolve().parent


def main(runs):
    """Copy the records and write the difference."""
    keep_record(runs / "teacher_1", HERE / "runs" / "teacher_1")
    names = [f"{kind}_{s}" for kind in ("alone", "distilled") for s in "123"]
    write_differences(
        HERE, {name: runs / name for name in names}, [("distilled", "alone")], 1
    )


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
