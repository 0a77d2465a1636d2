"""Find out whether an audio file can be used, and if not, why."""

import os
import re
from typing import NamedTuple

import numpy as np
import soundfile as sf

CHECKS = ("header", "decode")

# Below one step of 16-bit audio. A lossy codec does not keep exact zeros.
SILENCE = 2.0**-15

# A file that lacks less than this share of the samples that its header
# announces counts as whole: lossy formats only estimate their length, and some
# writers miscount by a few bytes.
TRUNCATION = 0.01

# Programs that write to a pipe store such a number for the unknown size.
_STREAMED = 0x7FFF0000

# The log of libsndfile about a data chunk that extends beyond the file's end.
_DATA_SIZE = re.compile(
    r"(?:data|SSND|Data Size)\s*: (\d+) \(should be (\d+)\)"
)


class Outcome(NamedTuple):
    """Result of probing one file.

    Attributes
    ----------
    size : int
        Bytes; -1 where there is no file.
    mtime : int
        Time of its last change, in ns.
    frames : int
        Samples per channel; 0 in a file that cannot be used.
    sample_rate : int
        Hz.
    channels : int
        Number of channels.
    reason : str
        Why the file cannot be used; empty if it can.
    detail : str
        Details of the reason.
    """

    size: int
    mtime: int
    frames: int
    sample_rate: int
    channels: int
    reason: str
    detail: str


def unusable(size, mtime, reason, detail=""):
    """Return the outcome of a file that cannot be used."""
    return Outcome(size, mtime, 0, 0, 0, reason, detail)


def probe(path, check="header"):
    """Open one audio file and find out whether it can be used.

    Arguments
    ---------
    path : str or pathlib.Path
        The file.
    check : str
        ``"header"`` trusts the header, and compares it with the size of the
        file where the format allows that. ``"decode"`` reads all samples and
        also finds damaged, truncated and silent audio, and NaN or infinite
        samples.

    Returns
    -------
    Outcome
        The outcome, also for a broken file: no exception is raised for it.

    Example
    -------
    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "a.wav"
    >>> _ = path.write_bytes(b"no audio")
    >>> probe(path).reason, probe(path).detail
    ('unreadable', 'Format not recognised.')
    """
    path = os.fspath(path)
    try:
        status = os.stat(path)
    except OSError as error:
        reason = (
            "missing" if isinstance(error, FileNotFoundError) else "unreadable"
        )
        return unusable(-1, -1, reason, error.strerror or "")
    size, mtime = status.st_size, status.st_mtime_ns
    if size == 0:
        return unusable(size, mtime, "empty file", "0 bytes")
    try:
        with sf.SoundFile(path) as sound:
            frames = sound.frames
            rate, channels = sound.samplerate, sound.channels
            lacking = _truncated_data(sound.extra_info)
            if lacking:
                return unusable(size, mtime, "truncated", lacking)
            if check == "decode":
                frames, reason, detail = _decode(sound)
                if reason:
                    return unusable(size, mtime, reason, detail)
    # soundfile passes on the error of libsndfile; a broken header may also
    # make it allocate an array larger than the memory.
    except (sf.SoundFileError, OSError, ValueError, MemoryError) as error:
        detail = getattr(error, "error_string", None) or str(error)
        if not os.access(path, os.R_OK):
            detail = "no permission to read it"
        return unusable(size, mtime, "unreadable", detail.strip())
    if frames <= 0 or rate <= 0:
        return unusable(size, mtime, "zero length", "no samples")
    return Outcome(size, mtime, frames, rate, channels, "", "")


def _truncated_data(log):
    """Describe how much audio is missing of what the header announces.

    Arguments
    ---------
    log : str
        The log of libsndfile from reading the header.

    Returns
    -------
    str
        Empty if nothing is missing.
    """
    match = _DATA_SIZE.search(log)
    if not match:
        return ""
    announced, there = map(int, match.groups())
    if announced >= _STREAMED or announced - there <= TRUNCATION * announced:
        return ""
    return f"{there} of the {announced} announced bytes of audio"


def _decode(sound):
    """Read a whole open file in blocks; return frames, reason and detail."""
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
