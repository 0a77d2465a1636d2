"""Several lists scored in several ways, and their calibrations."""

import json

import numpy as np
import pytest

from speechbrain_ssl.errors import TrialError
from speechbrain_ssl.publishing.calibration_file import read_calibration
from speechbrain_ssl.verification.calibration import Calibration, cllr
from speechbrain_ssl.verification.evaluation import (
    evaluate_lists,
    evaluate_scores,
    write_calibrations,
)
from speechbrain_ssl.verification.trials import Trials


@pytest.fixture
def lists():
    names = [f"s{s}/{u}" for s in range(9) for u in range(3)]
    left, right = np.triu_indices(27, 1)
    same = left // 3 == right // 3
    return {
        "O": (Trials(same, left, right, names), None),
        "E": (Trials(same[::2], left[::2], right[::2], names), None),
    }


@pytest.fixture
def scores(lists):
    rng = np.random.default_rng(0)
    return {
        name: {
            scoring: factor
            * (trials.labels + 0.5 * rng.normal(size=len(trials)))
            for scoring, factor in (("cosine", 0.1), ("turned", -1.0))
        }
        for name, (trials, _) in lists.items()
    }


def test_every_list_in_every_way(lists, scores, tmp_path):
    found, drawn = evaluate_lists(tmp_path, lists, scores, replicates=20)
    assert [(e["list"], e["scoring"]) for e in found] == [
        (name, scoring) for name in "OE" for scoring in ("cosine", "turned")
    ]
    trials, _ = lists["E"]
    expected = evaluate_scores(scores["E"]["cosine"], trials, replicates=20)
    assert {k: found[2][k] for k in expected} == expected
    assert drawn["E, cosine"]["threshold"] == expected["threshold"]
    assert len(list(tmp_path.glob("scores_*.txt"))) == 4
    assert not (tmp_path / "calibration.json").exists()


def test_calibrations_are_for_other_lists_and_for_publishing(
    lists, scores, tmp_path
):
    found, _ = evaluate_lists(tmp_path, lists, scores, "O", replicates=0)
    assert ["cllr" in e for e in found] == [False, False, True, True]
    trials, _ = lists["E"]
    learnt = Calibration().fit(scores["O"]["cosine"], lists["O"][0].labels)
    ratios = learnt(scores["E"]["cosine"])
    assert found[2]["cllr"] == pytest.approx(cllr(ratios, trials.labels))
    # What publishing reads is the calibration of the cosine.
    known = read_calibration(tmp_path / "calibration.json")
    assert known(0.07) == pytest.approx(float(learnt([0.07])[0]))
    record = json.loads((tmp_path / "calibration.json").read_text())
    assert record["trials"] == "O"
    assert record["thresholds"]["0.05"] == pytest.approx(learnt.threshold(0.05))
    # A score that falls with the ratio has no threshold.
    assert record["scorings"]["turned"]["thresholds"]["0.05"] is None


def test_a_list_without_non_targets(lists, scores, tmp_path):
    trials, _ = lists["O"]
    lists["O"] = (
        Trials([1] * len(trials), trials.left, trials.right, trials.names),
        None,
    )
    with pytest.raises(TrialError, match="both classes"):
        evaluate_lists(tmp_path, lists, scores, replicates=0)


def test_calibrations_without_a_cosine(tmp_path):
    calibration = Calibration().fit([0.1, 0.4, 0.2, 0.9], [0, 1, 0, 1])
    write_calibrations(tmp_path / "c.json", {"plda": calibration}, "O")
    record = json.loads((tmp_path / "c.json").read_text())
    assert "scale" not in record and record["scorings"]["plda"]["scale"] > 0
