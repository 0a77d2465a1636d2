"""Load the encoder of a configuration, or a baseline, and write its results."""

import dataclasses
import pathlib
import shlex
import time

import torch

from speechbrain_ssl.embedding.baselines import LogMelStatistics
from speechbrain_ssl.encoders.features import LogMel
from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.publishing.description import read_json
from speechbrain_ssl.publishing.export import load_encoder
from speechbrain_ssl.publishing.hub import find_model, find_record
from speechbrain_ssl.publishing.record import read_record
from speechbrain_ssl.report.results import FILE_NAME as RESULTS
from speechbrain_ssl.report.results import gpu_name, write_results


@dataclasses.dataclass
class System:
    """Encoder with its features, its name, and how it was trained.

    Attributes
    ----------
    encoder : torch.nn.Module
        ``encoder(features, lengths)`` -> ``[batch, 1, size]``.
    features : speechbrain_ssl.encoders.features.LogMel
        The features that the encoder takes.
    name : str
        Its name in the results.
    seed : int or None
        Seed of its training; None where nothing is drawn, or it is unknown.
    labels_seen : str
        The labels that its training used.
    """

    encoder: torch.nn.Module
    features: LogMel
    name: str
    seed: object = None
    labels_seen: str = "none"

    @property
    def folder(self):
        """Folder name that no other system shares."""
        if self.name == "untrained":
            return f"{self.name}/{self.seed}"
        return self.name


def load_system(model, encoder, features, seed):
    """Load the encoder that ``model`` names.

    Arguments
    ---------
    model : str
        The output folder of a training run, a published model, ``statistics``
        (mean and deviation of the log-mel energies) or ``untrained`` (the
        encoder as it is initialised).
    encoder : torch.nn.Module
        The encoder that ``untrained`` evaluates.
    features : speechbrain_ssl.encoders.features.LogMel
        The features of both baselines.
    seed : int
        The seed that ``encoder`` was initialised with.

    Returns
    -------
    System

    Raises
    ------
    ConfigError
        If ``model`` names no model.

    Example
    -------
    >>> system = load_system("statistics", None, LogMel(), 1)
    >>> system.name, system.features.normalize
    ('statistics', 'none')
    """
    if model == "statistics":
        plain = features.without_normalization()
        return System(LogMelStatistics(), plain, model)
    if model == "untrained":
        return System(encoder, features, model, seed)
    try:
        folder = find_model(model)
        encoder, features = load_encoder(folder)
    except ConfigError as error:
        raise ConfigError(
            f"--model={error}; a baseline is `statistics` or `untrained`"
        ) from error
    path = pathlib.Path(str(model))
    parts = path.resolve().parts if path.is_dir() else path.parts
    if parts[-1] == "model":
        parts = parts[:-1]
    # Only the record of the training run has seed and labels.
    record = find_record(folder, RESULTS)
    about = {} if record is None else read_record(record)
    return System(
        encoder,
        features,
        "/".join(parts[-2:]),
        about.get("seed"),
        about.get("labels_seen", "unknown"),
    )


def write_system_results(
    folder,
    figures,
    system,
    *,
    script,
    argv,
    seed,
    start,
    device,
    labels_seen,
    extra,
):
    """Write the ``results.json`` of a script that evaluates a system.

    Arguments
    ---------
    folder : str or pathlib.Path
        The output folder.
    figures : dict
        As in ``speechbrain_ssl.report.results.write_results``.
    system : System
        The system.
    script : str
        File of the script; with ``argv`` it gives the command.
    argv : list of str
        Command-line arguments of the script.
    seed : int
        Seed of the script, for a system whose own seed is not known.
    start : float
        ``time.perf_counter()`` when the script began.
    device : str
        Device that the script used.
    labels_seen : bool or str
        Whether labels were seen, or which.
    extra : dict
        Further entries.

    Returns
    -------
    dict
        What the file holds.
    """
    path = write_results(
        folder,
        figures,
        seed=seed if system.seed is None else system.seed,
        seconds=time.perf_counter() - start,
        command=shlex.join(["python", pathlib.Path(script).name, *argv]),
        extra={"system": system.name, **extra},
        labels_seen=labels_seen,
        gpu=gpu_name(device),
    )
    return read_json(path)
