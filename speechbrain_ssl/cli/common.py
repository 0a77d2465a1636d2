"""Load the model and check the files and the output, for all commands."""

import os
import pathlib
import tempfile

from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.prepare.lists import audio_of
from speechbrain_ssl.speakers.files import Checked
from speechbrain_ssl.speakers.model import Model


def load_model_of(options):
    """Load the model that the user has named.

    Arguments
    ---------
    options : argparse.Namespace
        ``model``, ``revision``, ``device`` and ``trust``.

    Returns
    -------
    speechbrain_ssl.speakers.model.Model

    Raises
    ------
    ConfigError
        If there is no such model or device.
    """
    return Model(options.model, options.revision, options.device, options.trust)


def check_source(options):
    """Load the model, and check the audio files of a folder or list.

    Arguments
    ---------
    options : argparse.Namespace
        ``source``, and the options that ``load_model_of`` and ``Checked``
        read.

    Returns
    -------
    tuple
        ``Checked`` and ``Model``.

    Raises
    ------
    AudioError
        If there is no audio file.
    """
    names, paths, listing = audio_of(options.source, options)
    # Load the model first: a wrong name fails before any file is read.
    model = load_model_of(options)
    return Checked(names, paths, options, listing), model


def check_output(path, extensions=None, option="--output"):
    """Raise, before any work, if the output cannot be written.

    Arguments
    ---------
    path : str
        The file to be written.
    extensions : tuple of str, optional
        Endings that it may have.
    option : str
        The option that names it.

    Raises
    ------
    ConfigError
        If it is a folder, or its extension is not permitted.
    """
    if extensions and pathlib.Path(path).suffix not in extensions:
        raise ConfigError(
            f"{option}={path} must end in {' or '.join(extensions)}"
        )
    if os.path.isdir(path):
        raise ConfigError(f"{option}={path} is a folder; name a file")
    folder = os.path.dirname(os.path.abspath(path))
    try:
        os.makedirs(folder, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise ConfigError(
            f"{option}={path} cannot be written: {error}"
        ) from error


def decision_lines(found, decision):
    """Write a score and what follows from it.

    Arguments
    ---------
    found : speechbrain_ssl.speakers.model.Comparison or Identity
        The score, its ratio and the threshold.
    decision : str or None
        The decision in words; None if there is no threshold.

    Returns
    -------
    list of str
        Lines for a reader.
    """
    lines = [f"score (cosine)        {found.score:.4f}"]
    if found.llr is not None:
        lines.append(f"log-likelihood ratio  {found.llr:.2f}")
    if decision is None:
        lines.append(
            "decision              none: the model has no threshold; give one "
            "with --threshold"
        )
    else:
        lines.append(
            f"decision              {decision} (threshold "
            f"{found.threshold:.4f}: {found.threshold_from})"
        )
    return lines
