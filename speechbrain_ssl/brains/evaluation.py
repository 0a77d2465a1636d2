"""Evaluate a run on trials, against baselines, and average its last weights.

``TrialMonitor`` computes the EER of a trial list during and after training;
``RecentWeights`` keeps the weights that ``average_weights`` averages at the
end. The report at the end is written in ``finish``.

Trials have speaker labels, so nothing computed from them reaches training: no
schedule, checkpoint or stopping rule depends on them.
"""

import copy
import logging
import pathlib

import torch

from speechbrain_ssl.brains.checkpointing import load_tensors
from speechbrain_ssl.embedding.baselines import LogMelStatistics
from speechbrain_ssl.errors import CheckpointError, ConfigError
from speechbrain_ssl.files import atomic_write
from speechbrain_ssl.verification.evaluation import evaluate_scores
from speechbrain_ssl.verification.protocol import (
    check_speakers,
    load_trials,
    score_trials,
)
from speechbrain_ssl.verification.trials import path_component

logger = logging.getLogger(__name__)

#: Path, below the output folder, of the encoder that a run was initialised
#: with.
INITIAL_ENCODER = "save/initial.ckpt"


class RecentWeights:
    """Keeps the weights of the last epochs, to be averaged at the end.

    Arguments
    ---------
    output_folder : str or pathlib.Path
        The weights are written to ``save/weights`` in this folder.
    count : int
        Number of epochs that are kept.
    """

    def __init__(self, output_folder, count):
        self.folder = pathlib.Path(output_folder) / "save" / "weights"
        self.count = count

    def files(self):
        """Return the paths of the saved weights, oldest first."""
        return sorted(self.folder.glob("epoch_*.pt"))

    def save(self, modules, epoch):
        """Save the modules of an epoch; delete the oldest beyond ``count``.

        Arguments
        ---------
        modules : dict
            Name -> ``torch.nn.Module``.
        epoch : int
            Number of the epoch.
        """
        path = self.folder / f"epoch_{epoch:05d}.pt"
        with atomic_write(path, "wb") as stream:
            torch.save(torch.nn.ModuleDict(modules).state_dict(), stream)
        for old in self.files()[: -self.count]:
            old.unlink()

    def drop_after(self, epoch):
        """Delete the weights of epochs after ``epoch``.

        They are left over from epochs that are about to be trained again, or
        from an earlier run whose checkpoints were deleted, and must not enter
        the average.
        """
        for path in self.files():
            if int(path.stem.removeprefix("epoch_")) > epoch:
                path.unlink()


@torch.no_grad()
def average_weights(modules, files):
    """Load the mean of saved weights into modules.

    Arguments
    ---------
    modules : dict
        Name -> ``torch.nn.Module``, changed in place. Integer buffers
        (counters) cannot be averaged and are taken from the last file.
    files : list of pathlib.Path
        Written by ``RecentWeights.save``, oldest first.

    Raises
    ------
    CheckpointError
        If ``files`` is empty, or all of them are damaged. If only some are,
        they are left out, with a warning.
    """
    if not files:
        raise CheckpointError(
            "there are no weights of finished epochs to average; train at "
            "least one epoch"
        )
    total, count = None, 0
    for path in files:
        try:
            state = load_tensors(path)
        except CheckpointError as error:
            logger.warning("%s: it is left out of the average", error)
            continue
        count += 1
        if total is None:
            total = {k: v.double() for k, v in state.items()}
        else:
            for name, value in state.items():
                total[name] += value
    if total is None:
        raise CheckpointError(
            f"all weights in {files[0].parent} are damaged; delete the newest "
            "checkpoint of the run and start the same command again, to train "
            "its last epoch again"
        )
    mean = {
        name: (
            (total[name] / count).to(value.dtype)
            if value.is_floating_point()
            else value
        )
        for name, value in state.items()
    }
    torch.nn.ModuleDict(modules).load_state_dict(mean)


class TrialMonitor:
    """Evaluates encoders on a trial list, during and after training.

    The results are only reported; training does not depend on them.

    Arguments
    ---------
    path : str
        Path of the trial list.
    audio_folder : str
        Folder that the paths in the list are relative to.
    speaker_component : int
        Index of the path component that names the speaker, for the confidence
        interval and the map of embeddings.
    untrained : torch.nn.Module
        A copy of the encoder before its first step, evaluated as a baseline.

    Attributes
    ----------
    initial : torch.nn.Module or None
        The encoder, trained by another run, that this run was initialised
        with; evaluated as a further baseline.

    Raises
    ------
    ConfigError, TrialError
        If the list is malformed or names a missing file.
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
        # Compute the metrics once, with the labels as scores: a list that gives
        # no confidence interval then fails now, not after hours of training.
        check_speakers({path: (self.trials, None)})
        self.metrics(self.trials.labels.astype(float), replicates=100)

    def score(self, encoder, features, device):
        """Return the scores of all trials and the embeddings of all files."""
        return score_trials(
            encoder, features, self.trials, self.audio_folder, device=device
        )

    def metrics(self, scores, replicates=1000):
        """Return the metrics of given scores; ``eer`` is the EER in percent."""
        found = evaluate_scores(scores, self.trials, replicates)
        eer = found.pop("eer_percent")
        return {"eer": eer, **found}

    def eer(self, encoder, features, device):
        """Return the EER of an encoder, in percent."""
        scores, _ = self.score(encoder, features, device)
        return self.metrics(scores, replicates=0)["eer"]

    def baselines(self, features, device):
        """Return the EERs of baselines that this run did not train, in percent.

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
        plain = features.without_normalization()
        found = {
            "eer_statistics": self.eer(LogMelStatistics(), plain, device),
            "eer_untrained": self.eer(self.untrained, features, device),
        }
        if self.initial is not None:
            found["eer_initial"] = self.eer(self.initial, features, device)
        return found


def keep_initial_encoder(encoder, output_folder, is_resuming, device):
    """Save or reload the encoder that a run was initialised with.

    It is evaluated as a baseline at the end. By then the files of the run that
    trained it may have been deleted, or overwritten by further training.

    Arguments
    ---------
    encoder : torch.nn.Module
        The encoder that is evaluated, before training starts or resumes.
    output_folder : str or pathlib.Path
        The output folder of the run.
    is_resuming : bool
        Whether the run resumes from a checkpoint. If so, the weights are read
        from the folder; if not, those of ``encoder`` are saved there.
    device : str
        The device of the copy.

    Returns
    -------
    torch.nn.Module or None
        A copy of the initial encoder; None if its file is damaged, or if the
        run was started by an earlier version, which did not save it.
    """
    path = pathlib.Path(output_folder) / INITIAL_ENCODER
    if is_resuming and not path.is_file():
        return None
    initial = copy.deepcopy(encoder)
    if is_resuming:
        try:
            initial.load_state_dict(load_tensors(path, device))
        except CheckpointError as error:
            logger.warning("%s: the results will lack `eer_initial`", error)
            return None
    else:
        with atomic_write(path, "wb") as stream:
            torch.save(initial.state_dict(), stream)
    return initial
