"""Decode an audio file, second by second, to one channel at its own rate.

All that opens audio opens it here: the check of a preparation, training,
evaluation and the command line. What one of them accepts, the others can read.

A header is believed only as far as the size of the file bears it out; a length
beyond that is found by decoding. Memory is that of a second of audio, whatever
a header promises.
"""

import os
import re
import stat

import numpy as np
import soundfile

from speechbrain_ssl.errors import AudioError

#: A file that lacks less than this share of the samples that its header
#: announces, or less than ``TOLERANCE_SECONDS``, counts as whole: lossy formats
#: only estimate their length, and some writers miscount by a few bytes.
TOLERANCE = 0.01
TOLERANCE_SECONDS = 0.1

#: The lowest and the highest sample rate, in Hz. Below, no speech is left;
#: above, the header is damaged.
RATES = (4000, 1_000_000)

#: Greatest number of values that a second may have (64 channels at 1 MHz).
_MOST_VALUES = 2**26

#: Full scale is 1; some programs write floats in steps of 16-bit audio or of
#: 24-bit audio divided by a few bits. Beyond this, samples are damaged.
LARGEST = 1e6

#: Frames for each byte of a file beyond which a header's length is not
#: believed. MP3 at 8 kbit/s and 24 kHz has 24; the Opus and FLAC files that
#: have more (near silence) are decoded to count their frames.
_MOST_FRAMES_PER_BYTE = 24

#: Channels whose mean has less than this share of the power that it would have
#: if they were independent cancel each other.
_CANCELLED = 0.1

#: Programs that write to a pipe store such a number for the unknown size.
_STREAMED = 0x7FFF0000

# What libsndfile logs about a data chunk that extends beyond the file's end,
# and about an Ogg file with several streams, of which it reads the first.
_DATA_SIZE = re.compile(
    r"(?:data|SSND|Data Size)\s*: (\d+) \(should be (\d+)\)"
)
_SEVERAL_STREAMS = "Junk after the last page"


class UnusableAudio(AudioError):
    """An audio file that cannot be used, with the reason for a table.

    Arguments
    ---------
    message : str
        What the user reads, with the path.
    reason : str
        The kind of fault in a few words, to count files by.
    detail : str
        Details of the reason.
    """

    def __init__(self, message, reason="", detail=""):
        super().__init__(message)
        self.reason = reason
        self.detail = detail


class _ForwardFile(soundfile.SoundFile):
    """A sound file that is read without seeking.

    soundfile seeks after each read of a file that says it can, and fails there
    for codecs that only say so (DWVW).
    """

    def seekable(self):
        """Deny it to soundfile; ``Decoder`` seeks itself."""
        return False


class Decoder:
    """An open audio file.

    Arguments
    ---------
    path : str or pathlib.Path
        Any file libsndfile reads (wav, flac, ogg, mp3, ...).

    Attributes
    ----------
    size : int
        Bytes.
    sample_rate : int
        Hz.
    channels : int
        Number of channels.
    frames : int or None
        Samples for each channel by the header; None where it cannot be
        believed.
    several_streams : bool
        Whether the file goes on with another Ogg stream, which is not read.
    cancelled : int
        Number of seconds decoded so far in which the channels cancelled each
        other.

    Raises
    ------
    UnusableAudio
        If the file is missing, unreadable, empty, or lacks its end.
    """

    def __init__(self, path):
        self.path = path
        try:
            status = os.stat(path)
        except (OSError, ValueError) as error:
            missing = isinstance(error, (FileNotFoundError, NotADirectoryError))
            self._fail(
                "missing" if missing else "unreadable",
                getattr(error, "strerror", None) or str(error),
            )
        self.size = status.st_size
        # Opening a pipe or a device would wait, or never end.
        if not stat.S_ISREG(status.st_mode):
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "no file"
            self._fail("unreadable", f"it is {kind}")
        if self.size == 0:
            self._fail("empty file", "0 bytes")
        self._open()
        self.sample_rate = self._file.samplerate
        self.channels = self._file.channels
        self.frames = self._file.frames
        self.cancelled = 0
        try:
            self._judge_header(self._file.extra_info)
        except UnusableAudio:
            self.close()
            raise

    def _open(self):
        """Open the file, at its first frame."""
        try:
            self._file = _ForwardFile(os.fsencode(self.path))
        # soundfile raises TypeError for a headerless file (.raw); a broken
        # header may ask for more than the memory.
        except (
            OSError,
            RuntimeError,
            TypeError,
            ValueError,
            MemoryError,
        ) as error:
            detail = getattr(error, "error_string", None) or str(error)
            if not os.access(self.path, os.R_OK):
                detail = "no permission to read it"
            self._fail("unreadable", detail.strip())
        self._position = 0

    def _judge_header(self, log):
        """Raise if the header or the log of libsndfile shows a fault."""
        rate, channels = self.sample_rate, self.channels
        lowest, highest = RATES
        if not lowest <= rate <= highest or rate * channels > _MOST_VALUES:
            detail = f"{rate} Hz, {channels} channels: no speech, or damaged"
            self._fail("implausible header", detail)
        if self.frames <= 0:
            self._fail(
                "zero length",
                f"its header announces no samples, in {self.size} bytes; if a "
                "program wrote it to a pipe, convert it to a regular file",
            )
        match = _DATA_SIZE.search(log)
        if match:
            announced, there = map(int, match.groups())
            lacking = announced - there
            if announced < _STREAMED and lacking > TOLERANCE * announced:
                detail = f"{there} of the {announced} announced bytes of audio"
                self._fail("truncated", detail)
        # libsndfile goes astray when it seeks in several streams.
        self.several_streams = _SEVERAL_STREAMS in log
        self._seeks = not self.several_streams and (
            soundfile.SoundFile.seekable(self._file)
        )
        if self.frames > _MOST_FRAMES_PER_BYTE * self.size:
            self.frames = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Close the file."""
        self._file.close()

    def count(self):
        """Count the frames by decoding all of them.

        Returns
        -------
        int

        Raises
        ------
        UnusableAudio
            If the file holds none, or is damaged.
        """
        frames = sum(len(block) for block in self.seconds())
        if frames == 0:
            self._fail("zero length", "no samples")
        return frames

    def seconds(self, first=0):
        """Decode the file from one of its seconds on.

        If the channels cancel each other (the same sound in opposite phase),
        the loudest one is taken for this second instead of their mean. Each
        second from the beginning of the file is judged by itself, so that the
        same samples come out whichever part of the file is read.

        Arguments
        ---------
        first : int
            The second to begin with.

        Yields
        ------
        numpy.ndarray
            float32 ``[sample_rate]``, at last fewer.

        Raises
        ------
        UnusableAudio
            If the file is damaged there, or holds NaN, infinite or absurdly
            large samples.
        """
        self._go_to(first * self.sample_rate)
        while len(block := self._read(self.sample_rate)):
            at = (self._position - len(block)) / self.sample_rate
            # A comparison with NaN is false.
            if not max(block.max(), -block.min()) <= LARGEST:
                wrong = ~(np.abs(block) <= LARGEST).all(axis=1)
                at += np.flatnonzero(wrong)[0] / self.sample_rate
                self._fail(
                    "samples out of range",
                    f"NaN, infinite or beyond {LARGEST:g} at {at:.3f} s",
                )
            yield self._mix(block)

    def _mix(self, block):
        """Mix a second ``[frames, channels]`` to one channel."""
        if self.channels == 1:
            return block[:, 0]
        mean = block.mean(axis=1)
        powers = block.var(axis=0)
        if mean.var() >= _CANCELLED * powers.sum() / self.channels**2:
            return mean
        self.cancelled += 1
        # The first of the channels that are about as loud as the loudest.
        return block[:, np.flatnonzero(powers > powers.max() / 2)[0]]

    def _go_to(self, frame):
        """Move to a frame, or to the end of a file that ends before it."""
        if self._seeks:
            try:
                end = self._file.frames
                self._position = self._file.seek(min(frame, end))
                return
            except (OSError, RuntimeError):
                # It only said that it can.
                self._seeks = False
                self._restart()
        if frame < self._position:
            self._restart()
        while self._position < frame and len(
            self._read(min(self.sample_rate, frame - self._position))
        ):
            pass

    def _restart(self):
        """Return to the first frame of a file that cannot seek."""
        self._file.close()
        self._open()

    def _read(self, frames):
        """Read the next frames, ``[frames or fewer, channels]``."""
        try:
            block = self._file.read(frames, dtype="float32", always_2d=True)
        except (OSError, RuntimeError, MemoryError) as error:
            at = self._position / self.sample_rate
            detail = getattr(error, "error_string", None) or str(error)
            self._fail("damaged", f"after {at:.1f} s: {detail.strip()}")
        self._position += len(block)
        return block

    def _fail(self, reason, detail):
        """Raise an ``UnusableAudio``."""
        message = f"cannot use {self.path}: {reason}, {detail}"
        raise UnusableAudio(message, reason, detail)
