"""Compute intervals of error rates by a bootstrap over speakers.

Trials are not independent: those of one speaker succeed or fail together. An
interval from resampling trials, or from a formula that counts them, is far too
narrow (Vox1-O has 37 720 trials but 40 speakers). So speakers are resampled:

1. Draw as many speakers as there are, with replacement. Speaker ``s`` comes
   ``m[s]`` times.
2. A non-target trial between ``a`` and ``b`` counts ``m[a] * m[b]`` times: each
   copy of the one meets each copy of the other.
3. A target trial of ``a`` counts ``m[a]`` times, not its square: the copies
   stand for different people, so a trial between two copies would not be a
   target, and the list has no score for it.
4. The metric of the weighted list is one replicate. The interval is between
   percentiles of the replicates.

The interval covers the choice of speakers only. It does not cover that another
training run, with another seed, gives another result.

Scores are sorted once; a replicate is two gathers and two cumulative sums.
"""

from typing import NamedTuple

import numpy as np

from speechbrain_ssl.errors import TrialError
from speechbrain_ssl.verification.metrics import eer_of_curve
from speechbrain_ssl.verification.scored_trials import (
    ScoredTrials,
    curve_from_sums,
)

# If more replicates than this are lost, the others no longer describe the
# list: they describe only draws that contain certain speakers.
MAX_SKIPPED = 0.1


class Interval(NamedTuple):
    """Bootstrap interval of a metric.

    Arguments
    ---------
    low, high : float
        Ends of the interval, in the unit of the metric.
    replicates : int
        Number of replicates that the interval rests on.
    skipped : int
        Number of further replicates that lacked targets or non-targets.
    speakers : int
        Number of speakers in the trials.
    """

    low: float
    high: float
    replicates: int
    skipped: int
    speakers: int


class WeightedCurves:
    """Curves of one list of trials under varying weights of the speakers.

    Arguments
    ---------
    scores : ScoredTrials or array_like
        ``[T]``, one for each trial.
    trials : Trials
        The trials, with speakers.

    Attributes
    ----------
    speakers : int
        Number of speakers that occur in a trial.

    Raises
    ------
    TrialError
        As ``ScoredTrials`` and ``Trials.speaker_indices``.

    Example
    -------
    >>> from speechbrain_ssl.verification.trials import Trials
    >>> names = ["a/1", "a/2", "b/1", "b/2"]
    >>> trials = Trials([1, 1, 0], [0, 2, 0], [1, 3, 2], names)
    >>> curves = WeightedCurves([0.9, 0.2, 0.5], trials)
    >>> miss, false_alarm = curves.curve(np.array([3, 1]))
    >>> miss.tolist(), false_alarm.tolist()
    ([0.0, 0.25, 0.25, 1.0], [1.0, 1.0, 0.0, 0.0])
    """

    def __init__(self, scores, trials):
        scored = ScoredTrials.of(scores, trials.labels)
        speaker = trials.speaker_indices()
        left, right = speaker[trials.left], speaker[trials.right]
        # Names that no trial uses must not be drawn.
        present, both = np.unique(
            np.concatenate((left, right)), return_inverse=True
        )
        left, right = np.split(both, 2)
        self.speakers = len(present)
        order = scored.order
        labels = scored.labels[order]
        # For each class, the number of its trials up to the end of each run
        # of equal scores. Index 0 stands for none.
        self._target_ends = scored.targets_up_to
        self._other_ends = scored.ends + 1 - self._target_ends
        self._target = left[order][labels]
        self._other_left = left[order][~labels]
        self._other_right = right[order][~labels]

    def curve(self, multiplicity):
        """Compute the curve with each speaker weighted by its multiplicity.

        Arguments
        ---------
        multiplicity : numpy.ndarray
            int ``[speakers]``, how often each speaker counts.

        Returns
        -------
        tuple of numpy.ndarray, or None
            ``miss`` and ``false_alarm``, as ``det_points`` orders them; a
            point without weight repeats its neighbour. None where a class has
            no weight at all.
        """
        multiplicity = np.asarray(multiplicity, dtype=np.int64)
        targets = _running_sum(multiplicity[self._target])
        others = _running_sum(
            multiplicity[self._other_left] * multiplicity[self._other_right]
        )
        if targets[-1] == 0 or others[-1] == 0:
            return None
        return curve_from_sums(
            targets[self._target_ends], others[self._other_ends]
        )


def _running_sum(weights):
    """Compute cumulative sums with a leading zero, ``[N + 1]``."""
    sums = np.zeros(len(weights) + 1, dtype=np.int64)
    np.cumsum(weights, out=sums[1:])
    return sums


def bootstrap_interval(
    scores,
    trials,
    metric=eer_of_curve,
    replicates=1000,
    confidence=0.95,
    seed=0,
):
    """Compute a metric's percentile interval by a bootstrap over speakers.

    Arguments
    ---------
    scores : ScoredTrials or array_like
        ``[T]``, one for each trial.
    trials : Trials
        The trials, with speakers.
    metric : callable
        Takes ``miss`` and ``false_alarm`` and returns a float:
        ``eer_of_curve``, ``min_dcf_of_curve``, or your own.
    replicates : int
        Number of times that speakers are drawn.
    confidence : float
        Share of the replicates that lie between the ends.
    seed : int
        Equal seeds give equal intervals, whatever the order of the trials.

    Returns
    -------
    Interval

    Raises
    ------
    TrialError
        If more than a tenth of the replicates lack targets or non-targets
        (too few speakers for any interval), or as ``WeightedCurves``.
    ValueError
        If ``replicates`` or ``confidence`` is out of range.

    Example
    -------
    >>> from speechbrain_ssl.verification.trials import Trials
    >>> names = [f"s{s}/{u}" for s in range(20) for u in range(2)]
    >>> a, b = np.triu_indices(40, 1)
    >>> trials = Trials(a // 2 == b // 2, a, b, names)
    >>> noise = np.random.default_rng(0).normal(size=len(trials))
    >>> interval = bootstrap_interval(trials.labels + noise, trials)
    >>> 0 < interval.low < interval.high < 0.5
    True
    """
    if replicates < 1 or not 0 < confidence < 1:
        raise ValueError(
            "an interval needs at least one replicate and a confidence "
            f"between 0 and 1; got {replicates} and {confidence}"
        )
    curves = WeightedCurves(scores, trials)
    count = curves.speakers
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(replicates):
        drawn = rng.integers(count, size=count)
        curve = curves.curve(np.bincount(drawn, minlength=count))
        values.append(None if curve is None else metric(*curve))
    return _interval(values, count, confidence)


def paired_difference(
    scores,
    others,
    trials,
    metric=eer_of_curve,
    replicates=1000,
    confidence=0.95,
    seed=0,
    draw_runs=False,
):
    """Compute how much better one system is than another, with an interval.

    Each replicate has the same speakers for both, so that the difficulty of a
    speaker cancels out: the interval of the difference is far narrower than
    the intervals of the two metrics suggest. If a system has several runs
    (seeds), the mean over its runs is compared.

    Arguments
    ---------
    scores, others : array_like
        ``[T]``, or ``[runs, T]``, of the two systems.
    trials : Trials
        The trials.
    metric, replicates, confidence, seed
        As in ``bootstrap_interval``.
    draw_runs : bool
        Whether pairs of runs are resampled as well as the speakers. The
        interval then also covers other runs, not only these runs with other
        speakers; with few pairs it is a rough one.

    Returns
    -------
    tuple
        The metric of ``others`` less that of ``scores`` (above 0 where
        ``scores`` is better and lower is better), and its ``Interval``.

    Raises
    ------
    TrialError
        As ``bootstrap_interval``.
    ValueError
        If runs are to be drawn and the systems differ in their number.

    Example
    -------
    >>> from speechbrain_ssl.verification.trials import Trials
    >>> names = [f"s{s}/{u}" for s in range(20) for u in range(2)]
    >>> a, b = np.triu_indices(40, 1)
    >>> trials = Trials(a // 2 == b // 2, a, b, names)
    >>> noise = np.random.default_rng(0).normal(size=len(trials))
    >>> better, worse = 2 * trials.labels + noise, trials.labels + noise
    >>> difference, interval = paired_difference(better, worse, trials)
    >>> 0 < interval.low < difference < interval.high
    True
    """
    sides = [
        [WeightedCurves(run, trials) for run in np.atleast_2d(side)]
        for side in (scores, others)
    ]
    count = sides[0][0].speakers
    pairs = len(sides[0])
    if draw_runs and len(sides[1]) != pairs:
        raise ValueError(
            f"runs are drawn in pairs; got {pairs} and {len(sides[1])} of them"
        )

    def difference(multiplicity, runs=None):
        means = []
        for side in sides:
            curves = [run.curve(multiplicity) for run in side]
            # All runs have the same trials: either all curves exist or none.
            if curves[0] is None:
                return None
            found = np.array([metric(*curve) for curve in curves])
            means.append(np.mean(found if runs is None else found[runs]))
        return means[1] - means[0]

    rng = np.random.default_rng(seed)
    values = []
    for _ in range(replicates):
        drawn = np.bincount(rng.integers(count, size=count), minlength=count)
        runs = rng.integers(pairs, size=pairs) if draw_runs else None
        values.append(difference(drawn, runs))
    interval = _interval(values, count, confidence)
    return float(difference(np.ones(count, dtype=np.int64))), interval


def _interval(values, speakers, confidence):
    """Compute percentiles of the replicates; None marks a skipped one."""
    found = [value for value in values if value is not None]
    skipped = len(values) - len(found)
    if skipped > MAX_SKIPPED * len(values):
        raise TrialError(
            f"{skipped} of {len(values)} resamplings of the {speakers} speakers "
            "have no target or no non-target trial: too few speakers carry "
            "this list for an interval; use a list of more speakers, or go "
            "without an interval (replicates = 0 where scores are evaluated)"
        )
    tail = (1 - confidence) / 2
    low, high = np.quantile(found, [tail, 1 - tail])
    return Interval(float(low), float(high), len(found), skipped, speakers)
