"""Draw the figures of a run: pure functions from numbers to matplotlib."""

import itertools

import numpy as np
import pandas as pd
from matplotlib.ticker import FuncFormatter, MaxNLocator

from speechbrain_ssl.report.style import (
    BLUE,
    DASHED,
    INK,
    MUTED,
    RED,
    SERIES,
    blank_figure,
    label,
    legend,
    literal,
    new_figure,
    note,
    style_axes,
    thin,
    thousands,
)

# Curves with fewer points than this are drawn without smoothing.
SMOOTH_FROM = 80


def curves(
    metrics,
    keys,
    stage=None,
    x="step",
    title=None,
    ylabel="",
    references=None,
    from_zero=False,
    band=None,
):
    """Draw scalars of a run over its steps or epochs.

    A curve of many points is smoothed: the line is a running mean, and the band
    around it contains eight points in ten. Values that were not finite are
    marked by crosses at the bottom.

    Arguments
    ---------
    metrics : list of dict
        As ``read_metrics`` gives them.
    keys : list of str or dict
        The scalars to draw; a dict maps them to their names in the figure.
    stage : str, optional
        Only lines of this stage are drawn.
    x : str
        ``"step"`` or ``"epoch"``.
    title : str, optional
        By default, the first and last value of the first curve.
    ylabel : str
        Label of the vertical axis, with the unit.
    references : dict, optional
        Maps names to the values of horizontal dashed lines.
    from_zero : bool
        Whether the vertical axis begins at zero.
    band : tuple, optional
        Lowest and highest values to expect, ``[N]`` each, at 1, 2, ..., N.

    Returns
    -------
    matplotlib.figure.Figure

    Example
    -------
    >>> metrics = [{"step": s, "loss": 9.0 / s} for s in range(1, 10)]
    >>> figure = curves(metrics, ["loss"], ylabel="loss (nats)")
    >>> figure.axes[0].get_title(loc="left")
    'loss: 9 at the start, 1 at the end'
    """
    if not isinstance(keys, dict):
        keys = {key: key for key in keys}
    figure, ax = new_figure()
    first_title, broken = None, []
    for colour, (key, name) in zip(
        itertools.cycle(SERIES), keys.items(), strict=False
    ):
        places, values = series(metrics, key, stage, x)
        finite = np.isfinite(values)
        broken.append(places[~finite])
        if not finite.any():
            continue
        places, values = places[finite], values[finite]
        first, last = _draw_curve(ax, places, values, colour, name)
        if first_title is None:
            first_title = (
                f"{name}: {_short(first)} at the start, "
                f"{_short(last)} at the end"
                if len(values) > 1
                else f"{name}: {_short(first)}"
            )
    broken = np.concatenate(broken) if broken else np.empty(0)
    if first_title is None:
        note(ax, "no finite value")
    _draw_references(ax, references or {})
    if band is not None:
        places = range(1, len(band[0]) + 1)
        ax.fill_between(places, *band, color=MUTED, alpha=0.25, linewidth=0)
    if from_zero:
        low, high = ax.get_ylim()
        ax.set_ylim(min(0.0, low) if low < -1e-3 * high else 0.0, high * 1.04)
    if len(broken):
        _mark_broken(ax, broken)
    if len(keys) > 1 or len(broken):
        legend(ax)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    if x == "step":
        ax.xaxis.set_major_formatter(FuncFormatter(thousands))
    label(
        ax,
        title or first_title or next(iter(keys.values()), ""),
        "optimiser step" if x == "step" else x,
        ylabel,
    )
    return figure


def schedules(arrays):
    """Draw the value of each schedule from the first step to the last.

    Arguments
    ---------
    arrays : dict
        Name to array ``[steps]``.

    Returns
    -------
    matplotlib.figure.Figure

    Example
    -------
    >>> figure = schedules({"learning rate": np.linspace(0.1, 0.0, 100)})
    >>> len(figure.axes)
    1
    """
    columns = min(3, max(1, len(arrays)))
    rows = max(1, -(-len(arrays) // columns))
    figure = blank_figure((3.2 * columns, 2.1 * rows))
    for place, (name, array) in enumerate(arrays.items()):
        array = np.asarray(array, dtype=float).ravel()
        ax = figure.add_subplot(rows, columns, place + 1)
        style_axes(ax)
        steps = thin(np.arange(len(array)))
        ax.plot(
            steps,
            array[steps],
            color=BLUE,
            linewidth=1.8,
            marker="o" if len(array) == 1 else None,
        )
        finite = array[np.isfinite(array)]
        if len(finite) and np.ptp(finite) <= 1e-9 * np.abs(finite).max():
            # Without this, a constant's rounding errors would fill the axes.
            center = finite[0]
            half = abs(center) * 0.5 or 1.0
            ax.set_ylim(center - half, center + half)
        ax.ticklabel_format(axis="y", useOffset=False, scilimits=(-9, 9))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:.4g}"))
        ax.yaxis.set_major_locator(MaxNLocator(nbins=4))
        ax.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
        ax.xaxis.set_major_formatter(FuncFormatter(thousands))
        last_row = place + columns >= len(arrays)
        label(ax, literal(name), "optimiser step" if last_row else "", "")
    return figure


def series(metrics, key, stage=None, x="step"):
    """Collect one scalar of a run as arrays.

    Arguments
    ---------
    metrics : list of dict
        As ``read_metrics`` gives them.
    key : str
        The scalar.
    stage : str, optional
        Only lines of this stage are used.
    x : str
        ``"step"`` or ``"epoch"``.

    Returns
    -------
    tuple of numpy.ndarray
        Positions and values, NaN where the value was not finite; sorted.
    """
    rows = [
        (line[x], line[key])
        for line in metrics
        if key in line and x in line and stage in (None, line.get("stage"))
    ]
    rows = [
        (place, np.nan if value is None else float(value))
        for place, value in rows
        if not isinstance(value, str)
    ]
    table = np.array(sorted(rows, key=lambda row: row[0]), dtype=float)
    table = table.reshape(-1, 2)
    return table[:, 0], table[:, 1]


def _draw_curve(ax, places, values, colour, name):
    """Draw a curve, or its running mean and band; return its two end values."""
    if len(values) < SMOOTH_FROM:
        ax.plot(
            places,
            values,
            color=colour,
            linewidth=1.8,
            marker="o" if len(values) <= 40 else None,
            markersize=4 if len(values) > 1 else 7,
            label=name,
        )
        return values[0], values[-1]
    window = max(5, len(values) // 40)
    rolling = pd.Series(values).rolling(window, center=True, min_periods=1)
    mean = rolling.mean().to_numpy()
    low, high = rolling.quantile(0.1), rolling.quantile(0.9)
    keep = thin(np.arange(len(values)))
    ax.fill_between(
        places[keep],
        low.to_numpy()[keep],
        high.to_numpy()[keep],
        color=colour,
        alpha=0.2,
        linewidth=0,
    )
    ax.plot(
        places[keep],
        mean[keep],
        color=colour,
        linewidth=1.8,
        label=name,
    )
    return mean[0], mean[-1]


def _draw_references(ax, references):
    """Draw named horizontal lines, dashed."""
    for name, value in references.items():
        ax.axhline(value, **DASHED)
        ax.annotate(
            name,
            (1, value),
            xycoords=("axes fraction", "data"),
            xytext=(-2, -3),
            textcoords="offset points",
            ha="right",
            va="top",
            color=INK,
            fontsize=9.5,
        )


def _mark_broken(ax, places):
    """Mark by crosses at the bottom where values were not finite."""
    shown = thin(np.unique(places))
    ax.plot(
        shown,
        np.full(len(shown), 0.03),
        "x",
        transform=ax.get_xaxis_transform(),
        color=RED,
        markersize=5,
        label=f"not finite ({len(places)})",
    )


def _short(value):
    return f"{value:.3g}"
