"""The end of a training run: average, export, evaluate, report."""

import json
import logging
import pathlib

import numpy as np
import torch

from speechbrain_ssl.errors import CheckpointError
from speechbrain_ssl.publishing.export import export_encoder
from speechbrain_ssl.report.page import build_report
from speechbrain_ssl.report.results import write_results
from speechbrain_ssl.verification.evaluation import evaluate_scores
from speechbrain_ssl.verification.extract import embed_files
from speechbrain_ssl.verification.scoring import cosine_scores
from speechbrain_ssl.verification.trials import (
    check_files,
    path_component,
    read_trials,
)

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


def load_trials(path, audio_folder, speaker_component):
    """Reads a trial list and checks that its files are there.

    Arguments
    ---------
    path : str
        The list.
    audio_folder : str
        Folder the paths in it are relative to.
    speaker_component : int
        Which component of a path names the speaker (for the interval).

    Returns
    -------
    speechbrain_ssl.verification.trials.Trials
    """
    trials = read_trials(path, speaker_of=path_component(speaker_component))
    check_files(trials, audio_folder)
    return trials


def score_trials(encoder, features, trials, audio_folder, **kwargs):
    """Embeds the utterances of a trial list and scores it.

    Arguments
    ---------
    encoder, features, **kwargs
        See ``speechbrain_ssl.verification.extract.embed_files``.
    trials : speechbrain_ssl.verification.trials.Trials
        The trials.
    audio_folder : str
        Folder of the audio files.

    Returns
    -------
    tuple of numpy.ndarray
        Scores ``[trials]`` and embeddings ``[utterances, size]``.
    """
    paths = [str(pathlib.Path(audio_folder) / name) for name in trials.names]
    embeddings = embed_files(encoder, features, paths, **kwargs)
    return cosine_scores(embeddings, trials), embeddings


def conclude(brain):
    """Exports the encoder, evaluates it on trials, and writes the report.

    The trials are for the reader: nothing in training has looked at them.

    Arguments
    ---------
    brain : speechbrain_ssl.brains.ssl_brain.SSLBrain
        After training, its encoder averaged.

    Returns
    -------
    dict
        What ``results.json`` holds.
    """
    hparams = brain.hparams
    folder = pathlib.Path(hparams.output_folder)
    encoder = brain.evaluated_encoder
    export_encoder(folder / "model", encoder, brain.features)
    figures, drawn, mapped = {}, {}, None
    if hparams.trials:
        trials = load_trials(
            hparams.trials,
            hparams.trials_folder,
            hparams.trials_speaker_component,
        )
        scores, embeddings = score_trials(
            encoder,
            brain.features,
            trials,
            hparams.trials_folder,
            device=brain.device,
        )
        found = evaluate_scores(scores, trials)
        figures = {"eer": found.pop("eer_percent"), **found}
        brain.logbook.log(
            "trials", brain.epoch_reached, brain.optimizer_step, **figures
        )
        drawn[pathlib.Path(hparams.trials).stem] = {
            "scores": scores,
            "labels": trials.labels,
            "threshold": found["threshold"],
        }
        speaker_of = path_component(hparams.trials_speaker_component)
        mapped = {
            "embeddings": embeddings,
            "groups": np.array([speaker_of(name) for name in trials.names]),
            "group_name": "speaker (known for this map only)",
        }
        np.savez_compressed(
            folder / "trial_scores.npz", scores=scores, labels=trials.labels
        )
        logger.info(
            "%s: EER %.2f %% [%.2f, %.2f], minDCF(0.01) %.3f",
            hparams.trials,
            figures["eer"],
            figures["ci_low"],
            figures["ci_high"],
            figures["min_dcf_0.01"],
        )
    path = write_results(
        folder,
        figures,
        seed=hparams.seed,
        seconds=brain.seconds(),
        extra={
            "epochs": brain.epoch_reached,
            "effective_batch": int(brain.effective_batch),
        },
        labels_seen="none",
        gpu=(
            torch.cuda.get_device_name() if brain.device_type == "cuda" else None
        ),
    )
    build_report(
        folder, schedules=brain.schedules, trials=drawn, embeddings=mapped
    )
    logger.info("report: %s", folder / "report.html")
    return json.loads(path.read_text(encoding="utf-8"))
