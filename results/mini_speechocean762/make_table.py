#!/usr/bin/env python3
"""Makes table.csv and curves.svg from the saved runs beside this file.

    python make_table.py

runs/<system>_<seed>/ holds results.json and metrics.jsonl of a run as training
wrote them.
"""

import csv
import json
import pathlib

from speechbrain_ssl.report.figures import curves
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
    """EER on the trials against epochs, a curve for each run."""
    lines, labels = [], {}
    for folder in sorted((HERE / "runs").iterdir()):
        key = f"eer_{folder.name}"
        labels[key] = folder.name.replace("_", ", seed ")
        for line in read_metrics(folder / "metrics.jsonl"):
            if line["stage"] == "trials":
                lines.append({**line, key: line["eer"]})
    drawn = curves(
        lines,
        labels,
        stage="trials",
        x="epoch",
        title="EER on dev_trials_H while training (it decides nothing)",
        ylabel="EER (%)",
        from_zero=True,
    )
    drawn.savefig(HERE / "curves.svg")


def main():
    """Writes both files."""
    with open(HERE / "table.csv", "w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        writer.writerows(rows())
    figure()


if __name__ == "__main__":
    main()
