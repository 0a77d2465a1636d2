"""Compute exact error rates of verification scores, with a single sort.

The conventions are those of ``speechbrain_ssl.verification.scored_trials``.
Functions that read a curve (``eer_of_curve``, ``min_dcf_of_curve``) are
separate from those that compute one, so that the bootstrap can compute weighted
curves and read them by the same definitions.
"""

import numpy as np

from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.verification.scored_trials import ScoredTrials


def det_points(scores, labels=None):
    """Compute miss and false alarm rates at every distinct threshold.

    Arguments
    ---------
    scores : ScoredTrials or array_like
        ``[T]``; higher means more alike.
    labels : array_like, optional
        ``[T]``; true for targets. Not needed with ``ScoredTrials``.

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
        As ``ScoredTrials``.

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
    return ScoredTrials.of(scores, labels).det_points


def eer_of_curve(miss, false_alarm):
    """Compute the equal error rate of a curve, as ``eer`` defines it.

    Arguments
    ---------
    miss, false_alarm : numpy.ndarray
        ``[P]``, in the order of rising thresholds, with both ends.

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
    """Return the equal error rate and the index of the nearest point."""
    gap = false_alarm - miss
    # The gap never rises; it is 1 at the first point and -1 at the last.
    after = int(np.argmax(gap < 0))
    before = after - 1
    share = gap[before] / (gap[before] - gap[after])
    rate = miss[before] + share * (miss[after] - miss[before])
    # The last point (gap -1, threshold infinity) is never strictly nearer.
    nearest = after if -gap[after] < gap[before] else before
    return float(rate), nearest


def eer(scores, labels=None):
    """Compute the equal error rate and a threshold for it.

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
    scores : ScoredTrials or array_like
        ``[T]``; higher means more alike.
    labels : array_like, optional
        ``[T]``; true for targets. Not needed with ``ScoredTrials``.

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
        As ``ScoredTrials``.

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


def operating_costs(p_target=0.01, c_miss=1.0, c_fa=1.0):
    """Compute the costs of rejecting and of accepting every trial.

    Arguments
    ---------
    p_target : float
        Prior probability of a target.
    c_miss, c_fa : float
        Costs of a miss and of a false alarm.

    Returns
    -------
    reject_all, accept_all : float
        ``c_miss * p_target`` and ``c_fa * (1 - p_target)``. The lesser one
        normalises detection costs.

    Raises
    ------
    ConfigError
        If ``p_target`` is not between 0 and 1 or a cost is not positive.

    Example
    -------
    >>> operating_costs(0.25)
    (0.25, 0.75)
    """
    if not (0 < p_target < 1 and c_miss > 0 and c_fa > 0):
        raise ConfigError(
            "an operating point has p_target between 0 and 1 and positive "
            f"costs; got p_target={p_target}, c_miss={c_miss}, c_fa={c_fa}"
        )
    return c_miss * p_target, c_fa * (1 - p_target)


def min_dcf_of_curve(miss, false_alarm, p_target=0.01, c_miss=1.0, c_fa=1.0):
    """Compute the least detection cost of a curve, as ``min_dcf`` defines it.

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
    ConfigError
        As ``operating_costs``.

    Example
    -------
    >>> min_dcf_of_curve(np.array([0, 0.25, 1]), np.array([1, 0, 0]))
    0.25
    """
    reject_all, accept_all = operating_costs(p_target, c_miss, c_fa)
    cost = reject_all * miss + accept_all * false_alarm
    return float(cost.min() / min(reject_all, accept_all))


def min_dcf(scores, labels=None, p_target=0.01, c_miss=1.0, c_fa=1.0):
    """Compute the minimum of the normalised detection cost over thresholds.

        cost(t) = c_miss * p_target * miss(t)
                  + c_fa * (1 - p_target) * false_alarm(t)
        min_dcf = min over t of cost(t)
                  / min(c_miss * p_target, c_fa * (1 - p_target))

    The denominator is the cost of the better of the two systems that ignore
    the audio (reject everything, accept everything), so that 1 means useless
    and costs at different ``p_target`` can be compared. Papers and NIST report
    this value. SpeechBrain's ``minDCF`` leaves the division out.

    Arguments
    ---------
    scores : ScoredTrials or array_like
        ``[T]``; higher means more alike.
    labels : array_like, optional
        ``[T]``; true for targets. Not needed with ``ScoredTrials``.
    p_target, c_miss, c_fa : float
        The operating point, as in ``operating_costs``.

    Returns
    -------
    float
        In ``[0, 1]``.

    Raises
    ------
    TrialError
        As ``ScoredTrials``.
    ConfigError
        As ``operating_costs``.

    Example
    -------
    >>> min_dcf([0.1, 0.2, 0.6, 0.5, 0.8, 0.9, 1.0], [0, 0, 0, 1, 1, 1, 1])
    0.25
    """
    _, miss, false_alarm = det_points(scores, labels)
    return min_dcf_of_curve(miss, false_alarm, p_target, c_miss, c_fa)
