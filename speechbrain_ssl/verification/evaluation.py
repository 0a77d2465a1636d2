"""Compute the metrics that every table, monitor and results file shows."""

import json
import pathlib

import numpy as np

from speechbrain_ssl.files import atomic_write
from speechbrain_ssl.verification.bootstrap import bootstrap_interval
from speechbrain_ssl.verification.calibration import (
    Calibration,
    act_dcf,
    cllr,
    min_cllr,
)
from speechbrain_ssl.verification.metrics import eer, min_dcf
from speechbrain_ssl.verification.protocol import write_scores
from speechbrain_ssl.verification.scored_trials import ScoredTrials


def evaluate_scores(scores, trials, replicates=1000, seed=0):
    """Compute the error rates of a list of trials, ready for JSON.

    Arguments
    ---------
    scores : ScoredTrials or array_like
        ``[T]``, one for each trial; higher means more alike.
    trials : Trials
        The trials.
    replicates : int
        Replicates of the bootstrap over speakers. With 0 no speaker is looked
        up, and ``ci_low``, ``ci_high`` and ``speakers`` are None.
    seed : int
        Seed of the bootstrap.

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
        As ``ScoredTrials`` and ``bootstrap_interval``.

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
    scored = ScoredTrials.of(scores, trials.labels)
    rate, threshold = eer(scored)
    low = high = speakers = None
    if replicates:
        interval = bootstrap_interval(
            scored, trials, replicates=replicates, seed=seed
        )
        low, high = 100 * interval.low, 100 * interval.high
        speakers = interval.speakers
    return {
        "eer_percent": 100 * rate,
        "ci_low": low,
        "ci_high": high,
        "min_dcf_0.01": min_dcf(scored, p_target=0.01),
        "min_dcf_0.05": min_dcf(scored, p_target=0.05),
        "trials": len(trials),
        "targets": int(trials.labels.sum()),
        "utterances": len(np.union1d(trials.left, trials.right)),
        "speakers": speakers,
        "threshold": threshold,
    }


def calibrated_figures(ratios, trials):
    """Compute the costs of calibrated scores, ready for JSON.

    Arguments
    ---------
    ratios : ScoredTrials or array_like
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
        As ``ScoredTrials``.

    Example
    -------
    >>> from speechbrain_ssl.verification.trials import Trials
    >>> trials = Trials([1, 0], [0, 0], [1, 2], ["a/1", "a/2", "b/1"])
    >>> calibrated_figures([9.0, -9.0], trials)["act_dcf_0.01"]
    0.0
    """
    scored = ScoredTrials.of(ratios, trials.labels)
    return {
        "cllr": cllr(scored),
        "min_cllr": min_cllr(scored),
        "act_dcf_0.01": act_dcf(scored, p_target=0.01),
        "act_dcf_0.05": act_dcf(scored, p_target=0.05),
    }


def evaluate_lists(
    folder, lists, scores, calibrate_on=None, replicates=1000, seed=0
):
    """Evaluate all lists; write their scores and, if asked, calibrations.

    Arguments
    ---------
    folder : str or pathlib.Path
        Where ``scores_<list>_<scoring>.txt`` and ``calibration.json`` go.
    lists : dict
        Name to a pair of ``Trials`` and anything, from ``load_lists``.
    scores : dict
        Name of a list to name of a scoring to scores ``[T]``.
    calibrate_on : str, optional
        The list on which a calibration of every scoring is learnt. All other
        lists are evaluated with it as well; on its own list the result would
        be too good.
    replicates, seed : int
        As in ``evaluate_scores``.

    Returns
    -------
    tuple
        Evaluations (list of dict) and the data that ``build_report`` draws
        (dict).

    Raises
    ------
    TrialError
        As ``evaluate_scores``.

    Example
    -------
    >>> import tempfile
    >>> from speechbrain_ssl.verification.trials import Trials
    >>> trials = Trials([1, 0], [0, 0], [1, 2], ["a/1", "a/2", "b/1"])
    >>> evaluations, _ = evaluate_lists(
    ...     tempfile.mkdtemp(),
    ...     {"O": (trials, None)},
    ...     {"O": {"cosine": [0.9, 0.1]}},
    ...     replicates=0,
    ... )
    >>> evaluations[0]["list"], evaluations[0]["eer_percent"]
    ('O', 0.0)
    """
    folder = pathlib.Path(folder)
    calibrations = {}
    if calibrate_on is not None:
        labels = lists[calibrate_on][0].labels
        calibrations = {
            scoring: Calibration().fit(found, labels)
            for scoring, found in scores[calibrate_on].items()
        }
        write_calibrations(
            folder / "calibration.json", calibrations, calibrate_on
        )
    evaluations, drawn = [], {}
    for name, (trials, _) in lists.items():
        for scoring, found in scores[name].items():
            figures = evaluate_scores(found, trials, replicates, seed)
            if calibrations and name != calibrate_on:
                ratios = calibrations[scoring](found)
                figures.update(calibrated_figures(ratios, trials))
            evaluations.append({"list": name, "scoring": scoring, **figures})
            write_scores(folder / f"scores_{name}_{scoring}.txt", trials, found)
            drawn[f"{name}, {scoring.replace('_', ' ')}"] = {
                "scores": found,
                "labels": trials.labels,
                "threshold": figures["threshold"],
            }
    return evaluations, drawn


def write_calibrations(path, calibrations, learnt_on):
    """Write the maps from raw scores to log-likelihood ratios.

    Arguments
    ---------
    path : str or pathlib.Path
        A JSON file with ``scale`` and ``offset`` (the ratio is ``scale * score
        + offset``) and ``thresholds`` (raw scores, by the prior of a target,
        both errors costing 1; None where the scale is not positive) of the
        plain cosine, the scoring that a published model uses; those of the
        other scorings are under ``scorings``. ``trials`` names the list.
    calibrations : dict
        Scoring to ``Calibration`` of a single score.
    learnt_on : str
        Name of the list.
    """
    entries = {}
    for scoring, calibration in calibrations.items():
        scale = float(calibration.weights[0])
        entries[scoring] = {
            "scale": scale,
            "offset": calibration.offset,
            "thresholds": {
                str(prior): calibration.threshold(prior) if scale > 0 else None
                for prior in (0.01, 0.05, 0.5)
            },
        }
    record = {"trials": learnt_on, **entries.pop("cosine", {})}
    record["scorings"] = entries
    with atomic_write(path) as stream:
        json.dump(record, stream, indent=2)
        stream.write("\n")
