#!/usr/bin/env python3
"""Makes table.csv, eer.svg and gate.svg from the saved runs beside this file.

python make_table.py
"""

import json
import pathlib

import numpy as np
from matplotlib.figure import Figure

from speechbrain_ssl.report.evaluations import write_rows

HERE = pathlib.Path(__file__).resolve().parent
COLUMNS = (
    "system seed trials eer_percent ci_low ci_high labels_seen minutes command "
    "noise_percent min_dcf_0.01 gate_kept gate_precision gate_recall "
    "noise_precision noise_recall corrected corrected_precision"
).split()
SYSTEMS = {
    "nogate": ("no gate", "#5c6672"),
    "fixed": ("fixed gate, 3 nats", "#e69f00"),
    "dlg": ("dynamic loss gate (DLG)", "#0072b2"),
    "dlglc": ("DLG and label correction", "#d55e00"),
}
#: Column -> what the gate has reported in the last epoch.
GATE = {
    "gate_kept": "gate_kept",
    "gate_precision": "gate_precision",
    "gate_recall": "gate_recall",
    "noise_precision": "gate_noise_precision",
    "noise_recall": "gate_noise_recall",
    "corrected": "corrected",
    "corrected_precision": "corrected_precision",
}


def read(folder, name):
    """A JSON file of a run."""
    return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))


def rows():
    """A row for each run."""
    for folder in sorted((HERE / "runs").iterdir()):
        system, noise, seed = folder.name.split("_")
        found, results = read(folder, "evaluation"), read(folder, "results")
        last = read(folder, "gate")[-1]["scalars"]
        yield {
            "system": SYSTEMS[system][0],
            "seed": seed,
            "trials": "speechocean762 dev_trials_H",
            "eer_percent": f"{found['eer_percent']:.2f}",
            "ci_low": f"{found['ci_low']:.2f}",
            "ci_high": f"{found['ci_high']:.2f}",
            "labels_seen": f"all, {noise} % of them wrong",
            "minutes": f"{results['minutes']:.1f}",
            "command": results["command"],
            "noise_percent": noise,
            "min_dcf_0.01": f"{found['min_dcf_0.01']:.3f}",
            **{
                column: f"{last[key]:.3f}"
                for column, key in GATE.items()
                if key in last
            },
        }


def axes(width=6.4, height=3.6):
    """A figure in house style."""
    figure = Figure(figsize=(width, height), layout="constrained")
    ax = figure.subplots()
    ax.spines[["top", "right"]].set_visible(False)
    return figure, ax


def draw_eer(table):
    """EER against the share of wrong labels."""
    figure, ax = axes()
    for name, colour in SYSTEMS.values():
        mine = [r for r in table if r["system"] == name]
        noises = sorted({int(r["noise_percent"]) for r in mine})
        cells = [
            [
                float(r["eer_percent"])
                for r in mine
                if r["noise_percent"] == str(n)
            ]
            for n in noises
        ]
        ax.plot(noises, [np.mean(c) for c in cells], color=colour, label=name)
        for n, cell in zip(noises, cells, strict=True):
            ax.plot([n] * len(cell), cell, "o", color=colour, markersize=4)
    ax.set(xlabel="wrong labels (%)", ylabel="EER (%)", ylim=(0, None))
    ax.set_title("EER on dev_trials_H; dots are seeds", loc="left")
    ax.legend(frameon=False)
    figure.savefig(HERE / "eer.svg", metadata={"Date": None})


def draw_gate():
    """Log losses of right and of wrong labels, and the gate, at 40 %."""
    gates = read(HERE / "runs" / "dlglc_40_1", "gate")
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    panels = figure.subplots(2, 3, sharex=True, sharey=True).flat
    for ax, epoch in zip(panels, (1, 2, 3, 5, 7, 8), strict=True):
        gate = gates[epoch - 1]
        edges, right = np.array(gate["edges"]), np.array(gate["counts_right"])
        wrong = np.array(gate["counts"]) - right
        width = np.diff(edges)
        for counts, colour, name in (
            (wrong, "#d55e00", "wrong label"),
            (right, "#0072b2", "right label"),
        ):
            ax.stairs(
                counts / width,
                edges,
                fill=True,
                alpha=0.4,
                color=colour,
                label=name,
            )
        if gate["threshold"] is not None:
            ax.axvline(
                gate["threshold"], color="k", linestyle="--", linewidth=1
            )
        ax.set_title(f"epoch {epoch}", loc="left", fontsize=10)
        ax.set_xlim(-6, 4)
        ax.set_yticks([])
        ax.spines[["top", "right", "left"]].set_visible(False)
    figure.supxlabel(
        "log of the loss (nats); dashed: the threshold", fontsize=10
    )
    figure.axes[0].legend(frameon=False, loc="upper left")
    figure.savefig(HERE / "gate.svg", metadata={"Date": None})


def main():
    """Writes all three."""
    table = list(rows())
    write_rows(HERE / "table.csv", COLUMNS, table)
    draw_eer(table)
    draw_gate()


if __name__ == "__main__":
    main()
