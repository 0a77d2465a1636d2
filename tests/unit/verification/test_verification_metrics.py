"""Error rates against brute force, against other libraries, and timed."""

import time
from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy.interpolate import interp1d
from scipy.optimize import brentq
from sklearn.metrics import roc_curve
from speechbrain.utils import metric_stats

from speechbrain_ssl.errors import ConfigError, TrialError
from speechbrain_ssl.verification.metrics import det_points, eer, min_dcf


def brute_points(scores, labels):
    """Every threshold, every trial, in fractions; nothing is sorted away."""
    targets = [s for s, t in zip(scores, labels, strict=True) if t]
    others = [s for s, t in zip(scores, labels, strict=True) if not t]
    points = []
    for threshold in [*sorted(set(scores)), float("inf")]:
        missed = sum(1 for s in targets if not s >= threshold)
        alarms = sum(1 for s in others if s >= threshold)
        points.append(
            (
                threshold,
                Fraction(missed, len(targets)),
                Fraction(alarms, len(others)),
            )
        )
    return points


def brute_eer(scores, labels):
    """Intersects every segment of the curve with the diagonal."""
    points = brute_points(scores, labels)
    for (_, m0, f0), (_, m1, f1) in zip(points, points[1:], strict=False):
        if m0 <= f0 and m1 >= f1:
            # m0 + u (m1 - m0) == f0 + u (f1 - f0), solved for u
            u = (f0 - m0) / ((m1 - m0) - (f1 - f0))
            return float(m0 + u * (m1 - m0))
    raise AssertionError("the curve does not cross the diagonal")


def brute_min_dcf(scores, labels, p, c_miss=1, c_fa=1):
    p = Fraction(p)
    best = min(
        c_miss * p * m + c_fa * (1 - p) * f
        for _, m, f in brute_points(scores, labels)
    )
    return float(best / min(c_miss * p, c_fa * (1 - p)))


def random_list(seed):
    """A short list; the more ties, the smaller ``levels``."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(2, 60))
    labels = rng.random(count) < rng.uniform(0.1, 0.9)
    labels[:2] = [True, False]
    levels = int(rng.choice([1, 2, 3, 8, 1000]))
    # From worse than chance to perfect.
    shift = rng.choice([-2.0, 0.0, 0.5, 1.0, 5.0])
    scores = rng.normal(size=count) + shift * labels
    scores = np.round(scores * levels / 4) / levels
    return scores, labels


@pytest.mark.parametrize("seed", range(200))
def test_against_brute_force(seed):
    scores, labels = random_list(seed)
    points = brute_points(scores.tolist(), labels)
    thresholds, miss, false_alarm = det_points(scores, labels)
    assert thresholds.tolist() == [t for t, _, _ in points]
    assert miss.tolist() == [float(m) for _, m, _ in points]
    assert false_alarm.tolist() == [float(f) for _, _, f in points]
    rate, threshold = eer(scores, labels)
    assert rate == pytest.approx(brute_eer(scores, labels), abs=1e-12)
    nearest = min(points, key=lambda point: abs(point[1] - point[2]))
    assert threshold == nearest[0]
    for p in (0.01, 0.05, 0.5, 0.9):
        expected = brute_min_dcf(scores, labels, p)
        assert min_dcf(scores, labels, p) == pytest.approx(expected, abs=1e-12)
    assert min_dcf(scores, labels, 0.2, 10, 3) == pytest.approx(
        brute_min_dcf(scores, labels, 0.2, 10, 3), abs=1e-12
    )


@pytest.mark.parametrize("seed", range(50))
def test_a_rising_transform_or_another_order_changes_nothing(seed):
    scores, labels = random_list(seed)
    rate, threshold = eer(scores, labels)
    cost = min_dcf(scores, labels, 0.05)
    for transform in (np.exp, np.cbrt, lambda s: 3 * s - 7):
        other, moved = eer(transform(scores), labels)
        assert (other, moved) == (rate, transform(np.array([threshold]))[0])
        assert min_dcf(transform(scores), labels, 0.05) == cost
    order = np.random.default_rng(seed).permutation(len(scores))
    assert eer(scores[order], labels[order]) == (rate, threshold)
    assert min_dcf(scores[order], labels[order], 0.05) == cost


@pytest.mark.parametrize("seed", range(50))
def test_negated_scores_and_labels_swap_the_roles(seed):
    # Targets become non-targets and the order turns: the same curve, read
    # from the other end.
    scores, labels = random_list(seed)
    assert eer(-scores, ~labels)[0] == pytest.approx(
        eer(scores, labels)[0], abs=1e-12
    )


def test_constant_scores():
    labels = np.array([1, 0, 0, 0, 1])
    assert eer(np.full(5, 0.3), labels) == (0.5, 0.3)
    assert min_dcf(np.full(5, 0.3), labels) == 1.0


def test_perfect_separation():
    scores, labels = [0.1, 0.2, 0.7, 0.9], [0, 0, 1, 1]
    assert eer(scores, labels) == (0.0, 0.7)
    assert min_dcf(scores, labels) == 0.0


def test_inverted_scores():
    scores, labels = [0.1, 0.2, 0.7, 0.9], [1, 1, 0, 0]
    assert eer(scores, labels)[0] == 1.0
    # Whoever does not listen still does better.
    assert min_dcf(scores, labels) == 1.0


def test_one_class_missing():
    for metric in (det_points, eer, min_dcf):
        for label in (0, 1):
            with pytest.raises(TrialError, match="both classes"):
                metric([0.1, 0.2], [label, label])
        with pytest.raises(TrialError, match="both classes"):
            metric([], [])


def test_nan_scores_are_counted():
    for metric in (det_points, eer, min_dcf):
        with pytest.raises(TrialError, match="2 of 4 scores are NaN"):
            metric([0.1, np.nan, 0.3, np.nan], [0, 1, 0, 1])


def test_lengths_and_labels_that_do_not_fit():
    with pytest.raises(TrialError, match=r"\(3,\).*\(2,\)"):
        eer([0.1, 0.2, 0.3], [0, 1])
    with pytest.raises(TrialError, match="one score a trial"):
        eer([[0.1, 0.2]], [[0, 1]])
    with pytest.raises(TrialError, match="label"):
        eer([0.1, 0.2], [-1, 1])


@pytest.mark.parametrize("prior", [0, 1, -0.1, float("nan")])
def test_an_impossible_prior(prior):
    with pytest.raises(ConfigError, match="p_target"):
        min_dcf([0.1, 0.2], [0, 1], p_target=prior)


def test_tensors_integers_and_infinite_scores():
    labels = torch.tensor([0, 0, 1, 1])
    assert eer(torch.tensor([1, 2, 2, 3]), labels)[0] == 0.25
    assert eer(np.array([-np.inf, 2, 2, np.inf]), labels) == (0.25, 2.0)


def test_600_000_trials_against_sklearn_and_in_time():
    rng = np.random.default_rng(1)
    labels = rng.random(600_000) < 0.5
    scores = (rng.normal(size=600_000) + 3 * labels).astype(np.float32)
    begin = time.perf_counter()
    rate, _ = eer(scores, labels)
    between = time.perf_counter()
    cost = min_dcf(scores, labels)
    end = time.perf_counter()
    assert between - begin < 2
    assert end - between < 2
    false_alarm, hit, _ = roc_curve(labels, scores, drop_intermediate=False)
    curve = interp1d(false_alarm, hit)
    expected = brentq(lambda x: 1 - x - curve(x), 0, 1)
    assert rate == pytest.approx(expected, abs=1e-9)
    stepwise = np.min(0.01 * (1 - hit) + 0.99 * false_alarm) / 0.01
    assert cost == pytest.approx(stepwise, abs=1e-12)


def stock_list():
    rng = np.random.default_rng(3)
    targets = torch.from_numpy(rng.normal(size=120) + 2.0)
    others = torch.from_numpy(rng.normal(size=300))
    scores = torch.cat([targets, others])
    labels = torch.arange(420) < 120
    return targets, others, scores, labels


def test_speechbrain_eer_agrees_within_half_a_step():
    targets, others, scores, labels = stock_list()
    stock, _ = metric_stats.EER(targets, others)
    # Without ties the larger step is one target of 120.
    assert eer(scores, labels)[0] == pytest.approx(stock, abs=0.5 / 120 + 1e-6)


def test_speechbrain_min_dcf_is_not_normalised():
    # The trap: SpeechBrain returns the raw cost. At p_target 0.01 it looks a
    # hundred times better than what papers call minDCF, at 0.05 twenty times.
    targets, others, scores, labels = stock_list()
    for p, factor in ((0.01, 100), (0.05, 20)):
        stock, _ = metric_stats.minDCF(targets, others, p_target=p)
        ours = min_dcf(scores, labels, p)
        assert 0.1 < ours < 1
        assert ours == pytest.approx(factor * stock, rel=1e-5)
