"""Score the trials of a list by the faces of their utterances."""

import pathlib

import numpy as np

from speechbrain_ssl.data.faces import FaceManifest
from speechbrain_ssl.data.manifest import Manifest, StringColumn
from speechbrain_ssl.errors import TrialError
from speechbrain_ssl.verification.evaluation import evaluate_scores
from speechbrain_ssl.verification.scoring import product_scores


def read_trial_faces(path, trials, data_root=None):
    """Read the pictures of the utterances of a trial list.

    Arguments
    ---------
    path : str
        A face manifest, whose IDs are the names in the list without their
        extension.
    trials : speechbrain_ssl.verification.trials.Trials
        The trials.
    data_root : str, optional
        What ``$data_root`` in the face manifest stands for.

    Returns
    -------
    speechbrain_ssl.data.faces.FaceManifest
        In the order of ``trials.names``.

    Raises
    ------
    ManifestError
        As ``FaceManifest.read``.
    """
    ids = [str(pathlib.PurePosixPath(n).with_suffix("")) for n in trials.names]
    column = StringColumn.from_strings(ids)
    listed = Manifest(column, column, np.ones(len(ids)))
    return FaceManifest.read(path, listed, data_root)


def evaluate_faces(rows, has_face, trials, replicates=1000, seed=0):
    """Compute the error rates of trials by face.

    Arguments
    ---------
    rows : numpy.ndarray
        Embeddings of length one, ``[U, D]``, in the order of ``trials.names``.
    has_face : numpy.ndarray
        Which utterances have a face, bool ``[U]``. The trials of the others are
        left out.
    trials : speechbrain_ssl.verification.trials.Trials
        The trials.
    replicates, seed : int
        As in ``evaluate_scores``.

    Returns
    -------
    dict
        What ``evaluate_scores`` returns, and ``trials_without_face``.

    Raises
    ------
    TrialError
        If no target or no nontarget has two faces.

    Example
    -------
    >>> from speechbrain_ssl.verification.trials import Trials
    >>> trials = Trials([1, 0, 0], [0, 0, 1], [1, 2, 3], list("abcd"))
    >>> rows, there = np.eye(4)[[0, 0, 1, 3]], np.array([1, 1, 1, 0]) > 0
    >>> found = evaluate_faces(rows, there, trials, replicates=0)
    >>> found["eer_percent"], found["trials"], found["trials_without_face"]
    (0.0, 2, 1)
    """
    both = has_face[trials.left] & has_face[trials.right]
    if len(np.unique(trials.labels[both])) < 2:
        raise TrialError(
            f"of {len(trials)} trials {int(both.sum())} have a face on both "
            "sides, and they are all targets or all nontargets; give the face "
            "manifest of the utterances of this list"
        )
    kept = trials.select(both)
    figures = evaluate_scores(
        product_scores(rows, kept), kept, replicates, seed
    )
    return {**figures, "trials_without_face": int((~both).sum())}
