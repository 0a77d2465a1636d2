"""Draw the error rates and the scores of trials."""

import itertools
import statistics

import numpy as np

from speechbrain_ssl.report.style import (
    BLUE,
    DASHED,
    INK,
    MUTED,
    RED,
    SERIES,
    SQUARE,
    label,
    legend,
    literal,
    new_figure,
    note,
)
from speechbrain_ssl.verification.metrics import eer_of_curve


def det_curves(points):
    """Draw misses against false alarms on probit axes, with the EER as a dot.

    Arguments
    ---------
    points : dict
        Maps names to pairs of arrays, the miss and false-alarm rates in
        ``[0, 1]`` at each threshold, in any order.

    Returns
    -------
    matplotlib.figure.Figure

    Example
    -------
    >>> rate = np.linspace(0, 1, 101)
    >>> figure = det_curves({"chance": (rate, 1 - rate)})
    >>> figure.axes[0].get_legend_handles_labels()[1]
    ['chance: EER 50.00 %']
    """
    figure, ax = new_figure(SQUARE)
    floor, ceiling = 0.5, 0.5
    for colour, (name, (miss, alarm)) in zip(
        itertools.cycle(SERIES), points.items(), strict=False
    ):
        miss, alarm, eer = _by_false_alarms(miss, alarm)
        inside = (miss > 0) & (miss < 1) & (alarm > 0) & (alarm < 1)
        if inside.any():
            floor = min(floor, miss[inside].min(), alarm[inside].min())
        ceiling = max(ceiling, min(1.0, 1.3 * eer))
        across, up = _probit(alarm), _probit(miss)
        # Merge points that fall on the same hundredth of an inch.
        grid = np.stack([np.round(across, 2), np.round(up, 2)])
        new = np.ones(len(across), dtype=bool)
        new[1:] = (np.diff(grid) != 0).any(axis=0)
        ax.plot(
            across[new],
            up[new],
            color=colour,
            linewidth=1.8,
            label=f"{literal(name)}: EER {100 * eer:.2f} %",
        )
        at = _probit(np.array([eer]))
        ax.plot(at, at, "o", color=colour, markersize=7)
    _set_probit_axes(
        ax,
        float(np.clip(0.7 * floor, 1e-4, 1e-2)),
        float(np.clip(ceiling, 0.5, 0.95)),
    )
    if points:
        legend(ax, loc="lower left")
    else:
        note(ax, "no trials")
    label(
        ax,
        "What fewer false alarms cost in misses",
        "false alarms (% of different-speaker trials)",
        "misses (% of same-speaker trials)",
    )
    return figure


def score_histogram(
    scores,
    labels,
    threshold=None,
    title=None,
    kinds=("different speakers", "same speaker"),
):
    """Draw histograms of same-speaker and of different-speaker scores.

    Arguments
    ---------
    scores : numpy.ndarray
        ``[N]``.
    labels : numpy.ndarray
        ``[N]``, true for same-speaker trials.
    threshold : float, optional
        Scores at or above it are accepted.
    title : str, optional
        By default, the shares of wrong decisions at the threshold.
    kinds : tuple of str
        What a false and what a true label means.

    Returns
    -------
    matplotlib.figure.Figure

    Example
    -------
    >>> figure = score_histogram(
    ...     np.array([0.1, 0.2, 0.8]), np.array([False, False, True]), 0.5
    ... )
    >>> figure.axes[0].get_title(loc="left")
    'At the threshold 0.0 % missed, 0.0 % false alarms'
    """
    scores = np.asarray(scores, dtype=float).ravel()
    labels = np.asarray(labels).astype(bool).ravel()
    finite = np.isfinite(scores)
    scores, labels = scores[finite], labels[finite]
    figure, ax = new_figure()
    if len(scores):
        _draw_histograms(ax, scores, labels, kinds)
        # Below the axes: inside, it would cover the line of the threshold.
        figure.legend(
            loc="outside lower center",
            ncols=2,
            fontsize=9.5,
            frameon=False,
            labelcolor=INK,
        )
    else:
        note(ax, "no trials")
    if threshold is not None and np.isfinite(threshold):
        _draw_threshold(ax, threshold)
        if labels.any() and not labels.all():
            missed = 100 * np.mean(scores[labels] < threshold)
            alarms = 100 * np.mean(scores[~labels] >= threshold)
            title = title or (
                f"At the threshold {missed:.1f} % missed, "
                f"{alarms:.1f} % false alarms"
            )
    label(ax, title or "Scores of the trials", "score", "trials (% of kind)")
    return figure


def _by_false_alarms(miss, alarm):
    """Sort rates from few false alarms to many, and find the EER."""
    miss = np.asarray(miss, dtype=float).ravel()
    alarm = np.asarray(alarm, dtype=float).ravel()
    order = np.lexsort((-miss, alarm))
    miss, alarm = miss[order], alarm[order]
    # By rising threshold, with both ends, which a curve of few points may lack.
    eer = eer_of_curve(
        np.concatenate(([0], miss[::-1], [1])),
        np.concatenate(([1], alarm[::-1], [0])),
    )
    return miss, alarm, eer


def _set_probit_axes(ax, floor, ceiling):
    """Scale both axes equally, from one rate to another."""
    low, high = _probit(np.array([floor, ceiling]))
    ax.plot([low, high], [low, high], color=MUTED, linewidth=0.8, linestyle=":")
    ticks = np.array([0.01, 0.1, 0.5, 1, 2, 5, 10, 20, 40, 60, 80, 90])
    ticks = ticks[(ticks >= 100 * floor) & (ticks <= 100 * ceiling)]
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_ticks(_probit(ticks / 100), [f"{t:g}" for t in ticks])
    ax.set_xlim(low, high)
    ax.set_ylim(low, high)
    ax.set_aspect("equal")


def _probit(rates):
    """Return quantiles of the normal distribution; 0 and 1 stay finite."""
    inverse = statistics.NormalDist().inv_cdf
    return np.array([inverse(r) for r in np.clip(rates, 1e-6, 1 - 1e-6)])


def _draw_histograms(ax, scores, labels, kinds):
    """Draw both kinds of trials in bins of equal width."""
    low, high = scores.min(), scores.max()
    if not high > low:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, 61)
    top = 0.0
    for wanted, colour, name in zip(
        (False, True), (RED, BLUE), kinds, strict=True
    ):
        chosen = scores[labels == wanted]
        if not len(chosen):
            continue
        share = 100 * np.histogram(chosen, edges)[0] / len(chosen)
        top = max(top, share.max())
        ax.stairs(share, edges, fill=True, color=colour, alpha=0.28)
        ax.stairs(
            share,
            edges,
            color=colour,
            linewidth=1.4,
            label=f"{name} ({len(chosen):,})".replace(",", "\u2009"),
        )
    ax.set_ylim(0, 1.15 * top)


def _draw_threshold(ax, threshold):
    """Draw a named vertical line, dashed."""
    ax.axvline(threshold, **DASHED)
    ax.annotate(
        f"threshold {threshold:.3g}",
        (threshold, 1),
        xycoords=("data", "axes fraction"),
        xytext=(4, -4),
        textcoords="offset points",
        va="top",
        color=INK,
        fontsize=9.5,
    )
