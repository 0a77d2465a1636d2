"""Write a model folder for publication and test it with SpeechBrain."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import torch

from speechbrain_ssl.data.draws import uniform
from speechbrain_ssl.errors import ConfigError, UserError
from speechbrain_ssl.files import atomic_write
from speechbrain_ssl.publishing.calibration_file import (
    FILE_NAME as CALIBRATION,
)
from speechbrain_ssl.publishing.calibration_file import read_calibration
from speechbrain_ssl.publishing.card import evaluations, make_card
from speechbrain_ssl.publishing.description import describe
from speechbrain_ssl.publishing.export import export_encoder, load_encoder
from speechbrain_ssl.publishing.hub import find_model, find_record
from speechbrain_ssl.publishing.onnx import FILE_NAME as ONNX
from speechbrain_ssl.publishing.onnx import export_onnx
from speechbrain_ssl.publishing.record import read_record, without_folders
from speechbrain_ssl.report.results import FILE_NAME as RESULTS
from speechbrain_ssl.verification.label_free_threshold import (
    RULE as LABEL_FREE,
)

#: Largest difference between our embeddings and those of SpeechBrain, as a
#: share of the largest value.
TOLERANCE = 1e-5

# Makes our package impossible to import, as on the machine of a user.
_ALONE = """
import sys
sys.modules["speechbrain_ssl"] = None
"""
_EMBED = """
import sys
import numpy, torch
from speechbrain.inference.speaker import SpeakerRecognition
folder, waves, found = sys.argv[1:]
model = SpeakerRecognition.from_hparams(folder, savedir=found + ".links")
with numpy.load(waves) as archive:
    rows = [
        model.encode_batch(torch.from_numpy(archive[key]))[0, 0].cpu().numpy()
        for key in archive.files
    ]
numpy.save(found, numpy.stack(rows))
"""


class ProofError(UserError):
    """Raised when SpeechBrain does not reproduce our embeddings."""


def threshold_of(calibration, results, p_target=0.5):
    """Find the threshold that a model comes with, and its origin.

    Arguments
    ---------
    calibration : CosineCalibration, optional
        The calibration of the model; takes precedence over ``results``.
    results : dict
        ``results.json``. Its ``threshold`` is that of the equal error rate;
        that of an evaluation comes next, and ``label_free_threshold`` last.
    p_target : float
        Prior of the calibrated threshold, with equal costs of both errors.

    Returns
    -------
    tuple
        The cosine and its origin in a few words; (None, None) if unknown.

    Example
    -------
    >>> threshold_of(None, {"threshold": 0.3})
    (0.3, 'equal error rate of its trials')
    """
    if calibration is not None:
        return calibration.threshold(p_target), (
            f"log-likelihood ratio calibrated on {calibration.trials}, target "
            f"prior {p_target:g}"
        )
    value = results.get("threshold")
    if value is None:
        for row in results.get("evaluations", []):
            if row.get("scoring") == "cosine" and "threshold" in row:
                return row["threshold"], f"equal error rate of {row['list']}"
        value = results.get("label_free_threshold")
        return value, None if value is None else LABEL_FREE
    return value, "equal error rate of its trials"


def make_bundle(
    model,
    output_folder,
    about,
    results=None,
    calibration=None,
    p_target=0.5,
    onnx=False,
):
    """Write a folder to publish and test it with SpeechBrain.

    Arguments
    ---------
    model : str
        Output folder of a training run, or a model folder.
    output_folder : str or pathlib.Path
        The folder to write.
    about : speechbrain_ssl.publishing.card.About
        Facts for the card.
    results : str, optional
        The ``results.json`` of an evaluation. By default that of the run, if
        it has one.
    calibration : str, optional
        A ``calibration.json``. By default the one beside the model, if any.
    p_target : float
        See ``threshold_of``.
    onnx : bool
        Whether to add ``model.onnx``.

    Returns
    -------
    dict
        ``folder``, ``threshold`` and ``threshold_from`` (or None),
        ``evaluations`` (how many) and ``difference``, the value that
        ``prove`` returned.

    Raises
    ------
    ConfigError
        If a given file is missing or invalid, or the output folder is the
        model itself.
    ProofError
        As ``prove``.
    """
    encoder, features = load_encoder(model)
    output_folder = pathlib.Path(output_folder)
    if output_folder.resolve() in (
        pathlib.Path(model).resolve(),
        find_model(model).resolve(),
    ):
        raise ConfigError(
            f"output_folder {output_folder} is the model itself; name a folder "
            "of its own"
        )
    record = without_folders(_records(results, model))
    path = calibration or find_record(model, CALIBRATION)
    calibrated = None
    if path is not None:
        if not pathlib.Path(path).is_file():
            raise ConfigError(f"there is no calibration {path}")
        calibrated = read_calibration(path)
    threshold, why = threshold_of(calibrated, record, p_target)
    card = make_card(
        about, describe(encoder, features), record, threshold, why, onnx
    )
    folder = export_encoder(output_folder, encoder, features, threshold, why)
    # Files of an earlier call would be taken for this model's.
    for name, content in (
        (RESULTS, record),
        (CALIBRATION, None if calibrated is None else vars(calibrated)),
    ):
        if content:
            with atomic_write(folder / name) as stream:
                json.dump(content, stream, indent=2, ensure_ascii=False)
                stream.write("\n")
        else:
            (folder / name).unlink(missing_ok=True)
    with atomic_write(folder / "README.md") as stream:
        stream.write(card)
    if onnx:
        export_onnx(folder / ONNX, encoder, features)
    else:
        (folder / ONNX).unlink(missing_ok=True)
    return {
        "folder": str(folder),
        "threshold": threshold,
        "threshold_from": why,
        "evaluations": len(evaluations(record)),
        "difference": prove(folder, encoder, features),
    }


def _records(given, model):
    """Collect ``results.json`` for the card, with facts of the training."""
    if given is not None and not pathlib.Path(given).is_file():
        raise ConfigError(f"there is no file {given}")
    path = find_record(model, RESULTS)
    of_run = {} if path is None else read_record(path)
    if given is None:
        return of_run
    record = read_record(pathlib.Path(given))
    if of_run:
        record["training"] = of_run
        # The evaluation of a model folder without its run cannot know them.
        if record.get("labels_seen") in (None, "unknown"):
            record["labels_seen"] = of_run.get("labels_seen", "unknown")
    return record


def _waveforms(sample_rate):
    """Make test signals: noise of several lengths and varying loudness."""
    waves = {}
    for number, seconds in enumerate((0.7, 2.0, 4.3)):
        count = round(seconds * sample_rate)
        noise = uniform("publishing", number, size=count) - 0.5
        time = np.arange(count) / sample_rate
        envelope = 0.1 + np.sin(2 * np.pi * (1 + number) * time) ** 2
        # A random walk has a falling spectrum, as speech has.
        walk = np.cumsum(noise * envelope)
        wave = 0.3 * walk / np.abs(walk).max()
        waves[f"wave{number}"] = wave.astype(np.float32)
    return waves


@torch.no_grad()
def prove(folder, encoder, features):
    """Compare SpeechBrain's embeddings with the training code's.

    SpeechBrain runs in a separate process, without a network. Our package
    cannot be imported there, unless the encoder has a pre-trained front end,
    whose classes are ours.

    Arguments
    ---------
    folder : str or pathlib.Path
        The model folder.
    encoder : torch.nn.Module
        The encoder it was made from.
    features : speechbrain_ssl.encoders.features.LogMel
        Its features.

    Returns
    -------
    float
        The largest difference, as a share of the largest value.

    Raises
    ------
    ProofError
        If it is above ``TOLERANCE``, or SpeechBrain cannot load the folder.
    """
    code = _EMBED
    if not getattr(encoder, "takes_waveforms", False):
        code = _ALONE + _EMBED
    waves = _waveforms(features.sample_rate)
    encoder, features = encoder.cpu().eval(), features.cpu()
    ours = np.stack(
        [
            encoder(features(torch.from_numpy(wave)[None]))[0, 0].numpy()
            for wave in waves.values()
        ]
    )
    with tempfile.TemporaryDirectory() as scratch:
        given, found = f"{scratch}/waves.npz", f"{scratch}/found.npy"
        np.savez(given, **waves)
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                code,
                str(pathlib.Path(folder).resolve()),
                given,
                found,
            ],
            capture_output=True,
            text=True,
            cwd=scratch,
            env={
                **os.environ,
                "HF_HUB_OFFLINE": "1",
                "CUDA_VISIBLE_DEVICES": "",
            },
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise ProofError(
                f"SpeechBrain cannot load {folder} ({last}); nothing was "
                "uploaded"
            )
        theirs = np.load(found)
    if theirs.shape != ours.shape or not np.isfinite(theirs).all():
        raise ProofError(
            f"SpeechBrain computes other embeddings from {folder}: shape "
            f"{theirs.shape} instead of {ours.shape}; nothing was uploaded"
        )
    difference = float(np.abs(theirs - ours).max() / np.abs(ours).max())
    if not difference < TOLERANCE:
        raise ProofError(
            f"the embeddings of {folder} in SpeechBrain differ from ours "
            f"by {difference:.1e} of their largest value (bound: "
            f"{TOLERANCE:g}); nothing was uploaded"
        )
    return difference
