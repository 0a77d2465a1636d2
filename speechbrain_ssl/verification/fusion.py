"""Fuse the scores of several systems."""

import numpy as np

from speechbrain_ssl.errors import TrialError
from speechbrain_ssl.verification.calibration import Calibration


def weighted_fusion(scores, weights=None):
    """Average the scores of several systems, with weights.

    Only scores of one scale can be averaged: cosines with cosines, normalised
    scores with normalised ones. ``learn_fusion`` finds scales itself.

    Arguments
    ---------
    scores : array_like
        ``[S, T]``, or a list of ``S`` arrays ``[T]``; the same trials in the
        same order.
    weights : array_like, optional
        ``[S]``, not negative; scaled to add up to one. Equal if not given.

    Returns
    -------
    numpy.ndarray
        float64 ``[T]``.

    Raises
    ------
    TrialError
        If the lists are of different lengths, a score is NaN, or the weights
        do not fit.

    Example
    -------
    >>> weighted_fusion([[0.0, 1.0], [1.0, 2.0]]).tolist()
    [0.5, 1.5]
    >>> weighted_fusion([[0.0, 1.0], [1.0, 2.0]], [3, 1]).tolist()
    [0.25, 1.25]
    """
    scores = _table(scores)
    if weights is None:
        weights = np.ones(len(scores))
    weights = np.asarray(weights, dtype=np.float64)
    usable = np.isfinite(weights).all() and (weights >= 0).all()
    if weights.shape != (len(scores),) or not usable or weights.sum() == 0:
        raise TrialError(
            f"{len(scores)} systems need as many weights, none of them "
            f"negative and not all zero; got {weights.tolist()}"
        )
    return weights @ scores / weights.sum()


def learn_fusion(scores, labels, p_target=0.5):
    """Learn a fusion by logistic regression.

    Arguments
    ---------
    scores : array_like
        ``[S, T]``, of labelled trials. Their speakers must differ from those
        that the fusion is used on.
    labels : array_like
        ``[T]``; true for targets.
    p_target : float
        As in ``Calibration``.

    Returns
    -------
    Calibration
        Called with scores ``[S, T']``, it returns log-likelihood ratios.

    Raises
    ------
    TrialError
        As ``Calibration.fit``, and as ``weighted_fusion``.

    Example
    -------
    >>> rng = np.random.default_rng(0)
    >>> labels = np.arange(1000) % 2 == 0
    >>> scores = labels + rng.normal(size=(2, 1000))
    >>> fusion = learn_fusion(scores, labels)
    >>> fusion(scores[:, :10]).shape
    (10,)
    """
    return Calibration(p_target).fit(_table(scores), labels)


def _table(scores):
    """Convert scores to float64 ``[S, T]``; reject other lengths and NaN."""
    lengths = {np.shape(system) for system in scores}
    if len(lengths) != 1 or len(next(iter(lengths))) != 1:
        raise TrialError(
            "the systems to be fused must have scored the same trials; their "
            f"scores are of shapes {sorted(lengths)}"
        )
    scores = np.asarray(scores, dtype=np.float64)
    if np.isnan(scores).any():
        bad = np.isnan(scores).sum(axis=1)
        raise TrialError(
            f"NaN among the scores to be fused (of each system: {bad.tolist()})"
        )
    return scores
