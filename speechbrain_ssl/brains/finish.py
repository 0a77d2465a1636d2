"""The end of a training run: average, export, evaluate, report."""

import json
import logging
import pathlib

import numpy as np
import torch

from speechbrain_ssl.encoders.features import LogMel
from speechbrain_ssl.errors import CheckpointError, ConfigError
from speechbrain_ssl.precision import describe
from speechbrain_ssl.publishing.export import export_encoder
from speechbrain_ssl.report.page import build_report
from speechbrain_ssl.report.results import write_results
from speechbrain_ssl.verification.baselines import LogMelStatistics
from speechbrain_ssl.verification.evaluation import evaluate_scores
from speechbrain_ssl.verification.protocol import (
    check_speakers,
    load_trials,
    score_trials,
    write_scores,
)
from speechbrain_ssl.verification.trials import path_component

logger = logging.getLogger(__name__)


@torch.no_grad()
def average_weights(encoder, files):
    """Loads the mean of saved state dictionaries into an encoder.

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
    """A trial list that is looked at while and after training.

    It is for the reader. Nothing in training sees what it says.

    Arguments
    ---------
    path : str
        The trial list.
    audio_folder : str
        Folder the paths in it are relative to.
    speaker_component : int
        Which component of a path names the speaker (for the interval and the
        map of embeddings).

    Raises
    ------
    ConfigError, TrialError
        If the list is malformed or names what is not there.
    """

    def __init__(self, path, audio_folder, speaker_component):
        if audio_folder is None:
            raise ConfigError(
                "`trials` is given without `trials_folder`, the folder that "
                "the paths in it are relative to"
            )
        self.name = pathlib.Path(path).stem
        self.audio_folder = audio_folder
        self.speaker_of = path_component(speaker_component)
        self.trials = load_trials(path, audio_folder, speaker_component)
        # A list from which no interval can be had is refused now, and not
        # after hours of training. The scores do not matter for that.
        check_speakers({path: (self.trials, None)})
        self.figures(self.trials.labels.astype(float), replicates=100)

    def score(self, encoder, features, device):
        """Scores and embeddings of the list's trials and utterances."""
        return score_trials(
            encoder, features, self.trials, self.audio_folder, device=device
        )

    def figures(self, scores, replicates=1000):
        """The figures of some scores, EER as ``eer``, in percent."""
        found = evaluate_scores(scores, self.trials, replicates)
        return {"eer": found.pop("eer_percent"), **found}

    def baselines(self, untrained, initial, features, device):
        """EER of what this run has not trained, in percent.

        Arguments
        ---------
        untrained : torch.nn.Module
            The encoder as it was before the first step.
        initial : torch.nn.Module or None
            The model the run began with, if it began with one.
        features : speechbrain_ssl.encoders.features.LogMel
            Its features.
        device : str
            Where to compute.

        Returns
        -------
        dict
            ``eer_statistics`` (mean and deviation of the log-mel energies),
            ``eer_untrained`` and, if there is one, ``eer_initial``.
        """
        plain = LogMel(features.n_mels, features.sample_rate, mean_norm=False)
        systems = {
            "eer_statistics": (LogMelStatistics(), plain),
            "eer_untrained": (untrained, features),
        }
        if initial is not None:
            systems["eer_initial"] = (initial, features)
        return {
            name: self.figures(self.score(*system, device)[0], 0)["eer"]
            for name, system in systems.items()
        }


def conclude(brain):
    """Exports the encoder, evaluates it on trials, and writes the report.

    Arguments
    ---------
    brain : speechbrain_ssl.brains.training_brain.TrainingBrain
        After training, its encoder averaged.

    Returns
    -------
    dict
        What ``results.json`` holds.
    """
    folder = pathlib.Path(brain.hparams.output_folder)
    encoder, monitor = brain.evaluated_encoder, brain.trials
    export_encoder(folder / "model", encoder, brain.features)
    figures, drawn, mapped = {}, None, None
    if monitor is not None:
        scores, embeddings = monitor.score(
            encoder, brain.features, brain.device
        )
        figures = monitor.figures(scores)
        figures.update(
            monitor.baselines(
                brain.untrained, brain.initial, brain.features, brain.device
            )
        )
        trials = monitor.trials
        drawn = {
            monitor.name: {
                "scores": scores,
                "labels": trials.labels,
                "threshold": figures["threshold"],
            }
        }
        mapped = {
            "embeddings": embeddings,
            "groups": np.array([monitor.speaker_of(n) for n in trials.names]),
            "group_name": "speaker",
        }
        write_scores(folder / "trial_scores.txt", trials, scores)
        logger.info(
            "%s: EER %.2f %% [%.2f, %.2f]; without training: statistics "
            "%.2f %%, untrained encoder %.2f %%",
            monitor.name,
            figures["eer"],
            figures["ci_low"],
            figures["ci_high"],
            figures["eer_statistics"],
            figures["eer_untrained"],
        )
    path = write_results(
        folder,
        figures,
        seed=brain.hparams.seed,
        seconds=brain.seconds(),
        extra={
            "epochs": brain.epoch_reached,
            "effective_batch": brain.effective_batch,
            **describe(vars(brain.hparams)),
            **brain.further_results(),
        },
        labels_seen=brain.labels_seen,
        gpu=(
            torch.cuda.get_device_name()
            if brain.device_type == "cuda"
            else None
        ),
    )
    page = build_report(
        folder, schedules=brain.schedules, trials=drawn, embeddings=mapped
    )
    logger.info("report: %s", page)
    return json.loads(path.read_text(encoding="utf-8"))
