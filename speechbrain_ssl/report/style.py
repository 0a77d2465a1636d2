"""Define the style of all figures: colours, fonts, axes, legends.

pyplot is not used, so that a figure belongs to its caller and no global state
changes. Every colour comes from the palette below, from which ``blocks`` knows
the colours to replace in dark mode.

The hues are those of Okabe and Ito, which can be told apart with all common
forms of colour blindness.
"""

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from speechbrain_ssl.files import atomic_write

INK = "#1b2430"
MUTED = "#5c6672"
GRID = "#e3e7ec"
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
BLUE, RED = SERIES[:2]

# More points than a figure has pixels only make the page larger.
MAX_DRAWN = 300

# At 5 inches the text is still legible when a phone's width is filled.
SIZE = (5.0, 3.3)
SQUARE = (5.0, 4.6)

DASHED = {"color": INK, "linewidth": 1.1, "linestyle": (0, (5, 3))}


def blank_figure(size):
    """Create a transparent figure without axes.

    Arguments
    ---------
    size : tuple of float
        Width and height in inches.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    figure.patch.set_alpha(0)
    return figure


def new_figure(size=SIZE):
    """Create a figure with one axes in the style of this module.

    Arguments
    ---------
    size : tuple of float
        Width and height in inches.

    Returns
    -------
    tuple
        The figure and its axes.
    """
    figure = blank_figure(size)
    ax = figure.add_subplot()
    style_axes(ax)
    return figure, ax


def style_axes(ax):
    """Apply the style to axes: two spines, a light grid, small ticks."""
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
    """Set the title and, unless they are empty, the labels of the axes."""
    ax.set_title(
        title, loc="left", fontsize=10.5, fontweight="bold", color=INK, pad=8
    )
    if xlabel:
        ax.set_xlabel(xlabel, fontsize=10, color=INK)
    if ylabel:
        ax.set_ylabel(ylabel, fontsize=10, color=INK)


def legend(ax, loc="best"):
    """Add a legend without a frame."""
    ax.legend(loc=loc, fontsize=9.5, frameon=False, labelcolor=INK)


def note(ax, text):
    """Write a text in the middle of axes that have nothing to show."""
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


def thin(array):
    """Keep at most ``MAX_DRAWN`` entries, evenly spaced, with both ends."""
    if len(array) <= MAX_DRAWN:
        return array
    keep = np.linspace(0, len(array) - 1, MAX_DRAWN).round().astype(int)
    return array[keep]


def literal(text):
    r"""Return a name as matplotlib can draw it, whatever its characters.

    What stands between two dollar signs would be read as a formula, and a lone
    surrogate (of a name that is not UTF-8) cannot be drawn.

    Example
    -------
    >>> print(literal("$caf\udce9"))
    \$caf\udce9
    """
    text = str(text).encode("utf-8", "backslashreplace").decode()
    return text.replace("$", r"\$")


def thousands(value, _):
    """Format a tick: 20000 as ``20k``, 2000000 as ``2M``."""
    if abs(value) >= 1e6:
        return f"{value / 1e6:g}M"
    return f"{value / 1e3:g}k" if abs(value) >= 1e4 else f"{value:g}"


def write_svg(path, figure):
    """Write a figure as an SVG file.

    The same figure gives the same bytes, so that a file in a repository
    changes only if the figure does.

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
