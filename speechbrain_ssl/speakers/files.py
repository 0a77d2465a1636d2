"""Find, check and embed the audio files that a user names."""

import collections
import concurrent.futures
import contextlib
import dataclasses
import os
import tempfile

import numpy as np

from speechbrain_ssl.data.decoder import CANNOT_SEEK
from speechbrain_ssl.embedding.extract import MOST_SECONDS, mean_windows
from speechbrain_ssl.embedding.halves import embed_halves
from speechbrain_ssl.embedding.voices import SAME_VOICE
from speechbrain_ssl.errors import AudioError, counted
from speechbrain_ssl.prepare.av_decoder import INSTALL, has_pyav
from speechbrain_ssl.prepare.convert import convert_files
from speechbrain_ssl.prepare.formats import NO_PYAV, needs_pyav
from speechbrain_ssl.prepare.listing import (
    needs_decoding,
)
from speechbrain_ssl.prepare.probe import probe
from speechbrain_ssl.progress import open_bar

#: Shorter recordings have too little speech for a reliable score.
SHORT_SECONDS = 0.5


@dataclasses.dataclass(frozen=True)
class Reading:
    """How audio files are read.

    Arguments
    ---------
    jobs : int
        Number of files that are read at a time.
    batch_seconds : float
        Seconds of audio in a batch.
    trim_silence : bool
        Whether silence is left out.
    quiet : bool
        Whether there is no progress on stderr.
    """

    jobs: int = 2
    batch_seconds: float = MOST_SECONDS
    trim_silence: bool = False
    quiet: bool = True


#: How files are read unless a caller says otherwise.
READING = Reading()


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
    options : Reading or argparse.Namespace
        ``jobs`` and ``quiet``.
    listing : speechbrain_ssl.prepare.listing.FileListing, optional
        The listing of the folder that the files are from.

    Attributes
    ----------
    names, paths, seconds : list
        Name, path and length of each usable file.
    sources : dict
        Maps the names of all files to their paths, before they are decoded.
    unusable : dict
        Maps the names of the other files to the reason.
    total : int
        Number of files that were checked.
    notes : list of str
        Remarks on usable files and on those left out, for the user.
    left_out : dict
        Number of files that are not audio by their extension, by extension.
    """

    def __init__(self, names, paths, options, listing=None):
        self.names, self.paths, self.seconds = [], [], []
        self.unusable, self.notes, self.left_out = {}, [], {}
        self.total = len(names)
        self.sources = dict(zip(names, paths, strict=True))
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
        if listing is not None:
            for name, message in listing.unreadable:
                self.unusable[name] = f"folder not listed ({message})"
            self.left_out = listing.unknown
        if self.left_out:
            kinds = ", ".join(f"{n} {e}" for e, n in self.left_out.items())
            self.notes.append(
                f"left out, not audio by their extension: {kinds}"
            )

    def count(self):
        """Say how many files are used, and of which kinds the others are.

        Returns
        -------
        str
            As ``12 of 18 files (not used: 6 .m4a; not audio: 2 .txt)``.
        """
        kinds = collections.Counter(
            os.path.splitext(self.sources.get(name, ""))[1].lower() or "others"
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
        used = f"{len(self.names)} of {counted(self.total, 'file')}"
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
        if self.names:
            return
        if len(self.unusable) == 1:
            self.require_all()
        name, reason = next(iter(self.unusable.items()))
        raise AudioError(
            f"none of {len(self.unusable)} files can be used; {name}: {reason}"
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
        model : speechbrain_ssl.speakers.model.Model
            The model.
        options : Reading or argparse.Namespace
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
        windows = model.embed_windows(
            self.paths, self.seconds, window_seconds, options, bad
        )
        means = mean_windows(windows, len(self.names))
        keep = np.isfinite(means).all(axis=1)
        self._drop(bad, keep, "the model makes no finite embedding of it")
        self._note_voices(model, options)
        return windows.select(keep)

    def embed_halves(self, model, options):
        """Embed both halves of the usable files; see ``embed_windows``.

        Returns
        -------
        numpy.ndarray
            ``[N, 2, size]``, a row for each of ``names``. A file of which one
            half has no embedding becomes unusable.
        """
        self.require_some()
        bad = []
        halves = embed_halves(
            model.encoder,
            model.features,
            self.paths,
            self.seconds,
            bad,
            device=model.device,
            batch_seconds=options.batch_seconds,
            trim=options.trim_silence,
            progress=not options.quiet,
        )
        keep = np.isfinite(halves).all(axis=(1, 2))
        self._drop(bad, keep, "one half of it has no finite embedding")
        return halves[keep]

    def _drop(self, bad, keep, reason):
        """Move the files that are not kept, or in ``bad``, to ``unusable``."""
        for i, why in bad:
            self.unusable[self.names[i]] = why
        for i in np.flatnonzero(~keep):
            self.unusable.setdefault(self.names[i], reason)
        for column in ("names", "paths", "seconds"):
            values = getattr(self, column)
            setattr(
                self,
                column,
                [v for v, k in zip(values, keep, strict=True) if k],
            )
        self.require_some()

    def _note_voices(self, model, options):
        """Note the files in which more than one voice is likely."""
        found = model.voice_agreement(self.paths, self.seconds, options)
        for name, cosine in zip(self.names, found, strict=True):
            if cosine < SAME_VOICE:
                self.notes.append(
                    f"{name} may contain more than one voice: its parts have "
                    f"a cosine of {cosine:.2f}"
                )
