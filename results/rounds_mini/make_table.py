#!/usr/bin/env python3
"""Makes table.csv and rounds.svg from the saved runs beside this file.

    python make_table.py

runs/seed_<n>/ holds the rounds.json of a run as it was written, and the
results.json of each round, but for the folders in the commands.
"""

import json
import pathlib

from matplotlib.figure import Figure

from speechbrain_ssl.report.evaluations import write_rows

HERE = pathlib.Path(__file__).resolve().parent
COLUMNS = (
    "system seed trials eer_percent ci_low ci_high labels_seen minutes command "
    "clusters silhouette agreement_nmi monitor_nmi monitor_purity"
).split()
TRIALS = "speechocean762 dev_trials_H"


def rows():
    """A row for stage I and for each round, of every seed."""
    for folder in sorted((HERE / "runs").iterdir()):
        seed = folder.name.removeprefix("seed_")
        text = (folder / "rounds.json").read_text(encoding="utf-8")
        stages = json.loads(text)
        for number in sorted({stage["round"] for stage in stages}):
            mine = {s["stage"]: s for s in stages if s["round"] == number}
            clustered, trained = mine["cluster"], mine["train"]
            text = (folder / f"round_{number}.json").read_text(encoding="utf-8")
            results = json.loads(text)
            if number == 1:
                yield {
                    "system": "stage I: SimCLR",
                    "seed": seed,
                    "trials": TRIALS,
                    "eer_percent": f"{trained['eer_initial']:.2f}",
                    "labels_seen": "none",
                }
            yield {
                "system": f"round {number}",
                "seed": seed,
                "trials": TRIALS,
                "eer_percent": f"{results['eer']:.2f}",
                "ci_low": f"{results['ci_low']:.2f}",
                "ci_high": f"{results['ci_high']:.2f}",
                "labels_seen": results["labels_seen"],
                "minutes": f"{sum(s['minutes'] for s in mine.values()):.1f}",
                "command": results["command"],
                **{
                    key: f"{clustered[key]:.3f}"
                    if isinstance(clustered[key], float)
                    else clustered[key]
                    for key in COLUMNS[9:]
                    if key in clustered
                },
            }


def draw(table):
    """EER after each round, a line a seed."""
    figure = Figure(figsize=(5.2, 3.4), layout="constrained")
    ax = figure.subplots()
    for seed in sorted({row["seed"] for row in table}):
        mine = [float(r["eer_percent"]) for r in table if r["seed"] == seed]
        ax.plot(range(len(mine)), mine, marker="o", label=f"seed {seed}")
    ax.set(xlabel="round", ylabel="EER (%)", xticks=range(len(mine)))
    ax.set_ylim(0, 1.1 * max(float(r["eer_percent"]) for r in table))
    ax.set_title("EER on dev_trials_H; 0 is stage I", loc="left")
    ax.legend(frameon=False)
    ax.spines[["top", "right"]].set_visible(False)
    figure.savefig(HERE / "rounds.svg", metadata={"Date": None})


def main():
    """Writes both files."""
    table = list(rows())
    write_rows(HERE / "table.csv", COLUMNS, table)
    draw(table)


if __name__ == "__main__":
    main()
