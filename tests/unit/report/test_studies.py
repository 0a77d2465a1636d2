"""Runs of a study: scored once, compared over the seeds they share."""

import numpy as np
import pytest

from speechbrain_ssl.report.studies import (
    compare_systems,
    run_row,
    score_runs,
)
from speechbrain_ssl.verification.bootstrap import paired_difference
from speechbrain_ssl.verification.trials import Trials


@pytest.fixture(scope="module")
def trials():
    """All pairs of two utterances each of 20 speakers."""
    names = [f"s{s}/{u}" for s in range(20) for u in range(2)]
    a, b = np.triu_indices(40, 1)
    return Trials(a // 2 == b // 2, a, b, names)


def test_scores_are_kept_and_unfinished_runs_wait(tmp_path):
    runs = [tmp_path / name for name in ("simclr_1", "simclr_2", "simclr_3")]
    for run in runs:
        run.mkdir()
    for run in runs[:2]:
        (run / "results.json").write_text("{}")
    asked = []

    def evaluate(folder):
        asked.append(folder.name)
        return np.array([float(folder.name[-1])])

    cache = tmp_path / "scores.npz"
    assert set(score_runs(runs, cache, evaluate)) == {"simclr_1", "simclr_2"}
    (runs[2] / "results.json").write_text("{}")
    found = score_runs(runs, cache, evaluate)
    assert asked == ["simclr_1", "simclr_2", "simclr_3"]
    assert [found[f"simclr_{s}"].item() for s in "123"] == [1.0, 2.0, 3.0]


def test_what_was_scored_outlives_a_run_that_fails(tmp_path):
    runs = [tmp_path / name for name in ("simclr_1", "simclr_2")]
    for run in runs:
        run.mkdir()
        (run / "results.json").write_text("{}")

    def evaluate(folder):
        if folder.name == "simclr_2":
            raise OSError("no model")
        return np.zeros(1)

    cache = tmp_path / "scores.npz"
    with pytest.raises(OSError, match="no model"):
        score_runs(runs, cache, evaluate)
    assert np.load(cache).files == ["simclr_1"]


def test_only_seeds_of_both_are_compared(trials):
    noise = np.random.default_rng(0).normal(size=(4, len(trials)))
    scores = {
        "ssps_1": 2 * trials.labels + noise[0],
        "ssps_3": 2 * trials.labels + noise[1],
        "ssps_late_3": noise[3],
        "simclr_2": trials.labels + noise[2],
        "simclr_3": trials.labels + noise[3],
    }
    found = compare_systems(scores, "ssps", "simclr", trials)
    gain, interval = paired_difference(
        scores["ssps_3"], scores["simclr_3"], trials
    )
    assert found == {
        "better": "ssps",
        "than": "simclr",
        "seeds": 1,
        "difference": 100 * gain,
        "ci_low": 100 * interval.low,
        "ci_high": 100 * interval.high,
    }


def test_systems_without_a_common_seed(trials):
    scores = {"ssps_1": np.zeros(1), "simclr_2": np.zeros(1)}
    assert compare_systems(scores, "ssps", "simclr", trials) is None


def test_a_later_evaluation_counts_instead_of_that_of_training():
    rates = {"ci_low": 7.0, "ci_high": 12.0}
    rates |= {"min_dcf_0.01": 0.7, "min_dcf_0.05": 0.5}
    results = {"eer": 9.0, "minutes": 1, "labels_seen": "none", **rates}
    results |= {"command": "train.py"}
    assert run_row("s", "1", "H", results)["eer_percent"] == "9.00"
    later = {"eer_percent": 8.0, **rates, "ci_low": 6.0}
    row = run_row("s", "1", "H", {**results, "evaluation": later})
    assert (row["eer_percent"], row["ci_low"]) == ("8.00", "6.00")
