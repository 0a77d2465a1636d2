#!/usr/bin/env python3
"""Make table.csv and objectives.svg from the runs saved beside this file.

python make_table.py
"""

import pathlib

from speechbrain_ssl.report import style
from speechbrain_ssl.report.logbook import read_metrics
from speechbrain_ssl.report.studies import (
    read_json,
    run_row,
    saved_runs,
    write_study,
)

HERE = pathlib.Path(__file__).resolve().parent
COLUMNS = (
    "system seed trials eer_percent ci_low ci_high eer_untrained "
    "eer_statistics below_untrained loss_first loss_last labels_seen epochs "
    "minutes command"
).split()


def rows():
    """Return a row for each run, the best system first."""
    found = []
    for system, seed, folder in saved_runs(HERE):
        results = read_json(folder / "results.json")
        losses = [
            line["loss"]
            for line in read_metrics(folder / "metrics.jsonl")
            if line["stage"] == "train"
        ]
        # "Clearly below": the whole interval is below the untrained encoder.
        learns = results["ci_high"] < results["eer_untrained"]
        found.append(
            {
                **run_row(system, seed, "MiniVox trials_cross_video", results),
                "eer_untrained": f"{results['eer_untrained']:.2f}",
                "eer_statistics": f"{results['eer_statistics']:.2f}",
                "below_untrained": "yes" if learns else "no",
                "loss_first": f"{losses[0]:.3f}",
                "loss_last": f"{losses[-1]:.3f}",
                "epochs": results["epochs"],
            }
        )
    return sorted(found, key=lambda row: float(row["eer_percent"]))


def draw(table):
    """Draw the EER of each objective with its interval."""
    figure, ax = style.new_figure((7, 5.2))
    for place, row in enumerate(table):
        low, rate, high = (
            float(row[key]) for key in ("ci_low", "eer_percent", "ci_high")
        )
        ax.plot([low, high], [place, place], color=style.BLUE, alpha=0.5)
        ax.plot(rate, place, "o", color=style.BLUE)
    for key, name, colour in (
        ("eer_untrained", "untrained encoder", style.RED),
        ("eer_statistics", "log-mel statistics", style.MUTED),
    ):
        rate = float(table[0][key])
        ax.axvline(rate, color=colour, linestyle="--", linewidth=1, label=name)
    names = [f"{row['system']} ({row['epochs']})" for row in table]
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    ax.set_xlim(0, None)
    style.label(
        ax,
        "EER on trials_cross_video with 95 % intervals, one seed",
        "EER (%)",
        "objective (epochs)",
    )
    style.legend(ax, loc="lower left")
    return figure


if __name__ == "__main__":
    table = rows()
    write_study(HERE, COLUMNS, table, objectives=draw(table))
