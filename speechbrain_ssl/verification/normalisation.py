"""Normalise scores by those of a cohort: z-, t-, s- and adaptive s-norm.

Some utterances score high with every speaker. Their scores are therefore
compared with those that they get with a cohort of other speakers: the mean is
subtracted, and the difference divided by the standard deviation.

* z-norm: by the cohort scores of the left (enrolment) side of a trial,
* t-norm: by those of the right (test) side,
* s-norm: the mean of both (Kenny, *Bayesian speaker verification with
  heavy-tailed priors*, 2010),
* adaptive s-norm: s-norm over the ``top`` highest cohort scores of each side
  (AS-norm1 of Matejka et al., *Analysis of score normalization in multilingual
  speaker recognition*, 2017, section 2).

No label is needed: the cohort consists of training utterances, or of the
centroids of their clusters. Several of these utterances may be of one speaker,
which only makes a large cohort a little redundant.

Mean and deviation belong to an utterance, not to a trial, so they are computed
once, however many trials name the utterance. Over a whole cohort they follow
from the cohort's mean and covariance, without a single cohort score; over the
highest scores they need the scores, which are computed and dropped in blocks.
"""

import numpy as np

from speechbrain_ssl.embedding.rows import refuse_rows
from speechbrain_ssl.errors import ConfigError, EmbeddingError

KINDS = ("z", "t", "s")

# A deviation below this (of scores in [-1, 1]) is rounding error.
_ROUNDING = 1e-6


def cohort_statistics(rows, cohort, top=None, names=None, block=2**27):
    """Compute mean and deviation of the cohort scores of every utterance.

    Arguments
    ---------
    rows : numpy.ndarray
        ``[U, D]``; the inner product of two rows is their score (rows of
        length one for the cosine).
    cohort : numpy.ndarray
        ``[C, D]``, of the same kind.
    top : int, optional
        Number of highest scores of each utterance that are used; all if not
        given.
    names : sequence of str, optional
        ``[U]``, for messages.
    block : int
        Upper bound of the bytes of cohort scores at a time (but at least the
        scores of one utterance).

    Returns
    -------
    tuple of numpy.ndarray
        Means and deviations (with ``n - 1`` in the denominator), float64
        ``[U]``.

    Raises
    ------
    ConfigError
        If the cohort has fewer than two rows, or ``top`` is not from 2 to the
        size of the cohort.
    EmbeddingError
        If the shapes do not fit, a number is not finite, or all scores used
        for an utterance are the same.

    Example
    -------
    >>> mean, deviation = cohort_statistics(
    ...     np.array([[1.0, 0.0]]), np.array([[1.0, 0], [0, 1], [0.5, 0]]), 2
    ... )
    >>> mean.tolist(), deviation.round(3).tolist()
    ([0.75], [0.354])
    """
    rows, cohort = np.asarray(rows), np.asarray(cohort)
    _check(rows, cohort, top)
    if top is None or top == len(cohort):
        mean, deviation = _of_all(rows, cohort)
    else:
        mean, deviation = _of_highest(rows, cohort, top, block)
    refuse_rows(
        ~(deviation > _ROUNDING),
        names,
        "has the same score with all of the cohort (is one utterance repeated "
        "in it, or has the encoder collapsed?)",
    )
    return mean, deviation


def _check(rows, cohort, top):
    """Raise for tables of different widths, NaN, or too small a cohort."""
    if rows.ndim != 2 or cohort.ndim != 2 or rows.shape[1] != cohort.shape[1]:
        raise EmbeddingError(
            "utterances and cohort must be tables of one width; got shapes "
            f"{rows.shape} and {cohort.shape}"
        )
    for name, table in (("utterances", rows), ("cohort", cohort)):
        # The sum is finite only where every number is.
        if not np.isfinite(table.sum(dtype=np.float64)):
            raise EmbeddingError(
                f"the embeddings of the {name} hold NaN or infinite numbers"
            )
    check_cohort_size(len(cohort), top)


def check_cohort_size(size, top=None):
    """Raise if a cohort is too small.

    Arguments
    ---------
    size : int
        Number of members of the cohort.
    top : int, optional
        As in ``cohort_statistics``.

    Raises
    ------
    ConfigError
        If there are fewer than two, or ``top`` is not from 2 to ``size``.

    Example
    -------
    >>> check_cohort_size(20000, top=300)
    """
    if size < 2:
        raise ConfigError(
            f"a cohort of {size} has no deviation to divide by; score "
            "normalisation needs hundreds of utterances or clusters: give "
            "more training utterances"
        )
    if top is not None and not 2 <= top <= size:
        raise ConfigError(
            f"top is {top}: it must be at least 2 and at most the size of the "
            f"cohort, {size}; lower `top` or enlarge the cohort"
        )


def _of_all(rows, cohort):
    """Compute statistics from the cohort's moments, without any score."""
    center = cohort.mean(axis=0, dtype=np.float64)
    residual = cohort - center
    covariance = residual.T @ residual / (len(cohort) - 1)
    rows = rows.astype(np.float64)
    variance = np.einsum("ud,ud->u", rows @ covariance, rows)
    return rows @ center, np.sqrt(np.maximum(variance, 0))


def _of_highest(rows, cohort, top, block):
    """Compute statistics from the scores, some utterances at a time."""
    size = len(cohort)
    dtype = np.result_type(rows, cohort)
    step = min(len(rows), max(1, block // (size * dtype.itemsize)))
    # One buffer for all blocks: allocating costs as much as the product.
    buffer = np.empty((step, size), dtype=dtype)
    mean, deviation = np.empty((2, len(rows)))
    for begin in range(0, len(rows), step):
        part = rows[begin : begin + step]
        scores = np.matmul(part, cohort.T, out=buffer[: len(part)])
        scores.partition(size - top, axis=1)
        highest = scores[:, size - top :].astype(np.float64)
        mean[begin : begin + step] = highest.mean(axis=1)
        deviation[begin : begin + step] = highest.std(axis=1, ddof=1)
    return mean, deviation


def check_kind(kind):
    """Raise a ``ConfigError`` unless there is a norm of this name."""
    if kind not in KINDS:
        raise ConfigError(
            f"there is no score normalisation '{kind}'; take one of "
            f"{', '.join(KINDS)}"
        )


def normalise_scores(scores, trials, mean, deviation, kind="s"):
    """Normalise scores by the cohort statistics of their two sides.

    Arguments
    ---------
    scores : numpy.ndarray
        ``[T]``.
    trials : Trials
        The trials.
    mean, deviation : numpy.ndarray
        ``[U]``, from ``cohort_statistics``; over the highest scores this is
        the adaptive norm.
    kind : str
        ``"z"``, ``"t"`` or ``"s"``.

    Returns
    -------
    numpy.ndarray
        float64 ``[T]``.

    Raises
    ------
    ConfigError
        If ``kind`` is none of these.

    Example
    -------
    >>> from speechbrain_ssl.verification.trials import Trials
    >>> trials = Trials([1], [0], [1], ["a/1", "a/2"])
    >>> mean, deviation = np.array([0.1, 0.2]), np.array([0.1, 0.2])
    >>> for kind in KINDS:
    ...     normalise_scores([0.6], trials, mean, deviation, kind).round(6)
    array([5.])
    array([2.])
    array([3.5])
    """
    check_kind(kind)
    scores = np.asarray(scores, dtype=np.float64)
    sides = {"z": (trials.left,), "t": (trials.right,)}.get(
        kind, (trials.left, trials.right)
    )
    return sum((scores - mean[side]) / deviation[side] for side in sides) / len(
        sides
    )


def cohort_centroids(rows, clusters):
    """Compute the centroid of each cluster, scaled to length one.

    Arguments
    ---------
    rows : numpy.ndarray
        ``[N, D]``, of length one.
    clusters : array_like
        int ``[N]``; a negative number stands for no cluster.

    Returns
    -------
    numpy.ndarray
        ``[K, D]``, of length one and of the type of ``rows``, in the order of
        the cluster numbers that occur.

    Raises
    ------
    ConfigError
        If no row has a cluster, or there is not one number for each row.
    EmbeddingError
        If the members of a cluster cancel out.

    Example
    -------
    >>> rows = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    >>> cohort_centroids(rows, [5, 5, 2]).round(3).tolist()
    [[0.0, -1.0], [0.707, 0.707]]
    """
    rows, number, count = members(rows, clusters)
    sums = cluster_sums(rows, number, len(count))
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    if (lengths <= _ROUNDING).any():
        raise EmbeddingError(
            "the members of a cluster point in opposite directions, so that "
            "it has no centroid; use the utterances as cohort"
        )
    return (sums / lengths).astype(rows.dtype)


def members(rows, clusters):
    """Select the rows that are in a cluster, and number clusters from 0.

    Arguments
    ---------
    rows : numpy.ndarray
        ``[N, D]``.
    clusters : array_like
        int ``[N]``; negative where a row is in none.

    Returns
    -------
    tuple
        Rows ``[M, D]``, their clusters ``[M]`` and sizes ``[K]``.

    Raises
    ------
    ConfigError
        As ``cohort_centroids``.

    Example
    -------
    >>> _, number, sizes = members(np.eye(4), [7, -1, 3, 7])
    >>> number.tolist(), sizes.tolist()
    ([1, 0, 1], [1, 2])
    """
    clusters = np.asarray(clusters)
    if clusters.shape != (len(rows),):
        raise ConfigError(
            f"{len(rows)} embeddings but clusters of shape {clusters.shape}: "
            "the pseudo labels are of another list of utterances"
        )
    inside = clusters >= 0
    if not inside.any():
        raise ConfigError(
            "no utterance has a cluster; are the pseudo labels of other "
            "utterances than the training manifest?"
        )
    _, number, sizes = np.unique(
        clusters[inside], return_inverse=True, return_counts=True
    )
    return rows[inside], number, sizes


def cluster_sums(rows, number, clusters):
    """Sum the rows of each cluster, float64 ``[clusters, D]``.

    Arguments
    ---------
    rows : numpy.ndarray
        ``[N, D]``.
    number : numpy.ndarray
        int ``[N]``, from 0 to ``clusters - 1``; each occurs.
    clusters : int
        Number of clusters.

    Returns
    -------
    numpy.ndarray

    Example
    -------
    >>> cluster_sums(np.array([[1.0], [2.0], [4.0]]), np.array([1, 0, 1]), 2)
    array([[2.],
           [5.]])
    """
    order = np.argsort(number, kind="stable")
    begins = np.searchsorted(number[order], np.arange(clusters))
    return np.add.reduceat(rows[order], begins, axis=0, dtype=np.float64)
