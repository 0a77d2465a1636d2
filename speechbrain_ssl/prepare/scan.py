"""Scan a tree of audio files into a table of utterances.

A corpus of a million files has a few that are empty, truncated or not audio.
They must neither stop its preparation nor vanish from it: every file is listed
in one of two tables, that of the usable files or that of the rejected ones,
with a reason in words. A third one notes what is odd about usable files.

Reading a million headers from a network disk takes an hour. The outcome of each
file is therefore kept in a cache of JSON lines, appended chunk by chunk, so
that an interrupted scan loses a second of work; a file is opened again only if
its size or its modification time has changed. The cache describes the file
itself, not whether it was accepted: a scan with another minimum duration opens
no file.
"""

import contextlib
import dataclasses
import json
import logging
import os
import pathlib
from concurrent.futures.process import BrokenProcessPool

import pandas as pd

from speechbrain_ssl.data.manifest import write_manifest
from speechbrain_ssl.errors import ManifestError, UserError
from speechbrain_ssl.prepare.listing import (
    AUDIO_EXTENSIONS,
    FileListing,
    list_files,
    unique_ids,
)
from speechbrain_ssl.prepare.probe import CHECKS, Outcome, probe, unusable
from speechbrain_ssl.prepare.rejected import notes_table, rejected_table
from speechbrain_ssl.prepare.workers import (
    default_workers,
    finish_jobs,
    open_pool,
)
from speechbrain_ssl.progress import open_bar

logger = logging.getLogger(__name__)

# Files per message to a worker. An interruption may lose a chunk, so chunks are
# small for decoding, which is slow.
CHUNK_SIZE = {"header": 256, "decode": 16}


@dataclasses.dataclass
class Scan:
    """Result of a scan.

    Attributes
    ----------
    usable : pandas.DataFrame
        ``ID``, ``duration``, ``wav``, ``sample_rate`` and ``channels``.
    rejected : pandas.DataFrame
        ``wav``, ``reason`` and ``detail``.
    notes : pandas.DataFrame
        ``wav``, ``note`` and ``detail`` of usable files that are odd.
    opened : int
        Number of files that were opened; the others were in the cache.
    unused_seconds : float
        Length of the rejected files whose length is known.
    """

    usable: pd.DataFrame
    rejected: pd.DataFrame
    notes: pd.DataFrame
    opened: int
    unused_seconds: float

    def manifest(self):
        """Return the usable utterances with the three columns of a manifest."""
        return self.usable[["ID", "duration", "wav"]]

    def totals(self):
        """Return the number of usable ``utterances`` and their ``hours``.

        ``hours_found`` counts the rejected files, too, if their length is known.
        """
        seconds = float(self.usable["duration"].sum())
        found = seconds + self.unused_seconds
        return {
            "utterances": len(self.usable),
            "hours": round(seconds / 3600, 4),
            "hours_found": round(found / 3600, 4),
        }


def scan(
    root,
    files=None,
    wav_root="$data_root",
    cache=None,
    check="header",
    min_duration=0.0,
    sample_rate=None,
    num_workers=None,
    progress=True,
):
    """Sort audio files into usable and rejected ones.

    Arguments
    ---------
    root : str or pathlib.Path
        The folder.
    files : list of str or FileListing, optional
        Paths relative to ``root``. By default all audio files below it.
    wav_root : str
        Text that replaces ``root`` in the ``wav`` column.
    cache : str or pathlib.Path, optional
        File that keeps the outcomes, for a scan that continues this one.
    check : str
        ``"header"`` or ``"decode"``; see ``probe``.
    min_duration : float
        Shorter files are rejected (seconds).
    sample_rate : int, optional
        Files of another sample rate are rejected. By default any is usable.
    num_workers : int, optional
        Number of processes. By default one per core; ``0`` scans in this
        process.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    Scan

    Raises
    ------
    ManifestError
        If the folder is missing, or holds no audio file.
    UserError
        If ``check`` is neither of the two.

    Example
    -------
    >>> import numpy as np, pathlib, soundfile, tempfile
    >>> root = pathlib.Path(tempfile.mkdtemp())
    >>> soundfile.write(root / "a.wav", np.ones(16000) / 2, 16000)
    >>> soundfile.write(root / "b.wav", np.ones(1600) / 2, 16000)
    >>> found = scan(root, min_duration=1.0, num_workers=0, progress=False)
    >>> found.usable[["ID", "wav"]].to_numpy().tolist()
    [['a', '$data_root/a.wav']]
    >>> found.rejected.iloc[0].to_list()
    ['$data_root/b.wav', 'too short', '0.1 s, at least 1 s are needed']
    """
    if check not in CHECKS:
        raise UserError(f"`check` is 'header' or 'decode', not '{check}'")
    root = os.path.abspath(root)
    unreadable = []
    if files is None:
        files = list_files(root, progress=progress)
    if isinstance(files, FileListing):
        if not files.files and not files.unreadable:
            raise ManifestError(_no_audio(root, files.unknown))
        files, unreadable = files.files, files.unreadable
    names, unwritable = [], []
    for name in sorted(files):
        (names if _is_utf8(name) else unwritable).append(name)
    if num_workers is None:
        num_workers = default_workers()
    outcomes, opened = _outcomes(
        root, names, cache, check, num_workers, progress
    )

    usable, notes, unused_seconds = [], [], 0.0
    rejected = [
        (f"{wav_root}/{name}", "folder not listed", message)
        for name, message in unreadable
    ] + [
        (f"{wav_root}/{name}", "name is not UTF-8", "rename the file")
        for name in unwritable
    ]
    # IDs are made from all files, so that another threshold renames none.
    for name, utterance in zip(names, unique_ids(names), strict=True):
        outcome, wav = outcomes[name], f"{wav_root}/{name}"
        reason, detail = outcome.reason, outcome.detail
        if not reason:
            # Seven decimals are exact at 16 kHz.
            seconds = round(outcome.frames / outcome.sample_rate, 7)
            reason, detail = _unwanted(
                seconds, outcome.sample_rate, min_duration, sample_rate
            )
            unused_seconds += seconds if reason else 0.0
        if reason:
            rejected.append((wav, reason, detail))
        else:
            facts = (outcome.sample_rate, outcome.channels)
            usable.append((utterance, seconds, wav, *facts))
            notes += [(wav, *note) for note in outcome.notes]
    columns = ["ID", "duration", "wav", "sample_rate", "channels"]
    return Scan(
        pd.DataFrame(usable, columns=columns),
        rejected_table(rejected),
        notes_table(notes),
        opened,
        unused_seconds,
    )


def write_folder_manifest(
    folder, path, cache=None, num_workers=None, progress=False
):
    """Write a manifest of all usable audio below a folder, with absolute paths.

    It is meant for noises and room responses, whose folders may lie anywhere.

    Arguments
    ---------
    folder : str or pathlib.Path
        The folder.
    path : str or pathlib.Path
        The manifest to write.
    cache, num_workers, progress
        See ``scan``.

    Raises
    ------
    ManifestError
        If the folder is missing, or holds no usable audio file.
    """
    listing = list_files(folder, progress=progress)
    found = scan(
        folder,
        listing,
        wav_root=os.path.abspath(folder),
        cache=cache,
        num_workers=num_workers,
        progress=progress,
    )
    if len(found.usable) == 0:
        raise ManifestError(
            f"none of the {len(found.rejected)} audio files below {folder} "
            f"can be used, the first one because: "
            f"{found.rejected.iloc[0]['reason']}"
        )
    left_out = {
        **found.rejected["reason"].value_counts(),
        **{f"not read here ({e})": n for e, n in listing.unknown.items()},
    }
    if left_out:
        logger.warning(
            "%s: %d files are used; left out: %s",
            folder,
            len(found.usable),
            ", ".join(f"{n} {what}" for what, n in left_out.items()),
        )
    write_manifest(path, found.manifest())


def _is_utf8(name):
    """Return whether a file name can be written to a UTF-8 file."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _unwanted(seconds, rate, min_duration, sample_rate):
    """Return why a file is rejected (reason, detail), or two empty strings."""
    if seconds < min_duration:
        detail = f"{seconds:.4g} s, at least {min_duration:g} s are needed"
        return "too short", detail
    if sample_rate is not None and rate != sample_rate:
        detail = f"{rate} Hz, {sample_rate} Hz are needed"
        return "wrong sample rate", detail
    return "", ""


def _no_audio(root, unknown):
    """Return the message for a folder without an audio file."""
    others = ", ".join(f"{n} {e}" for e, n in unknown.items())
    return (
        f"there is no audio file below {root}"
        + (f" (but {others})" if others else "")
        + "; point the argument at the folder that holds the audio, in a "
        f"format of {' '.join(AUDIO_EXTENSIONS)}"
    )


class ScanCache:
    """Cache of outcomes on disk, appended as one JSON line per file.

    Arguments
    ---------
    path : str or pathlib.Path
        The file; it need not exist. A line that a killed process left
        incomplete is ignored.
    check : str
        Only outcomes of this check are used, because ``"decode"`` rejects files
        that ``"header"`` accepts.

    Attributes
    ----------
    outcomes : dict
        Maps file names to ``Outcome``, as read.
    """

    def __init__(self, path, check):
        self.path = pathlib.Path(path)
        self.check = check
        self.outcomes = {}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.is_file():
            with open(self.path, encoding="utf-8", errors="replace") as stream:
                for line in stream:
                    self._read_line(line)
        self._stream = open(self.path, "a", encoding="utf-8")
        if self._stream.tell() > 0:
            # The last line may be incomplete; empty lines do not matter.
            self._stream.write("\n")

    def _read_line(self, line):
        """Read one line; later lines replace earlier ones."""
        try:
            name, check, *outcome = json.loads(line)
        except (ValueError, TypeError):
            return
        if check == self.check and len(outcome) == len(Outcome._fields):
            self.outcomes[name] = Outcome(*outcome)

    def add(self, names, outcomes):
        """Append the outcomes of one chunk and flush them to the system."""
        self._stream.writelines(
            json.dumps([name, self.check, *outcome]) + "\n"
            for name, outcome in zip(names, outcomes, strict=True)
        )
        self._stream.flush()

    def close(self):
        """Close the file."""
        self._stream.close()


def _outcomes(root, names, cache_path, check, num_workers, progress):
    """Look up the outcome of every file in the cache, or probe the file.

    Returns
    -------
    tuple
        A dict of file names to ``Outcome``, and the number of files opened.
    """
    outcomes, opened = {}, 0
    with contextlib.ExitStack() as stack:
        cache = None
        if cache_path is not None:
            cache = ScanCache(cache_path, check)
            stack.callback(cache.close)
        known = cache.outcomes if cache else {}
        size = CHUNK_SIZE[check]
        chunks = (names[i : i + size] for i in range(0, len(names), size))
        jobs = ((root, c, [known.get(n) for n in c], check) for c in chunks)
        bar = stack.enter_context(
            open_bar(
                total=len(names),
                desc=f"scan {os.path.basename(root)}",
                unit=" files",
                disable=not progress,
            )
        )
        results = stack.enter_context(
            contextlib.closing(
                finish_jobs(_probe_files, jobs, num_workers, _probe_suspects)
            )
        )
        for (_, chunk, _, _), found in results:
            new = [(n, o) for n, o in zip(chunk, found, strict=True) if o]
            if new:
                if cache:
                    cache.add(*zip(*new, strict=True))
                outcomes.update(new)
                opened += len(new)
            for name, outcome in zip(chunk, found, strict=True):
                if outcome is None:
                    outcomes[name] = known[name]
            bar.update(len(chunk))
    return outcomes, opened


def _probe_files(root, names, known, check):
    """Probe a chunk of files.

    Arguments
    ---------
    root : str
        The folder.
    names : list of str
        The files, relative to it.
    known : list of Outcome or None
        The cached outcome of each.
    check : str
        See ``probe``.

    Returns
    -------
    list of Outcome or None
        None for a file that has not changed since the cache was written.
    """
    outcomes = []
    for name, before in zip(names, known, strict=True):
        path = f"{root}/{name}"
        if before is not None and _is_unchanged(path, before):
            outcomes.append(None)
        else:
            outcomes.append(probe(path, check))
    return outcomes


def _is_unchanged(path, before):
    """Return whether size and time of a file match an earlier outcome."""
    try:
        status = os.stat(path)
    except OSError:
        return False
    return before[:2] == (status.st_size, status.st_mtime_ns)


def _probe_suspects(root, names, known, check):
    """Probe files of which one may crash the process that reads it.

    A chunk that crashes its process is halved until the file is isolated.
    """
    try:
        with open_pool(1) as pool:
            return pool.submit(_probe_files, root, names, known, check).result()
    except BrokenProcessPool:
        if len(names) == 1:
            status = os.stat(f"{root}/{names[0]}")
            reason, detail = "unreadable", "the process that read it died"
            size, mtime = status.st_size, status.st_mtime_ns
            return [unusable(size, mtime, reason, detail)]
    half = len(names) // 2
    return _probe_suspects(
        root, names[:half], known[:half], check
    ) + _probe_suspects(root, names[half:], known[half:], check)
