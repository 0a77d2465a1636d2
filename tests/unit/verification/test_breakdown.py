"""Error rates of groups against filtering the list by hand."""

import numpy as np
import pytest

from speechbrain_ssl.errors import TrialError
from speechbrain_ssl.verification import breakdown as module
from speechbrain_ssl.verification.bootstrap import bootstrap_interval
from speechbrain_ssl.verification.breakdown import (
    breakdown,
    read_speaker_table,
)
from speechbrain_ssl.verification.metrics import eer
from speechbrain_ssl.verification.trials import Trials, read_trials

TABLE = {
    f"s{i:02d}": {
        "gender": "mf"[i % 2],
        "nationality": "UK" if i < 8 else ("Peru" if i < 14 else "Fiji"),
    }
    for i in range(16)
}


def some_trials(seed=0):
    names = [f"s{i:02d}/{u}" for i in range(16) for u in range(3)]
    left, right = np.triu_indices(48, 1)
    trials = Trials(left // 3 == right // 3, left, right, names)
    scores = np.random.default_rng(seed).normal(size=len(trials))
    return scores + 2 * trials.labels, trials


def by_hand(scores, trials, belongs):
    chosen = []
    for score, label, a, b in zip(
        scores, trials.labels, trials.left, trials.right, strict=True
    ):
        one, two = (TABLE[trials.names[i].split("/")[0]] for i in (a, b))
        if belongs(one, two):
            chosen.append((score, label))
    values, labels = zip(*chosen, strict=True)
    return 100 * eer(values, labels)[0], sum(labels), len(labels) - sum(labels)


def test_every_group_against_the_list_filtered_by_hand():
    scores, trials = some_trials()
    rows = breakdown(scores, trials, TABLE)
    assert [(r["group"], r["value"], r["speakers"]) for r in rows] == [
        ("all", "", 16),
        ("same gender", "", 16),
        ("gender", "f", 8),
        ("gender", "m", 8),
        ("nationality", "UK", 8),
        ("nationality", "Peru", 6),
    ]
    rules = {
        "all": lambda a, b, _: True,
        "same gender": lambda a, b, _: a["gender"] == b["gender"],
        "gender": lambda a, b, v: a["gender"] == b["gender"] == v,
        "nationality": lambda a, b, v: (
            a["nationality"] == b["nationality"] == v
        ),
    }
    for row in rows:
        rule = rules[row["group"]]
        rate, targets, others = by_hand(
            scores, trials, lambda a, b, r=rule, v=row["value"]: r(a, b, v)
        )
        assert row["eer_percent"] == pytest.approx(rate)
        assert (row["targets"], row["nontargets"]) == (targets, others)
        assert row["ci_low"] is None


def test_the_order_of_trials_and_rising_maps_change_nothing():
    scores, trials = some_trials()
    rows = breakdown(scores, trials, TABLE)
    order = np.random.default_rng(0).permutation(len(trials))
    shuffled = Trials(
        trials.labels[order],
        trials.right[order],
        trials.left[order],
        trials.names,
    )
    assert breakdown(np.exp(scores[order]), shuffled, TABLE) == rows


def test_intervals_are_those_of_the_part():
    scores, trials = some_trials()
    rows = breakdown(scores, trials, TABLE, replicates=50, seed=3)
    whole = bootstrap_interval(scores, trials, replicates=50, seed=3)
    assert rows[0]["ci_low"] == pytest.approx(100 * whole.low)
    for row in rows:
        assert row["ci_low"] <= row["eer_percent"] <= row["ci_high"]


def test_groups_without_figures(monkeypatch):
    names = ["s00/1", "s00/2", "s01/1", "s02/1"]
    trials = Trials([1, 0, 0], [0, 0, 2], [1, 2, 3], names)
    monkeypatch.setattr(module, "LEAST_SPEAKERS", 1)
    rows = breakdown([0.9, 0.1, 0.2], trials, TABLE, replicates=20)
    found = {(r["group"], r["value"]): r for r in rows}
    assert found["all", ""]["eer_percent"] == 0
    # Targets only, and no trial at all.
    assert found["gender", "m"]["targets"] == 1
    assert found["gender", "m"]["eer_percent"] is None
    assert found["gender", "f"]["speakers"] == 0
    assert found["gender", "f"]["eer_percent"] is None


def test_speakers_that_are_not_in_the_table():
    scores, trials = some_trials()
    table = {k: v for k, v in TABLE.items() if k not in ("s03", "s11")}
    with pytest.raises(TrialError, match="2 speakers are not .* is 's03'"):
        breakdown(scores, trials, table)


def test_scores_that_do_not_fit():
    scores, trials = some_trials()
    with pytest.raises(TrialError, match="1 of .* NaN"):
        breakdown(
            np.where(np.arange(len(scores)) == 3, np.nan, scores), trials, TABLE
        )


def test_tables_that_are_none(tmp_path):
    with pytest.raises(TrialError, match="no table of speakers"):
        read_speaker_table(tmp_path / "nowhere.csv")
    path = tmp_path / "meta.csv"
    path.write_text("VoxCeleb1 ID,Gender\na,m\n")
    with pytest.raises(TrialError, match="separated by tabs"):
        read_speaker_table(path)
    path.write_text("")
    with pytest.raises(TrialError, match="no column Gender or Nationality"):
        read_speaker_table(path)
    path.write_text("VoxCeleb1 ID\tGender\n\na\tm\nb\n")
    with pytest.raises(TrialError, match="line 4: 1 columns"):
        read_speaker_table(path)


def test_voxcelebs_tables(shared_data):
    folder = shared_data / "voxceleb_meta"
    table = read_speaker_table(folder / "vox1_meta.csv")
    assert len(table) == 1251
    assert table["id10001"] == {"gender": "m", "nationality": "Ireland"}
    # Its columns come in another order, and end in blanks.
    other = read_speaker_table(folder / "vox2_meta.csv")
    assert other["id00012"] == {"gender": "m"}


def test_the_original_vox1_list(shared_data):
    """Known of it: its non-targets are of one gender, its speakers 40."""
    folder = shared_data / "voxceleb_meta"
    trials = read_trials(folder / "veri_test.txt")
    table = read_speaker_table(folder / "vox1_meta.csv")
    scores = np.random.default_rng(0).normal(size=len(trials)) + trials.labels
    rows = breakdown(scores, trials, table)
    assert rows[0]["speakers"] == 40
    genders = [r for r in rows if r["group"] == "gender"]
    same = rows[1]
    assert sum(r["speakers"] for r in genders) == 40
    assert sum(r["nontargets"] for r in genders) == same["nontargets"]
    assert sum(r["targets"] for r in genders) == 18_860
    assert all(r["speakers"] >= 5 for r in rows)
