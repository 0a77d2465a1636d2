"""Several systems on one page: what is read, compared and shown."""

import browser
import numpy as np
import pytest

from speechbrain_ssl.errors import TrialError
from speechbrain_ssl.report.comparison import (
    compare,
    read_scores,
    read_systems,
    write_comparison,
)
from speechbrain_ssl.verification.bootstrap import bootstrap_interval
from speechbrain_ssl.verification.metrics import eer
from speechbrain_ssl.verification.protocol import write_scores
from speechbrain_ssl.verification.trials import Trials


@pytest.fixture
def trials():
    names = [f"s{s:02d}/{u}" for s in range(12) for u in range(3)]
    left, right = np.triu_indices(36, 1)
    return Trials(left // 3 == right // 3, left, right, names)


@pytest.fixture
def scores(trials):
    rng = np.random.default_rng(0)
    poor = trials.labels + rng.normal(size=len(trials))
    return {
        "poor": poor,
        "good": poor + trials.labels,
        "much the same": poor + 0.01 * rng.normal(size=len(trials)),
    }


def test_scores_survive_the_file(trials, scores, tmp_path):
    write_scores(tmp_path / "scores.txt", trials, scores["poor"])
    again, found = read_scores(tmp_path / "scores.txt")
    assert again.names == trials.names
    assert (again.left == trials.left).all()
    assert (again.labels == trials.labels).all()
    np.testing.assert_allclose(found, scores["poor"], atol=1e-6)


@pytest.mark.parametrize(
    "line", ["1 a b", "2 a b 0.5", "1 a b x", "1 a b 0.5 0.5"]
)
def test_a_line_that_is_no_scored_trial(tmp_path, line):
    path = tmp_path / "scores.txt"
    path.write_text(f"1 a b 0.5\n{line}\n")
    with pytest.raises(TrialError, match=f"scores.txt, line 2: '{line}'"):
        read_scores(path)


def test_missing_and_empty_files(tmp_path):
    with pytest.raises(TrialError, match="no score file"):
        read_scores(tmp_path / "nowhere.txt")
    (tmp_path / "empty.txt").touch()
    with pytest.raises(TrialError, match="empty"):
        read_scores(tmp_path / "empty.txt")


def test_systems_on_different_trials(tmp_path):
    (tmp_path / "a.txt").write_text("1 a b 0.5\n0 a c 0.2\n")
    for text in (
        "0 a c 0.2\n1 a b 0.5\n",
        "1 a b 0.5\n1 a c 0.2\n",
        "1 a b 1\n",
    ):
        (tmp_path / "b.txt").write_text(text)
        with pytest.raises(TrialError, match="b.txt and .*a.txt hold scores"):
            read_systems({n: tmp_path / f"{n}.txt" for n in "ab"})


def test_the_difference_is_that_of_paired_draws(trials, scores):
    """Drawn by hand: the same speakers for both systems."""
    poor, good = scores["poor"], scores["good"]
    speakers = np.arange(36) // 3
    left, right = speakers[trials.left], speakers[trials.right]
    rng = np.random.default_rng(5)
    expected = []
    for _ in range(40):
        times = np.bincount(rng.integers(12, size=12), minlength=12)
        weight = times[left] * np.where(trials.labels, 1, times[right])
        rates = [
            eer(np.repeat(s, weight), np.repeat(trials.labels, weight))[0]
            for s in (good, poor)
        ]
        expected.append(rates[0] - rates[1])
    both = {"poor": poor, "good": good}
    row = compare(trials, both, replicates=40, seed=5)[1]
    found = [row["difference_low"], row["difference_high"]]
    wanted = 100 * np.quantile(expected, [0.025, 0.975])
    np.testing.assert_allclose(found, wanted)


def test_pairing_is_worth_it(trials, scores):
    """Nearly equal systems differ by less than their own intervals."""
    rows = compare(trials, scores, replicates=200)
    width = rows[0]["ci_high"] - rows[0]["ci_low"]
    same = rows[2]
    assert (
        same["difference_low"] <= same["difference"] <= same["difference_high"]
    )
    assert same["difference_high"] - same["difference_low"] < 0.3 * width
    assert rows[1]["difference_high"] < 0
    assert [row.get("verdict") for row in rows] == [
        None,
        "better",
        "not distinguishable",
    ]
    turned = {"good": scores["good"], "poor": scores["poor"]}
    assert compare(trials, turned, replicates=200)[1]["verdict"] == "worse"
    assert "difference" not in rows[0]
    interval = bootstrap_interval(scores["good"], trials, replicates=200)
    assert rows[1]["ci_low"] == pytest.approx(100 * interval.low)


def test_without_a_bootstrap_nobody_asks_for_speakers(trials, scores):
    trials.speaker_of = {}
    rows = compare(trials, scores, replicates=0)
    assert rows[1]["difference"] < 0
    assert rows[1]["difference_low"] is None and rows[1]["verdict"] is None


def test_the_page_shows_all_systems(trials, scores, tmp_path):
    scores = {**scores, "<b>odd</b>": scores["poor"]}
    rows = compare(trials, scores, replicates=20)
    path = tmp_path / "page.html"
    write_comparison(path, {"list O": (trials, scores, rows)})
    text = path.read_text()
    assert text.count("<svg") == 1 and text.count("<h2>list O</h2>") == 1
    assert "630 trials, 36 of them targets, 12 speakers" in text
    for name, row in zip(scores, rows, strict=True):
        shown = name.replace("<", "&lt;").replace(">", "&gt;")
        assert f"<td>{shown}</td>" in text
        assert f"{row['eer_percent']:.2f} [" in text
    assert "<b>odd" not in text
    assert f"{rows[1]['difference']:+.2f} [" in text


def test_the_page_in_a_browser(trials, scores, tmp_path):
    """Nothing is cut off, however long the names are."""
    scores = {f"{name}_{'long_' * 8}": s for name, s in scores.items()}
    rows = compare(trials, scores, replicates=20)
    path = tmp_path / "page.html"
    write_comparison(path, {"list_" * 20: (trials, scores, rows)})
    for seen in browser.drive(path, "return {};"):
        assert seen["overflow"] <= 0 and seen["seen_dark"] == seen["dark"]
