#!/usr/bin/env python3
"""Keep the records of all runs, and compare the two students.

    python compare_runs.py /path/to/runs

Reads the output folders alone_1 to distilled_3 and teacher_1 there. Copies their
results.json to runs/ beside this file, with public paths, and writes
differences.json: how many points of EER the distilled students are below those
trained alone, the mean over the seeds, with a 95 % interval over speakers.
"""

import json
import pathlib
import sys

from speechbrain_ssl.report.comparison import read_systems
from speechbrain_ssl.report.studies import compare_systems, keep_record
from speechbrain_ssl.verification.trials import path_component

HERE = pathlib.Path(__file__).resolve().parent


def main(runs):
    """Copy the records and write the difference."""
    files = {}
    for name in [
        f"{kind}_{s}" for kind in ("alone", "distilled") for s in "123"
    ]:
        keep_record(runs / name, HERE / "runs" / name)
        files[name] = str(runs / name / "trial_scores.txt")
    keep_record(runs / "teacher_1", HERE / "runs" / "teacher_1")
    trials, scores = read_systems(files)
    trials.speaker_of = path_component(1)
    found = compare_systems(scores, "distilled", "alone", trials)
    for key in ("difference", "ci_low", "ci_high"):
        found[key] = round(found[key], 2)
    text = json.dumps(found, indent=1)
    (HERE / "differences.json").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
