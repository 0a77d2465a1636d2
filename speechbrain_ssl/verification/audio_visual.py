"""Score trials by voice, by face, and by both.

A pair has a face score if both of its utterances have a face; any other pair is
scored by its voices alone. How Han, Chen and Qian (2023, arXiv 2304.05754)
combine the scores is not public. Both ways here are ours:

* ``AudioVisualCalibration`` adds log-likelihood ratios. A pair without a face
  then has the ratio of its voices, on the same scale as all others. It has to
  be learnt from labelled trials.
* ``concatenated_scores`` needs no labels: the cosine of the two embeddings,
  each of length one, side by side. It is the mean of the two cosines, and
  compares such means with cosines of voices where faces are missing.
"""

import numpy as np

from speechbrain_ssl.errors import TrialError
from speechbrain_ssl.verification.calibration import Calibration
from speechbrain_ssl.verification.evaluation import evaluate_scores
from speechbrain_ssl.verification.scoring import check_table, cosine_scores


def face_scores(faces, there, trials):
    """Compute the cosines of the faces of every trial.

    Arguments
    ---------
    faces : numpy.ndarray
        ``[U, D]``; row ``i`` belongs to ``trials.names[i]``.
    there : numpy.ndarray
        bool ``[U]``: whether an utterance has a face.
    trials : Trials
        The trials, ``T`` of them.

    Returns
    -------
    numpy.ndarray
        float32 ``[T]``; NaN where one side has no face.

    Raises
    ------
    EmbeddingError
        As ``cosine_scores``.
    TrialError
        If no trial has a face on both sides.

    Example
    -------
    >>> from speechbrain_ssl.verification.trials import Trials
    >>> trials = Trials([1, 0], [0, 0], [1, 2], ["a/1", "a/2", "b/1"])
    >>> faces = np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 0.0]])
    >>> face_scores(faces, np.array([True, True, False]), trials).tolist()
    [1.0, nan]
    """
    check_table(faces, trials.names)
    pairs = there[trials.left] & there[trials.right]
    if not pairs.any():
        raise TrialError(
            f"none of the {len(trials)} trials has a face on both sides; check "
            "that the face manifest is that of the trials, or evaluate by "
            "voice alone"
        )
    # A missing face gets any direction; its scores are dropped.
    rows = np.where(there[:, None], faces, 1.0)
    return np.where(pairs, cosine_scores(rows, trials), np.float32(np.nan))


def concatenated_scores(audio, face):
    """Score by the concatenation of two embeddings of length one.

    Arguments
    ---------
    audio, face : numpy.ndarray
        Cosines of the voices and of the faces, ``[T]``; those of the faces are
        NaN where one side has no face.

    Returns
    -------
    numpy.ndarray
        ``[T]``: the mean of the two, or the cosine of the voices alone.

    Example
    -------
    >>> concatenated_scores(
    ...     np.array([0.5, 0.5]), np.array([1.0, np.nan])
    ... ).tolist()
    [0.75, 0.5]
    """
    return np.where(np.isnan(face), audio, (audio + face) / 2)


class AudioVisualCalibration:
    """Map the scores of voices and faces to one log-likelihood ratio.

    Each modality has its own calibration, and their ratios are added, as if the
    voice said nothing about the face given the speaker. A joint regression
    would have no weights for a pair without a face.

    Arguments
    ---------
    p_target : float
        As in ``Calibration``.

    Example
    -------
    >>> rng = np.random.default_rng(0)
    >>> labels = np.arange(1000) % 2 == 0
    >>> audio, face = labels + rng.normal(size=(2, 1000))
    >>> face[:100] = np.nan
    >>> both = AudioVisualCalibration().fit(audio, face, labels)
    >>> both(audio, face).shape
    (1000,)
    """

    def __init__(self, p_target=0.5):
        self.audio, self.face = Calibration(p_target), Calibration(p_target)

    def fit(self, audio, face, labels):
        """Learn both maps, that of the faces from the pairs that have them.

        Arguments
        ---------
        audio, face : numpy.ndarray
            Scores ``[T]``; those of the faces are NaN where there is none.
        labels : array_like
            ``[T]``; true for targets.

        Returns
        -------
        AudioVisualCalibration
            The calibration itself.

        Raises
        ------
        TrialError
            As ``Calibration.fit``.
        """
        there = ~np.isnan(face)
        self.audio.fit(audio, labels)
        self.face.fit(face[there], np.asarray(labels)[there])
        return self

    def __call__(self, audio, face):
        """Return log-likelihood ratios of both modalities.

        Arguments
        ---------
        audio, face : numpy.ndarray
            Scores ``[T]``, as in ``fit``.

        Returns
        -------
        numpy.ndarray
            float64 ``[T]``, in nats.
        """
        there = ~np.isnan(face)
        ratios = self.audio(audio)
        ratios[there] += self.face(face[there])
        return ratios


def evaluate_modalities(
    audio, face, trials, calibration=None, replicates=1000, seed=0
):
    """Compute the error rates of trials by voice, by face, and by both.

    Arguments
    ---------
    audio, face : numpy.ndarray
        Scores ``[T]``; those of the faces are NaN where there is none. Trials
        without one are left out of the figures by face alone.
    trials : Trials
        The trials.
    calibration : AudioVisualCalibration, optional
        Learnt on other trials. Both are then the sum of its ratios; otherwise
        they are ``concatenated_scores``.
    replicates, seed : int
        As in ``evaluate_scores``.

    Returns
    -------
    dict
        What ``evaluate_scores`` returns, under ``"audio"``, ``"face"`` and
        ``"both"``.

    Raises
    ------
    TrialError
        As ``evaluate_scores``.

    Example
    -------
    >>> from speechbrain_ssl.verification.trials import Trials
    >>> trials = Trials([1, 0, 0], [0, 0, 1], [1, 2, 3], list("abcd"))
    >>> found = evaluate_modalities(
    ...     np.array([0.1, 0.2, 0.0]),
    ...     np.array([0.9, 0.1, np.nan]),
    ...     trials,
    ...     replicates=0,
    ... )
    >>> [round(row["eer_percent"]) for row in found.values()]
    [50, 0, 0]
    """
    there = ~np.isnan(face)
    with_face = trials.select(there)
    both = concatenated_scores(audio, face)
    if calibration is not None:
        both = calibration(audio, face)
    options = {"replicates": replicates, "seed": seed}
    return {
        "audio": evaluate_scores(audio, trials, **options),
        "face": evaluate_scores(face[there], with_face, **options),
        "both": evaluate_scores(both, trials, **options),
    }


def describe_modalities(rows):
    """Format the figures of ``evaluate_modalities``, a line each.

    Arguments
    ---------
    rows : dict
        From ``evaluate_modalities``.

    Returns
    -------
    str
    """
    return "\n".join(
        f"by {name}: EER {row['eer_percent']:.2f} % [{row['ci_low']:.2f}, "
        f"{row['ci_high']:.2f}] on {row['trials']} trials"
        for name, row in rows.items()
    )


def check_faces(trials, has_face):
    """Raise if trials give no error rates by face.

    Arguments
    ---------
    trials : Trials
        The trials.
    has_face : numpy.ndarray
        Whether each recording of the trials has a face, bool.

    Raises
    ------
    TrialError
        If those whose two sides have one are too few, or of too few speakers.
    """
    # Perfect scores; what is missing shows with any.
    scores = trials.labels.astype(float)
    pairs = has_face[trials.left] & has_face[trials.right]
    evaluate_modalities(
        scores, np.where(pairs, scores, np.nan), trials, replicates=100
    )
