"""The figures that go into tables."""

import json
import time

import numpy as np
import pytest

from speechbrain_ssl.errors import TrialError
from speechbrain_ssl.verification.bootstrap import bootstrap_interval
from speechbrain_ssl.verification.evaluation import evaluate_scores
from speechbrain_ssl.verification.metrics import eer, min_dcf
from speechbrain_ssl.verification.trials import Trials, read_trials

KEYS = [
    "eer_percent",
    "ci_low",
    "ci_high",
    "min_dcf_0.01",
    "min_dcf_0.05",
    "trials",
    "targets",
    "utterances",
    "speakers",
    "threshold",
]


def scored_trials(prefix=""):
    names = [f"{prefix}s{s}/{u}" for s in range(10) for u in range(3)]
    left, right = np.triu_indices(30, 1)
    trials = Trials(left // 3 == right // 3, left, right, [*names, "no/one"])
    rng = np.random.default_rng(0)
    scores = rng.normal(size=len(trials)) + 2 * trials.labels
    return scores.astype(np.float32), trials


def test_figures():
    scores, trials = scored_trials()
    figures = evaluate_scores(scores, trials, replicates=100, seed=3)
    assert list(figures) == KEYS
    rate, threshold = eer(scores, trials.labels)
    interval = bootstrap_interval(scores, trials, replicates=100, seed=3)
    assert figures == {
        "eer_percent": 100 * rate,
        "ci_low": 100 * interval.low,
        "ci_high": 100 * interval.high,
        "min_dcf_0.01": min_dcf(scores, trials.labels, 0.01),
        "min_dcf_0.05": min_dcf(scores, trials.labels, 0.05),
        "trials": 435,
        "targets": 30,
        "utterances": 30,
        "speakers": 10,
        "threshold": threshold,
    }
    assert {type(value) for value in figures.values()} == {int, float}
    assert json.loads(json.dumps(figures)) == figures


def test_without_an_interval_no_speaker_is_needed():
    scores, trials = scored_trials(prefix="wav/")
    with pytest.raises(TrialError, match="speaker_of"):
        evaluate_scores(scores, trials)
    figures = evaluate_scores(scores, trials, replicates=0)
    assert list(figures) == KEYS
    assert (
        figures["ci_low"] is figures["ci_high"] is figures["speakers"] is None
    )
    assert figures["eer_percent"] > 0


def test_nan_scores_are_refused():
    scores, trials = scored_trials()
    scores[7] = np.nan
    with pytest.raises(TrialError, match="1 of 435 scores are NaN"):
        evaluate_scores(scores, trials)


def test_the_original_vox1_list(shared_data):
    trials = read_trials(shared_data / "voxceleb_meta" / "veri_test.txt")
    rng = np.random.default_rng(0)
    scores = rng.normal(size=len(trials)) + 4 * trials.labels
    begin = time.perf_counter()
    figures = evaluate_scores(scores, trials)
    assert time.perf_counter() - begin < 20
    # Two unit normals, 4 apart, cross at the tail beyond 2.
    assert figures["eer_percent"] == pytest.approx(2.275, abs=0.3)
    assert figures["ci_low"] < figures["eer_percent"] < figures["ci_high"]
    counts = [figures[k] for k in KEYS[5:9]]
    assert counts == [37_720, 18_860, 4_715, 40]
