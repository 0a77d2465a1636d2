"""Load the model and check and embed the files, for all commands."""

import collections
import concurrent.futures
import contextlib
import os
import pathlib
import tempfile

import numpy as np
import torch

from speechbrain_ssl.config import check_device
from speechbrain_ssl.data.decoder import CANNOT_SEEK
from speechbrain_ssl.embedding.extract import (
    MOST_SECONDS,
    embed_windows,
    mean_windows,
)
from speechbrain_ssl.embedding.voices import SAME_VOICE, voice_agreement
from speechbrain_ssl.errors import AudioError, ConfigError
from speechbrain_ssl.prepare.av_decoder import INSTALL, has_pyav
from speechbrain_ssl.prepare.convert import convert_files
from speechbrain_ssl.prepare.formats import NO_PYAV, needs_pyav
from speechbrain_ssl.prepare.listing import (
    AUDIO_EXTENSIONS,
    DECODED_EXTENSIONS,
    list_files,
    needs_decoding,
)
from speechbrain_ssl.prepare.lists import read_list
from speechbrain_ssl.prepare.probe import probe
from speechbrain_ssl.progress import open_bar
from speechbrain_ssl.publishing.calibration_file import (
    FILE_NAME as CALIBRATION,
)
from speechbrain_ssl.publishing.calibration_file import read_calibration
from speechbrain_ssl.publishing.export import load_encoder
from speechbrain_ssl.publishing.hub import find_model, find_record
from speechbrain_ssl.publishing.record import read_record
from speechbrain_ssl.report.results import FILE_NAME as RESULTS

#: Shorter recordings have too little speech for a reliable score.
SHORT_SECONDS = 0.5


class Model:
    """Model that the user has named, loaded once and in one revision.

    Arguments
    ---------
    options : argparse.Namespace
        ``model``, ``revision``, ``device`` and ``trust``.

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

    def __init__(self, options):
        self.device = options.device
        if self.device is None:
            self.device = "cuda" if torch.cuda.is_available() else "cpu"
        check_device({"device": self.device, "distributed_backend": "gloo"})
        try:
            torch.device(self.device)
        except RuntimeError as error:
            raise ConfigError(
                f"--device={self.device} is not a device; take cpu or cuda"
            ) from error
        model = options.model
        if not pathlib.Path(model).exists():
            model = find_model(model, options.revision)
        self.encoder, self.features = load_encoder(
            model, self.device, trust=options.trust
        )
        path = find_record(model, CALIBRATION)
        self.calibration = None if path is None else read_calibration(path)
        path = find_record(model, RESULTS)
        self.results = {} if path is None else read_record(path)

    def embed(self, paths, seconds, window_seconds, options, bad):
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


class Checked:
    """Audio files sorted into usable and unusable ones.

    Files that training cannot read, as m4a, are decoded into a temporary
    folder, for as long as this object lives.

    Arguments
    ---------
    names : list of str
        Names of the files in the output.
    paths : list of str
        Paths of the files.
    options : argparse.Namespace
        ``jobs`` and ``quiet``.

    Attributes
    ----------
    names, paths, seconds : list
        Name, path and length of each usable file.
    unusable : dict
        Maps the names of the other files to the reason.
    total : int
        Number of files that were checked.
    notes : list of str
        Remarks on usable files and on those left out, for the user.
    left_out : dict
        Number of files that are not audio by their extension, by extension.
    """

    def __init__(self, names, paths, options):
        self.names, self.paths, self.seconds = [], [], []
        self.unusable, self.notes, self.left_out = {}, [], {}
        self.total = len(names)
        self._all = dict(zip(names, paths, strict=True))
        # What is odd about usable files -> [name, detail] of each.
        odd = collections.defaultdict(list)
        names, paths = self._decode(names, paths, options, odd)
        with contextlib.ExitStack() as stack:
            pool = concurrent.futures.ThreadPoolExecutor(max(1, options.jobs))
            # After a signal the files that wait are not checked any more.
            stack.callback(pool.shutdown, cancel_futures=True)
            outcomes = open_bar(
                pool.map(lambda path: probe(path, "decode"), paths),
                total=len(paths),
                desc="check",
                unit="file",
                leave=False,
                disable=options.quiet,
            )
            for name, path, outcome in zip(names, paths, outcomes, strict=True):
                if outcome.reason:
                    detail = f" ({outcome.detail})" if outcome.detail else ""
                    self.unusable[name] = outcome.reason + detail
                    continue
                self.names.append(name)
                self.paths.append(path)
                self.seconds.append(outcome.frames / outcome.sample_rate)
                for what, detail in outcome.notes:
                    odd[what].append((name, detail))
                if self.seconds[-1] < SHORT_SECONDS:
                    self.notes.append(
                        f"{name} has only {self.seconds[-1]:.2f} s: results "
                        "for it are unreliable"
                    )
        # The command line reads each file from beginning to end.
        odd.pop(CANNOT_SEEK, None)
        for what, found in odd.items():
            name, detail = found[0]
            more = f" and {len(found) - 1} more" * (len(found) > 1)
            self.notes.append(f"{name}{more}: {what} ({detail})")

    def count(self):
        """Say how many files are used, and of which kinds the others are.

        Returns
        -------
        str
            As ``12 of 18 files (not used: 6 .m4a; not audio: 2 .txt)``.
        """
        kinds = collections.Counter(
            os.path.splitext(self._all.get(name, ""))[1].lower() or "others"
            for name in self.unusable
        )
        parts = [
            f"{what}: " + ", ".join(f"{n} {e}" for e, n in found.items())
            for what, found in (
                ("not used", kinds),
                ("not audio", self.left_out),
            )
            if found
        ]
        used = f"{len(self.names)} of {self.total} files"
        return used + (f" ({'; '.join(parts)})" if parts else "")

    def _decode(self, names, paths, options, odd):
        """Decode what libsndfile cannot read; return names and paths.

        Notes of the decoder are added to ``odd``.
        """
        sources = [path for path in paths if needs_decoding(path)]
        if not sources:
            return names, paths
        if has_pyav():
            # Deleted with this object, or at the end of the process.
            self._folder = tempfile.TemporaryDirectory(
                prefix="speechbrain_ssl_"
            )
            # A recording may be named twice.
            targets = {
                path: f"{i}.flac"
                for i, path in enumerate(dict.fromkeys(sources))
            }
            outcomes = convert_files(
                "",
                targets,
                self._folder.name,
                num_workers=options.jobs,
                progress=not options.quiet,
            )
            failures = {
                path: (outcome.reason, outcome.detail)
                for path, outcome in outcomes.items()
                if outcome.reason
            }
        else:
            targets = {}
            failures = dict.fromkeys(sources, (NO_PYAV, INSTALL))
            self.notes.append(f"not used: {needs_pyav(sources)}")
        kept = []
        for name, path in zip(names, paths, strict=True):
            if path in failures:
                self.unusable[name] = "{} ({})".format(*failures[path])
            elif path in targets:
                target = os.path.join(self._folder.name, targets[path])
                kept.append((name, target))
                for what, detail in outcomes[path].notes:
                    odd[what].append((name, detail))
            else:
                kept.append((name, path))
        return [name for name, _ in kept], [path for _, path in kept]

    def require_some(self):
        """Raise an ``AudioError`` if no file can be used."""
        if not self.names:
            name, reason = next(iter(self.unusable.items()))
            raise AudioError(
                f"none of {len(self.unusable)} files can be used; {name}: "
                f"{reason}"
            )

    def require_all(self):
        """Raise an ``AudioError`` for the first file that cannot be used."""
        for name, reason in self.unusable.items():
            raise AudioError(f"{name} cannot be used: {reason}")

    def embed(self, model, options):
        """Embed the usable files, long ones as the mean of their windows.

        Arguments
        ---------
        model, options
            As in ``embed_windows``.

        Returns
        -------
        numpy.ndarray
            ``[N, size]``, a row for each of ``names``.

        Raises
        ------
        AudioError
            If no file can be used.
        """
        windows = self.embed_windows(model, options)
        return mean_windows(windows, len(self.names))

    def embed_windows(self, model, options, window_seconds=MOST_SECONDS):
        """Embed windows of the usable files; those that fail become unusable.

        A note is made of files with more than one voice, probably.

        Arguments
        ---------
        model : Model
            The model.
        options : argparse.Namespace
            ``batch_seconds``, ``trim_silence`` and ``quiet``.
        window_seconds : float
            Length of the longest window.

        Returns
        -------
        speechbrain_ssl.embedding.extract.Windows
            Its ``files`` are positions in ``names``.

        Raises
        ------
        AudioError
            If no file can be used.
        """
        self.require_some()
        bad = []
        windows = model.embed(
            self.paths, self.seconds, window_seconds, options, bad
        )
        means = mean_windows(windows, len(self.names))
        keep = np.isfinite(means).all(axis=1)
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
        self._note_voices(model, options)
        return windows.select(keep)

    def _note_voices(self, model, options):
        """Note the files in which more than one voice is likely."""
        found = model.voice_agreement(self.paths, self.seconds, options)
        for name, cosine in zip(self.names, found, strict=True):
            if cosine < SAME_VOICE:
                self.notes.append(
                    f"{name} may contain more than one voice: its parts have "
                    f"a cosine of {cosine:.2f}"
                )


def audio_of(source, options):
    """Find the audio files below a folder, of a list, or the one named.

    Arguments
    ---------
    source : str
        A folder, a list of files (see ``speechbrain_ssl.prepare.lists``) or an
        audio file.
    options : argparse.Namespace
        ``quiet``.

    Returns
    -------
    tuple
        Names (of a folder: relative to it; of a list: the ID if it has any,
        else the path as it is written there) and paths, lists of str; and the
        ``FileListing`` of a folder, None otherwise.

    Raises
    ------
    ManifestError
        If there is no such folder, or if a list is malformed.
    AudioError
        If it holds no audio file.
    """
    extensions = AUDIO_EXTENSIONS + DECODED_EXTENSIONS
    if os.path.isfile(source):
        if os.path.splitext(source)[1].lower() in extensions:
            return [os.path.basename(source)], [source], None
        entries = read_list(source)
        names = [e.text if e.id is None else e.id for e in entries]
        return names, [e.path for e in entries], None
    listing = list_files(source, extensions, progress=not options.quiet)
    if not listing.files:
        others = ", ".join(f"{n} {e}" for e, n in listing.unknown.items())
        raise AudioError(
            f"there is no audio file below {source}"
            + (f", only {others}" if others else "")
        )
    # Escape names that are not UTF-8, which could not be printed.
    names = [
        name.encode("utf-8", "backslashreplace").decode()
        for name in listing.files
    ]
    return names, [os.path.join(source, n) for n in listing.files], listing


def check_source(options):
    """Load the model, and check the audio files of a folder or list.

    Arguments
    ---------
    options : argparse.Namespace
        ``source``, and the options that ``Model`` and ``Checked`` read.

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
    model = Model(options)
    files = Checked(names, paths, options)
    if listing is not None:
        for name, message in listing.unreadable:
            files.unusable[name] = f"folder not listed ({message})"
        files.left_out = listing.unknown
    if files.left_out:
        kinds = ", ".join(f"{n} {e}" for e, n in files.left_out.items())
        files.notes.append(f"left out, not audio by their extension: {kinds}")
    return files, model


def check_output(path, extensions=None):
    """Raise, before any work, if the output cannot be written.

    Arguments
    ---------
    path : str
        The file to be written.
    extensions : tuple of str, optional
        Endings that it may have.

    Raises
    ------
    ConfigError
        If it is a folder, or its extension is not permitted.
    """
    if extensions and pathlib.Path(path).suffix not in extensions:
        raise ConfigError(
            f"--output={path} must end in {' or '.join(extensions)}"
        )
    if os.path.isdir(path):
        raise ConfigError(f"--output={path} is a folder; name a file")
