"""Split the utterances of a task into folds for training and testing.

No speaker is on both sides of a fold: a classifier that was trained on the sad
utterances of a speaker recognises that speaker's sadness better than anyone
else's. Every list of folds is checked to be disjoint before it is returned.
"""

import dataclasses
import logging

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from speechbrain_ssl.errors import ConfigError

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Fold:
    """Training set and test set of one fold.

    Attributes
    ----------
    name : str
        Name of the fold in the results.
    train, test : numpy.ndarray
        Positions of utterances, int64, rising.
    inner : list of tuple
        Pairs (train, test) within the training side, on which settings are
        chosen without using the test side. Positions among all utterances.
    """

    name: str
    train: np.ndarray
    test: np.ndarray
    inner: list


def prove_disjoint(folds, speakers):
    """Raise if any speaker or utterance is on both sides of a fold.

    Arguments
    ---------
    folds : list of Fold
        The folds.
    speakers : numpy.ndarray
        ``[N]``, speaker of each utterance.

    Raises
    ------
    ConfigError
        If the sides overlap or one is empty; names the fold and a speaker.

    Example
    -------
    >>> fold = Fold("1", np.array([0]), np.array([1]), [])
    >>> prove_disjoint([fold], np.array(["a", "b"]))
    >>> prove_disjoint([fold], np.array(["a", "a"]))
    Traceback (most recent call last):
    speechbrain_ssl.errors.ConfigError: the fold 1 has the speaker 'a' on both \
sides, and 0 more; give folds by speakers, or correct the speaker column
    """
    for fold in folds:
        sides = [(fold.train, fold.test, f"the fold {fold.name}")]
        sides += [
            (train, test, f"an inner fold of {fold.name}")
            for train, test in fold.inner
        ]
        for train, test, what in sides:
            if len(train) == 0 or len(test) == 0:
                raise ConfigError(
                    f"{what} has no utterance on one side; ask for fewer folds"
                )
            both = np.intersect1d(speakers[train], speakers[test])
            if len(both):
                raise ConfigError(
                    f"{what} has the speaker '{both[0]}' on both sides, and "
                    f"{len(both) - 1} more; give folds by speakers, or correct "
                    "the speaker column"
                )
        for inner in fold.inner:
            seen = np.intersect1d(np.concatenate(inner), fold.test)
            if len(seen):
                raise ConfigError(
                    f"the inner folds of {fold.name} contain utterances of "
                    "its test side"
                )


def _finished(folds, task):
    """Check that the folds are disjoint and train on every class."""
    prove_disjoint(folds, task.speakers)
    for fold in folds:
        sides = [fold.train, *(train for train, _ in fold.inner)]
        for side in sides:
            there = np.bincount(task.labels[side], minlength=len(task.classes))
            if (there == 0).any():
                name = task.classes[int(np.argmin(there))]
                raise ConfigError(
                    f"the fold {fold.name} has no training utterance of the "
                    f"class '{name}': too few speakers have it. Ask for fewer "
                    "folds (`folds`, `inner_folds`), or leave the class out "
                    "(`classes`)"
                )
    return folds


def _split(labels, groups, count, seed):
    """Return the test positions of ``count`` folds that do not split groups."""
    present = len(np.unique(groups))
    rarest = np.bincount(labels)[np.unique(labels)].min()
    if not 2 <= count <= min(present, rarest):
        raise ConfigError(
            f"{count} folds cannot be made of {present} groups of speakers "
            f"with {rarest} utterances of the rarest class; ask for 2 to "
            f"{min(present, rarest)}"
        )
    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    return [test for _, test in splitter.split(labels, labels, groups)]


def _inner(task, train, count, seed):
    """Make the inner folds within a training side."""
    tests = _split(task.labels[train], task.speakers[train], count, seed)
    return [(np.delete(train, test), train[test]) for test in tests]


class SpeakerFolds:
    """Folds by speakers, stratified by class.

    Every utterance is in exactly one test side. The speakers are assigned so
    that the classes are spread over the folds as evenly as possible
    (scikit-learn's ``StratifiedGroupKFold``).

    Arguments
    ---------
    count : int
        Number of folds.
    inner_folds : int
        Number of folds within a training side; 0 if no setting is chosen.
    seed : int
        Seed of the assignment. Use the same one for systems to be compared.
    """

    def __init__(self, count, inner_folds=3, seed=0):
        self.count = count
        self.inner_folds = inner_folds
        self.seed = seed

    def __call__(self, task):
        """Make the folds of a task.

        Arguments
        ---------
        task : speechbrain_ssl.downstream.task.Task
            The task.

        Returns
        -------
        list of Fold

        Raises
        ------
        ConfigError
            If there are too few speakers.
        """
        everyone = np.arange(len(task))
        folds = []
        tests = _split(task.labels, task.speakers, self.count, self.seed)
        for number, test in enumerate(tests, start=1):
            train = np.delete(everyone, test)
            inner = []
            if self.inner_folds:
                inner = _inner(task, train, self.inner_folds, self.seed)
            folds.append(Fold(str(number), train, test, inner))
        return _finished(folds, task)


class LeaveOneGroupOut:
    """Folds that leave out one group each, such as IEMOCAP's sessions.

    Arguments
    ---------
    column : str
        The column of the groups. No speaker may be in two of them.
    """

    def __init__(self, column):
        self.column = column

    def __call__(self, task):
        """Make the folds of a task; see ``SpeakerFolds``."""
        groups = task.column(self.column)
        names = np.unique(groups)
        if len(names) < 3:
            raise ConfigError(
                f"the column `{self.column}` has {len(names)} groups; leaving "
                "one out, and choosing by the others, needs three"
            )
        folds = []
        for name in names:
            train = np.flatnonzero(groups != name)
            inner = [
                (train[groups[train] != other], train[groups[train] == other])
                for other in names
                if other != name
            ]
            folds.append(
                Fold(name, train, np.flatnonzero(groups == name), inner)
            )
        return _finished(folds, task)


class OfficialPartitions:
    """Single fold with the partitions that the corpus defines.

    Arguments
    ---------
    column : str
        The column of the partitions.
    train, valid, test : str
        Their names in the column. Settings are chosen on ``valid``.
    """

    def __init__(self, column, train, valid, test):
        self.column = column
        self.train = train
        self.valid = valid
        self.test = test

    def __call__(self, task):
        """Make the one fold of a task; see ``SpeakerFolds``."""
        partitions = task.column(self.column)
        sides = {}
        for name in (self.train, self.valid, self.test):
            sides[name] = np.flatnonzero(partitions == name)
            if len(sides[name]) == 0:
                raise ConfigError(
                    f"no utterance has the {self.column} '{name}'; there are "
                    f"{', '.join(np.unique(partitions))}"
                )
        inner = [(sides[self.train], sides[self.valid])]
        fold = Fold(self.test, sides[self.train], sides[self.test], inner)
        return _finished([fold], task)
