"""The figures that every table, monitor and results file shows."""

import numpy as np

from speechbrain_ssl.verification.bootstrap import bootstrap_interval
from speechbrain_ssl.verification.calibration import act_dcf, cllr, min_cllr
from speechbrain_ssl.verification.metrics import (
    det_points,
    eer,
    min_dcf_of_curve,
)


def evaluate_scores(scores, trials, replicates=1000, seed=0):
    """Error rates of a list of trials, ready for JSON.

    Arguments
    ---------
    scores : array_like
        ``[T]``, one for each trial; higher means more alike.
    trials : Trials
        The trials.
    replicates : int
        Replicates of the bootstrap over speakers. With 0 no speaker is looked
        at, and ``ci_low``, ``ci_high`` and ``speakers`` are None.
    seed : int
        Of the bootstrap.

    Returns
    -------
    dict
        ``eer_percent``; ``ci_low`` and ``ci_high`` (its 95 % interval over
        speakers, percent); ``min_dcf_0.01`` and ``min_dcf_0.05`` (normalised);
        ``trials``, ``targets``, ``utterances`` and ``speakers`` (counts);
        ``threshold`` (of the equal error rate, in the unit of the scores).

    Raises
    ------
    TrialError
        As ``check_scores`` and ``bootstrap_interval``.

    Example
    -------
    >>> from speechbrain_ssl.verification.trials import Trials
    >>> names = [f"s{s}/{u}" for s in range(9) for u in range(2)]
    >>> left, right = np.triu_indices(18, 1)
    >>> trials = Trials(left // 2 == right // 2, left, right, names)
    >>> figures = evaluate_scores(trials.labels * 0.5, trials)
    >>> figures["eer_percent"], figures["trials"], figures["speakers"]
    (0.0, 153, 9)
    """
    rate, threshold = eer(scores, trials.labels)
    _, miss, false_alarm = det_points(scores, trials.labels)
    low = high = speakers = None
    if replicates:
        interval = bootstrap_interval(
            scores, trials, replicates=replicates, seed=seed
        )
        low, high = 100 * interval.low, 100 * interval.high
        speakers = interval.speakers
    return {
        "eer_percent": 100 * rate,
        "ci_low": low,
        "ci_high": high,
        "min_dcf_0.01": min_dcf_of_curve(miss, false_alarm, p_target=0.01),
        "min_dcf_0.05": min_dcf_of_curve(miss, false_alarm, p_target=0.05),
        "trials": len(trials),
        "targets": int(trials.labels.sum()),
        "utterances": len(np.union1d(trials.left, trials.right)),
        "speakers": speakers,
        "threshold": threshold,
    }


def calibrated_figures(ratios, trials):
    """What calibrated scores cost, ready for JSON.

    Arguments
    ---------
    ratios : array_like
        ``[T]``, log-likelihood ratios in nats. Calibrate on other trials.
    trials : Trials
        The trials.

    Returns
    -------
    dict
        ``cllr`` and ``min_cllr`` (bits), ``act_dcf_0.01`` and
        ``act_dcf_0.05`` (normalised).

    Raises
    ------
    TrialError
        As ``check_scores``.

    Example
    -------
    >>> from speechbrain_ssl.verification.trials import Trials
    >>> trials = Trials([1, 0], [0, 0], [1, 2], ["a/1", "a/2", "b/1"])
    >>> calibrated_figures([9.0, -9.0], trials)["act_dcf_0.01"]
    0.0
    """
    labels = trials.labels
    return {
        "cllr": cllr(ratios, labels),
        "min_cllr": min_cllr(ratios, labels),
        "act_dcf_0.01": act_dcf(ratios, labels, p_target=0.01),
        "act_dcf_0.05": act_dcf(ratios, labels, p_target=0.05),
    }
