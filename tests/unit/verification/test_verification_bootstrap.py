"""The bootstrap over speakers against a naive one, and what it is worth."""

import time
from statistics import NormalDist

import numpy as np
import pytest

from speechbrain_ssl.errors import TrialError
from speechbrain_ssl.verification.bootstrap import (
    WeightedCurves,
    bootstrap_interval,
    paired_difference,
)
from speechbrain_ssl.verification.metrics import (
    det_points,
    eer,
    eer_of_curve,
    min_dcf,
    min_dcf_of_curve,
)
from speechbrain_ssl.verification.trials import Trials


def all_pairs(speakers, utterances, share=1.0, rng=None):
    """Trials of all pairs, or of a random share of them."""
    names = [
        f"s{s:03d}/{u}" for s in range(speakers) for u in range(utterances)
    ]
    left, right = np.triu_indices(len(names), 1)
    if share < 1:
        keep = rng.random(len(left)) < share
        left, right = left[keep], right[keep]
    same = left // utterances == right // utterances
    return Trials(same, left, right, names)


def speaker_scores(trials, rng, spread=1.0, shift=3.0):
    """Scores with speaker effects, and the error rate in the limit."""
    speaker = trials.speaker_indices()
    count = speaker.max() + 1
    offset = rng.normal(size=count) * spread  # of a speaker's targets
    effect = rng.normal(size=count) * spread  # of a speaker among others
    a, b = speaker[trials.left], speaker[trials.right]
    noise = rng.normal(size=len(trials))
    scores = noise + np.where(
        trials.labels, shift + offset[a], effect[a] + effect[b]
    )
    deviations = np.sqrt(1 + spread**2) + np.sqrt(1 + 2 * spread**2)
    return scores, NormalDist().cdf(-shift / deviations)


def naive_resample(scores, trials, drawn):
    """Writes the resampled list out, copy by copy; no weights."""
    speaker_of = trials.speaker_indices()
    new_scores, new_labels = [], []
    for score, label, left, right in zip(
        scores, trials.labels, trials.left, trials.right, strict=True
    ):
        a, b = speaker_of[left], speaker_of[right]
        for first in drawn:
            if first != a:
                continue
            if label:
                new_scores.append(score)
                new_labels.append(True)
                continue
            for second in drawn:
                if second == b:
                    new_scores.append(score)
                    new_labels.append(False)
    return np.array(new_scores), np.array(new_labels)


@pytest.mark.parametrize("levels", [2, 20, 10_000])
def test_a_replicate_equals_the_list_written_out(levels):
    rng = np.random.default_rng(levels)
    trials = all_pairs(7, 3)
    scores, _ = speaker_scores(trials, rng)
    scores = np.round(scores * levels) / levels
    curves = WeightedCurves(scores, trials)
    for _ in range(10):
        drawn = rng.integers(7, size=7)
        curve = curves.curve(np.bincount(drawn, minlength=7))
        written = naive_resample(scores, trials, drawn)
        assert eer_of_curve(*curve) == pytest.approx(eer(*written)[0])
        assert min_dcf_of_curve(*curve, 0.05) == pytest.approx(
            min_dcf(*written, 0.05)
        )


def test_equal_weights_give_the_plain_curve():
    rng = np.random.default_rng(0)
    trials = all_pairs(6, 4)
    scores = np.round(speaker_scores(trials, rng)[0], 1)
    curve = WeightedCurves(scores, trials).curve(np.ones(6))
    _, miss, false_alarm = det_points(scores, trials.labels)
    assert (curve[0] == miss).all() and (curve[1] == false_alarm).all()


def test_the_interval_is_the_percentiles_of_naive_replicates():
    rng = np.random.default_rng(5)
    trials = all_pairs(8, 3)
    scores, _ = speaker_scores(trials, rng)
    interval = bootstrap_interval(scores, trials, replicates=60, seed=9)
    draws = np.random.default_rng(9)
    rates = [
        eer(*naive_resample(scores, trials, draws.integers(8, size=8)))[0]
        for _ in range(60)
    ]
    assert interval.low == pytest.approx(np.percentile(rates, 2.5))
    assert interval.high == pytest.approx(np.percentile(rates, 97.5))
    assert interval[2:] == (60, 0, 8)


def test_the_seed_decides_and_the_order_does_not():
    rng = np.random.default_rng(2)
    trials = all_pairs(12, 4)
    scores, _ = speaker_scores(trials, rng)
    first = bootstrap_interval(scores, trials, replicates=50, seed=1)
    assert first == bootstrap_interval(scores, trials, replicates=50, seed=1)
    assert first != bootstrap_interval(scores, trials, replicates=50, seed=2)
    # Other order of trials, sides and names; and a name that is not used.
    order = rng.permutation(len(trials))
    turn = len(trials.names) - np.arange(len(trials.names))
    shuffled = Trials(
        trials.labels[order],
        turn[trials.right[order]],
        turn[trials.left[order]],
        ["unused/1", *trials.names[::-1]],
    )
    assert first == bootstrap_interval(
        scores[order], shuffled, replicates=50, seed=1
    )


def test_other_metrics():
    rng = np.random.default_rng(4)
    trials = all_pairs(15, 4)
    scores, _ = speaker_scores(trials, rng)
    interval = bootstrap_interval(
        scores, trials, metric=min_dcf_of_curve, replicates=100
    )
    assert interval.low < min_dcf(scores, trials.labels) <= interval.high + 0.1
    assert interval.high <= 1


def test_replicates_without_a_class_are_skipped_and_counted():
    names = [f"s{s}/{u}" for s in range(6) for u in range(2)]
    left, right = np.triu_indices(12, 1)
    same = left // 2 == right // 2
    scores = np.random.default_rng(0).normal(size=len(left)) + same
    keep = ~same | (left // 2 < 3)
    trials = Trials(same[keep], left[keep], right[keep], names)
    interval = bootstrap_interval(scores[keep], trials, replicates=500)
    # Three of six speakers have targets: 1 draw in 2 ** 6 misses them all.
    assert 1 <= interval.skipped <= 25
    assert interval.replicates + interval.skipped == 500
    # With targets of one speaker only, a third of the draws have none.
    keep = ~same | (left // 2 < 1)
    trials = Trials(same[keep], left[keep], right[keep], names)
    with pytest.raises(TrialError, match="of 500 resamplings of the 6 speak"):
        bootstrap_interval(scores[keep], trials, replicates=500)


def test_bad_arguments():
    trials = all_pairs(5, 3)
    scores = np.zeros(len(trials))
    with pytest.raises(ValueError, match="replicate"):
        bootstrap_interval(scores, trials, replicates=0)
    with pytest.raises(ValueError, match="confidence"):
        bootstrap_interval(scores, trials, confidence=95)
    with pytest.raises(TrialError, match="one score a trial"):
        bootstrap_interval(scores[1:], trials)
    with pytest.raises(TrialError, match="NaN"):
        bootstrap_interval(scores * np.nan, trials)


def test_coverage_where_the_truth_is_known():
    # 100 worlds of 30 speakers, whose effects are as large as the noise. Taking
    # the trials as independent covers the truth far less often.
    rng = np.random.default_rng(11)
    trials = all_pairs(30, 20, 0.1, rng)
    covered = covered_by_trials = 0
    worlds = 100
    for world in range(worlds):
        scores, truth = speaker_scores(trials, rng)
        low, high, *_ = bootstrap_interval(
            scores, trials, replicates=200, seed=world
        )
        covered += low <= truth <= high
        rate = eer(scores, trials.labels)[0]
        error = np.sqrt(rate * (1 - rate) / trials.labels.sum())
        covered_by_trials += abs(rate - truth) <= 1.96 * error
    assert covered >= 0.85 * worlds
    assert covered_by_trials < 0.75 * worlds


def test_600_000_trials_in_time():
    rng = np.random.default_rng(0)
    names = [f"s{u % 1251}/{u}" for u in range(150_000)]
    left = rng.integers(150_000, size=600_000)
    right = rng.integers(150_000, size=600_000)
    # Half of the trials are made targets by giving both sides one speaker.
    right[::2] = (right[::2] // 1251 * 1251 + left[::2] % 1251) % 150_000
    trials = Trials(left % 1251 == right % 1251, left, right, names)
    scores = rng.normal(size=len(trials)) + 2 * trials.labels
    begin = time.perf_counter()
    interval = bootstrap_interval(scores, trials, replicates=200)
    assert time.perf_counter() - begin < 40
    assert interval.low < eer(scores, trials.labels)[0] < interval.high


def test_paired_difference():
    """The same draws for both; exact where one system is the other shifted."""
    rng = np.random.default_rng(1)
    names = [f"s{s}/{u}" for s in range(25) for u in range(3)]
    a, b = np.triu_indices(75, 1)
    trials = Trials(a // 3 == b // 3, a, b, names)
    first = rng.normal(size=len(trials)) + 2 * trials.labels
    second = first + 0.4 * rng.normal(size=len(trials))
    # A monotonous change of the scores changes no error rate.
    none, interval = paired_difference(first, np.exp(first), trials)
    assert none == interval.low == interval.high == 0
    found, interval = paired_difference(first, second, trials, replicates=300)
    rates = [eer(scores, trials.labels)[0] for scores in (first, second)]
    assert found == pytest.approx(rates[1] - rates[0], abs=1e-12)
    back, mirrored = paired_difference(second, first, trials, replicates=300)
    assert back == -found
    assert (mirrored.low, mirrored.high) == pytest.approx(
        (-interval.high, -interval.low)
    )
    # Narrower than what two separate intervals would leave open.
    apart = [bootstrap_interval(s, trials) for s in (first, second)]
    assert interval.high - interval.low < 0.7 * sum(
        i.high - i.low for i in apart
    )
    # Runs are averaged.
    runs, _ = paired_difference([first, second], [second, second], trials)
    assert runs == pytest.approx(found / 2)


def test_runs_that_are_drawn_anew():
    """In pairs: one of two pairs without a difference is all in a quarter."""
    rng = np.random.default_rng(2)
    names = [f"s{s}/{u}" for s in range(25) for u in range(3)]
    a, b = np.triu_indices(75, 1)
    trials = Trials(a // 3 == b // 3, a, b, names)
    worse = rng.normal(size=len(trials)) + trials.labels
    better = worse + trials.labels
    pairs = [better, worse], [worse, worse]
    found, interval = paired_difference(*pairs, trials, replicates=200)
    again, drawn = paired_difference(
        *pairs, trials, replicates=200, draw_runs=True
    )
    assert found == again > 0
    assert interval.low > 0 == drawn.low
    assert drawn.high > 1.5 * interval.high
    # A single pair is always drawn.
    one = [
        paired_difference(better, worse, trials, draw_runs=d) for d in (0, 1)
    ]
    assert one[0][1].low == pytest.approx(one[1][1].low, rel=0.1)
    with pytest.raises(ValueError, match="in pairs; got 2 and 1"):
        paired_difference([better, worse], [worse], trials, draw_runs=True)
