#!/usr/bin/env python3
"""Makes table.csv and systems.svg from the saved runs beside this file.

    python make_table.py

runs/<system>_<seed>/ is what evaluate_runs.py has written.
"""

import json
import pathlib

import numpy as np
from matplotlib.figure import Figure

from speechbrain_ssl.report.evaluations import write_rows
from speechbrain_ssl.report.logbook import read_metrics

HERE = pathlib.Path(__file__).resolve().parent
TRIALS = "speechocean762 dev_trials_H, a recording condition per utterance"
COLUMNS = (
    "system seed trials eer_percent ci_low ci_high labels_seen minutes command "
    "min_dcf_0.01 speaker_nmi condition_nmi ratio coverage right_partners "
    "epochs"
).split()
SYSTEMS = {
    "start": ("the encoder they begin with", "#5c6672"),
    "simclr": ("SimCLR", "#56b4e9"),
    "simclr_ssps": ("SimCLR-SSPS", "#0072b2"),
    "simclr_rule": ("SimCLR-SSPS, by the rule", "#0072b2"),
    "dino_start": ("the DINO they begin with", "#8a8f98"),
    "dino": ("DINO", "#e69f00"),
    "dino_ssps": ("DINO-SSPS", "#d55e00"),
    "ca_dino": ("cluster-aware DINO", "#009e73"),
    "dino_long": ("DINO, 24 epochs", "#e69f00"),
    "dino_ssps_long": ("DINO-SSPS, 24 epochs", "#d55e00"),
    "dino_global": ("DINO, no local crops", "#e69f00"),
    "dino_ssps_global": ("DINO-SSPS, no local crops", "#d55e00"),
}


def read(folder, name):
    """A JSON file of a run."""
    return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))


def last_epoch(folder, key):
    """Mean of a scalar over the last epoch that has it, or None."""
    lines = [
        line for line in read_metrics(folder / "metrics.jsonl") if key in line
    ]
    if not lines:
        return None
    last = lines[-1]["epoch"]
    return np.mean([line[key] for line in lines if line["epoch"] == last])


def rows():
    """A row for each run."""
    for system, (name, _) in SYSTEMS.items():
        for folder in sorted((HERE / "runs").glob(f"{system}_[0-9]")):
            found, results = read(folder, "evaluation"), read(folder, "results")
            scalars = {"coverage": last_epoch(folder, "coverage")}
            if right := last_epoch(folder, "same_spk_id"):
                known = last_epoch(folder, "known_spk_id")
                scalars["right_partners"] = right / known
            for key in "speaker_nmi condition_nmi".split():
                scalars[key] = found[key]
            yield {
                "system": name,
                "seed": folder.name[-1],
                "trials": TRIALS,
                "eer_percent": f"{found['eer_percent']:.2f}",
                "ci_low": f"{found['ci_low']:.2f}",
                "ci_high": f"{found['ci_high']:.2f}",
                "labels_seen": results["labels_seen"],
                "minutes": f"{results['minutes']:.1f}",
                "command": results["command"],
                "min_dcf_0.01": f"{found['min_dcf_0.01']:.3f}",
                "ratio": f"{found['ratio']:.2f}",
                "epochs": results["epochs"],
                **{
                    key: f"{value:.3f}"
                    for key, value in scalars.items()
                    if value is not None
                },
            }


def draw(table):
    """EER and information ratio: dots are seeds, bars their means."""
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    names, colours = zip(*SYSTEMS.values(), strict=True)
    for ax, key, title in zip(
        panels,
        ("eer_percent", "ratio"),
        ("EER on dev_trials_H (%)", "speaker NMI / condition NMI"),
        strict=True,
    ):
        for place, (name, colour) in enumerate(
            zip(names, colours, strict=True)
        ):
            mine = [float(row[key]) for row in table if row["system"] == name]
            if mine:
                ax.barh(place, np.mean(mine), color=colour, alpha=0.35)
                ax.plot(mine, [place] * len(mine), "o", color=colour)
        ax.set_yticks(range(len(names)), names)
        ax.set_title(title, loc="left")
        ax.spines[["top", "right"]].set_visible(False)
    panels[0].invert_yaxis()
    figure.savefig(HERE / "systems.svg", metadata={"Date": None})


def main():
    """Writes both files."""
    table = list(rows())
    write_rows(HERE / "table.csv", COLUMNS, table)
    draw(table)


if __name__ == "__main__":
    main()
