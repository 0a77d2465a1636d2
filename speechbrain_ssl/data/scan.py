"""From a tree of audio files to a table of utterances.

A corpus of a million files has a few that are empty, cut off or no audio at
all. They must not stop its preparation, and must not vanish from it either:
every file ends in one of two tables, the usable ones or the rejected ones with
a reason in words.

Reading a million headers from a network disk takes an hour. What is known about
a file is therefore kept in a cache of JSON lines, appended chunk by chunk, so
that an interrupted scan loses a second of work; a file is looked at again where
its size or its modification time has changed. The cache holds what the file
*is*, never whether it is wanted: another minimum duration asks no disk.
"""

import collections
import concurrent.futures
import contextlib
import dataclasses
import hashlib
import json
import logging
import multiprocessing
import os
import pathlib
import re
import signal
import sys
import threading
import time
from concurrent.futures.process import BrokenProcessPool

import numpy as np
import pandas as pd
import soundfile as sf
from tqdm import tqdm

from speechbrain_ssl.data.manifest import write_manifest
from speechbrain_ssl.errors import ManifestError, UserError
from speechbrain_ssl.files import atomic_write

logger = logging.getLogger(__name__)

# What soundfile opens by its header, without being told a sample rate.
AUDIO_EXTENSIONS = (
    ".aif",
    ".aifc",
    ".aiff",
    ".au",
    ".caf",
    ".flac",
    ".mp3",
    ".oga",
    ".ogg",
    ".opus",
    ".rf64",
    ".snd",
    ".sph",
    ".w64",
    ".wav",
)

CHECKS = ("header", "decode")

# Files per message to a worker. A chunk is also what an interruption may lose,
# so that decoding, which is slow, gets small ones.
CHUNK_SIZE = {"header": 256, "decode": 16}

# Below one step of 16-bit audio. A lossy codec does not keep exact zeros.
SILENCE = 2.0**-15

# A file that lacks less than this share of what it announces is whole: lossy
# formats only estimate their length, and some writers miscount a few bytes.
TRUNCATION = 0.01

# Programs that write to a pipe put a number like this for the unknown size.
_STREAMED = 0x7FFF0000

# What libsndfile notes about a data chunk that goes on beyond the file's end.
_DATA_SIZE = re.compile(
    r"(?:data|SSND|Data Size)\s*: (\d+) \(should be (\d+)\)"
)

_CONFIG_NAME = "prepare.json"


@dataclasses.dataclass
class Listing:
    """What lies below a folder.

    Attributes
    ----------
    files : list of str
        Audio files relative to the folder, with ``/``, sorted.
    unknown : dict
        Number of the other files by extension.
    unreadable : list of tuple
        Folders that could not be listed, each with the system's message.
    """

    files: list
    unknown: dict
    unreadable: list


@dataclasses.dataclass
class Scan:
    """What a scan has found.

    Attributes
    ----------
    usable : pandas.DataFrame
        ``ID``, ``duration``, ``wav``, ``sample_rate`` and ``channels``.
    rejected : pandas.DataFrame
        ``wav``, ``reason`` and ``detail``.
    opened : int
        How many files were opened; the others were known from the cache.
    """

    usable: pd.DataFrame
    rejected: pd.DataFrame
    opened: int

    def manifest(self):
        """The usable utterances with the three columns of a manifest."""
        return self.usable[["ID", "duration", "wav"]]


# --------------------------------------------------------------------- listing


def list_files(root, extensions=AUDIO_EXTENSIONS, progress=True):
    """Lists the audio files below a folder in a fixed order.

    Hidden files and folders are left out. Links to folders are followed; a
    folder that is reached twice is listed once.

    Arguments
    ---------
    root : str or pathlib.Path
        The folder.
    extensions : tuple of str
        Lower-case extensions of audio files; any case matches.
    progress : bool
        Whether to show how many files were seen.

    Returns
    -------
    Listing

    Raises
    ------
    ManifestError
        If the folder is missing.

    Example
    -------
    >>> import tempfile, pathlib
    >>> root = pathlib.Path(tempfile.mkdtemp())
    >>> (root / "b.WAV").touch(), (root / "a.flac").touch()
    (None, None)
    >>> (root / "notes.txt").touch()
    >>> listing = list_files(root, progress=False)
    >>> listing.files, listing.unknown
    (['a.flac', 'b.WAV'], {'.txt': 1})
    """
    root = os.path.abspath(root)
    if not os.path.isdir(root):
        raise ManifestError(
            f"there is no folder {root}; correct the argument that names it, "
            "or mount the disk it lies on"
        )
    files, unknown, errors = [], collections.Counter(), []
    seen = set()
    with tqdm(
        desc=f"list {os.path.basename(root)}",
        unit=" files",
        disable=not progress,
    ) as bar:
        for folder, subfolders, names in os.walk(
            root, followlinks=True, onerror=errors.append
        ):
            status = os.stat(folder)
            place = (status.st_dev, status.st_ino)
            if place in seen:
                logger.warning("%s was listed under another name", folder)
                subfolders.clear()
                continue
            seen.add(place)
            # The order decides which of two names of a folder is taken.
            subfolders[:] = sorted(s for s in subfolders if s[0] != ".")
            inner = os.path.relpath(folder, root).replace(os.sep, "/")
            prefix = "" if inner == "." else inner + "/"
            for name in names:
                if name[0] == ".":
                    continue
                extension = os.path.splitext(name)[1].lower()
                if extension in extensions:
                    files.append(prefix + name)
                else:
                    unknown[extension or "(none)"] += 1
            bar.update(len(names))
    unreadable = [
        (os.path.relpath(e.filename, root).replace(os.sep, "/"), e.strerror)
        for e in errors
    ]
    return Listing(
        sorted(files), dict(sorted(unknown.items())), sorted(unreadable)
    )


def unique_ids(files):
    """Utterance IDs: the path without extension, unless that is ambiguous.

    Arguments
    ---------
    files : list of str
        Distinct relative paths.

    Returns
    -------
    list of str
        One ID per file, all different.

    Example
    -------
    >>> unique_ids(["s/a.wav", "s/b.wav", "s/b.flac"])
    ['s/a', 's/b.wav', 's/b.flac']
    """
    ids = [os.path.splitext(name)[0] for name in files]
    while True:
        counts = collections.Counter(ids)
        if len(counts) == len(ids):
            return ids
        # Whole paths differ, so every round settles at least one clash.
        ids = [
            name if counts[i] > 1 else i
            for i, name in zip(ids, files, strict=True)
        ]


# --------------------------------------------------------------------- one file


class Outcome(tuple):
    """What one file is: a tuple, because a million of them are held.

    The fields are size (bytes), mtime (ns), frames, sample_rate, channels,
    reason and detail. An empty reason means that the file is sound.
    """

    __slots__ = ()
    fields = (
        "size",
        "mtime",
        "frames",
        "sample_rate",
        "channels",
        "reason",
        "detail",
    )


def _bad(size, mtime, reason, detail=""):
    """An outcome of a file that cannot be used."""
    return Outcome((size, mtime, 0, 0, 0, reason, detail))


def probe(path, check="header"):
    """Looks at one audio file.

    Arguments
    ---------
    path : str or pathlib.Path
        The file.
    check : str
        ``"header"`` trusts the header, and the file's size where the format
        lets one compare both. ``"decode"`` reads all samples and also finds
        damaged, cut off and silent audio and samples that are no numbers.

    Returns
    -------
    Outcome
        Never an exception that the file has caused.

    Example
    -------
    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "a.wav"
    >>> _ = path.write_bytes(b"no audio")
    >>> probe(path)[5:]
    ('unreadable', 'Format not recognised.')
    """
    path = os.fspath(path)
    try:
        status = os.stat(path)
    except OSError as error:
        reason = "missing" if isinstance(error, FileNotFoundError) else ""
        return _bad(-1, -1, reason or "unreadable", error.strerror or "")
    size, mtime = status.st_size, status.st_mtime_ns
    if size == 0:
        return _bad(size, mtime, "empty file", "0 bytes")
    try:
        with sf.SoundFile(path) as sound:
            frames = sound.frames
            facts = (sound.samplerate, sound.channels)
            lacking = _truncated_data(sound.extra_info)
            if lacking:
                return _bad(size, mtime, "truncated", lacking)
            if check == "decode":
                frames, reason, detail = _decode(sound)
                if reason:
                    return _bad(size, mtime, reason, detail)
    # soundfile hands on what libsndfile says; a broken header may also make it
    # ask for an array that no memory holds.
    except (sf.SoundFileError, OSError, ValueError, MemoryError) as error:
        detail = getattr(error, "error_string", None) or str(error)
        if not os.access(path, os.R_OK):
            detail = "no permission to read it"
        return _bad(size, mtime, "unreadable", detail.strip())
    if frames <= 0 or facts[0] <= 0:
        return _bad(size, mtime, "zero length", "no samples")
    return Outcome((size, mtime, frames, *facts, "", ""))


def _truncated_data(log):
    """Says what is lacking where the header announces more than there is."""
    match = _DATA_SIZE.search(log)
    if not match:
        return ""
    announced, there = map(int, match.groups())
    if announced >= _STREAMED or announced - there <= TRUNCATION * announced:
        return ""
    return f"{there} of the {announced} announced bytes of audio"


def _decode(sound):
    """Reads a whole open file in blocks; returns frames, reason, detail."""
    total, not_finite, first, peak = 0, 0, None, 0.0
    while True:
        block = sound.read(65536, dtype="float32", always_2d=True)
        if len(block) == 0:
            break
        finite = np.isfinite(block)
        if not finite.all():
            frames = np.flatnonzero(~finite.all(axis=1))
            not_finite += len(frames)
            if first is None:
                first = (total + int(frames[0])) / sound.samplerate
        else:
            peak = max(peak, float(np.abs(block).max()))
        total += len(block)
    if not_finite:
        detail = f"{not_finite} NaN or Inf samples, the first at {first:.3f} s"
        return total, "samples not finite", detail
    if total < (1 - TRUNCATION) * sound.frames < _STREAMED:
        detail = f"{total} of the {sound.frames} announced samples"
        return total, "truncated", detail
    if total and peak < SILENCE:
        return total, "silent", "all samples are zero"
    return total, "", ""


# -------------------------------------------------------------------- the cache


class ScanCache:
    """Outcomes on disk, one JSON line per file, appended as they arrive.

    Arguments
    ---------
    path : str or pathlib.Path
        The file; it need not exist. A line that a killed process left half
        written is passed over.
    check : str
        Only outcomes of this check are used, because ``"decode"`` rejects files
        that ``"header"`` accepts.
    """

    def __init__(self, path, check):
        self.path = pathlib.Path(path)
        self.check = check
        self.outcomes = {}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.is_file():
            with open(self.path, encoding="utf-8", errors="replace") as stream:
                for line in stream:
                    self._take(line)
        self._stream = open(self.path, "a", encoding="utf-8")
        if self._stream.tell() > 0:
            # Ends a line that may be torn; empty lines do not matter.
            self._stream.write("\n")

    def _take(self, line):
        """Reads one line; later lines replace earlier ones."""
        try:
            name, check, *outcome = json.loads(line)
        except (ValueError, TypeError):
            return
        if check == self.check and len(outcome) == len(Outcome.fields):
            self.outcomes[name] = Outcome(outcome)

    def add(self, names, outcomes):
        """Appends the outcomes of one chunk and hands them to the system."""
        self._stream.writelines(
            json.dumps([name, self.check, *outcome]) + "\n"
            for name, outcome in zip(names, outcomes, strict=True)
        )
        self._stream.flush()

    def close(self):
        """Closes the file."""
        self._stream.close()


# ------------------------------------------------------------------ many files


def default_workers():
    """Number of processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _init_worker(parent):
    """Makes a worker quiet, deaf to Ctrl-C, and mortal."""
    # The parent alone answers Ctrl-C, and then stops its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The mp3 decoder writes its complaints to the terminal, past Python. They
    # would tear the progress bar; what matters of them comes back as a reason.
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()


def _die_with(parent):
    """Ends this process when its parent was killed without saying goodbye.

    A worker waits at a queue of which its siblings hold the other end, so that
    by itself it would wait forever.
    """
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _new_pool(num_workers):
    """A pool of processes; forked where that is safe, since it is quicker."""
    method = "fork" if sys.platform.startswith("linux") else "spawn"
    return concurrent.futures.ProcessPoolExecutor(
        num_workers,
        mp_context=multiprocessing.get_context(method),
        initializer=_init_worker,
        initargs=(os.getpid(),),
    )


def _probe_files(root, names, known, check):
    """Probes a chunk; ``None`` for a file that is as the cache knows it."""
    outcomes = []
    for name, before in zip(names, known, strict=True):
        path = f"{root}/{name}"
        if before is not None:
            try:
                status = os.stat(path)
            except OSError:
                pass
            else:
                if before == (status.st_size, status.st_mtime_ns):
                    outcomes.append(None)
                    continue
        outcomes.append(probe(path, check))
    return outcomes


def _finished(pending):
    """Waits, then yields (job, outcomes) of the jobs that are done."""
    done, _ = concurrent.futures.wait(
        pending, return_when=concurrent.futures.FIRST_COMPLETED
    )
    for future in done:
        outcomes = future.result()
        yield pending.pop(future), outcomes


def _probe_all(jobs, num_workers):
    """Yields (job, outcomes) in the order in which the workers finish.

    A file can bring a decoder down, and with it the process. Its pool is lost
    then: the jobs under way are done over alone, halved until the culprit is
    found, and a new pool goes on with the rest.
    """
    if num_workers == 0:
        for job in jobs:
            yield job, _probe_files(*job)
        return
    waiting = iter(jobs)
    more = True
    while more:
        pool, pending, suspects = _new_pool(num_workers), {}, []
        try:
            for job in waiting:
                suspects = [job]
                pending[pool.submit(_probe_files, *job)] = job
                suspects = []
                # A bounded queue: a million files are not pickled at once.
                if len(pending) >= 4 * num_workers:
                    yield from _finished(pending)
            more = False
            while pending:
                yield from _finished(pending)
        except BrokenProcessPool:
            suspects += pending.values()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        for job in suspects:
            yield job, _probe_suspect(*job)


def _probe_suspect(root, names, known, check):
    """Probes a chunk one of whose files may end the process that reads it."""
    pool = _new_pool(1)
    try:
        return pool.submit(_probe_files, root, names, known, check).result()
    except BrokenProcessPool:
        if len(names) == 1:
            status = os.stat(f"{root}/{names[0]}")
            return [
                _bad(
                    status.st_size,
                    status.st_mtime_ns,
                    "unreadable",
                    "the process that read it died",
                )
            ]
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    half = len(names) // 2
    return _probe_suspect(
        root, names[:half], known[:half], check
    ) + _probe_suspect(root, names[half:], known[half:], check)


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
    """Sorts audio files into usable and rejected ones.

    Arguments
    ---------
    root : str or pathlib.Path
        The folder.
    files : list of str or Listing, optional
        Paths relative to ``root``. All audio files below it otherwise.
    wav_root : str
        What stands for ``root`` in the ``wav`` column.
    cache : str or pathlib.Path, optional
        File that keeps what was found, for a scan that continues this one.
    check : str
        ``"header"`` or ``"decode"``; see ``probe``.
    min_duration : float
        Shorter files are rejected (seconds).
    sample_rate : int, optional
        Files of another sample rate are rejected. Any rate is usable otherwise.
    num_workers : int, optional
        Processes; one per core otherwise. ``0`` works in this process.
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
        If ``check`` is none of the two.

    Example
    -------
    >>> import tempfile, pathlib
    >>> root = pathlib.Path(tempfile.mkdtemp())
    >>> sf.write(root / "a.wav", np.ones(16000) / 2, 16000)
    >>> sf.write(root / "b.wav", np.ones(1600) / 2, 16000)
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
    if isinstance(files, Listing):
        if not files.files and not files.unreadable:
            raise ManifestError(_no_audio(root, files.unknown))
        files, unreadable = files.files, files.unreadable
    files = sorted(files)
    encodable = [_encodable(name) for name in files]
    names = [n for n, good in zip(files, encodable, strict=True) if good]

    if num_workers is None:
        num_workers = default_workers()
    outcomes, opened = _outcomes(
        root, names, cache, check, num_workers, progress
    )
    rejected = [
        (f"{wav_root}/{name}", "folder not listed", message)
        for name, message in unreadable
    ]
    rejected += [
        (f"{wav_root}/{name}", "name is not UTF-8", "rename the file")
        for name, good in zip(files, encodable, strict=True)
        if not good
    ]
    usable = []
    # IDs come from all files, so that another threshold renames no utterance.
    for name, utterance in zip(names, unique_ids(names), strict=True):
        _, _, frames, rate, channels, reason, detail = outcomes[name]
        wav = f"{wav_root}/{name}"
        if not reason:
            # Seven decimals are exact at 16 kHz.
            seconds = round(frames / rate, 7)
            reason, detail = _unwanted(seconds, rate, min_duration, sample_rate)
        if reason:
            rejected.append((wav, reason, detail))
        else:
            usable.append((utterance, seconds, wav, rate, channels))
    return Scan(
        pd.DataFrame(
            usable, columns=["ID", "duration", "wav", "sample_rate", "channels"]
        ),
        rejected_table(rejected),
        opened,
    )


def _encodable(name):
    """Whether a file name can stand in a UTF-8 file."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _unwanted(seconds, rate, min_duration, sample_rate):
    """Reason and detail where a sound file does not meet the requirements."""
    if seconds < min_duration:
        detail = f"{seconds:.4g} s, at least {min_duration:g} s are needed"
        return "too short", detail
    if sample_rate is not None and rate != sample_rate:
        detail = f"{rate} Hz, {sample_rate} Hz are needed"
        return "wrong sample rate", detail
    return "", ""


def _outcomes(root, names, cache_path, check, num_workers, progress):
    """Outcome of every file, from the cache or from the disk."""
    outcomes, opened = {}, 0
    with contextlib.ExitStack() as stack:
        cache = None
        if cache_path is not None:
            cache = ScanCache(cache_path, check)
            stack.callback(cache.close)
        known = cache.outcomes if cache else {}
        size = CHUNK_SIZE[check]
        chunks = (names[i : i + size] for i in range(0, len(names), size))
        jobs = (
            (root, c, [known[n][:2] if n in known else None for n in c], check)
            for c in chunks
        )
        bar = stack.enter_context(
            tqdm(
                total=len(names),
                desc=f"scan {os.path.basename(root)}",
                unit=" files",
                disable=not progress,
            )
        )
        results = stack.enter_context(
            contextlib.closing(_probe_all(jobs, num_workers))
        )
        for (_, chunk, _, _), found in results:
            new = [(n, o) for n, o in zip(chunk, found, strict=True) if o]
            if new:
                fresh_names, fresh = zip(*new, strict=True)
                if cache:
                    cache.add(fresh_names, fresh)
                outcomes.update(new)
                opened += len(new)
            for name, outcome in zip(chunk, found, strict=True):
                if outcome is None:
                    outcomes[name] = known[name]
            bar.update(len(chunk))
    return outcomes, opened


def _no_audio(root, unknown):
    """What to say of a folder without an audio file."""
    others = ", ".join(f"{n} {e}" for e, n in unknown.items())
    return (
        f"there is no audio file below {root}"
        + (f" (but {others})" if others else "")
        + "; point the argument at the folder that holds the audio, in a "
        f"format of {' '.join(AUDIO_EXTENSIONS)}"
    )


# ------------------------------------------------------------------ the results


def rejected_table(rows):
    """A table of rejected files from (wav, reason, detail) rows.

    Example
    -------
    >>> rejected_table([("a.wav", "silent", "")]).columns.to_list()
    ['wav', 'reason', 'detail']
    """
    # A name that is no UTF-8 is what a row may be about: it is spelt out.
    rows = [
        [text.encode("utf-8", "backslashreplace").decode() for text in row]
        for row in rows
    ]
    return pd.DataFrame(rows, columns=["wav", "reason", "detail"])


def write_rejected(path, table):
    """Writes the rejected files atomically, sorted, even if there are none.

    Arguments
    ---------
    path : str or pathlib.Path
        The CSV file.
    table : pandas.DataFrame
        ``wav``, ``reason`` and ``detail``.
    """
    table = table.sort_values(["wav", "reason"], kind="stable")
    with atomic_write(path, newline="") as stream:
        table.to_csv(stream, index=False)


def reasons(table):
    """Number of rejected files by reason, most frequent first.

    Example
    -------
    >>> reasons(rejected_table([("a", "silent", ""), ("b", "silent", "")]))
    {'silent': 2}
    """
    counts = collections.Counter(table["reason"])
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _digest(path):
    """Fingerprint of a file, or None where there is none."""
    if not os.path.isfile(path):
        return None
    # Guards against accidents, not against malice: short is enough.
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as stream:
        while block := stream.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _read_config(save_folder):
    """What the last completed preparation has noted; empty if nothing."""
    try:
        text = (pathlib.Path(save_folder) / _CONFIG_NAME).read_text("utf-8")
        config = json.loads(text)
        return config if isinstance(config, dict) else {}
    except (OSError, ValueError):
        return {}


def completed(save_folder, arguments):
    """Summary of a completed preparation with the same arguments.

    Arguments
    ---------
    save_folder : str or pathlib.Path
        Where the outputs lie.
    arguments : dict
        What determines the outputs, of values that JSON knows.

    Returns
    -------
    dict or None
        None where the arguments differ, or where an output is missing or is not
        what was written.
    """
    config = _read_config(save_folder)
    if config.get("arguments") != json.loads(json.dumps(arguments)):
        return None
    folder = pathlib.Path(save_folder)
    for name, digest in config["outputs"].items():
        if _digest(folder / name) != digest:
            return None
    logger.info(
        "%s is prepared already with the same arguments; if the corpus has "
        "changed since, delete %s and prepare again",
        folder,
        folder / _CONFIG_NAME,
    )
    return config["summary"]


def mark_completed(save_folder, arguments, outputs, summary):
    """Notes that a preparation is complete; call it last.

    Outputs of an earlier preparation that this one did not write are removed,
    so that no list of another configuration lies beside the new ones. A file
    that was edited since stays.

    Arguments
    ---------
    save_folder : str or pathlib.Path
        Where the outputs lie.
    arguments : dict
        As for ``completed``.
    outputs : list of str
        Names of the files written, relative to ``save_folder``.
    summary : dict
        What ``completed`` is to return.
    """
    folder = pathlib.Path(save_folder)
    before = _read_config(folder).get("outputs", {})
    for name in sorted(set(before) - set(outputs)):
        if _digest(folder / name) == before[name]:
            logger.info(
                "%s is of another configuration: removed", folder / name
            )
            os.unlink(folder / name)
    with atomic_write(folder / _CONFIG_NAME) as stream:
        json.dump(
            {
                "arguments": arguments,
                "outputs": {n: _digest(folder / n) for n in sorted(outputs)},
                "summary": summary,
            },
            stream,
            indent=2,
        )
        stream.write("\n")


def write_folder_manifest(
    folder, path, cache=None, num_workers=None, progress=False
):
    """A manifest of all usable audio below a folder, with absolute paths.

    For noises and room responses, which come from anywhere.

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
    found = scan(
        folder,
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
    write_manifest(path, found.manifest())
