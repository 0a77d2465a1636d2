"""What is evaluated while a run trains, and what it is compared with.

Nothing here reaches training: no schedule, checkpoint or stopping rule looks at
a labelled trial.
"""

import copy
import logging
import pathlib

import torch

from speechbrain_ssl.encoders.features import LogMel
from speechbrain_ssl.errors import CheckpointError, ConfigError
from speechbrain_ssl.files import atomic_write
from speechbrain_ssl.verification.baselines import LogMelStatistics
from speechbrain_ssl.verification.evaluation import evaluate_scores
from speechbrain_ssl.verification.protocol import (
    check_speakers,
    load_trials,
    score_trials,
)
from speechbrain_ssl.verification.trials import path_component

logger = logging.getLogger(__name__)

#: Where the encoder is kept that a run began with, below its output folder.
INITIAL_ENCODER = "save/initial.ckpt"


class RecentWeights:
    """The encoders of the last epochs, which are averaged at the end.

    Arguments
    ---------
    output_folder : str or pathlib.Path
        They lie in ``save/weights`` of this folder.
    count : int
        How many are kept.
    """

    def __init__(self, output_folder, count):
        self.folder = pathlib.Path(output_folder) / "save" / "weights"
        self.count = count

    def files(self):
        """Return the files that are kept, oldest first."""
        return sorted(self.folder.glob("epoch_*.pt"))

    def save(self, encoder, epoch):
        """Keep the encoder of an epoch, and drop the oldest one."""
        path = self.folder / f"epoch_{epoch:05d}.pt"
        with atomic_write(path, "wb") as stream:
            torch.save(encoder.state_dict(), stream)
        for old in self.files()[: -self.count]:
            old.unlink()

    def drop_after(self, epoch):
        """Drop encoders of later epochs.

        Those of epochs that are about to be trained again, or of a run whose
        checkpoints are gone, must not be averaged in.
        """
        for path in self.files():
            if int(path.stem.removeprefix("epoch_")) > epoch:
                path.unlink()


@torch.no_grad()
def average_weights(encoder, files):
    """Load the mean of saved state dictionaries into an encoder.

    Arguments
    ---------
    encoder : torch.nn.Module
        Changed in place. Integer buffers (counters) are taken from the last
        file.
    files : list of pathlib.Path
        State dictionaries, oldest first.

    Raises
    ------
    CheckpointError
        If there is no file.
    """
    if not files:
        raise CheckpointError(
            "there are no weights of finished epochs to average; train at "
            "least one epoch"
        )
    total = None
    for path in files:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if total is None:
            total = {k: v.double() for k, v in state.items()}
        else:
            for name, value in state.items():
                total[name] += value
    mean = {
        name: (
            (total[name] / len(files)).to(value.dtype)
            if value.is_floating_point()
            else value
        )
        for name, value in state.items()
    }
    encoder.load_state_dict(mean)


class TrialMonitor:
    """Evaluates a trial list while a run trains and at its end.

    For the reader only: nothing in training sees the result.

    Arguments
    ---------
    path : str
        The trial list.
    audio_folder : str
        Folder the paths in it are relative to.
    speaker_component : int
        Which component of a path names the speaker (for the interval and the
        map of embeddings).
    untrained : torch.nn.Module
        The encoder before its first step, to be compared with.

    Attributes
    ----------
    initial : torch.nn.Module or None
        The encoder that another run has trained and this one began with.

    Raises
    ------
    ConfigError, TrialError
        If the list is malformed or names what is not there.
    """

    def __init__(self, path, audio_folder, speaker_component, untrained):
        if audio_folder is None:
            raise ConfigError(
                "`trials` is given without `trials_folder`, the folder that "
                "the paths in it are relative to"
            )
        self.untrained, self.initial = untrained, None
        self.name = pathlib.Path(path).stem
        self.audio_folder = audio_folder
        self.speaker_of = path_component(speaker_component)
        self.trials = load_trials(path, audio_folder, speaker_component)
        # A list from which no interval can be had is refused now, and not
        # after hours of training. The scores do not matter for that.
        check_speakers({path: (self.trials, None)})
        self.figures(self.trials.labels.astype(float), replicates=100)

    def score(self, encoder, features, device):
        """Return the scores of the trials and the embeddings of the files."""
        return score_trials(
            encoder, features, self.trials, self.audio_folder, device=device
        )

    def figures(self, scores, replicates=1000):
        """Return the metrics of some scores, EER as ``eer``, in percent."""
        found = evaluate_scores(scores, self.trials, replicates)
        return {"eer": found.pop("eer_percent"), **found}

    def eer(self, encoder, features, device):
        """Return the EER of an encoder, in percent."""
        scores, _ = self.score(encoder, features, device)
        return self.figures(scores, replicates=0)["eer"]

    def baselines(self, features, device):
        """Return the EER of what this run has not trained, in percent.

        Arguments
        ---------
        features : speechbrain_ssl.encoders.features.LogMel
            The features of the encoder.
        device : str
            Where to compute.

        Returns
        -------
        dict
            ``eer_statistics`` (mean and deviation of the log-mel energies),
            ``eer_untrained`` and, if there is one, ``eer_initial``.
        """
        plain = LogMel(features.n_mels, features.sample_rate, mean_norm=False)
        found = {
            "eer_statistics": self.eer(LogMelStatistics(), plain, device),
            "eer_untrained": self.eer(self.untrained, features, device),
        }
        if self.initial is not None:
            found["eer_initial"] = self.eer(self.initial, features, device)
        return found


def keep_initial_encoder(encoder, output_folder, is_resuming, device):
    """Keep the encoder a run began with, to be evaluated at the end.

    The run that trained it may be gone by then, or have trained on.

    Arguments
    ---------
    encoder : torch.nn.Module
        The encoder that is evaluated, before the first step of this start.
    output_folder : str or pathlib.Path
        The folder of the run.
    is_resuming : bool
        Whether the run goes on from a checkpoint: the encoder is then read
        from the folder.
    device : str
        Where to put it.

    Returns
    -------
    torch.nn.Module or None
        A copy; None if the run is one of an earlier version, which kept none.
    """
    path = pathlib.Path(output_folder) / INITIAL_ENCODER
    if is_resuming and not path.is_file():
        return None
    initial = copy.deepcopy(encoder)
    if is_resuming:
        initial.load_state_dict(
            torch.load(path, map_location=device, weights_only=True)
        )
    else:
        with atomic_write(path, "wb") as stream:
            torch.save(initial.state_dict(), stream)
    return initial
