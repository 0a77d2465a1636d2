"""Write the page of a downstream task, with its confusion matrix."""

import pathlib

import matplotlib
import numpy as np

from speechbrain_ssl.report import blocks
from speechbrain_ssl.report.page import build_report
from speechbrain_ssl.report.style import (
    BLUE,
    INK,
    blank_figure,
    label,
    literal,
    write_svg,
)

PICTURE = "confusion.svg"


def confusion_figure(confusion, classes, title=None):
    """Draw the confusion matrix, with a row for each true class.

    The colour and the large number show the share of the row in percent; the
    small number is the count of utterances.

    Arguments
    ---------
    confusion : array_like
        Counts ``[classes, classes]``, with the true class in rows.
    classes : list of str
        Names of the classes.
    title : str, optional
        By default, the most frequent mistake.

    Returns
    -------
    matplotlib.figure.Figure

    Example
    -------
    >>> figure = confusion_figure([[8, 2], [0, 5]], ["angry", "sad"])
    >>> figure.axes[0].get_title(loc="left")
    'angry is taken for sad in 20 %, the most frequent mistake'
    """
    counts = np.asarray(confusion, dtype=float)
    total = counts.sum(1, keepdims=True)
    share = np.divide(
        100 * counts, total, out=np.zeros_like(counts), where=total > 0
    )
    side = 1.6 + 0.62 * len(classes)
    figure = blank_figure((max(4.2, side), side))
    ax = figure.add_subplot()
    ax.patch.set_alpha(0)
    for (row, column), value in np.ndenumerate(share):
        ax.add_patch(
            matplotlib.patches.Rectangle(
                (column - 0.48, row - 0.48),
                0.96,
                0.96,
                color=BLUE,
                # Light enough that dark digits stay legible at 100 %.
                alpha=0.04 + 0.66 * value / 100,
                linewidth=0,
            )
        )
        ax.text(column, row - 0.1, f"{value:.0f}", **_text(11))
        ax.text(column, row + 0.25, f"{counts[row, column]:.0f}", **_text(7))
    ax.set(
        xlim=(-0.5, len(classes) - 0.5),
        ylim=(len(classes) - 0.5, -0.5),
        aspect="equal",
    )
    names = [literal(name) for name in classes]
    ax.set_xticks(range(len(names)), names, rotation=45, ha="right")
    ax.set_yticks(range(len(names)), names)
    ax.tick_params(length=0, labelcolor=INK, labelsize=9.5)
    ax.spines[:].set_visible(False)
    title = title or _largest_mistake(share, classes)
    label(ax, title, "taken for", "truth")
    return figure


def _text(size):
    return {"ha": "center", "va": "center", "fontsize": size, "color": INK}


def _largest_mistake(share, classes):
    off = share - np.diag(np.diag(share))
    row, column = np.unravel_index(np.argmax(off), off.shape)
    if off[row, column] == 0:
        return "No mistake at all"
    return (
        f"{classes[row]} is taken for {classes[column]} in "
        f"{off[row, column]:.0f} %, the most frequent mistake"
    )


def write_confusion(path, confusion, classes, title=None):
    """Write the confusion matrix as an SVG file, without a date.

    Arguments
    ---------
    path : str or pathlib.Path
        The file.
    confusion, classes, title
        See ``confusion_figure``.
    """
    write_svg(path, confusion_figure(confusion, classes, title))


_CAPTION = (
    "Each row is a true class, and sums to 100 %; the small numbers count "
    "utterances. It has only utterances of speakers that were not trained on. "
    "The diagonal should be darkest. A bad sign is one dark column: "
    "everything is taken for one class."
)


def build_downstream_report(output_folder, title, confusion, classes):
    """Write ``confusion.svg`` and ``report.html``.

    Arguments
    ---------
    output_folder : str or pathlib.Path
        The folder of the run, with its ``results.json``.
    title : str
        Heading of the page.
    confusion, classes
        See ``confusion_figure``.

    Returns
    -------
    pathlib.Path
        The page.
    """
    folder = pathlib.Path(output_folder)
    write_confusion(folder / PICTURE, confusion, classes)
    section = blocks.section(
        "What is taken for what",
        blocks.grid(
            [blocks.picture(confusion_figure(confusion, classes), _CAPTION)]
        ),
    )
    return build_report(folder, title=title, extra_sections=[section])
