"""A model and what it is for: embed, verify, cluster, enrol, identify.

``from speechbrain_ssl import load_model`` is the way in; the commands of
``speechbrain_ssl.cli`` are written on top of the same class.
"""

import functools
import os
import pathlib

import numpy as np
import torch

from speechbrain_ssl.config import check_device
from speechbrain_ssl.embedding.cache import fingerprint
from speechbrain_ssl.embedding.extract import embed_windows
from speechbrain_ssl.embedding.rows import unit_rows
from speechbrain_ssl.embedding.voices import voice_agreement
from speechbrain_ssl.errors import ConfigError, counted
from speechbrain_ssl.prepare.lists import audio_of
from speechbrain_ssl.publishing.bundle import threshold_of
from speechbrain_ssl.publishing.calibration_file import (
    FILE_NAME as CALIBRATION,
)
from speechbrain_ssl.publishing.calibration_file import read_calibration
from speechbrain_ssl.publishing.export import load_encoder
from speechbrain_ssl.publishing.hub import find_model, find_record
from speechbrain_ssl.publishing.record import read_record
from speechbrain_ssl.report.results import FILE_NAME as RESULTS
from speechbrain_ssl.speakers.database import Database
from speechbrain_ssl.speakers.files import READING, Checked
from speechbrain_ssl.speakers.results import (
    Comparison,
    Embeddings,
    Groups,
    Identity,
    Threshold,
)
from speechbrain_ssl.speakers.search import search
from speechbrain_ssl.verification.calibration import bayes_threshold
from speechbrain_ssl.verification.label_free_threshold import (
    FEW,
    label_free_threshold,
    raise_for_many,
)

#: Numbers of enrolled names that ``Model.threshold`` raises it for.
MANY = (10, 100, 1000)


class Model:
    """Model that the user has named, loaded once and in one revision.

    Arguments
    ---------
    model, revision, device, trust
        As in ``speechbrain_ssl.load_model``.

    Attributes
    ----------
    encoder, features
        What ``load_encoder`` returns.
    calibration : CosineCalibration or None
        The calibration in the model's folder, if there is one.
    results : dict
        Its ``results.json``; empty if it has none.
    device : str
        Device to compute on.

    Raises
    ------
    ConfigError
        If there is no such model or device.
    """

    def __init__(self, model, revision=None, device=None, trust=False):
        self.device = device
        if self.device is None:
            self.device = "cuda" if torch.cuda.is_available() else "cpu"
        check_device({"device": self.device, "distributed_backend": "gloo"})
        try:
            torch.device(self.device)
        except RuntimeError as error:
            raise ConfigError(
                f"--device={self.device} is not a device; take cpu or cuda"
            ) from error
        if not pathlib.Path(model).exists():
            model = find_model(model, revision)
        self.encoder, self.features = load_encoder(
            model, self.device, trust=trust
        )
        path = find_record(model, CALIBRATION)
        self.calibration = None if path is None else read_calibration(path)
        path = find_record(model, RESULTS)
        self.results = {} if path is None else read_record(path)

    @functools.cached_property
    def digest(self):
        """Digest of encoder and features; equal for copies of a model."""
        return fingerprint(self.encoder, self.features)

    def embed(self, files, reading=READING):
        """Embed audio files; long ones as the mean of their windows.

        Arguments
        ---------
        files : str, pathlib.Path, list or Checked
            A folder, an audio file, a list file (see ``audio_of``), a list
            of paths of audio files, or files that were checked before.
        reading : Reading
            How files are read.

        Returns
        -------
        Embeddings

        Raises
        ------
        AudioError
            If no file can be used.
        """
        checked = _check(files, reading)
        rows = checked.embed(self, reading)
        return Embeddings(checked.names, rows, checked.unusable, checked.notes)

    def verify(
        self, first, second, threshold=None, p_target=0.5, reading=READING
    ):
        """Compare two recordings.

        Arguments
        ---------
        first, second : str or pathlib.Path
            Two audio files.
        threshold : float, optional
            Cosine above which it is one speaker; that of the model if not
            given.
        p_target : float
            Prior of one speaker, for a calibrated threshold.
        reading : Reading
            How the files are read.

        Returns
        -------
        Comparison

        Raises
        ------
        AudioError
            If one of the two cannot be used.
        """
        files = _check([first, second], reading)
        return self.compare(files, threshold, p_target, reading)

    def compare(self, files, threshold, p_target, reading):
        """Compare two files that were checked; see ``verify``."""
        rows, notes = self.embed_all(files, reading)
        left, right = unit_rows(rows).astype(np.float64)
        decision = self._decide(float(left @ right), threshold, p_target)
        same = None
        if decision["threshold"] is not None:
            same = decision["score"] > decision["threshold"]
        return Comparison(**decision, same=same, notes=notes)

    def threshold(self, files, reading=READING, names=None):
        """Make a threshold from recordings whose speakers are not known.

        It fits them better than one from the training set where they differ
        from it, in microphone, language or age. Any recordings like those to be
        compared will do; most pairs of them should be of two speakers.

        Arguments
        ---------
        files, reading
            As in ``embed``.
        names : int, optional
            Number of enrolled names that it is raised for; each of ``MANY`` if
            not given.

        Returns
        -------
        Threshold

        Raises
        ------
        AudioError
            If no file can be used.
        ConfigError
            If they are fewer than ``FEW``, or ``names`` is not positive.
        """
        if names is not None and names < 1:
            raise ConfigError(f"--names={names} must be at least 1")
        checked = _check(files, reading)
        halves = checked.embed_halves(self, reading)
        if len(halves) < FEW:
            raise ConfigError(
                f"{counted(len(halves), 'usable file')} cannot make a "
                f"threshold: take at least {FEW}, of different speakers"
            )
        found = label_free_threshold(halves)
        own, median, decile = found.values()
        return Threshold(
            own,
            {
                n: raise_for_many(own, median, decile, n)
                for n in (MANY if names is None else [names])
            },
            len(halves),
            checked.unusable,
            checked.notes,
        )

    def cluster(self, files, speakers=None, reading=READING):
        """Group files by speaker; each is assumed to be of one speaker.

        Arguments
        ---------
        files : str, pathlib.Path, list, Checked or Embeddings
            As in ``embed``, or what it returned.
        speakers : int, optional
            How many speakers; estimated from the embeddings if not given.
        reading : Reading
            How files are read.

        Returns
        -------
        Groups

        Raises
        ------
        ConfigError
            As ``find_speakers``, or if the number is not positive.
        AudioError
            If no file can be used.
        """
        if speakers is not None and speakers < 1:
            raise ConfigError(f"--speakers={speakers} must be at least 1")
        # It imports scikit-learn, which `verify` need not wait for.
        from speechbrain_ssl.clustering.speakers import by_size, find_speakers

        found = files
        if not isinstance(files, Embeddings):
            found = self.embed(files, reading)
        labels = by_size(find_speakers(found.rows, speakers))
        count = int(labels.max())
        notes = list(found.notes)
        if speakers is None:
            notes.append(
                f"{counted(count, 'speaker')} is a guess from the embeddings, "
                "and groups of similar voices can look like speakers; give the number "
                "with --speakers (speakers=) if you know it"
            )
        of_file = dict(zip(found.files, labels.tolist(), strict=True))
        return Groups(count, of_file, found.unusable, notes)

    def enrol(self, name, files, database, replace=False, reading=READING):
        """Add a speaker to a database.

        Arguments
        ---------
        name : str
            Name of the speaker.
        files : str, pathlib.Path or list
            Path of a recording of that speaker, or a list of several.
        database : str or pathlib.Path
            Folder of the database; made if there is none.
        replace : bool
            Whether the name may be in the database already.
        reading : Reading
            How files are read.

        Returns
        -------
        list of str
            Remarks on the recordings.

        Raises
        ------
        ConfigError
            As ``Database.add``.
        AudioError
            If one of the files cannot be used; then nothing is written.
        """
        if isinstance(files, (str, os.PathLike)):
            files = [files]
        known = Database(database, self.digest, reading.trim_silence)
        known.check(name, replace)
        rows, notes = self.embed_all(_check(files, reading), reading)
        return notes + known.add(name, files, rows, replace)

    def identify(
        self, file, database, threshold=None, p_target=0.5, reading=READING
    ):
        """Find who of a database speaks in a recording, or that nobody does.

        A speaker's score is the cosine of the recording and the mean of the
        unit embeddings of the speaker's recordings.

        Arguments
        ---------
        file : str or pathlib.Path
            The recording.
        database : str or pathlib.Path
            A folder that ``enrol`` has filled.
        threshold, p_target
            As in ``verify``.
        reading : Reading
            How the file is read.

        Returns
        -------
        Identity

        Raises
        ------
        ConfigError
            If the database is empty or was made with another model.
        AudioError
            If the recording cannot be used.
        """
        names, means = Database(
            database, self.digest, reading.trim_silence
        ).speakers()
        rows, notes = self.embed_all(_check([file], reading), reading)
        scores = means.astype(np.float64) @ unit_rows(rows)[0]
        order = np.argsort(-scores, kind="stable")
        found = {names[i]: float(scores[i]) for i in order}
        nearest = next(iter(found))
        decision = self._decide(found[nearest], threshold, p_target, len(found))
        bound = decision["threshold"]
        known = bound is not None and found[nearest] > bound
        return Identity(
            name=nearest if known else None,
            nearest=nearest,
            **decision,
            scores=found,
            notes=notes,
        )

    def search(self, file, stored, count=10, reading=READING):
        """Find the stored recordings that sound most like one.

        Arguments
        ---------
        file : str or pathlib.Path
            The recording.
        stored : str or pathlib.Path
            An ``.npz`` file that ``speechbrain-ssl embed`` wrote.
        count, reading
            As in ``speechbrain_ssl.speakers.search.search``.

        Returns
        -------
        Matches
        """
        return search(self, _check([file], reading), stored, count, reading)

    def embed_all(self, files, reading):
        """Embed checked files that all have to be usable.

        Arguments
        ---------
        files : speechbrain_ssl.speakers.files.Checked
            The files.
        reading : Reading
            How they are read.

        Returns
        -------
        tuple
            The embeddings ``[N, size]``, and a list of remarks on the files.

        Raises
        ------
        AudioError
            If one of them cannot be used.
        """
        files.require_all()
        rows = files.embed(self, reading)
        # Some fail while they are read, or have no finite embedding.
        files.require_all()
        return rows, files.notes

    def _decide(self, score, threshold, p_target, compared=1):
        """Return score, ratio, threshold and its origin.

        A threshold of the model is raised if the score is the highest of
        several that were ``compared``; a given one is not.
        """
        if threshold is None:
            threshold, why = threshold_of(
                self.calibration, self.results, p_target
            )
            others = [
                self.results.get(f"label_free_{name}")
                for name in ("median", "decile")
            ]
            if compared > 1 and threshold is not None:
                if None in others:
                    why += ", for a pair, and not raised for several names"
                else:
                    threshold = raise_for_many(threshold, *others, compared)
                    why += f", raised for the highest of {compared} scores"
        else:
            # The prior decides nothing here, but an impossible one is refused.
            bayes_threshold(p_target)
            why = "given"
        llr = None if self.calibration is None else self.calibration(score)
        return {
            "score": score,
            "llr": llr,
            "threshold": threshold,
            "threshold_from": why,
        }

    def embed_windows(self, paths, seconds, window_seconds, options, bad):
        """Embed windows of checked files; add unreadable ones to ``bad``."""
        return embed_windows(
            self.encoder,
            self.features,
            paths,
            window_seconds,
            seconds,
            device=self.device,
            batch_seconds=options.batch_seconds,
            trim=options.trim_silence,
            bad=bad,
            progress=not options.quiet,
        )

    def voice_agreement(self, paths, seconds, options):
        """Return how alike the parts of each recording are."""
        return voice_agreement(
            self.encoder,
            self.features,
            paths,
            seconds,
            device=self.device,
            progress=not options.quiet,
        )


def _check(files, reading):
    """Check the files that a caller names in one way or another."""
    if isinstance(files, Checked):
        return files
    if isinstance(files, (str, os.PathLike)):
        names, paths, listing = audio_of(os.fspath(files), reading)
        return Checked(names, paths, reading, listing)
    paths = [os.fspath(path) for path in files]
    if not paths:
        raise ConfigError("there is no file to embed; name at least one")
    return Checked(paths, paths, reading)
