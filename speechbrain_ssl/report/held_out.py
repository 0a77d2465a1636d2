"""Show the held-out utterances: scores of pairs without labels, and a map."""

import numpy as np

from speechbrain_ssl.clustering.speakers import by_size, find_speakers
from speechbrain_ssl.distributed import single_process
from speechbrain_ssl.embedding.rows import unit_or_zero
from speechbrain_ssl.report.blocks import grid, picture
from speechbrain_ssl.report.embedding_map import embedding_map
from speechbrain_ssl.report.trial_figures import score_histogram
from speechbrain_ssl.verification.label_free_threshold import pair_scores

_HISTOGRAM = (
    "Scores of the two halves of each held-out file, and of each pair of files. "
    "Two halves share a recording, so that they are more alike than two "
    "recordings of one speaker; and a few pairs of files are of one speaker. The "
    "threshold is therefore in the middle between the two medians. Bad signs: "
    "both heaped at the right end (embeddings all alike, collapse), or heaps "
    "that lie on each other."
)
_MAP = (
    "The groups are those that speechbrain-ssl cluster finds among these files: "
    "they show what the model tells apart, not who speaks. Bad signs: one even "
    "cloud, or a single point (collapse)."
)


def held_out_figures(names, halves, threshold):
    """Draw the scores of pairs of held-out utterances, and their embeddings.

    Arguments
    ---------
    names : list of str
        Their ``N`` names.
    halves : numpy.ndarray
        ``[N, 2, size]``, at least two, as ``label_free_threshold`` takes them.
    threshold : float
        What it returned.

    Returns
    -------
    str
        HTML.

    Example
    -------
    >>> halves = np.eye(8).reshape(4, 2, 8) + 1
    >>> "threshold 0.931" in held_out_figures(list("abcd"), halves, 0.931)
    True
    """
    same, pairs = pair_scores(halves)
    low = 100 * np.mean(same < threshold)
    high = 100 * np.mean(pairs >= threshold)
    histogram = picture(
        score_histogram(
            np.concatenate([pairs, same]),
            np.repeat([False, True], [len(pairs), len(same)]),
            threshold,
            f"{low:.1f} % of the files have halves below the threshold, "
            f"{high:.1f} % of the pairs are above",
            ("two files", "halves of one file"),
        ),
        _HISTOGRAM,
    )
    rows = unit_or_zero(unit_or_zero(halves).sum(axis=1))
    groups = None
    if len(rows) >= 4:  # of fewer the number of groups is not estimated
        # The page is written by one process of several.
        with single_process():
            groups = by_size(find_speakers(rows))
    return grid([histogram, embedding_map(rows, names, groups, caption=_MAP)])
