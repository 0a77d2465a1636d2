#!/usr/bin/env python3
"""Make table.csv and voices.svg from what measure.py saved in runs/.

python make_table.py
"""

import pathlib

import numpy as np

from speechbrain_ssl.embedding.voices import SAME_VOICE
from speechbrain_ssl.report import style
from speechbrain_ssl.report.studies import HEADLINE, read_json, write_study

HERE = pathlib.Path(__file__).resolve().parent
COLUMNS = [*HEADLINE, "measure", "value", "recordings"]
OF_MODEL = "--model=/path/to/run --corpora=/path/to/corpora"


def rows():
    """Yield the rows of the table: error rates first, then other measures."""
    for found in read_json(HERE / "runs" / "lengths.json")["eer"]:
        length = found["window_seconds"]
        whole = length == found["recording_seconds"]
        yield rates(
            found,
            "whole" if whole else f"windows of {length} s",
            f"{found['corpus']}, {found['recording_seconds']} s each",
            "lengths",
        )
    for found in read_json(HERE / "runs" / "silence.json"):
        sides = dict.fromkeys((found["left"], found["right"]))
        trials = "speechocean762 dev_trials_H"
        yield rates(found, " against ".join(sides), trials, "silence")
    for found in read_json(HERE / "runs" / "lengths.json")["cosine"]:
        for which in ("mean", "lowest"):
            yield {
                "system": f"windows of {found['window_seconds']} s",
                "seed": 1,
                "trials": "speechocean762, 600 s each",
                "labels_seen": "none",
                "command": f"measure.py lengths {OF_MODEL}",
                "measure": f"cosine with the whole, {which}",
                "value": f"{found[which]:.4f}",
                "recordings": 8,
            }
    for name in ("memory_before", "memory"):
        found = read_json(HERE / "runs" / f"{name}.json")
        least = min(found.values(), key=lambda one: one["peak_gb"])["peak_gb"]
        before = name.endswith("before")
        option = " --system=before --repository=/older/clone" * before
        for minutes, one in found.items():
            yield {
                "system": f"ECAPA-1024, {'before' if before else 'windows'}",
                "trials": f"{float(minutes):g} min of noise",
                "labels_seen": "none",
                "minutes": f"{one['minutes']:.1f}",
                "command": f"measure.py memory{option}",
                "measure": "peak memory beyond that of a file of 2 s, GB",
                "value": f"{one['peak_gb'] - least:.2f}",
                "recordings": 1,
            }
    for corpus, kinds in read_json(HERE / "runs" / "voices.json").items():
        for kind, values in kinds.items():
            yield {
                "system": f"note, threshold {SAME_VOICE}",
                "seed": 1,
                "trials": f"{corpus}, {kind}",
                "labels_seen": "none",
                "command": f"measure.py voices {OF_MODEL}",
                "measure": "share of recordings with a note",
                "value": f"{np.mean(np.array(values) < SAME_VOICE):.3f}",
                "recordings": len(values),
            }


def rates(found, system, trials, what):
    """Return the row of an evaluation."""
    return {
        "system": system,
        "seed": 1,
        "trials": trials,
        "labels_seen": "none",
        "minutes": f"{found['minutes']:.1f}" if "minutes" in found else "",
        "command": f"measure.py {what} {OF_MODEL}",
        **{
            key: f"{found[key]:.2f}"
            for key in ("eer_percent", "ci_low", "ci_high")
        },
    }


def draw():
    """Draw the statistic of every recording, a line for each kind."""
    found = read_json(HERE / "runs" / "voices.json")
    figure, ax = style.new_figure((7, 5))
    names = []
    for corpus, kinds in found.items():
        for kind, values in kinds.items():
            colour = style.BLUE if kind == "one voice" else style.RED
            place = [len(names)] * len(values)
            ax.plot(values, place, "|", color=colour, markersize=7)
            names.append(f"{corpus}, {kind}")
    ax.axvline(SAME_VOICE, color="black", linewidth=0.8)
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    title = "One voice (blue), two voices (orange)"
    style.label(ax, title, "cosine of the two groups of probes", "")
    return figure


if __name__ == "__main__":
    write_study(HERE, COLUMNS, rows(), voices=draw())
