#!/usr/bin/env python3
"""Keep the records of all runs, compare the systems, and make table.csv.

    python compare_runs.py /path/to/runs

Reads the output folders of run.py. Copies their results.json to runs/ beside
this file, with public paths, and prints how many points of EER synthetic sounds
are below recorded ones: the mean over the seeds, with a 95 % interval over speakers.
"""

import json
import pathlib
import sys

from speechbrain_ssl.publishing.record import without_folders
from speechbrain_ssl.report.comparison import read_systems
from speechbrain_ssl.report.studies import (
    HEADLINE,
    compare_systems,
    read_json,
    run_row,
    saved_runs,
    write_study,
)
from speechbrain_ssl.verification.trials import path_component

HERE = pathlib.Path(__file__).resolve().parent


def rows():
    """Yield a row for each run."""
    for system, seed, folder in saved_runs(HERE):
        yield run_row(
            system,
            seed,
            "speechocean762 dev_trials_H",
            read_json(folder / "results.json"),
        )


def main(runs):
    """Copy the records and compare."""
    folders = {p.parent.name: p.parent for p in runs.glob("*/results.json")}
    for name, folder in folders.items():
        record = without_folders(read_json(folder / "results.json"))
        kept = HERE / "runs" / name
        kept.mkdir(parents=True, exist_ok=True)
        text = json.dumps(record, indent=1)
        (kept / "results.json").write_text(text + "\n", encoding="utf-8")
    trials, scores = read_systems(
        {name: f"{at}/trial_scores.txt" for name, at in folders.items()}
    )
    trials.speaker_of = path_component(1)
    print(compare_systems(scores, "synthetic", "recorded", trials))
    write_study(HERE, HEADLINE, rows())


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
