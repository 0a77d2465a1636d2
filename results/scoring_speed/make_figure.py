#!/usr/bin/env python3
"""Make seconds.svg from table.csv.

python make_figure.py
"""

import pathlib

import pandas as pd

from speechbrain_ssl.report import style

HERE = pathlib.Path(__file__).resolve().parent
SYSTEMS = (("ours", style.BLUE), ("SpeechBrain", style.RED))


def size(row):
    """Return what was measured, with its numbers of trials and embeddings."""
    # PLDA is trained on embeddings; the table has their number as trials.
    first = "embeddings" if row.what == "PLDA training" else "trials"
    name = f"{row.what}: {row.trials} {first}"
    if not pd.isna(row.embeddings):
        name += f", {row.embeddings:.0f} embeddings"
    return name


def draw(table):
    """Draw the seconds of each row, a dot for each system."""
    figure, ax = style.new_figure((7, 4))
    table["size"] = [size(row) for row in table.itertuples()]
    names = list(table["size"].unique())
    for name, colour in SYSTEMS:
        mine = table[table["system"] == name]
        places = [names.index(one) for one in mine["size"]]
        ax.plot(mine["cpu_seconds"], places, "o", color=colour, label=name)
    ax.set_xscale("log")
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    style.label(ax, "Time on one CPU thread", "seconds (logarithmic scale)", "")
    style.legend(ax)
    return figure


if __name__ == "__main__":
    style.write_svg(HERE / "seconds.svg", draw(pd.read_csv(HERE / "table.csv")))
