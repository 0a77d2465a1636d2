"""Compare several systems on the same trials, on a page with their DET curves.

The input is the score files of ``evaluate.py``, with a trial and its score in
each line. All metrics are computed again from them, in the same way. The trials
of a list are the same for all systems, and so are the speakers that the
bootstrap draws: the interval of a *difference* is far narrower than those of
the two rates suggest.
"""

import pathlib

import numpy as np

from speechbrain_ssl.errors import TrialError
from speechbrain_ssl.report.blocks import (
    escape,
    grid,
    picture,
    section,
    table,
    write_page,
)
from speechbrain_ssl.report.evaluations import difference_text
from speechbrain_ssl.report.trial_figures import det_curves
from speechbrain_ssl.verification.bootstrap import paired_difference
from speechbrain_ssl.verification.evaluation import evaluate_scores
from speechbrain_ssl.verification.label_free_comparison import (
    BETTER,
    UNCLEAR,
    WORSE,
)
from speechbrain_ssl.verification.metrics import det_points
from speechbrain_ssl.verification.trial_layouts import fields_of
from speechbrain_ssl.verification.trials import Trials


def read_scores(path):
    """Read a score file.

    Arguments
    ---------
    path : str or pathlib.Path
        Text file with lines of label, utterance, utterance and score.

    Returns
    -------
    tuple
        ``Trials`` and scores, float64 ``[T]``.

    Raises
    ------
    TrialError
        If the file is missing or empty, or a line is malformed.

    Example
    -------
    >>> import tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "scores.txt"
    >>> _ = path.write_text("1 a/1 a/2 0.5\\n0 a/1 b/1 -0.25\\n")
    >>> trials, scores = read_scores(path)
    >>> trials.names, scores.tolist()
    (['a/1', 'a/2', 'b/1'], [0.5, -0.25])
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise TrialError(f"there is no score file {path}")
    labels, left, right, scores, numbers = [], [], [], [], {}
    with open(path, encoding="utf-8") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                label, a, b, score = fields_of(line)
                labels.append({"1": True, "0": False}[label])
                scores.append(float(score))
            except (ValueError, KeyError):
                raise TrialError(
                    f"{path}, line {number}: '{line.strip()[:100]}' is not a "
                    "scored trial; expected '1 a.wav b.wav 0.5'"
                ) from None
            left.append(numbers.setdefault(a, len(numbers)))
            right.append(numbers.setdefault(b, len(numbers)))
    if not scores:
        raise TrialError(f"the score file {path} is empty")
    return Trials(labels, left, right, list(numbers)), np.array(scores)


def read_systems(paths):
    """Read the score files of several systems on one list.

    Arguments
    ---------
    paths : dict
        Name of a system to its score file.

    Returns
    -------
    tuple
        ``Trials``, and a dict of names to scores ``[T]``.

    Raises
    ------
    TrialError
        As ``read_scores``, and if the files differ in their trials or in the
        order of these.
    """
    trials, scores, first = None, {}, None
    for name, path in paths.items():
        own, scores[name] = read_scores(path)
        if trials is None:
            trials, first = own, path
        elif not _same(trials, own):
            raise TrialError(
                f"{path} and {first} hold scores of different trials; systems "
                "can be compared on one list only"
            )
    return trials, scores


def _same(one, other):
    return one.names == other.names and all(
        np.array_equal(getattr(one, column), getattr(other, column))
        for column in ("labels", "left", "right")
    )


def compare(trials, scores, replicates=1000, seed=0):
    """Compute the metrics of all systems and their differences from the first.

    Arguments
    ---------
    trials : Trials
        The trials.
    scores : dict
        Name to scores ``[T]``.
    replicates, seed : int
        Replicates and seed of the bootstrap; with 0 replicates there are no
        intervals.

    Returns
    -------
    list of dict
        The results of ``evaluate_scores``, with ``system`` and, from the
        second on, ``difference``, ``difference_low`` and ``difference_high``
        of the equal error rates (percent), and ``verdict``: ``"better"`` or
        ``"worse"`` than the first if the interval is below or above zero, else
        ``"not distinguishable"``. Without a bootstrap, the interval and the
        verdict are None.

    Raises
    ------
    TrialError
        As ``evaluate_scores``.
    """
    rows = []
    for name, found in scores.items():
        row = {
            "system": name,
            **evaluate_scores(found, trials, replicates, seed),
        }
        if rows:
            row["difference"] = row["eer_percent"] - rows[0]["eer_percent"]
            low = high = verdict = None
            if replicates:
                reference = next(iter(scores.values()))
                _, interval = paired_difference(
                    reference, found, trials, replicates=replicates, seed=seed
                )
                low, high = 100 * interval.low, 100 * interval.high
                verdict = UNCLEAR
                if high < 0:
                    verdict = BETTER
                elif low > 0:
                    verdict = WORSE
            row["difference_low"], row["difference_high"] = low, high
            row["verdict"] = verdict
        rows.append(row)
    return rows


def write_comparison(path, lists, title="Systems compared"):
    """Write one page with the DET curves of all systems on each list.

    Arguments
    ---------
    path : str or pathlib.Path
        The HTML file.
    lists : dict
        Name of a list to a tuple of ``Trials``, scores (dict) and rows, as
        ``read_systems`` and ``compare`` return them.
    title : str
        Heading of the page.
    """
    sections = []
    for name, (trials, scores, rows) in lists.items():
        points = {
            system: det_points(found, trials.labels)[1:]
            for system, found in scores.items()
        }
        counts = (
            f"{len(trials)} trials, {int(trials.labels.sum())} of them targets"
        )
        if rows[0]["speakers"] is not None:
            counts += f", {rows[0]['speakers']} speakers"
        drawing = picture(
            det_curves(points),
            "Each point is a threshold; nearer to the lower left corner is "
            "better, and the dot is where both errors are equal. Where curves "
            "cross, which system is better depends on the use.",
        )
        # The figure comes first: the page has no space between the two.
        body = f"<p>{escape(counts)}.</p>\n{grid([drawing])}\n{_table(rows)}"
        sections.append(section(name, body))
    write_page(path, title, sections)


def _table(rows):
    """Format the metrics as an HTML table."""
    header = ["system", "EER %", "minDCF 0.01", "minDCF 0.05"]
    header.append(f"EER less that of {rows[0]['system']}")
    cells = []
    for row in rows:
        rate = f"{row['eer_percent']:.2f}"
        if row["ci_low"] is not None:
            rate += f" [{row['ci_low']:.2f}, {row['ci_high']:.2f}]"
        cells.append(
            [
                row["system"],
                rate,
                f"{row['min_dcf_0.01']:.3f}",
                f"{row['min_dcf_0.05']:.3f}",
                difference_text(row),
            ]
        )
    return table(header, cells, ' style="margin-top: 1rem"')
