#!/usr/bin/env python3
"""Make table.csv and rounds.svg from the runs saved beside this file.

python make_table.py
"""

import pathlib

from speechbrain_ssl.report import style
from speechbrain_ssl.report.studies import (
    HEADLINE,
    read_json,
    run_row,
    saved_runs,
    write_study,
)

HERE = pathlib.Path(__file__).resolve().parent
TRIALS = "speechocean762 dev_trials_H"
CLUSTERING = (
    "clusters silhouette agreement_nmi monitor_nmi monitor_purity".split()
)
COLUMNS = [*HEADLINE, *CLUSTERING]


def rows():
    """Yield a row for stage I and for each round, for every seed."""
    for _, seed, folder in saved_runs(HERE):
        stages = read_json(folder / "rounds.json")
        for number in (1, 2):
            mine = {s["stage"]: s for s in stages if s["round"] == number}
            if number == 1:
                yield {
                    "system": "stage I: SimCLR",
                    "seed": seed,
                    "trials": TRIALS,
                    "eer_percent": f"{mine['train']['eer_initial']:.2f}",
                    "labels_seen": "none",
                }
            results = read_json(folder / f"round_{number}.json")
            yield {
                **run_row(f"round {number}", seed, TRIALS, results),
                # Those of all stages, not of training alone.
                "minutes": f"{sum(s['minutes'] for s in mine.values()):.1f}",
                **{
                    key: f"{value:.3f}" if isinstance(value, float) else value
                    for key, value in mine["cluster"].items()
                    if key in CLUSTERING
                },
            }


def draw(table):
    """Draw the EER after each round, a line for each seed."""
    figure, ax = style.new_figure((5.2, 3.4))
    for seed, colour in zip("123", style.SERIES, strict=False):
        mine = [float(r["eer_percent"]) for r in table if r["seed"] == seed]
        ax.plot(mine, marker="o", color=colour, label=f"seed {seed}")
    ax.set_xticks(range(3), ["stage I (SimCLR)", "round 1", "round 2"])
    ax.set_xlim(-0.3, 2.3)
    ax.set_ylim(0, 1.1 * max(float(row["eer_percent"]) for row in table))
    style.label(ax, "EER on dev_trials_H", "", "EER (%)")
    style.legend(ax, loc="lower left")
    return figure


if __name__ == "__main__":
    table = list(rows())
    write_study(HERE, COLUMNS, table, rounds=draw(table))
