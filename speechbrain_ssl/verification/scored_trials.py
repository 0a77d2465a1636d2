"""Check the scores and labels of trials once, for all metrics.

Conventions, for all error rates:

* A trial is accepted where ``score >= threshold``; a higher score means more
  alike.
* ``miss(threshold)`` is the share of targets that are rejected,
  ``false_alarm(threshold)`` the share of non-targets that are accepted.
* Both are step functions that change only at the distinct scores. So there is
  one operating point for each distinct score, and one more at infinity, where
  everything is rejected. Trials of equal score are accepted or rejected
  together: no order among them is invented.

A curve is a pair of arrays ``miss`` (rising from 0 to 1) and ``false_alarm``
(falling from 1 to 0). ``speechbrain_ssl.verification.metrics`` reads curves.
"""

import functools

import numpy as np

from speechbrain_ssl.errors import TrialError
from speechbrain_ssl.verification.trials import as_labels


class ScoredTrials:
    """Scores and labels of trials in which both classes occur.

    Metrics, calibration and bootstrap take this object, so that scores are
    checked and sorted once, however many metrics are computed. Those functions
    also take scores and labels, and then build the object themselves.

    Arguments
    ---------
    scores : array_like
        ``[T]``; may be a CPU tensor.
    labels : array_like
        ``[T]``; bool, or 1 for target and 0 for non-target.

    Attributes
    ----------
    scores : numpy.ndarray
        Floating ``[T]``.
    labels : numpy.ndarray
        bool ``[T]``.

    Raises
    ------
    TrialError
        If the lengths differ, a score is NaN, a label is neither 0 nor 1, or
        one of the classes is missing.

    Example
    -------
    >>> scored = ScoredTrials([0.1, 0.4, 0.4, 0.8], [0, 0, 1, 1])
    >>> scored.labels.tolist(), scored.ends.tolist()
    ([False, False, True, True], [0, 2, 3])
    """

    def __init__(self, scores, labels):
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
                f"{bad} of {len(scores)} scores are NaN; look at the "
                "embeddings of those trials (an utterance of digital silence, "
                "a training that diverged)"
            )
        targets = int(labels.sum())
        if targets == 0 or targets == len(labels):
            raise TrialError(
                f"{targets} targets and {len(labels) - targets} non-targets: "
                "error rates need trials of both classes"
            )
        self.scores, self.labels = scores, labels

    @classmethod
    def of(cls, scores, labels=None):
        """Return ``scores`` if it is a ``ScoredTrials``, else build one."""
        return scores if isinstance(scores, cls) else cls(scores, labels)

    @functools.cached_property
    def order(self):
        """int64 ``[T]``, the trials by rising score."""
        return np.argsort(self.scores)

    @functools.cached_property
    def ends(self):
        """int64 ``[P - 1]``, the last position in ``order`` of each score."""
        ordered = self.scores[self.order]
        return np.append(
            np.flatnonzero(ordered[1:] != ordered[:-1]), len(ordered) - 1
        )

    @functools.cached_property
    def targets_up_to(self):
        """int64 ``[P - 1]``, targets whose score is at most each score."""
        return np.cumsum(self.labels[self.order])[self.ends]

    @functools.cached_property
    def det_points(self):
        """Thresholds, miss and false alarm rates, float64 ``[P]`` each."""
        ends, targets = self.ends, self.targets_up_to
        distinct = self.scores[self.order][ends].astype(np.float64)
        miss, false_alarm = curve_from_sums(targets, ends + 1 - targets)
        return np.append(distinct, np.inf), miss, false_alarm


def curve_from_sums(targets, others):
    """Compute rates from cumulative counts (or weights) over rising scores.

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
    # Dividing the rest, instead of subtracting from one, is exact at the ends.
    np.divide(others[-1] - others, others[-1], out=false_alarm[1:])
    return miss, false_alarm
