#!/usr/bin/env python3
"""Makes table.csv and curves.svg from the saved runs beside this file.

    python make_table.py

runs/<system>_<seed>/ holds results.json and metrics.jsonl of a run as training
wrote them, but for the folders in the command, and dev_trials_O.csv where the
encoder was evaluated once more, on that list.
"""

import csv
import json
import pathlib

from matplotlib.figure import Figure

from speechbrain_ssl.report.evaluations import write_rows
from speechbrain_ssl.report.logbook import read_metrics

HERE = pathlib.Path(__file__).resolve().parent
TRIALS = "speechocean762 dev_trials_H"
COLUMNS = (
    "system seed trials eer_percent ci_low ci_high labels_seen minutes command "
    "min_dcf_0.01 min_dcf_0.05 epochs"
).split()
#: What a run measures beside itself, and what to call it.
BASELINES = {
    "eer_statistics": "log-mel statistics",
    "eer_untrained": "untrained encoder",
}

#: What the figure shows.
FIGURE = {
    "simclr": "SimCLR",
    "simclr-then-dino": "DINO, begun with SimCLR's encoder",
}


def rows():
    """A row for each run, and for what it measured without training."""
    baselines = {}
    for folder in sorted((HERE / "runs").iterdir()):
        system, seed = folder.name.rsplit("_", 1)
        text = (folder / "results.json").read_text(encoding="utf-8")
        results = json.loads(text)
        yield {
            "system": system,
            "seed": seed,
            "trials": TRIALS,
            "eer_percent": f"{results['eer']:.2f}",
            "ci_low": f"{results['ci_low']:.2f}",
            "ci_high": f"{results['ci_high']:.2f}",
            "labels_seen": results["labels_seen"],
            "minutes": f"{results['minutes']:.1f}",
            "command": results["command"],
            "min_dcf_0.01": f"{results['min_dcf_0.01']:.3f}",
            "min_dcf_0.05": f"{results['min_dcf_0.05']:.3f}",
            "epochs": results["epochs"],
        }
        # A later evaluation of the same encoder on the easier list.
        later = folder / "dev_trials_O.csv"
        if later.is_file():
            with open(later, encoding="utf-8", newline="") as stream:
                (row,) = csv.DictReader(stream)
            yield {
                **{k: v for k, v in row.items() if k in COLUMNS},
                "system": system,
                "seed": seed,
                "trials": "speechocean762 dev_trials_O",
                "eer_percent": f"{float(row['eer_percent']):.2f}",
                "ci_low": f"{float(row['ci_low']):.2f}",
                "ci_high": f"{float(row['ci_high']):.2f}",
                "min_dcf_0.01": f"{float(row['min_dcf_0.01']):.3f}",
                "min_dcf_0.05": f"{float(row['min_dcf_0.05']):.3f}",
                "minutes": f"{float(row['minutes']):.1f}",
            }
        for key, name in BASELINES.items():
            # Statistics have no seed.
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


def figure():
    """EER on the trials against epochs: a colour a system, a line a seed."""
    drawn = Figure(figsize=(7, 3.6), layout="constrained")
    ax = drawn.subplots()
    for colour, (system, label) in zip(
        ("#0072b2", "#d55e00"), FIGURE.items(), strict=True
    ):
        for folder in sorted((HERE / "runs").glob(f"{system}_[0-9]")):
            lines = [
                line
                for line in read_metrics(folder / "metrics.jsonl")
                if line["stage"] == "trials" and line["epoch"] % 4 == 0
            ]
            ax.plot(
                [line["epoch"] for line in lines],
                [line["eer"] for line in lines],
                marker="o",
                markersize=3,
                color=colour,
                label=label if folder.name.endswith("_1") else None,
            )
    text = (HERE / "runs/simclr_1/results.json").read_text(encoding="utf-8")
    statistics = json.loads(text)["eer_statistics"]
    ax.axhline(statistics, color="#555555", linestyle="--", linewidth=1)
    ax.text(24, statistics, "log-mel statistics", ha="right", va="bottom")
    ax.set(ylim=(0, 17), xlabel="epoch", ylabel="EER (%)")
    ax.set_title("EER on dev_trials_H, three seeds each", loc="left")
    ax.legend(frameon=False, loc="lower right")
    ax.spines[["top", "right"]].set_visible(False)
    drawn.savefig(HERE / "curves.svg")


def main():
    """Writes both files."""
    write_rows(HERE / "table.csv", COLUMNS, rows())
    figure()


if __name__ == "__main__":
    main()
