"""Pictures of a run: pure functions from numbers to matplotlib figures.

No pyplot: a figure belongs to whoever called for it and nothing global
changes. Every colour comes from the palette below, by which ``page`` finds the
colours again and gives each its counterpart for dark mode.

The hues are those of Okabe and Ito, told apart under all common forms of
colour blindness.
"""

import statistics

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from speechbrain_ssl.files import atomic_write

INK = "#1b2430"
MUTED = "#5c6672"
GRID = "#e3e7ec"
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
BLUE, RED = SERIES[:2]

# Seven colours in three shapes: more groups than that no eye tells apart.
MARKERS = ("o", "^", "s")
MAX_GROUPS = 20
MAX_POINTS = 1500

# Below this many points a curve is drawn as it is.
SMOOTH_FROM = 80
# More points than a figure has pixels only make the page heavy.
MAX_DRAWN = 300

# At 5 inches a figure fills a telephone's width with its text still legible.
SIZE = (5.0, 3.3)


def curves(
    metrics,
    keys,
    stage=None,
    x="step",
    title=None,
    ylabel="",
    references=None,
    from_zero=False,
):
    """Scalars of a run over its steps or epochs.

    A curve of many points is smoothed: the line is a running mean, the band
    around it holds eight points in ten. Values that were not finite are marked
    by crosses at the foot.

    Arguments
    ---------
    metrics : list of dict
        As ``read_metrics`` gives them.
    keys : list of str or dict
        The scalars to draw; a dict also says what to call them.
    stage : str, optional
        Only lines of this stage are drawn.
    x : str
        ``"step"`` or ``"epoch"``.
    title : str, optional
        If not given, the first curve's way from its first to its last value.
    ylabel : str
        What is drawn, with its unit.
    references : dict, optional
        Name to value of horizontal dashed lines.
    from_zero : bool
        Whether the vertical axis begins at zero.

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
    for colour, (key, name) in zip(_cycle(SERIES), keys.items(), strict=False):
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
        _note(ax, "no finite value")
    for name, value in (references or {}).items():
        ax.axhline(value, color=INK, linewidth=1.1, linestyle=(0, (5, 3)))
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
    if from_zero:
        low, high = ax.get_ylim()
        ax.set_ylim(min(0.0, low) if low < -1e-3 * high else 0.0, high * 1.04)
    if len(broken):
        ax.plot(
            _thin(np.unique(broken)),
            np.full(len(_thin(np.unique(broken))), 0.03),
            "x",
            transform=ax.get_xaxis_transform(),
            color=RED,
            markersize=5,
            label=f"not finite ({len(broken)})",
        )
    if len(keys) > 1 or len(broken):
        legend(ax)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    if x == "step":
        ax.xaxis.set_major_formatter(FuncFormatter(_thousands))
    label(
        ax,
        title or first_title or next(iter(keys.values()), ""),
        "optimiser step" if x == "step" else x,
        ylabel,
    )
    return figure


def schedules(arrays):
    """What each schedule does from the first step to the last.

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
    figure = Figure(figsize=(3.2 * columns, 2.1 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    for place, (name, array) in enumerate(arrays.items()):
        array = np.asarray(array, dtype=float).ravel()
        ax = figure.add_subplot(rows, columns, place + 1)
        _style(ax)
        steps = _thin(np.arange(len(array)))
        ax.plot(
            steps,
            array[steps],
            color=BLUE,
            linewidth=1.8,
            marker="o" if len(array) == 1 else None,
        )
        finite = array[np.isfinite(array)]
        if len(finite) and np.ptp(finite) <= 1e-9 * np.abs(finite).max():
            # Else rounding is blown up until it fills the picture.
            centre = finite[0]
            half = abs(centre) * 0.5 or 1.0
            ax.set_ylim(centre - half, centre + half)
        ax.ticklabel_format(axis="y", useOffset=False, scilimits=(-9, 9))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:.4g}"))
        ax.yaxis.set_major_locator(MaxNLocator(nbins=4))
        ax.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
        ax.xaxis.set_major_formatter(FuncFormatter(_thousands))
        last_row = place + columns >= len(arrays)
        label(ax, _literal(name), "optimiser step" if last_row else "", "")
    return figure


def det_curves(points):
    """Misses against false alarms on probit axes, with the EER as a dot.

    Arguments
    ---------
    points : dict
        Name to a pair of arrays, miss and false-alarm rates in ``[0, 1]``, a
        value for each threshold.

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
    figure, ax = new_figure((5.0, 4.6))
    floor, ceiling = 0.5, 0.5
    for colour, (name, (miss, alarm)) in zip(
        _cycle(SERIES), points.items(), strict=False
    ):
        miss, alarm, eer = _ordered_det(miss, alarm)
        inside = (miss > 0) & (miss < 1) & (alarm > 0) & (alarm < 1)
        if inside.any():
            floor = min(floor, miss[inside].min(), alarm[inside].min())
        ceiling = max(ceiling, min(1.0, 1.3 * eer))
        across, up = _probit(alarm), _probit(miss)
        # Points that fall on the same hundredth of an inch are one point.
        grid = np.stack([np.round(across, 2), np.round(up, 2)])
        new = np.ones(len(across), dtype=bool)
        new[1:] = (np.diff(grid) != 0).any(axis=0)
        ax.plot(
            across[new],
            up[new],
            color=colour,
            linewidth=1.8,
            label=f"{_literal(name)}: EER {100 * eer:.2f} %",
        )
        at = _probit(np.array([eer]))
        ax.plot(at, at, "o", color=colour, markersize=7)
    floor = float(np.clip(0.7 * floor, 1e-4, 1e-2))
    ceiling = float(np.clip(ceiling, 0.5, 0.95))
    low, high = _probit(np.array([floor, ceiling]))
    ax.plot([low, high], [low, high], color=MUTED, linewidth=0.8, linestyle=":")
    ticks = np.array([0.01, 0.1, 0.5, 1, 2, 5, 10, 20, 40, 60, 80, 90])
    ticks = ticks[(ticks >= 100 * floor) & (ticks <= 100 * ceiling)]
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_ticks(_probit(ticks / 100), [f"{t:g}" for t in ticks])
    ax.set_xlim(low, high)
    ax.set_ylim(low, high)
    ax.set_aspect("equal")
    if points:
        legend(ax, loc="lower left")
    else:
        _note(ax, "no trials")
    label(
        ax,
        "What fewer false alarms cost in misses",
        "false alarms (% of different-speaker trials)",
        "misses (% of same-speaker trials)",
    )
    return figure


def score_histogram(scores, labels, threshold=None, title=None):
    """Scores of same-speaker and of different-speaker trials.

    Arguments
    ---------
    scores : numpy.ndarray
        ``[N]``.
    labels : numpy.ndarray
        ``[N]``, true for same-speaker trials.
    threshold : float, optional
        Scores at or above it are accepted.
    title : str, optional
        If not given, the share of wrong decisions at the threshold.

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
        low, high = scores.min(), scores.max()
        if not high > low:
            low, high = low - 0.5, high + 0.5
        edges = np.linspace(low, high, 61)
        top = 0.0
        for wanted, colour, name in (
            (False, RED, "different speakers"),
            (True, BLUE, "same speaker"),
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
        # Below the axes: within them it would lie on the threshold's line.
        figure.legend(
            loc="outside lower center",
            ncols=2,
            fontsize=9.5,
            frameon=False,
            labelcolor=INK,
        )
    else:
        _note(ax, "no trials")
    if threshold is not None and np.isfinite(threshold):
        ax.axvline(threshold, color=INK, linewidth=1.1, linestyle=(0, (5, 3)))
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
        if labels.any() and not labels.all():
            missed = 100 * np.mean(scores[labels] < threshold)
            alarms = 100 * np.mean(scores[~labels] >= threshold)
            title = title or (
                f"At the threshold {missed:.1f} % missed, "
                f"{alarms:.1f} % false alarms"
            )
    label(ax, title or "Scores of the trials", "score", "trials (% of kind)")
    return figure


def embedding_map(embeddings, groups=None, group_name="group", seed=0):
    """Embeddings of length one, laid out in the plane by t-SNE.

    Arguments
    ---------
    embeddings : numpy.ndarray
        ``[N, D]``; of more than 1 500 a random part is shown.
    groups : numpy.ndarray, optional
        ``[N]``, what to colour by. The 20 largest groups get a colour and a
        shape; what is left is grey, and the title says so.
    group_name : str
        What a group is called, in the singular.
    seed : int
        Of the choice and of t-SNE.

    Returns
    -------
    matplotlib.figure.Figure

    Example
    -------
    >>> figure = embedding_map(np.ones((8, 4)))
    >>> figure.axes[0].get_title(loc="left")
    'All 8 embeddings are the same'
    """
    embeddings = np.asarray(embeddings, dtype=float)
    groups = None if groups is None else np.asarray(groups).astype(str)
    finite = np.isfinite(embeddings).all(axis=1)
    chosen = np.flatnonzero(finite)
    if len(chosen) > MAX_POINTS:
        rng = np.random.default_rng(seed)
        chosen = np.sort(rng.choice(chosen, MAX_POINTS, replace=False))
    embeddings = embeddings[chosen]
    groups = None if groups is None else groups[chosen]
    places, same = _lay_out(embeddings, seed)

    figure, ax = new_figure((5.0, 4.6))
    if same and len(places) > 1:
        title = f"All {len(places)} embeddings are the same"
    else:
        title = f"{len(places)} embeddings, t-SNE"
    if groups is None:
        ax.scatter(*places.T, s=9, color=BLUE, alpha=0.65, linewidths=0)
    else:
        title = _scatter_groups(ax, places, groups, group_name, title)
    if not len(places):
        _note(ax, "no finite embedding")
    ax.set_aspect("equal", adjustable="datalim")
    ax.set_xticks([])
    ax.set_yticks([])
    ax.grid(False)
    ax.spines[:].set_visible(False)
    label(
        ax,
        title,
        "t-SNE 1 (no unit)",
        "t-SNE 2 (no unit)",
    )
    return figure


def series(metrics, key, stage=None, x="step"):
    """One scalar of a run as arrays.

    Arguments
    ---------
    metrics : list of dict
        As ``read_metrics`` gives them.
    key : str
        The scalar.
    stage : str, optional
        Only lines of this stage count.
    x : str
        ``"step"`` or ``"epoch"``.

    Returns
    -------
    tuple of numpy.ndarray
        Places and values, NaN where the value was not finite; sorted.
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
    """The curve as it is, or its running mean in a band; returns its ends."""
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
    keep = _thin(np.arange(len(values)))
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


def _ordered_det(miss, alarm):
    """Rates from few false alarms to many, and the EER."""
    miss = np.asarray(miss, dtype=float).ravel()
    alarm = np.asarray(alarm, dtype=float).ravel()
    order = np.lexsort((-miss, alarm))
    miss, alarm = miss[order], alarm[order]
    gap = miss - alarm
    after = int(np.argmax(gap <= 0)) if (gap <= 0).any() else len(gap) - 1
    before = max(0, after - 1)
    step = gap[before] - gap[after]
    part = np.clip(gap[before] / step, 0, 1) if step > 0 else 1.0
    eer = miss[before] + part * (miss[after] - miss[before])
    return miss, alarm, float(eer)


def _probit(rates):
    """Quantiles of the normal distribution; 0 and 1 stay finite."""
    inverse = statistics.NormalDist().inv_cdf
    return np.array([inverse(r) for r in np.clip(rates, 1e-6, 1 - 1e-6)])


def _lay_out(embeddings, seed):
    """Places in the plane ``[N, 2]``, and whether all points are one."""
    count = len(embeddings)
    if count == 0:
        return np.zeros((0, 2)), True
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    unit = embeddings / np.maximum(norms, 1e-12)
    if count == 1 or np.ptp(unit, axis=0).max() < 1e-9:
        return np.zeros((count, 2)), True
    if count < 5:
        # Too few for t-SNE: the plane of largest variance.
        centred = unit - unit.mean(axis=0)
        left, scale, _ = np.linalg.svd(centred, full_matrices=False)
        places = np.zeros((count, 2))
        used = min(2, left.shape[1])
        places[:, :used] = left[:, :used] * scale[:used]
        return places, False
    # Costs a second to import and nothing else here needs it.
    from sklearn.manifold import TSNE

    tsne = TSNE(
        perplexity=min(30.0, (count - 1) / 3),
        init="pca" if unit.shape[1] >= 2 else "random",
        random_state=seed,
    )
    return tsne.fit_transform(unit), False


def _scatter_groups(ax, places, groups, group_name, title):
    """Draws the groups; returns the title with what the colours say."""
    names, counts = np.unique(groups, return_counts=True)
    names = names[np.argsort(-counts, kind="stable")]
    shown = names[:MAX_GROUPS]
    rest = ~np.isin(groups, shown)
    ax.scatter(*places[rest].T, s=7, color=MUTED, alpha=0.3, linewidths=0)
    palette = (*SERIES, INK)
    for i, name in enumerate(shown):
        ax.scatter(
            *places[groups == name].T,
            s=15,
            color=palette[i % len(palette)],
            marker=MARKERS[i // len(palette)],
            alpha=0.85,
            linewidths=0,
            label=_literal(name),
        )
    plural = f"{group_name}s" if len(names) != 1 else group_name
    if len(names) > MAX_GROUPS:
        return f"{title}; {MAX_GROUPS} of {len(names)} {plural} coloured"
    if 0 < len(names) <= 6:
        legend(ax)
    return f"{title}; {len(names)} {plural}"


def new_figure(size=SIZE):
    """An empty figure with one axes in house style."""
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    ax = figure.add_subplot()
    _style(ax)
    return figure, ax


def _style(ax):
    figure = ax.get_figure()
    figure.patch.set_alpha(0)
    ax.patch.set_alpha(0)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        ax.spines[side].set_color(MUTED)
    ax.tick_params(colors=MUTED, labelcolor=INK, labelsize=9.5, length=3)
    ax.grid(True, color=GRID, linewidth=0.8)
    ax.set_axisbelow(True)
    ax.margins(x=0.02)


def label(ax, title, xlabel, ylabel):
    """Title and axes in house style."""
    ax.set_title(
        title, loc="left", fontsize=10.5, fontweight="bold", color=INK, pad=8
    )
    if xlabel:
        ax.set_xlabel(xlabel, fontsize=10, color=INK)
    if ylabel:
        ax.set_ylabel(ylabel, fontsize=10, color=INK)


def legend(ax, loc="best"):
    """The legend in house style."""
    ax.legend(loc=loc, fontsize=9.5, frameon=False, labelcolor=INK)


def write_svg(path, figure):
    """Write a figure as an SVG file.

    The same figure gives the same bytes, so that a file in a repository
    changes only when its picture does.

    Arguments
    ---------
    path : str or pathlib.Path
        The file.
    figure : matplotlib.figure.Figure
        The figure.
    """
    with matplotlib.rc_context({"svg.hashsalt": "speechbrain_ssl"}):
        with atomic_write(path) as stream:
            figure.savefig(
                stream,
                format="svg",
                facecolor="white",
                metadata={"Date": None},
            )


def _note(ax, text):
    ax.text(
        0.5,
        0.5,
        text,
        transform=ax.transAxes,
        ha="center",
        va="center",
        color=MUTED,
        fontsize=11,
    )


def _thin(array):
    """At most ``MAX_DRAWN`` entries, evenly spaced, first and last kept."""
    if len(array) <= MAX_DRAWN:
        return array
    keep = np.linspace(0, len(array) - 1, MAX_DRAWN).round().astype(int)
    return array[keep]


def _cycle(colours):
    while True:
        yield from colours


def _literal(text):
    """Keeps matplotlib from reading a formula between two dollar signs."""
    return str(text).replace("$", r"\$")


def _short(value):
    return f"{value:.3g}"


def _thousands(value, _):
    if abs(value) >= 1e6:
        return f"{value / 1e6:g}M"
    return f"{value / 1e3:g}k" if abs(value) >= 1e4 else f"{value:g}"
