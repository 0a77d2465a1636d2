"""Evaluate a pair of encoders on trials: by voice, by face, and by both."""

import logging
import pathlib

import numpy as np

from speechbrain_ssl.data.faces import FaceManifest
from speechbrain_ssl.embedding.faces import embed_faces
from speechbrain_ssl.verification.audio_visual import (
    concatenated_scores,
    face_scores,
)
from speechbrain_ssl.verification.evaluation import evaluate_scores
from speechbrain_ssl.verification.trials import Trials

logger = logging.getLogger(__name__)


class FaceTrials:
    """Holds the pictures of a trial list's recordings.

    Arguments
    ---------
    path : str
        A face manifest whose IDs are the names in the list without their
        extension.
    trials : speechbrain_ssl.verification.trials.Trials
        The trials.
    data_root : str, optional
        What ``$data_root`` in the manifest stands for.

    Raises
    ------
    ManifestError
        As ``FaceManifest.read``.
    """

    def __init__(self, path, trials, data_root=None):
        self.trials = trials
        self.faces = read_trial_faces(path, trials.names, data_root)

    def metrics(self, audio, encoder, features, device):
        """Score all trials by face and by both.

        A trial without a face on either side is left out of the figures by
        face, and is scored by its voices in those of both.

        Arguments
        ---------
        audio : numpy.ndarray
            Scores by voice, ``[T]``.
        encoder, features : torch.nn.Module
            The encoder of faces and its input.
        device : str
            Where to compute.

        Returns
        -------
        dict
            EER, interval and number of trials by face (``face_eer``, ...), and
            the same by both (``both_eer``, ...), in percent.
        """
        rows, there = embed_faces(encoder, features, self.faces, device=device)
        face = face_scores(rows, there, self.trials)
        pairs = ~np.isnan(face)
        of_faces = Trials(
            self.trials.labels[pairs],
            self.trials.left[pairs],
            self.trials.right[pairs],
            self.trials.names,
            self.trials.speaker_of,
        )
        found = {
            "face": evaluate_scores(face[pairs], of_faces),
            "both": evaluate_scores(
                concatenated_scores(audio, face), self.trials
            ),
        }
        metrics = {}
        for name, figures in found.items():
            logger.info(
                "by %s: EER %.2f %% [%.2f, %.2f] on %d trials",
                name,
                figures["eer_percent"],
                figures["ci_low"],
                figures["ci_high"],
                figures["trials"],
            )
            metrics[f"{name}_eer"] = figures["eer_percent"]
            for key in ("ci_low", "ci_high", "trials"):
                metrics[f"{name}_{key}"] = figures[key]
        return metrics


def read_trial_faces(path, names, data_root=None):
    """Read the face manifest of a trial list's recordings.

    Arguments
    ---------
    path : str
        The face manifest.
    names : sequence of str
        Names in the list; its IDs are these without their extension.
    data_root : str, optional
        What ``$data_root`` in it stands for.

    Returns
    -------
    speechbrain_ssl.data.faces.FaceManifest
        In the order of the names.

    Raises
    ------
    ManifestError
        As ``FaceManifest.read``.
    """
    bare = [str(pathlib.PurePosixPath(name).with_suffix("")) for name in names]
    return FaceManifest.read(path, _Recordings(bare), data_root)


class _Recordings(list):
    """IDs of recordings, in the place of a manifest."""

    @property
    def ids(self):
        """The IDs themselves."""
        return self
