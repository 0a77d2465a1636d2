"""Error rates of verification scores, exact and by one sort.

Conventions, for all of the module:

* A trial is accepted where ``score >= threshold``; higher means more alike.
* ``miss(threshold)`` is the share of targets that are rejected,
  ``false_alarm(threshold)`` the share of non-targets that are accepted.
* Both are step functions that change at the distinct scores only. The
  operating points are therefore one for each distinct score, and one more at
  infinity where everything is rejected. Trials of equal score are accepted or
  rejected together: no order among them is invented.

A curve is a pair of arrays ``miss`` (rising from 0 to 1) and ``false_alarm``
(falling from 1 to 0). What reads a curve (``eer_of_curve``,
``min_dcf_of_curve``) is apart from what makes one, so that the bootstrap can
make weighted curves and read them by the same definitions.
"""

import numpy as np

from speechbrain_ssl.errors import TrialError
from speechbrain_ssl.verification.trials import as_labels


def check_scores(scores, labels):
    """Turns scores and labels into arrays, and refuses what has no curve.

    Arguments
    ---------
    scores : array_like
        ``[T]``; a CPU tensor will do.
    labels : array_like
        ``[T]``; bool, or 1 for target and 0 for non-target.

    Returns
    -------
    tuple of numpy.ndarray
        The scores (floating, ``[T]``) and the labels (bool, ``[T]``).

    Raises
    ------
    TrialError
        If the lengths differ, a score is NaN, a label is neither 0 nor 1, or
        one of the classes is missing.

    Example
    -------
    >>> check_scores([1, 2], [0, 1])[1].tolist()
    [False, True]
    """
    scores, labels = np.asarray(scores), as_labels(labels)
    if scores.ndim != 1 or scores.shape != labels.shape:
        raise TrialError(
            "one score a trial is needed: the scores are of shape "
            f"{scores.shape}, the labels of shape {labels.shape}"
        )
    if not np.issubdtype(scores.dtype, np.floating):
        scores = scores.astype(np.float64)
    bad = int(np.isnan(scores).sum())
    if bad:
        raise TrialError(
            f"{bad} of {len(scores)} scores are NaN; look at the embeddings "
            "of those trials (an utterance of digital silence, a training "
            "that diverged)"
        )
    targets = int(labels.sum())
    if targets == 0 or targets == len(labels):
        raise TrialError(
            f"{targets} targets and {len(labels) - targets} non-targets: "
            "error rates need trials of both classes"
        )
    return scores, labels


def det_points(scores, labels):
    """Miss and false alarm rates at every distinct threshold.

    Arguments
    ---------
    scores : array_like
        ``[T]``; higher means more alike.
    labels : array_like
        ``[T]``; true for targets.

    Returns
    -------
    thresholds : numpy.ndarray
        float64 ``[P]``, the distinct scores ascending, and infinity.
    miss : numpy.ndarray
        float64 ``[P]``, from 0 to 1.
    false_alarm : numpy.ndarray
        float64 ``[P]``, from 1 to 0.

    Raises
    ------
    TrialError
        As ``check_scores``.

    Example
    -------
    >>> thresholds, miss, false_alarm = det_points(
    ...     [0.1, 0.4, 0.4, 0.8], [0, 0, 1, 1]
    ... )
    >>> thresholds.tolist()
    [0.1, 0.4, 0.8, inf]
    >>> miss.tolist(), false_alarm.tolist()
    ([0.0, 0.0, 0.5, 1.0], [1.0, 0.5, 0.0, 0.0])
    """
    scores, labels = check_scores(scores, labels)
    order = np.argsort(scores)
    ordered = scores[order]
    ends = last_of_equals(ordered)
    targets = np.cumsum(labels[order])[ends]
    others = ends + 1 - targets
    thresholds = np.append(ordered[ends].astype(np.float64), np.inf)
    return (thresholds, *curve_from_sums(targets, others))


def last_of_equals(ordered):
    """Where runs of equal values end.

    Arguments
    ---------
    ordered : numpy.ndarray
        ``[T]``, sorted.

    Returns
    -------
    numpy.ndarray
        int64, the last index of each run of equal values.

    Example
    -------
    >>> last_of_equals(np.array([1, 1, 2, 5, 5])).tolist()
    [1, 2, 4]
    """
    return np.append(
        np.flatnonzero(ordered[1:] != ordered[:-1]), len(ordered) - 1
    )


def curve_from_sums(targets, others):
    """Rates from cumulative counts (or weights) over rising scores.

    Arguments
    ---------
    targets, others : numpy.ndarray
        ``[P - 1]``; the number or weight of targets and of non-targets whose
        score is at most the respective distinct score. The last entries are
        the totals, which must not be zero.

    Returns
    -------
    miss, false_alarm : numpy.ndarray
        float64 ``[P]``.

    Example
    -------
    >>> miss, false_alarm = curve_from_sums(np.array([0, 2]), np.array([1, 1]))
    >>> miss.tolist(), false_alarm.tolist()
    ([0.0, 0.0, 1.0], [1.0, 0.0, 0.0])
    """
    miss = np.zeros(len(targets) + 1)
    false_alarm = np.ones(len(others) + 1)
    np.divide(targets, targets[-1], out=miss[1:])
    # Dividing what is left, not subtracting from one, keeps the ends exact.
    np.divide(others[-1] - others, others[-1], out=false_alarm[1:])
    return miss, false_alarm


def eer_of_curve(miss, false_alarm):
    """Equal error rate of a curve; the definition is in ``eer``.

    Arguments
    ---------
    miss, false_alarm : numpy.ndarray
        ``[P]``, in the order of rising thresholds.

    Returns
    -------
    float
        In ``[0, 1]``.

    Example
    -------
    >>> eer_of_curve(np.array([0, 0.2, 1]), np.array([1, 0.2, 0]))
    0.2
    """
    return _crossing(miss, false_alarm)[0]


def _crossing(miss, false_alarm):
    """The equal error rate, and the index of the operating point nearest it."""
    gap = false_alarm - miss
    # The gap never rises; it is 1 at the first point and -1 at the last.
    after = int(np.argmax(gap < 0))
    before = after - 1
    share = gap[before] / (gap[before] - gap[after])
    rate = miss[before] + share * (miss[after] - miss[before])
    # The last point (gap -1, threshold infinity) is never strictly nearer.
    nearest = after if -gap[after] < gap[before] else before
    return float(rate), nearest


def eer(scores, labels):
    """Equal error rate, and a threshold for it.

    The operating points are those of ``det_points``. On real lists none of
    them has a miss rate that equals its false alarm rate, so a convention is
    needed. Here: consecutive points are joined by straight lines (the usual
    piecewise linear ROC, *not* its convex hull), and the equal error rate is
    the ordinate where that line meets ``miss == false_alarm``. With ``k`` the
    last point where ``gap = false_alarm - miss`` is not negative,

        share = gap[k] / (gap[k] - gap[k + 1])
        eer = miss[k] + share * (miss[k + 1] - miss[k])

    The result is invariant under any strictly increasing transform of the
    scores and under permutation of the trials. It is 0.5 if all scores are
    equal and may exceed 0.5 if the scores are worse than chance. It differs
    from the mean of both rates at the nearest threshold (SpeechBrain's
    ``EER``) by at most half the larger step of the two curves at the crossing;
    without ties a step is one trial of one class.

    Arguments
    ---------
    scores : array_like
        ``[T]``; higher means more alike.
    labels : array_like
        ``[T]``; true for targets.

    Returns
    -------
    rate : float
        In ``[0, 1]`` (times 100 for percent).
    threshold : float
        The score at which, with ``score >= threshold`` accepting, the two
        rates are nearest to each other; the lower one of two equally near. It
        is one of the scores, never infinity.

    Raises
    ------
    TrialError
        As ``check_scores``.

    Example
    -------
    >>> eer([0.1, 0.2, 0.6, 0.5, 0.8, 0.9], [0, 0, 0, 1, 1, 1])[1]
    0.6
    >>> round(eer([0.1, 0.2, 0.6, 0.5, 0.8, 0.9], [0, 0, 0, 1, 1, 1])[0], 4)
    0.3333
    >>> eer([0.3, 0.3, 0.3], [1, 0, 0])
    (0.5, 0.3)
    """
    thresholds, miss, false_alarm = det_points(scores, labels)
    rate, nearest = _crossing(miss, false_alarm)
    return rate, float(thresholds[nearest])


def min_dcf_of_curve(miss, false_alarm, p_target=0.01, c_miss=1.0, c_fa=1.0):
    """Minimal detection cost of a curve; the definition is in ``min_dcf``.

    Arguments
    ---------
    miss, false_alarm : numpy.ndarray
        ``[P]``, in the order of rising thresholds.
    p_target, c_miss, c_fa : float
        As in ``min_dcf``.

    Returns
    -------
    float
        In ``[0, 1]``.

    Raises
    ------
    ValueError
        If ``p_target`` is not between 0 and 1 or a cost is not positive.

    Example
    -------
    >>> min_dcf_of_curve(np.array([0, 0.25, 1]), np.array([1, 0, 0]))
    0.25
    """
    if not (0 < p_target < 1 and c_miss > 0 and c_fa > 0):
        raise ValueError(
            "p_target lies between 0 and 1 and the costs are positive; got "
            f"p_target={p_target}, c_miss={c_miss}, c_fa={c_fa}"
        )
    reject_all, accept_all = c_miss * p_target, c_fa * (1 - p_target)
    cost = reject_all * miss + accept_all * false_alarm
    return float(cost.min() / min(reject_all, accept_all))


def min_dcf(scores, labels, p_target=0.01, c_miss=1.0, c_fa=1.0):
    """Minimum of the detection cost over all thresholds, normalised.

        cost(t) = c_miss * p_target * miss(t)
                  + c_fa * (1 - p_target) * false_alarm(t)
        min_dcf = min over t of cost(t)
                  / min(c_miss * p_target, c_fa * (1 - p_target))

    The denominator is the cost of the better one of the two systems that do
    not listen (reject everything, accept everything), so that 1 means useless
    and figures at different ``p_target`` can be compared. It is what papers
    and NIST report. SpeechBrain's ``minDCF`` leaves the division out.

    Arguments
    ---------
    scores : array_like
        ``[T]``; higher means more alike.
    labels : array_like
        ``[T]``; true for targets.
    p_target : float
        Prior probability of a target.
    c_miss, c_fa : float
        Costs of a miss and of a false alarm.

    Returns
    -------
    float
        In ``[0, 1]``.

    Raises
    ------
    TrialError
        As ``check_scores``.
    ValueError
        As ``min_dcf_of_curve``.

    Example
    -------
    >>> min_dcf([0.1, 0.2, 0.6, 0.5, 0.8, 0.9, 1.0], [0, 0, 0, 1, 1, 1, 1])
    0.25
    """
    _, miss, false_alarm = det_points(scores, labels)
    return min_dcf_of_curve(miss, false_alarm, p_target, c_miss, c_fa)
