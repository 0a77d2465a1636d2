#!/usr/bin/env python3
"""Make table.csv and systems.svg from the runs saved beside this file.

python make_table.py
"""

import pathlib

import numpy as np
from matplotlib.figure import Figure

from speechbrain_ssl.report import style
from speechbrain_ssl.report.logbook import read_metrics
from speechbrain_ssl.report.studies import (
    HEADLINE,
    read_json,
    run_row,
    saved_runs,
    write_study,
)

HERE = pathlib.Path(__file__).resolve().parent
TRIALS = "speechocean762 dev_trials_H, a recording condition per utterance"
COLUMNS = [
    *HEADLINE,
    *"min_dcf_0.01 speaker_nmi condition_nmi ratio coverage".split(),
    *"right_partners epochs".split(),
]
#: Name and colour of each system.
SYSTEMS = {
    "start": ("the encoder they begin with", style.MUTED),
    "simclr": ("SimCLR", "#56b4e9"),
    "simclr_ssps": ("SimCLR-SSPS", style.BLUE),
    "simclr_rule": ("SimCLR-SSPS, by the rule", style.BLUE),
    "dino_start": ("the DINO they begin with", style.MUTED),
    "dino": ("DINO", "#e69f00"),
    "dino_ssps": ("DINO-SSPS", style.RED),
    "ca_dino": ("cluster-aware DINO", "#009e73"),
    "dino_long": ("DINO, 24 epochs", "#e69f00"),
    "dino_ssps_long": ("DINO-SSPS, 24 epochs", style.RED),
    "dino_global": ("DINO, no local crops", "#e69f00"),
    "dino_ssps_global": ("DINO-SSPS, no local crops", style.RED),
}


def last_epoch(metrics, key):
    """Return the mean of a scalar over the last epoch that has it, or None."""
    lines = [line for line in metrics if key in line]
    if not lines:
        return None
    last = lines[-1]["epoch"]
    return np.mean([line[key] for line in lines if line["epoch"] == last])


def rows():
    """Yield a row for each run."""
    for system, seed, folder in saved_runs(HERE, SYSTEMS):
        results = read_json(folder / "results.json")
        metrics = read_metrics(folder / "metrics.jsonl")
        found = results["evaluation"]
        scalars = {key: found[key] for key in ("speaker_nmi", "condition_nmi")}
        scalars["coverage"] = last_epoch(metrics, "coverage")
        if right := last_epoch(metrics, "same_spk_id"):
            known = last_epoch(metrics, "known_spk_id")
            scalars["right_partners"] = right / known
        yield {
            **run_row(SYSTEMS[system][0], seed, TRIALS, results),
            "ratio": f"{found['ratio']:.2f}",
            "epochs": results["epochs"],
            **{
                key: f"{value:.3f}"
                for key, value in scalars.items()
                if value is not None
            },
        }


def draw(table):
    """Draw EER and information ratio: dots are seeds, bars their means."""
    figure = Figure(figsize=(9, 4.6), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    names = [name for name, _ in SYSTEMS.values()]
    for ax, key, title, unit in (
        (panels[0], "eer_percent", "EER on dev_trials_H", "EER (%)"),
        (panels[1], "ratio", "Speaker NMI / condition NMI", "ratio"),
    ):
        for place, (name, colour) in enumerate(SYSTEMS.values()):
            mine = [float(row[key]) for row in table if row["system"] == name]
            mean = np.mean(mine)
            ax.plot(mine, [place] * len(mine), "o", color=colour, alpha=0.6)
            ax.plot([mean, mean], [place - 0.35, place + 0.35], color=colour)
        # SimCLR is above this line, DINO below: their budgets differ.
        ax.axhline(3.5, color=style.GRID)
        ax.set_yticks(range(len(names)), names)
        ax.spines[["top", "right"]].set_visible(False)
        style.label(ax, title, unit, "")
    panels[0].invert_yaxis()
    return figure


if __name__ == "__main__":
    table = list(rows())
    write_study(HERE, COLUMNS, table, systems=draw(table))
