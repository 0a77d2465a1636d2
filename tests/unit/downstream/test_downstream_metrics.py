"""Micro-F1, recall, macro-F1 and their intervals, against scikit-learn."""

import numpy as np
import pytest
from sklearn import metrics as reference
from test_downstream_folds import make_task

from speechbrain_ssl.downstream.folds import Fold, SpeakerFolds
from speechbrain_ssl.downstream.metrics import (
    FIGURES,
    bootstrap_figures,
    confusion_matrix,
    figures_of,
    summarise,
)


def draw(seed, count=300, classes=4):
    rng = np.random.default_rng(seed)
    truth = rng.integers(classes, size=count)
    right = rng.random(count) < 0.5
    guess = np.where(right, truth, rng.integers(classes, size=count))
    return truth, guess


@pytest.mark.parametrize("seed", range(5))
def test_against_scikit_learn(seed):
    truth, guess = draw(seed)
    matrix = confusion_matrix(truth, guess, 4)
    np.testing.assert_array_equal(
        matrix, reference.confusion_matrix(truth, guess)
    )
    found = figures_of(matrix)
    expected = {
        "micro_f1": reference.f1_score(truth, guess, average="micro"),
        "uar": reference.recall_score(truth, guess, average="macro"),
        "macro_f1": reference.f1_score(truth, guess, average="macro"),
    }
    for name in FIGURES:
        assert found[name] == pytest.approx(expected[name], abs=1e-12)


def test_degenerate():
    # Class 2 never occurs and is never guessed; class 1 is only guessed.
    found = figures_of(confusion_matrix([0, 0], [0, 1], 3))
    assert found["uar"] == 0.5 and found["micro_f1"] == 0.5
    assert found["macro_f1"] == pytest.approx((2 / 3 + 0) / 2)
    assert all(np.isnan(v) for v in figures_of(np.zeros((3, 3))).values())


def test_everything_taken_for_one_class():
    """The trap of micro-F1: a useless classifier looks good by it."""
    truth = np.array([0] * 90 + [1] * 10)
    found = figures_of(confusion_matrix(truth, np.zeros(100, int), 2))
    assert found["micro_f1"] == 0.9 and found["uar"] == 0.5


def test_bootstrap_against_a_plain_loop():
    truth, guess = draw(1, count=120, classes=3)
    units = np.array([f"s{i % 7}" for i in range(120)])
    found = bootstrap_figures(truth, guess, units, 3, replicates=200, seed=4)
    rng = np.random.default_rng(4)
    names = np.unique(units)
    values = {name: [] for name in FIGURES}
    for row in rng.integers(len(names), size=(200, len(names))):
        index = np.concatenate([np.flatnonzero(units == names[i]) for i in row])
        one = figures_of(confusion_matrix(truth[index], guess[index], 3))
        for name in FIGURES:
            values[name].append(one[name])
    for name in FIGURES:
        expected = np.quantile(values[name], [0.025, 0.975])
        np.testing.assert_allclose(found[name], expected, atol=1e-12)


def test_order_of_utterances_does_not_matter():
    truth, guess = draw(2)
    units = np.arange(300) // 20
    order = np.random.default_rng(0).permutation(300)
    assert bootstrap_figures(truth, guess, units, 4) == bootstrap_figures(
        truth[order], guess[order], units[order], 4
    )


def test_speakers_that_fail_together_widen_the_interval():
    truth = np.zeros(400, int)
    units = np.arange(400) // 20
    apart = (np.arange(400) % 2).astype(int)
    together = (units % 2).astype(int)
    narrow = bootstrap_figures(truth, apart, units, 2)["micro_f1"]
    wide = bootstrap_figures(truth, together, units, 2)["micro_f1"]
    assert narrow == (0.5, 0.5)
    assert wide[1] - wide[0] > 0.3


def test_one_unit_has_no_interval():
    assert bootstrap_figures([0, 1], [0, 1], ["a", "a"], 2)["uar"] is None


def test_summary():
    truth, guess = draw(3)
    task = make_task(np.arange(300) // 15, truth)
    folds = SpeakerFolds(4)(task)
    found, details = summarise(task, folds, [guess[f.test] for f in folds])
    assert found["micro_f1"] == pytest.approx(100 * (truth == guess).mean())
    low, high = found["micro_f1_ci_low"], found["micro_f1_ci_high"]
    assert low < found["micro_f1"] < high
    assert found["uar_over_folds_ci_low"] <= found["uar_over_folds_ci_high"]
    assert found["speakers"] == 20 and found["folds"] == 4
    assert found["utterances"] == 300
    assert found["majority"] == pytest.approx(
        100 * np.bincount(truth).max() / 300
    )
    per_fold = details["per_fold"]
    total = sum(f["micro_f1"] * f["utterances"] for f in per_fold)
    assert total / 300 == pytest.approx(found["micro_f1"])
    speakers = [s for f in per_fold for s in f["speakers"]]
    assert len(speakers) == len(set(speakers)) == 20
    assert np.sum(details["confusion"]) == 300


def test_summary_of_one_fold_and_without_intervals():
    truth, guess = draw(5)
    task = make_task(np.arange(300) // 15, truth)
    fold = Fold("Test1", np.arange(150), np.arange(150, 300), [])
    found, details = summarise(task, [fold], [guess[150:]])
    assert found["micro_f1_over_folds_ci_low"] is None
    assert found["micro_f1_ci_low"] is not None
    assert np.sum(details["confusion"]) == found["utterances"] == 150
    found, _ = summarise(task, [fold], [guess[150:]], replicates=0)
    assert found["micro_f1_ci_low"] is None
