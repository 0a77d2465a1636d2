"""Evaluate a pair of encoders on trials: by voice, by face, and by both."""

import logging

from speechbrain_ssl.embedding.faces import embed_faces
from speechbrain_ssl.verification.audio_visual import (
    check_faces,
    describe_modalities,
    evaluate_modalities,
    face_scores,
)
from speechbrain_ssl.verification.faces import read_trial_faces

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
    TrialError
        If the trials whose two sides have a face give no error rate.
    """

    def __init__(self, path, trials, data_root=None):
        self.trials = trials
        self.faces = read_trial_faces(path, trials, data_root)
        # Now, and not after days of training.
        check_faces(trials, self.faces.has_face)

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
        found = evaluate_modalities(
            audio, face_scores(rows, there, self.trials), self.trials
        )
        logger.info("%s", describe_modalities(found))
        return {
            f"{name}_{key.removesuffix('_percent')}": found[name][key]
            for name in ("face", "both")
            for key in ("eer_percent", "ci_low", "ci_high", "trials")
        }
