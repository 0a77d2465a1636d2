"""What the commands share: the model, and files that can be used."""

import concurrent.futures
import os
import pathlib
import sys

import numpy as np
import torch
from tqdm import tqdm

from speechbrain_ssl.config import check_device
from speechbrain_ssl.errors import AudioError, ConfigError
from speechbrain_ssl.prepare.listing import list_files
from speechbrain_ssl.prepare.probe import probe
from speechbrain_ssl.publishing.calibration_file import (
    FILE_NAME as CALIBRATION,
)
from speechbrain_ssl.publishing.calibration_file import read_calibration
from speechbrain_ssl.publishing.description import read_json
from speechbrain_ssl.publishing.export import load_encoder
from speechbrain_ssl.publishing.hub import find_model, find_record
from speechbrain_ssl.report.results import FILE_NAME as RESULTS
from speechbrain_ssl.verification.extract import embed_files

#: Shorter recordings hold too little speech for a score to mean much.
SHORT_SECONDS = 0.5


class Model:
    """A model that the user has named.

    Arguments
    ---------
    options : argparse.Namespace
        ``model``, ``revision``, ``device`` and ``trust``.

    Attributes
    ----------
    encoder, features
        Of ``load_encoder``.
    calibration : CosineCalibration or None
        What the folder holds.
    results : dict
        Its ``results.json``; empty if there is none.
    device : str
        Where to compute.

    Raises
    ------
    ConfigError
        If it is no model, or there is no such device.
    """

    def __init__(self, options):
        self.device = options.device
        if self.device is None:
            self.device = "cuda" if torch.cuda.is_available() else "cpu"
        check_device({"device": self.device, "distributed_backend": "gloo"})
        try:
            torch.device(self.device)
        except RuntimeError as error:
            raise ConfigError(
                f"--device={self.device} is no device; take cpu or cuda"
            ) from error
        # Fetched once, in one revision; a run's output folder as it is.
        model = options.model
        if not pathlib.Path(model).exists():
            model = find_model(model, options.revision)
        self.encoder, self.features = load_encoder(
            model, self.device, trust=options.trust
        )
        path = find_record(model, CALIBRATION)
        self.calibration = None if path is None else read_calibration(path)
        path = find_record(model, RESULTS)
        self.results = {} if path is None else read_json(path)

    def embed(self, paths, seconds, options, bad):
        """Embeddings of files that were checked; the unreadable go to bad."""
        return embed_files(
            self.encoder,
            self.features,
            paths,
            seconds,
            device=self.device,
            batch_seconds=options.batch_seconds,
            bad=bad,
            progress=not options.quiet,
        )


class Checked:
    """Which of some files can be used.

    Arguments
    ---------
    names : list of str
        What the user calls them.
    paths : list of str
        Where they are.
    options : argparse.Namespace
        ``jobs`` and ``quiet``.

    Attributes
    ----------
    names, paths, seconds : list
        The usable ones.
    unusable : dict
        Name to reason of the others.
    notes : list of str
        What is to be said of the usable ones.
    """

    def __init__(self, names, paths, options):
        self.names, self.paths, self.seconds = [], [], []
        self.unusable, self.notes = {}, []
        with concurrent.futures.ThreadPoolExecutor(
            max(1, options.jobs)
        ) as pool:
            outcomes = tqdm(
                pool.map(lambda path: probe(path, "decode"), paths),
                total=len(paths),
                desc="check",
                unit="file",
                leave=False,
                disable=True if options.quiet else None,
            )
            for name, path, outcome in zip(names, paths, outcomes, strict=True):
                if outcome.reason:
                    detail = f" ({outcome.detail})" if outcome.detail else ""
                    self.unusable[name] = outcome.reason + detail
                    continue
                self.names.append(name)
                self.paths.append(path)
                self.seconds.append(outcome.frames / outcome.sample_rate)
                if self.seconds[-1] < SHORT_SECONDS:
                    self.notes.append(
                        f"{name} has only {self.seconds[-1]:.2f} s: what is "
                        "said of it means little"
                    )

    def require_some(self):
        """Raises an ``AudioError`` if nothing can be used."""
        if not self.names:
            name, reason = next(iter(self.unusable.items()))
            raise AudioError(
                f"none of {len(self.unusable)} files can be used; {name}: "
                f"{reason}"
            )

    def embed(self, model, options):
        """Embeddings of the usable files; what fails now becomes unusable."""
        self.require_some()
        bad = []
        rows = model.embed(self.paths, self.seconds, options, bad)
        keep = np.isfinite(rows).all(axis=1)
        for i, reason in bad:
            self.unusable[self.names[i]] = reason
        for i in np.flatnonzero(~keep):
            self.unusable.setdefault(
                self.names[i], "the model makes no finite embedding of it"
            )
        for column in ("names", "paths", "seconds"):
            values = getattr(self, column)
            setattr(
                self,
                column,
                [v for v, k in zip(values, keep, strict=True) if k],
            )
        self.require_some()
        return rows[keep]


def audio_below(folder, options):
    """The audio files below a folder, or the one file that was named.

    Arguments
    ---------
    folder : str
        A folder or a file.
    options : argparse.Namespace
        ``quiet``.

    Returns
    -------
    tuple of list of str
        Names relative to the folder, and paths.

    Raises
    ------
    ManifestError
        If there is no such folder.
    AudioError
        If it holds no audio file.
    """
    if os.path.isfile(folder):
        return [os.path.basename(folder)], [folder]
    # Unlike the other bars it would also be drawn into a log.
    shown = not options.quiet and sys.stderr.isatty()
    listing = list_files(folder, progress=shown)
    if not listing.files:
        others = ", ".join(f"{n} {e}" for e, n in listing.unknown.items())
        raise AudioError(
            f"there is no audio file below {folder}"
            + (f", only {others}" if others else "")
        )
    # A name that is no UTF-8 could not be printed: it is spelt out.
    names = [
        name.encode("utf-8", "backslashreplace").decode()
        for name in listing.files
    ]
    return names, [os.path.join(folder, n) for n in listing.files]


def check_output(path, extensions=None):
    """Refuses, before any work, what cannot be written at its end.

    Arguments
    ---------
    path : str
        A file to write.
    extensions : tuple of str, optional
        What it may end in.

    Raises
    ------
    ConfigError
        With the remedy.
    """
    if extensions and pathlib.Path(path).suffix not in extensions:
        raise ConfigError(
            f"--output={path} must end in {' or '.join(extensions)}"
        )
    if os.path.isdir(path):
        raise ConfigError(f"--output={path} is a folder; name a file")
