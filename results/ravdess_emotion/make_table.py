#!/usr/bin/env python3
"""Make the tables and pictures from the runs saved beside this file.

    python make_table.py

Writes table.csv, folds.csv, differences.csv and the confusion matrices of two
runs.
"""

import pathlib

import numpy as np
import scipy.stats

from speechbrain_ssl.report.downstream import write_confusion
from speechbrain_ssl.report.evaluations import write_rows
from speechbrain_ssl.report.studies import read_json, saved_runs

HERE = pathlib.Path(__file__).resolve().parent
COLUMNS = (
    "system seed task micro_f1_percent ci_low ci_high labels_seen minutes "
    "command uar_percent uar_ci_low uar_ci_high macro_f1_percent "
    "folds_ci_low folds_ci_high majority_percent source"
).split()

#: What the runs are called in the tables, in this order.
SYSTEMS = {
    "statistics-probe": ("log-mel statistics, frozen", "8 emotions"),
    "untrained-probe": ("untrained encoder, frozen", "8 emotions"),
    "simclr-probe": ("SimCLR, frozen", "8 emotions"),
    "untrained-finetune": ("untrained encoder, fine-tuned", "8 emotions"),
    "simclr-finetune": ("SimCLR, fine-tuned", "8 emotions"),
    "statistics-gender": ("log-mel statistics, frozen", "gender"),
    "untrained-gender": ("untrained encoder, frozen", "gender"),
    "simclr-gender": ("SimCLR, frozen", "gender"),
    "statistics-text": ("log-mel statistics, frozen", "sentence"),
    "untrained-text": ("untrained encoder, frozen", "sentence"),
    "simclr-text": ("SimCLR, frozen", "sentence"),
    "statistics-age": ("log-mel statistics, frozen", "age"),
    "untrained-age": ("untrained encoder, frozen", "age"),
    "simclr-age": ("SimCLR, frozen", "age"),
    "statistics-condition": ("log-mel statistics, frozen", "condition"),
    "untrained-condition": ("untrained encoder, frozen", "condition"),
    "simclr-condition": ("SimCLR, frozen", "condition"),
}

#: Reported in the abstract of arXiv 2208.05413, micro-F1 in percent.
PAPER = {"IEMOCAP": "60.87", "CREMA-D": "79.21", "MSP-Podcast": "56.98"}

#: Systems to compare fold by fold.
PAIRS = (
    ("simclr-probe", "statistics-probe"),
    ("untrained-probe", "statistics-probe"),
    ("untrained-probe", "simclr-probe"),
    # Of the same encoder.
    ("simclr-finetune", "simclr-probe_1"),
    ("untrained-finetune", "untrained-probe_1"),
    ("simclr-finetune", "untrained-finetune"),
    ("untrained-condition", "statistics-condition"),
    ("untrained-condition", "simclr-condition"),
)

PICTURES = {
    "simclr-probe_1": "SimCLR (seed 1), frozen",
    "simclr-finetune_1": "SimCLR (seed 1), fine-tuned",
}


def runs():
    """Yield name of the system, seed and results of each run."""
    for system, seed, folder in saved_runs(HERE, SYSTEMS):
        yield system, seed, read_json(folder / "results.json")


def corpus(task):
    """Return whose utterances are judged: RAVDESS has no ages of actors."""
    return "speechocean762" if task == "age" else "RAVDESS"


def rows():
    """Yield a row for each run, and what the paper reports elsewhere."""
    for system, seed, results in runs():
        name, task = SYSTEMS[system]

        def percent(key, results=results):
            return f"{results[key]:.2f}"

        yield {
            "system": name,
            # Log-mel statistics have no seed.
            "seed": "" if system.startswith("statistics") else seed,
            "task": f"{corpus(task)}, {task}",
            "micro_f1_percent": percent("micro_f1"),
            "ci_low": percent("micro_f1_ci_low"),
            "ci_high": percent("micro_f1_ci_high"),
            "labels_seen": results["labels_seen"],
            "minutes": f"{results['minutes']:.1f}",
            "command": results["command"],
            "uar_percent": percent("uar"),
            "uar_ci_low": percent("uar_ci_low"),
            "uar_ci_high": percent("uar_ci_high"),
            "macro_f1_percent": percent("macro_f1"),
            "folds_ci_low": percent("micro_f1_over_folds_ci_low"),
            "folds_ci_high": percent("micro_f1_over_folds_ci_high"),
            "majority_percent": percent("majority"),
            "source": "ours",
        }
    for other, figure in PAPER.items():
        yield {
            "system": "DINO embedding, VoxCeleb2",
            "task": f"{other}, emotions",
            "micro_f1_percent": figure,
            "source": "the paper's (arXiv 2208.05413), not run here",
        }


def folds():
    """Yield a row for each fold of each run."""
    for system, seed, results in runs():
        name, task = SYSTEMS[system]
        for line in results["per_fold"]:
            yield {
                "system": name,
                "seed": "" if system.startswith("statistics") else seed,
                "task": f"{corpus(task)}, {task}",
                "fold": line["fold"],
                "speakers": " ".join(line["speakers"]),
                "micro_f1_percent": f"{line['micro_f1']:.2f}",
                "uar_percent": f"{line['uar']:.2f}",
                "C": line.get("C", ""),
            }


def by_fold(prefix):
    """Return the micro-F1 (percent) of each fold, averaged over the runs."""
    paths = sorted((HERE / "runs").glob(f"{prefix}*/results.json"))
    return np.mean(
        [
            [line["micro_f1"] for line in read_json(path)["per_fold"]]
            for path in paths
        ],
        axis=0,
    )


def differences():
    """Yield how much better one system is than another, over the same folds.

    The interval is Student's, for the mean of the folds' differences: six
    folds are too few to resample.
    """
    for better, worse in PAIRS:
        gain = by_fold(better) - by_fold(worse)
        low, high = scipy.stats.t.interval(
            0.95, len(gain) - 1, gain.mean(), scipy.stats.sem(gain)
        )
        yield {
            "system": better,
            "against": worse,
            "micro_f1_points": f"{gain.mean():.2f}",
            "ci_low": f"{low:.2f}",
            "ci_high": f"{high:.2f}",
            "folds_won": int((gain > 0).sum()),
            "folds": len(gain),
        }


if __name__ == "__main__":
    write_rows(HERE / "table.csv", COLUMNS, rows())
    for name, table in (("folds", folds()), ("differences", differences())):
        table = list(table)
        write_rows(HERE / f"{name}.csv", list(table[0]), table)
    for name, title in PICTURES.items():
        results = read_json(HERE / "runs" / name / "results.json")
        picture = f"confusion_{name.split('-')[1].split('_')[0]}.svg"
        write_confusion(
            HERE / picture, results["confusion"], results["classes"], title
        )
