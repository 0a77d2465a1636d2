"""The encoder that a configuration names, or a baseline in its place."""

import dataclasses
import pathlib

import torch

from speechbrain_ssl.embedding.baselines import LogMelStatistics
from speechbrain_ssl.encoders.features import LogMel
from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.publishing.description import read_json
from speechbrain_ssl.publishing.export import load_encoder
from speechbrain_ssl.publishing.hub import find_model, find_record
from speechbrain_ssl.report.results import FILE_NAME as RESULTS


@dataclasses.dataclass
class System:
    """An encoder with its features, and what is known of it.

    Attributes
    ----------
    encoder : torch.nn.Module
        ``encoder(features, lengths)`` -> ``[batch, 1, size]``.
    features : speechbrain_ssl.encoders.features.LogMel
        Its input.
    name : str
        What it is called in the results.
    seed : int or None
        Of its training; None where nothing is drawn or known.
    labels_seen : str
        What labels its training saw.
    """

    encoder: torch.nn.Module
    features: LogMel
    name: str
    seed: object = None
    labels_seen: str = "none"


def load_system(model, encoder, features, seed):
    """Loads what ``model`` names.

    Arguments
    ---------
    model : str
        The output folder of a training run, a published model, ``statistics``
        (mean and deviation of the log-mel energies) or ``untrained`` (the
        encoder as it is initialised).
    encoder : torch.nn.Module
        The one of ``untrained``.
    features : speechbrain_ssl.encoders.features.LogMel
        Those of both baselines.
    seed : int
        That ``encoder`` was made with.

    Returns
    -------
    System

    Raises
    ------
    ConfigError
        If ``model`` is no model.

    Example
    -------
    >>> system = load_system("statistics", None, LogMel(), 1)
    >>> system.name, system.features.mean_norm
    ('statistics', False)
    """
    if model == "statistics":
        plain = LogMel(features.n_mels, features.sample_rate, mean_norm=False)
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
    # How it was trained only its own run can tell.
    record = find_record(folder, RESULTS)
    about = {} if record is None else read_json(record)
    return System(
        encoder,
        features,
        "/".join(parts[-2:]),
        about.get("seed"),
        about.get("labels_seen", "unknown"),
    )
