"""The results of ``speechbrain_ssl.speakers.model.Model``, without methods."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Embeddings:
    """What ``Model.embed`` returns.

    Attributes
    ----------
    files : list of str
        Names of the files that were embedded, ``N`` of them.
    rows : numpy.ndarray
        float32 ``[N, size]``, a row for each file.
    unusable : dict
        Maps the names of the other files to the reason.
    notes : list of str
        Remarks on files, as on one in which two people may speak.
    """

    files: list
    rows: np.ndarray
    unusable: dict
    notes: list


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What ``Model.verify`` returns.

    Attributes
    ----------
    score : float
        Cosine of the two embeddings, from -1 to 1.
    llr : float or None
        Log-likelihood ratio in nats; None without a calibration.
    threshold : float or None
        The cosine above which it is one speaker; None if the model has none.
    threshold_from : str or None
        Where the threshold is from, in a few words.
    same : bool or None
        The decision; None without a threshold.
    notes : list of str
        Remarks on the files.
    """

    score: float
    llr: float | None
    threshold: float | None
    threshold_from: str | None
    same: bool | None
    notes: list


@dataclasses.dataclass(frozen=True)
class Threshold:
    """What ``Model.threshold`` returns.

    Attributes
    ----------
    threshold : float
        The cosine above which two recordings are taken for one speaker.
    of_many : dict
        Maps a number of enrolled names to the threshold of the highest of so
        many scores, for ``identify``.
    files : int
        How many files it was made from.
    unusable : dict
        Maps the names of the other files to the reason.
    notes : list of str
        Remarks on files.
    """

    threshold: float
    of_many: dict
    files: int
    unusable: dict
    notes: list


@dataclasses.dataclass(frozen=True)
class Groups:
    """What ``Model.cluster`` returns.

    Attributes
    ----------
    speakers : int
        How many speakers there are.
    files : dict
        Maps the name of a file to its speaker, numbered from 1, the one with
        most files first.
    unusable : dict
        Maps the names of the other files to the reason.
    notes : list of str
        Remarks on files.
    """

    speakers: int
    files: dict
    unusable: dict
    notes: list


@dataclasses.dataclass(frozen=True)
class Identity:
    """What ``Model.identify`` returns.

    Attributes
    ----------
    name : str or None
        Who speaks; None if it is nobody in the database, or if there is no
        threshold to decide by.
    nearest : str
        The most similar speaker of the database, whatever the decision.
    score, llr, threshold, threshold_from
        As in ``Comparison``, for the nearest speaker.
    scores : dict
        Maps each name of the database to its cosine, the highest first.
    notes : list of str
        Remarks on the recording.
    """

    name: str | None
    nearest: str
    score: float
    llr: float | None
    threshold: float | None
    threshold_from: str | None
    scores: dict
    notes: list


@dataclasses.dataclass(frozen=True)
class Matches:
    """What ``Model.search`` returns.

    Attributes
    ----------
    files : list of str
        Names of the most similar recordings, the most similar first.
    scores : list of float
        Their cosines.
    starts, ends : list of float or None
        Where the matching windows begin and end, in seconds, if windows are
        stored; otherwise None.
    searched : int
        How many embeddings were compared.
    notes : list of str
        Remarks on the recording.
    """

    files: list
    scores: list
    starts: list | None
    ends: list | None
    searched: int
    notes: list
