"""Scores are checked once, and every figure is that of the plain arrays."""

import numpy as np
import pytest

from speechbrain_ssl.errors import TrialError
from speechbrain_ssl.verification.bootstrap import bootstrap_interval
from speechbrain_ssl.verification.calibration import (
    act_dcf,
    cllr,
    min_cllr,
    pav,
)
from speechbrain_ssl.verification.evaluation import (
    calibrated_figures,
    evaluate_scores,
)
from speechbrain_ssl.verification.metrics import det_points, eer, min_dcf
from speechbrain_ssl.verification.scored_trials import ScoredTrials
from speechbrain_ssl.verification.trials import Trials


@pytest.fixture
def trials():
    names = [f"s{s}/{u}" for s in range(12) for u in range(3)]
    left, right = np.triu_indices(36, 1)
    return Trials(left // 3 == right // 3, left, right, names)


@pytest.fixture
def scores(trials):
    rng = np.random.default_rng(0)
    # One decimal: many ties.
    return (rng.normal(size=len(trials)) + trials.labels).round(1)


@pytest.mark.parametrize(
    "function", [det_points, eer, min_dcf, cllr, pav, min_cllr, act_dcf]
)
def test_figures_of_the_object_and_of_the_arrays(function, trials, scores):
    scored = ScoredTrials(scores, trials.labels)
    np.testing.assert_equal(function(scored), function(scores, trials.labels))


@pytest.mark.parametrize(
    "function", [bootstrap_interval, evaluate_scores, calibrated_figures]
)
def test_functions_of_trials_take_the_object(function, trials, scores):
    scored = ScoredTrials(scores, trials.labels)
    assert function(scored, trials) == function(scores, trials)


def test_an_object_is_neither_checked_nor_sorted_again(trials, scores):
    scored = ScoredTrials(scores, trials.labels)
    assert ScoredTrials.of(scored, trials.labels) is scored
    assert scored.order is scored.order
    assert det_points(scored)[1] is det_points(scored)[1]


def test_scores_without_labels_are_refused():
    with pytest.raises(TrialError, match="label of a trial"):
        eer([0.1, 0.2])
