"""Make a decision threshold from utterances without labels.

Two halves of an utterance are of one speaker, and halves of two utterances
nearly always of two. But two halves also share a recording, so that they look
more alike than two recordings of one speaker do. The threshold is therefore
not where both kinds of pairs are confused equally often, but in the middle
between their medians. ``results/label_free_threshold`` compares this rule (our
own, chosen there with labels) with others.
"""

import numpy as np
from scipy.stats import norm

from speechbrain_ssl.embedding.rows import unit_rows

#: Where the threshold is from, for whoever reads it.
RULE = "made without labels, from halves of held-out utterances"

#: From fewer utterances a threshold is unreliable (the limit is ours).
FEW = 20

# A cosine of 1 has no inverse hyperbolic tangent.
_BOUND = 1 - 1e-6


def label_free_threshold(halves):
    """Compute a threshold, and what raises it for many comparisons.

    Arguments
    ---------
    halves : numpy.ndarray
        Embeddings ``[utterances, 2, size]`` of the first and second halves of
        at least two utterances, not centred.

    Returns
    -------
    dict
        ``label_free_threshold``, the cosine above which two recordings are
        taken for one speaker: the mean of the median score of the halves of
        one utterance and of the median score of two utterances, each the mean
        of its unit halves. ``label_free_median`` and ``label_free_decile``:
        that median score of two utterances, and the score that a tenth of
        their pairs exceed; see ``raise_for_many``.

    Raises
    ------
    EmbeddingError
        If an embedding is zero or not finite.

    Example
    -------
    >>> found = label_free_threshold(np.eye(8).reshape(4, 2, 8) + 1)
    >>> round(found["label_free_threshold"], 3)
    0.931
    """
    same, pairs = pair_scores(halves)
    median, decile = np.quantile(pairs, [0.5, 0.9])
    return {
        "label_free_threshold": float(np.median(same) + median) / 2,
        "label_free_median": float(median),
        "label_free_decile": float(decile),
    }


def pair_scores(halves):
    """Compute the scores that the threshold is made from.

    Arguments
    ---------
    halves : numpy.ndarray
        As ``label_free_threshold`` takes them.

    Returns
    -------
    tuple of numpy.ndarray
        Cosines of the two halves of each utterance, ``[N]``, and of each pair
        of utterances, ``[N (N - 1) / 2]``.
    """
    first, second = (unit_rows(halves[:, side]) for side in (0, 1))
    files = unit_rows(first + second)
    pairs = (files @ files.T)[np.triu_indices(len(files), 1)]
    return (first * second).sum(axis=1), pairs


def raise_for_many(threshold, median, decile, count):
    """Raise the threshold of a pair for the highest of many scores.

    A stranger is compared with everyone who is enrolled, and each score can be
    the one that is too high. If a share ``f`` of all pairs of utterances
    exceeds the threshold, a share ``1 - (1 - f) ** (1 / count)`` exceeds the
    raised one: the highest of ``count`` independent scores exceeds it as often
    as a single score exceeds the threshold.

    Both shares are those of a normal density of the inverse hyperbolic tangent
    of the scores, which has no bounds. Its tail is not measured, because there
    the utterances are often of one speaker.

    Arguments
    ---------
    threshold : float
        For one comparison.
    median, decile : float
        ``label_free_median`` and ``label_free_decile``.
    count : int
        Number of comparisons, at least 1.

    Returns
    -------
    float
        At least ``threshold``.

    Example
    -------
    >>> round(raise_for_many(0.3, 0.0, 0.3, 1), 3)
    0.3
    >>> round(raise_for_many(0.3, 0.0, 0.3, 20), 3)
    0.55
    """
    at, median, decile = np.arctanh(
        np.clip([threshold, median, decile], -_BOUND, _BOUND)
    )
    width = (decile - median) / norm.isf(0.1)
    if not width > 0:
        return threshold
    share = norm.sf(at, median, width)
    wanted = -np.expm1(np.log1p(-share) / count)
    return max(threshold, float(np.tanh(norm.isf(wanted, median, width))))
