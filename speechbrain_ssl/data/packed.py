"""Read audio that a preparation has packed into a few large files.

A million small files on a network disk are slow to open. ``prepare.pack`` copies
their samples into *shards*: files of 16-bit integers at 16 kHz, one utterance
after the other, and nothing else. In the manifest the path of such an utterance
is that of its shard with its first sample and its number of samples,

    /fast/disk/0f3a….pcm16:3520000:124800

so the manifest, which is held in columns, is the index. IDs do not change, and
with them no random draw. ``data.audio.AudioFile`` reads such paths as others.
"""

import functools
import os
import re

import numpy as np

from speechbrain_ssl.data.decoder import UnusableAudio

#: Sample rate of all shards, Hz.
RATE = 16000

_PATH = re.compile(r"(.*\.pcm16):(\d+):(\d+)", re.DOTALL)


def packed_path(shard, first, count):
    """Return the path of an utterance in a shard.

    Arguments
    ---------
    shard : str or pathlib.Path
        The file.
    first, count : int
        First sample and number of samples.

    Returns
    -------
    str

    Example
    -------
    >>> packed_path("/fast/0.pcm16", 32000, 16000)
    '/fast/0.pcm16:32000:16000'
    """
    return f"{shard}:{first}:{count}"


def is_packed(path):
    """Return whether a path is that of an utterance in a shard.

    Example
    -------
    >>> is_packed("/fast/0.pcm16:32000:16000"), is_packed("/slow/0.wav")
    (True, False)
    """
    return _PATH.fullmatch(os.fspath(path)) is not None


def file_of(path):
    """Return the file that a path of audio is in.

    Arguments
    ---------
    path : str or pathlib.Path
        Path of an utterance, packed or not.

    Returns
    -------
    str

    Example
    -------
    >>> file_of("disk/0.pcm16:320:16000"), file_of("a.wav")
    ('disk/0.pcm16', 'a.wav')
    """
    found = _PATH.fullmatch(os.fspath(path))
    return found[1] if found else os.fspath(path)


# A process maps each shard once. The memory of a map is that of the disk cache,
# which the processes share.
@functools.cache
def _samples(shard):
    return np.memmap(shard, dtype="<i2", mode="r")


class PackedAudio:
    """An utterance in a shard; stands in for ``data.decoder.Decoder``.

    Arguments
    ---------
    path : str
        As ``packed_path`` returns it.

    Attributes
    ----------
    sample_rate, channels, frames : int
        As those of ``Decoder``.

    Raises
    ------
    UnusableAudio
        If the shard is missing or too short.
    """

    sample_rate = RATE
    channels = 1

    def __init__(self, path):
        shard, first, count = _PATH.fullmatch(os.fspath(path)).groups()
        first, self.frames = int(first), int(count)
        try:
            samples = _samples(shard)
        except (OSError, ValueError) as error:
            self._fail(path, "missing", error)
        self._samples = samples[first : first + self.frames]
        if len(self._samples) < self.frames:
            self._fail(path, "truncated", f"{len(samples)} samples")

    def _fail(self, path, reason, detail):
        raise UnusableAudio(
            f"cannot use {path}: {reason}, {detail}; pack the corpus again",
            reason,
            str(detail),
        )

    def close(self):
        """Do nothing: the shard stays mapped for other utterances."""

    def read_mono(self, start, count):
        """Return a part as ``Decoder.read_mono`` does."""
        wave = self._samples[start : start + count].astype(np.float32)
        wave *= 2.0**-15
        return wave

    def seconds(self, first=0):
        """Yield the audio second by second, as ``Decoder.seconds`` does."""
        for start in range(first * RATE, self.frames, RATE):
            yield self.read_mono(start, RATE)
