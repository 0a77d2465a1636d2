#!/usr/bin/env python3
"""Make table.csv and curves.svg from the runs saved beside this file.

python make_table.py
"""

import csv
import pathlib

from speechbrain_ssl.report import style
from speechbrain_ssl.report.logbook import read_metrics
from speechbrain_ssl.report.studies import (
    HEADLINE,
    read_json,
    run_row,
    saved_runs,
    write_study,
)

HERE = pathlib.Path(__file__).resolve().parent
TRIALS = "speechocean762 dev_trials_H"
COLUMNS = [*HEADLINE, "min_dcf_0.01", "min_dcf_0.05", "epochs"]
#: What a run measures besides its own encoder, and what the table calls it.
BASELINES = {
    "eer_statistics": "log-mel statistics",
    "eer_untrained": "untrained encoder",
}


def rows():
    """Yield a row for each run, then the rows of what needs no training."""
    baselines = {}
    for system, seed, folder in saved_runs(HERE):
        results = read_json(folder / "results.json")
        yield {
            **run_row(system, seed, TRIALS, results),
            "epochs": results["epochs"],
        }
        # A later evaluation of the same encoder on the easier list.
        later = folder / "dev_trials_O.csv"
        if later.is_file():
            with open(later, encoding="utf-8", newline="") as stream:
                (row,) = csv.DictReader(stream)
            for key, places in (
                ("eer_percent", 2),
                ("ci_low", 2),
                ("ci_high", 2),
                ("min_dcf_0.01", 3),
                ("min_dcf_0.05", 3),
                ("minutes", 1),
            ):
                row[key] = f"{float(row[key]):.{places}f}"
            trials = "speechocean762 dev_trials_O"
            yield {**row, "system": system, "seed": seed, "trials": trials}
        for key, name in BASELINES.items():
            # Log-mel statistics have no seed.
            its_seed = seed if key == "eer_untrained" else ""
            baselines[name, its_seed] = {
                "system": name,
                "seed": its_seed,
                "trials": TRIALS,
                "eer_percent": f"{results[key]:.2f}",
                "labels_seen": "none",
                "minutes": "0",
            }
    yield from (baselines[key] for key in sorted(baselines))


def draw():
    """Draw the EER while training: a colour a system, a line a seed."""
    figure, ax = style.new_figure((7, 3.6))
    for system, begin, colour, label in (
        ("simclr", 0, style.BLUE, "SimCLR"),
        ("simclr-then-dino", 24, style.RED, "DINO, from SimCLR's encoder"),
    ):
        for _, seed, folder in saved_runs(HERE, [system]):
            lines = [
                line
                for line in read_metrics(folder / "metrics.jsonl")
                if line["stage"] == "trials" and line["epoch"] % 4 == 0
            ]
            ax.plot(
                [begin + line["epoch"] for line in lines],
                [line["eer"] for line in lines],
                marker="o",
                markersize=3,
                color=colour,
                label=label if seed == "1" else None,
            )
    results = read_json(HERE / "runs" / "simclr_1" / "results.json")
    statistics = results["eer_statistics"]
    ax.axhline(statistics, color=style.MUTED, linestyle="--", linewidth=1)
    ax.text(32, statistics, "log-mel statistics", ha="right", va="bottom")
    ax.set(ylim=(0, 17), xticks=range(0, 33, 4))
    style.label(
        ax,
        "EER on dev_trials_H while training, three seeds each",
        "epoch (24 of SimCLR, then 8 of DINO)",
        "EER (%)",
    )
    style.legend(ax, loc="lower right")
    return figure


if __name__ == "__main__":
    write_study(HERE, COLUMNS, rows(), curves=draw())
