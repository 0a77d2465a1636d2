#!/usr/bin/env python3
"""Make growth.svg from table.csv.

python make_figure.py
"""

import pathlib

import pandas as pd

from speechbrain_ssl.report import style

HERE = pathlib.Path(__file__).resolve().parent
#: Column, name and colour of what was measured.
PARTS = (
    ("iteration_seconds", "one iteration", style.BLUE),
    ("plus_plus_seconds", "k-means++", style.RED),
)


def draw(table):
    """Draw the seconds against the clusters at 100 000 points."""
    figure, ax = style.new_figure((5.6, 3.6))
    mine = table[table["points"] == 100_000].sort_values("clusters")
    for column, name, colour in PARTS:
        ax.plot(mine["clusters"], mine[column], "o-", color=colour, label=name)
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.set_xticks(mine["clusters"], mine["clusters"])
    ticks = (0.2, 0.5, 1, 2, 5)
    ax.set_yticks(ticks, ticks)
    ax.yaxis.set_minor_formatter("")
    style.label(
        ax,
        "100 000 points, one CPU thread",
        "clusters (logarithmic scale)",
        "seconds (logarithmic scale)",
    )
    style.legend(ax)
    return figure


if __name__ == "__main__":
    style.write_svg(HERE / "growth.svg", draw(pd.read_csv(HERE / "table.csv")))
