"""No speaker on both sides, whatever the corpus looks like."""

import numpy as np
import pandas as pd
import pytest
import sklearn

from speechbrain_ssl.downstream.folds import (
    Fold,
    LeaveOneGroupOut,
    OfficialPartitions,
    SpeakerFolds,
    prove_disjoint,
)
from speechbrain_ssl.downstream.task import Task
from speechbrain_ssl.errors import ConfigError


def make_task(speakers, labels, **columns):
    """A task without audio."""
    names = np.unique(labels)
    return Task(
        None,
        pd.DataFrame(columns),
        np.asarray(speakers, dtype=str),
        np.searchsorted(names, labels),
        [str(n) for n in names],
    )


def random_task(seed):
    """Speakers of very different sizes, classes of very different shares."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(12, 40))
    sizes = rng.integers(1, 40, count)
    speakers = np.repeat([f"s{i}" for i in range(count)], sizes)
    speakers = rng.permutation(speakers)
    classes = int(rng.integers(2, 5))
    labels = rng.choice(classes, len(speakers), p=rng.dirichlet([8] * classes))
    return make_task(speakers, labels)


@pytest.mark.parametrize("seed", range(25))
def test_property_disjoint_and_complete(seed):
    task = random_task(seed)
    folds = SpeakerFolds(3 + seed % 3, inner_folds=2 + seed % 2, seed=seed)(
        task
    )
    tested = np.concatenate([fold.test for fold in folds])
    assert sorted(tested) == list(range(len(task)))
    for fold in folds:
        assert sorted([*fold.train, *fold.test]) == list(range(len(task)))
        speakers = set(task.speakers[fold.test])
        assert not speakers & set(task.speakers[fold.train])
        judged = []
        for train, test in fold.inner:
            assert not set(task.speakers[train]) & set(task.speakers[test])
            assert set(train) | set(test) == set(fold.train)
            judged += test.tolist()
        assert sorted(judged) == sorted(fold.train)


def test_folds_are_alike_and_repeatable():
    speakers = np.repeat(np.arange(24), 60)
    labels = np.tile(np.arange(60) % 8, 24)
    task = make_task(speakers, labels)
    folds = SpeakerFolds(6, seed=0)(task)
    for fold in folds:
        assert len(set(task.speakers[fold.test])) == 4
        assert np.ptp(np.bincount(task.labels[fold.test])) <= 4
    again = SpeakerFolds(6, seed=0)(task)
    assert [f.inner for f in SpeakerFolds(6, inner_folds=0)(task)] == [[]] * 6
    same = [set(f.test) for f in folds]
    assert same == [set(f.test) for f in again]


@pytest.mark.skipif(
    tuple(map(int, sklearn.__version__.split(".")[:2])) < (1, 8),
    reason="StratifiedGroupKFold shuffles correctly from scikit-learn 1.8 on",
)
def test_another_seed_makes_other_folds():
    speakers = np.repeat(np.arange(24), 60)
    task = make_task(speakers, np.tile(np.arange(60) % 8, 24))
    first, second = (SpeakerFolds(6, seed=seed)(task) for seed in (0, 1))
    assert [set(f.test) for f in first] != [set(f.test) for f in second]


def test_order_of_rows_does_not_matter():
    task = random_task(3)
    order = np.random.default_rng(0).permutation(len(task))
    shuffled = make_task(task.speakers[order], task.labels[order])

    def deal(task):
        folds = SpeakerFolds(4, seed=5)(task)
        return {frozenset(task.speakers[f.test]) for f in folds}

    assert deal(task) == deal(shuffled)


def test_leave_one_group_out():
    speakers = np.repeat([f"s{i}" for i in range(10)], 6)
    sessions = np.repeat([f"Session{i}" for i in range(5)], 12)
    task = make_task(speakers, np.arange(60) % 3, session=sessions)
    folds = LeaveOneGroupOut("session")(task)
    assert [fold.name for fold in folds] == [f"Session{i}" for i in range(5)]
    for fold in folds:
        assert set(sessions[fold.test]) == {fold.name}
        assert fold.name not in sessions[fold.train]
        assert len(fold.inner) == 4
        for train, test in fold.inner:
            assert len(set(sessions[test])) == 1
            assert len(set(sessions[train])) == 3
            assert fold.name not in {*sessions[train], *sessions[test]}
    # A speaker who is in two sessions is found out.
    task.speakers[0] = "s9"
    with pytest.raises(ConfigError, match="'s9' on both sides"):
        LeaveOneGroupOut("session")(task)


def test_official_partitions():
    parts = np.repeat(["Train", "Development", "Test1", "Test2"], 6)
    task = make_task(np.arange(24) // 2, np.arange(24) % 2, partition=parts)
    folds = OfficialPartitions("partition", "Train", "Development", "Test1")
    (fold,) = folds(task)
    assert fold.name == "Test1" and set(parts[fold.test]) == {"Test1"}
    ((train, valid),) = fold.inner
    np.testing.assert_array_equal(train, fold.train)
    assert set(parts[train]) == {"Train"}
    assert set(parts[valid]) == {"Development"}
    wrong = OfficialPartitions("partition", "Train", "Validation", "Test1")
    with pytest.raises(ConfigError, match="'Validation'; there are Devel"):
        wrong(task)
    task.speakers[12] = task.speakers[0]
    with pytest.raises(ConfigError, match="on both sides"):
        folds(task)


def test_proof_finds_every_overlap():
    speakers = np.array(["a", "b", "c", "d"])
    good = Fold("x", np.array([0, 1]), np.array([2]), [])
    prove_disjoint([good], speakers)
    inner = [(np.array([0]), np.array([1]))]
    prove_disjoint([Fold("x", good.train, good.test, inner)], speakers)
    peeking = [(np.array([0]), np.array([2]))]
    with pytest.raises(
        ConfigError, match="contain utterances of its test side"
    ):
        prove_disjoint([Fold("x", good.train, good.test, peeking)], speakers)
    speakers[1] = "a"
    with pytest.raises(ConfigError, match="an inner fold of x has .*'a'"):
        prove_disjoint([Fold("x", good.train, good.test, inner)], speakers)
    with pytest.raises(ConfigError, match="no utterance on one side"):
        prove_disjoint([Fold("x", good.train, good.train[:0], [])], speakers)


@pytest.mark.parametrize(
    "task, count, message",
    [
        (make_task(np.arange(8) // 2, np.arange(8) % 2), 5, "ask for 2 to 4"),
        (make_task(np.arange(8), np.arange(8) % 2), 1, "ask for 2 to 4"),
        # One speaker alone is sad.
        (
            make_task(np.arange(40) // 4, np.arange(40) < 4),
            3,
            "no training utterance of the class 'True'",
        ),
    ],
)
def test_too_few_speakers(task, count, message):
    with pytest.raises(ConfigError, match=message):
        SpeakerFolds(count, inner_folds=2)(task)


def test_too_few_groups():
    task = make_task(np.arange(8), np.arange(8) % 2, session=["1", "2"] * 4)
    with pytest.raises(ConfigError, match="has 2 groups"):
        LeaveOneGroupOut("session")(task)
