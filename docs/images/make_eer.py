#!/usr/bin/env python3
"""Draw eer.png from the tables of two studies.

python docs/images/make_eer.py
"""

import csv
import pathlib

from matplotlib.figure import Figure

HERE = pathlib.Path(__file__).resolve().parent
RESULTS = HERE.parents[1] / "results"
TRIALS = "speechocean762 dev_trials_H"

#: Study and system of a table -> what the figure calls it.
STAGES = {
    ("mini_speechocean762", "untrained encoder"): "untrained\nencoder",
    ("mini_speechocean762", "simclr"): "self-supervised\n(SimCLR)",
    ("rounds_mini", "round 1"): "first round of\npseudo labels",
    ("rounds_mini", "round 2"): "second round of\npseudo labels",
}
COLORS = ("#0072b2", "#d55e00", "#009e73")


def read(study, system):
    """Return the rows of a system, one for each seed."""
    path = RESULTS / study / "table.csv"
    with path.open(encoding="utf-8", newline="") as stream:
        return [
            row
            for row in csv.DictReader(stream)
            if (row["system"], row["trials"]) == (system, TRIALS)
        ]


def main():
    """Draw a point for each stage and seed, with its interval."""
    figure = Figure(figsize=(7.2, 3.6), layout="constrained")
    ax = figure.subplots()
    for place, (study, system) in enumerate(STAGES):
        rows = read(study, system)
        for seed, (row, color) in enumerate(zip(rows, COLORS, strict=True)):
            x = place + 0.14 * (seed - 1)
            if row["ci_low"]:
                ends = float(row["ci_low"]), float(row["ci_high"])
                ax.plot([x, x], ends, color=color, linewidth=1.5)
            label = f"seed {row['seed']}" if place == 0 else None
            eer = float(row["eer_percent"])
            ax.plot(x, eer, "o", color=color, label=label)
        mean = sum(float(row["eer_percent"]) for row in rows) / len(rows)
        ax.text(place + 0.24, mean, f"{mean:.1f} %", va="center")
    (statistics,) = read("mini_speechocean762", "log-mel statistics")
    eer = float(statistics["eer_percent"])
    ax.axhline(eer, color="gray", linestyle="--", linewidth=1)
    label = f"log-mel statistics, nothing trained: {eer:.1f} %"
    ax.text(3.55, eer + 0.3, label, color="dimgray", ha="right")
    ax.set(ylabel="equal error rate (%)", xlim=(-0.4, 3.6), ylim=(0, 21))
    ax.set_yticks(range(0, 21, 5))
    ax.set_xticks(range(len(STAGES)), STAGES.values())
    ax.legend(frameon=False, loc="lower left", ncols=3)
    ax.spines[["top", "right"]].set_visible(False)
    figure.savefig(HERE / "eer.png", dpi=150)


if __name__ == "__main__":
    main()
