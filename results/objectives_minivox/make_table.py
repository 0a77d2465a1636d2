#!/usr/bin/env python3
"""Makes table.csv from the saved runs beside this file.

    python make_table.py

runs/<objective>_<seed>/ holds results.json and metrics.jsonl of a run as training
wrote them, but for the folders in the command.
"""

import json
import pathlib

from speechbrain_ssl.report.evaluations import write_rows
from speechbrain_ssl.report.logbook import read_metrics

HERE = pathlib.Path(__file__).resolve().parent
TRIALS = "MiniVox trials_cross_video"
COLUMNS = (
    "system seed trials eer_percent ci_low ci_high eer_untrained "
    "eer_statistics below_untrained loss_first loss_last labels_seen epochs "
    "minutes command"
).split()


def row(folder):
    """What the table says of a run."""
    system, seed = folder.name.rsplit("_", 1)
    text = (folder / "results.json").read_text(encoding="utf-8")
    results = json.loads(text)
    losses = [
        line["loss"]
        for line in read_metrics(folder / "metrics.jsonl")
        if line["stage"] == "train"
    ]
    percents = {
        key: f"{results[name]:.2f}"
        for key, name in (
            ("eer_percent", "eer"),
            ("ci_low", "ci_low"),
            ("ci_high", "ci_high"),
            ("eer_untrained", "eer_untrained"),
            ("eer_statistics", "eer_statistics"),
        )
    }
    # Clearly: the interval does not reach the untrained encoder's figure.
    learns = results["ci_high"] < results["eer_untrained"]
    return {
        "system": system,
        "seed": seed,
        "trials": TRIALS,
        **percents,
        "below_untrained": "yes" if learns else "no",
        "loss_first": f"{losses[0]:.3f}",
        "loss_last": f"{losses[-1]:.3f}",
        "labels_seen": results["labels_seen"],
        "epochs": results["epochs"],
        "minutes": f"{results['minutes']:.1f}",
        "command": results["command"],
    }


def main():
    """Writes the table, the best system first."""
    rows = [row(folder) for folder in (HERE / "runs").iterdir()]
    rows.sort(key=lambda r: float(r["eer_percent"]))
    write_rows(HERE / "table.csv", COLUMNS, rows)


if __name__ == "__main__":
    main()
