"""Calibration, Cllr, actual DCF and fusion against plain computations."""

import math

import numpy as np
import pytest
from scipy.optimize import minimize

from speechbrain_ssl.errors import ConfigError, TrialError
from speechbrain_ssl.verification.calibration import (
    Calibration,
    act_dcf,
    bayes_threshold,
    cllr,
    min_cllr,
    pav,
)
from speechbrain_ssl.verification.fusion import learn_fusion, weighted_fusion
from speechbrain_ssl.verification.metrics import eer, min_dcf


def some_scores(seed=0, count=300, levels=None):
    rng = np.random.default_rng(seed)
    labels = rng.random(count) < 0.3
    labels[:2] = [True, False]
    scores = rng.normal(size=count) + 1.5 * labels
    if levels:
        scores = np.round(scores * levels) / levels
    return scores, labels


def loop_cllr(scores, labels):
    targets = [s for s, t in zip(scores, labels, strict=True) if t]
    others = [s for s, t in zip(scores, labels, strict=True) if not t]
    return 0.5 * (
        sum(math.log2(1 + math.exp(-s)) for s in targets) / len(targets)
        + sum(math.log2(1 + math.exp(s)) for s in others) / len(others)
    )


def loop_pav(scores, labels):
    """Pools neighbours, one pair at a time, until no pair is out of order."""
    blocks = []
    for value in sorted(set(scores)):
        chosen = [t for s, t in zip(scores, labels, strict=True) if s == value]
        blocks.append([sum(chosen), len(chosen), {value}])
    at = 0
    while at < len(blocks) - 1:
        one, two = blocks[at], blocks[at + 1]
        if one[0] * two[1] >= two[0] * one[1]:
            blocks[at] = [one[0] + two[0], one[1] + two[1], one[2] | two[2]]
            del blocks[at + 1]
            at = max(at - 1, 0)
        else:
            at += 1
    share = {v: b[0] / b[1] for b in blocks for v in b[2]}
    prior = math.log(sum(labels) / (len(labels) - sum(labels)))
    found = []
    for score in scores:
        p = share[score]
        if p in (0, 1):
            found.append(math.inf if p else -math.inf)
        else:
            found.append(math.log(p / (1 - p)) - prior)
    return found


@pytest.mark.parametrize("seed", range(10))
def test_cllr_against_a_loop(seed):
    scores, labels = some_scores(seed)
    assert cllr(scores, labels) == pytest.approx(
        loop_cllr(scores, labels), abs=1e-12
    )


@pytest.mark.parametrize("levels", [None, 1, 2, 4])
@pytest.mark.parametrize("seed", range(10))
def test_pav_against_pooling_one_pair_at_a_time(seed, levels):
    scores, labels = some_scores(seed, 80, levels)
    expected = loop_pav(scores.tolist(), labels.tolist())
    np.testing.assert_allclose(pav(scores, labels), expected, atol=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_min_cllr_is_a_lower_bound_that_only_the_order_decides(seed):
    scores, labels = some_scores(seed)
    least = min_cllr(scores, labels)
    assert 0 < least < 1
    rng = np.random.default_rng(seed)
    for _ in range(50):
        slope, offset, bend = rng.uniform(0.1, 4), rng.normal(), rng.random()
        mapped = slope * (scores + bend * np.tanh(scores)) + offset
        assert cllr(mapped, labels) >= least - 1e-12
        assert min_cllr(mapped, labels) == pytest.approx(least, abs=1e-12)
    order = rng.permutation(len(scores))
    assert min_cllr(scores[order], labels[order]) == pytest.approx(least)


def test_cllr_of_extremes():
    labels = np.array([1, 0, 0, 1])
    assert cllr(np.zeros(4), labels) == 1.0
    assert min_cllr(np.full(4, 7.0), labels) == pytest.approx(1.0)
    assert min_cllr([3.0, 1.0, 2.0, 4.0], labels) == 0.0
    # Worse than chance: the best that keeps the order says nothing.
    assert min_cllr([1.0, 3.0, 4.0, 2.0], labels) == pytest.approx(1.0)
    # Neither overflows.
    assert cllr([1e4, -1e4, 1e4, -1e4], labels) == pytest.approx(
        0.5 * 1e4 / math.log(2)
    )


@pytest.mark.parametrize("p_target", [0.5, 0.05])
@pytest.mark.parametrize("systems", [1, 3])
def test_calibration_minimises_the_weighted_loss(p_target, systems):
    rng = np.random.default_rng(0)
    labels = rng.random(400) < 0.3
    scores = rng.normal(size=(systems, 400)) * 3 + 2 * labels + 5
    log_odds = math.log(p_target / (1 - p_target))
    spread = scores.std(axis=1)
    targets = int(labels.sum())

    def loss(parameters):
        *weights, offset = parameters
        total = 0.0
        for column, target in zip(scores.T, labels, strict=True):
            odds = offset + log_odds
            odds += sum(w * s for w, s in zip(weights, column, strict=True))
            share = p_target / targets
            if not target:
                odds, share = -odds, (1 - p_target) / (400 - targets)
            total += share * np.logaddexp(0, -odds)
        slope = sum((w * s) ** 2 for w, s in zip(weights, spread, strict=True))
        return total + 0.5 * slope / 400

    found = minimize(loss, np.zeros(systems + 1), tol=1e-9).x
    ours = Calibration(p_target).fit(
        scores if systems > 1 else scores[0], labels
    )
    np.testing.assert_allclose(ours.weights, found[:-1], atol=1e-3)
    assert ours.offset == pytest.approx(found[-1], abs=1e-3)
    np.testing.assert_allclose(
        ours(scores), found[:-1] @ scores + found[-1], atol=5e-3
    )


def test_calibration_finds_ratios_that_are_known():
    # Of Gaussians at -2 and 2 with variance 4 the log ratio is the score.
    rng = np.random.default_rng(0)
    labels = rng.random(40_000) < 0.1
    ratios = 2 * rng.normal(size=40_000) + np.where(labels, 2, -2)
    for p_target in (0.5, 0.1):
        calibration = Calibration(p_target).fit(ratios / 20 + 0.4, labels)
        np.testing.assert_allclose(
            calibration(ratios / 20 + 0.4), ratios, atol=0.5
        )


def test_calibration_repairs_and_does_not_reorder():
    scores, labels = some_scores(count=3000)
    raw = 0.05 * scores + 0.3
    calibrated = Calibration().fit(raw, labels)(raw)
    assert cllr(calibrated, labels) < 0.75 * cllr(raw, labels)
    assert cllr(calibrated, labels) < min_cllr(raw, labels) + 0.02
    assert eer(calibrated, labels)[0] == eer(raw, labels)[0]
    assert act_dcf(calibrated, labels, 0.5) < act_dcf(raw, labels, 0.5)


def test_an_affine_map_of_the_scores_is_undone():
    scores, labels = some_scores()
    one = Calibration().fit(scores, labels)(scores)
    other = Calibration().fit(1e-4 * scores + 9, labels)(1e-4 * scores + 9)
    np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("point", [(0.01, 1, 1), (0.5, 1, 1), (0.05, 10, 2)])
def test_actual_dcf_against_counting(seed, point):
    p, c_miss, c_fa = point
    scores, labels = some_scores(seed, levels=2)
    scores = 2 * scores
    threshold = math.log(c_fa * (1 - p) / (c_miss * p))
    pairs = list(zip(scores, labels, strict=True))
    misses = sum(1 for s, t in pairs if t and s < threshold)
    alarms = sum(1 for s, t in pairs if not t and s >= threshold)
    cost = c_miss * p * misses / labels.sum()
    cost += c_fa * (1 - p) * alarms / (~labels).sum()
    cost /= min(c_miss * p, c_fa * (1 - p))
    assert act_dcf(scores, labels, *point) == pytest.approx(cost)
    least = min_dcf(scores, labels, *point)
    assert act_dcf(scores, labels, *point) >= least - 1e-12


def test_the_threshold_in_the_unit_of_the_scores():
    scores, labels = some_scores()
    calibration = Calibration().fit(scores, labels)
    for point in ((0.01, 1, 1), (0.5, 1, 1), (0.05, 10, 2)):
        by_score = scores >= calibration.threshold(*point)
        by_ratio = calibration(scores) >= bayes_threshold(*point)
        assert (by_score == by_ratio).all()
    falling = Calibration().fit(-scores, labels)
    with pytest.raises(TrialError, match="only one score that rises"):
        falling.threshold()
    both = Calibration().fit([scores, scores], labels)
    with pytest.raises(TrialError, match="only one score that rises"):
        both.threshold()


def test_degenerate_scores():
    labels = np.array([1, 0, 0, 1])
    calibration = Calibration().fit(np.full(4, 0.3), labels)
    np.testing.assert_allclose(calibration([0.3, 5.0]), 0, atol=1e-6)
    # Classes that do not overlap: bounded, and in the right order.
    apart = Calibration().fit([0.9, 0.1, 0.2, 0.8], labels)([0.9, 0.1])
    assert 0.5 < apart[0] < 20 and -20 < apart[1] < -0.5
    for function in (cllr, min_cllr, act_dcf, Calibration().fit):
        with pytest.raises(TrialError, match="both classes"):
            function([0.1, 0.2], [1, 1])
        with pytest.raises(TrialError, match="1 of 2 scores are NaN"):
            function([np.nan, 0.2], [1, 0])
    with pytest.raises(TrialError, match="infinite scores; 1 of 2"):
        Calibration().fit([np.inf, 0.2], [1, 0])
    with pytest.raises(TrialError, match="learnt for 1"):
        calibration([[0.1], [0.2]])
    with pytest.raises(TrialError, match=r"got shape \(1, 1, 1\)"):
        calibration([[[0.1]]])


@pytest.mark.parametrize("point", [(0, 1, 1), (1, 1, 1), (0.5, 0, 1)])
def test_operating_points_that_are_none(point):
    with pytest.raises(ConfigError, match="operating point"):
        bayes_threshold(*point)
    with pytest.raises(ConfigError, match="operating point"):
        act_dcf([0.1, 0.2], [1, 0], *point)
    if point[0] in (0, 1):
        with pytest.raises(ConfigError, match="operating point"):
            Calibration(point[0])


def two_systems(count=4000, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.random(count) < 0.5
    good = rng.normal(size=count) + 2 * labels
    poor = 10 * (rng.normal(size=count) + labels) - 40
    return np.stack([good, poor]), labels


def test_a_learnt_fusion_beats_its_systems_and_the_plain_mean():
    scores, labels = two_systems()
    others, truth = two_systems(seed=1)
    fusion = learn_fusion(scores, labels)
    rates = [eer(s, truth)[0] for s in others]
    fused = eer(fusion(others), truth)[0]
    assert fused < min(rates) - 0.01
    assert fused < eer(weighted_fusion(others), truth)[0] - 0.05
    assert cllr(fusion(others), truth) < 0.6
    # Its weights are in proportion to shift over variance.
    assert fusion.weights[0] / fusion.weights[1] == pytest.approx(20, rel=0.2)


def test_weighted_fusion_against_a_loop():
    scores = np.random.default_rng(0).normal(size=(3, 7))
    for weights in (None, [1, 2, 5], [0, 0, 1]):
        w = weights or [1, 1, 1]
        expected = [
            sum(w[s] * scores[s, t] for s in range(3)) / sum(w)
            for t in range(7)
        ]
        np.testing.assert_allclose(weighted_fusion(scores, weights), expected)


@pytest.mark.parametrize(
    "scores, weights, message",
    [
        ([[1.0, 2.0], [1.0]], None, "same trials"),
        ([1.0, 2.0], None, "same trials"),
        ([], None, "same trials"),
        ([[1.0, np.nan], [1.0, 2.0]], None, r"\[1, 0\]"),
        ([[1.0], [2.0]], [1.0], "as many weights"),
        ([[1.0], [2.0]], [1.0, -1.0], "none of them negative"),
        ([[1.0], [2.0]], [0.0, 0.0], "not all zero"),
    ],
)
def test_scores_that_cannot_be_fused(scores, weights, message):
    with pytest.raises(TrialError, match=message):
        weighted_fusion(scores, weights)
