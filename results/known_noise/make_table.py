#!/usr/bin/env python3
"""Make table.csv, eer.svg and gate.svg from the runs saved beside this file.

python make_table.py
"""

import pathlib

import numpy as np
from matplotlib.figure import Figure

from speechbrain_ssl.report import style
from speechbrain_ssl.report.studies import (
    HEADLINE,
    read_json,
    run_row,
    saved_runs,
    write_study,
)

HERE = pathlib.Path(__file__).resolve().parent
#: Name and colour of each system.
SYSTEMS = {
    "nogate": ("no gate", style.MUTED),
    "fixed": ("fixed gate, 3 nats", "#e69f00"),
    "dlg": ("dynamic loss gate (DLG)", style.BLUE),
    "dlglc": ("DLG and label correction", style.RED),
}
#: Column -> what the gate reported in the last epoch.
GATE = {
    "gate_kept": "gate_kept",
    "gate_precision": "gate_precision",
    "gate_recall": "gate_recall",
    "noise_precision": "gate_noise_precision",
    "noise_recall": "gate_noise_recall",
    "corrected": "corrected",
    "corrected_precision": "corrected_precision",
}
COLUMNS = [*HEADLINE, "noise_percent", "min_dcf_0.01", *GATE]
#: The only run whose histograms of the losses are kept.
DRAWN = "dlglc_40_1"


def rows():
    """Yield a row for each run."""
    for name, seed, folder in saved_runs(HERE):
        system, noise = name.split("_")
        last = read_json(folder / "gate.json")[-1]["scalars"]
        yield {
            **run_row(
                SYSTEMS[system][0],
                seed,
                "speechocean762 dev_trials_H",
                read_json(folder / "results.json"),
            ),
            "labels_seen": f"all, {noise} % of them wrong",
            "noise_percent": noise,
            **{
                column: f"{last[key]:.3f}"
                for column, key in GATE.items()
                if key in last
            },
        }


def draw_eer(table):
    """Draw the EER against the share of wrong labels."""
    figure, ax = style.new_figure((6.4, 3.6))
    noises = (0, 20, 40, 60)
    for shift, (name, colour) in zip(
        (-0.9, -0.3, 0.3, 0.9), SYSTEMS.values(), strict=True
    ):
        cells = [
            [
                float(row["eer_percent"])
                for row in table
                if row["system"] == name and row["noise_percent"] == str(noise)
            ]
            for noise in noises
        ]
        # Side by side, so that no system hides another.
        places = np.array(noises) + shift
        ax.plot(places, np.mean(cells, axis=1), color=colour, label=name)
        ax.plot(places, cells, "o", color=colour, markersize=4, alpha=0.6)
    ax.set(xticks=noises, ylim=(0, None))
    style.label(
        ax,
        "EER on dev_trials_H: a dot for each seed, lines through the means",
        "wrong labels (%)",
        "EER (%)",
    )
    style.legend(ax, loc="upper left")
    return figure


def draw_gate():
    """Draw the log losses of right and of wrong labels, and the gate."""
    gates = read_json(HERE / "runs" / DRAWN / "gate.json")
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    panels = figure.subplots(2, 3, sharex=True, sharey=True).flat
    for ax, epoch in zip(panels, (1, 2, 3, 5, 7, 8), strict=True):
        gate = gates[epoch - 1]
        edges, right = np.array(gate["edges"]), np.array(gate["counts_right"])
        wrong = np.array(gate["counts"]) - right
        for counts, colour, name in (
            (wrong, style.RED, "wrong label"),
            (right, style.BLUE, "right label"),
        ):
            ax.stairs(
                counts / np.diff(edges),
                edges,
                fill=True,
                alpha=0.4,
                color=colour,
                label=name,
            )
        if gate["threshold"] is not None:
            ax.axvline(
                gate["threshold"],
                color="k",
                linestyle="--",
                linewidth=1,
                label="threshold",
            )
        ax.set_title(f"epoch {epoch}", loc="left", fontsize=10)
        ax.set_xlim(-6, 4)
        ax.spines[["top", "right"]].set_visible(False)
    figure.supxlabel("log of the loss (nats)", fontsize=10)
    figure.supylabel("utterances per nat", fontsize=10)
    style.legend(figure.axes[2], loc="upper left")
    return figure


if __name__ == "__main__":
    table = list(rows())
    write_study(HERE, COLUMNS, table, eer=draw_eer(table), gate=draw_gate())
