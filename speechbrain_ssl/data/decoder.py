"""Decode an audio file, second by second, to one channel at its own rate.

All that opens audio opens it here: the check of a preparation, training,
evaluation and the command line. What one of them accepts, the others can read.

A header is believed only as far as the size of the file bears it out; a length
beyond that is found by decoding. Memory is that of a second of audio, whatever
a header promises, or of ten seconds where there is one channel.
"""

import contextlib
import os
import re
import stat

import numpy as np
import soundfile

from speechbrain_ssl.data.mp3_messages import mp3_messages_dropped
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

#: A file with fewer bytes for each second by its header is not believed. Opus
#: begins at 6 kbit/s; the FLAC files below (silence) are decoded to count their
#: samples, which costs little.
_FEWEST_BYTES_A_SECOND = 750

#: A file of one channel is read in blocks of this many seconds.
_BLOCK_SECONDS = 10

#: Channels whose mean has less than this share of the power that it would have
#: if they were independent cancel each other.
_CANCELLED = 0.1

#: Note of a file longer than ``_LONG_SECONDS`` whose codec cannot seek: a crop
#: from the tenth minute of GSM takes a second.
CANNOT_SEEK = "cannot seek"
_LONG_SECONDS = 60

#: Programs that write to a pipe store such a number for the unknown size.
_STREAMED = 0x7FFF0000

# What libsndfile logs about audio that extends beyond the file's end (wav,
# aiff, au, w64, rf64), and about Ogg files. Of several streams it reads the
# first. About NIST files (sph) it logs nothing; this is from their header.
_DATA_SIZE = re.compile(
    r"(?:data|SSND|Data Size|riff|Riff size)\s*: (\d+) \(should be (\d+)\)"
)
_NO_END = "lacks an end-of-stream bit"
_MORE = "Junk after the last page"
_NIST_LENGTH = re.compile(rb"sample_count -i (\d+)")


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
    notes : list of list of str
        [note, detail] of what is odd about the file by its header.
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
            folder = stat.S_ISDIR(status.st_mode)
            kind = "a folder" if folder else "a pipe or a device"
            self._fail("unreadable", f"it is {kind}")
        if self.size == 0:
            self._fail("empty file", "0 bytes")
        self._open()
        self.sample_rate = self._file.samplerate
        self.channels = self._file.channels
        self.frames = self._file.frames
        self.notes = []
        self.cancelled = 0
        try:
            self._judge_header(self._file.extra_info)
        except UnusableAudio:
            self.close()
            raise

    def _open(self):
        """Open the file, at its first frame."""
        path = os.fspath(self.path)
        # As bytes, since a name need not be UTF-8; on Windows it is.
        if os.name != "nt":
            path = os.fsencode(path)
        self._is_mp3 = os.path.splitext(self.path)[1].lower() == ".mp3"
        try:
            with self._quietly():
                self._file = _ForwardFile(path)
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
            # What libsndfile says of an .mp3 file that holds something else.
            elif "not a regular file" in detail:
                detail = "Format not recognised."
            self._fail("unreadable", detail.strip())
        # It may have another extension, or no audio in spite of this one.
        self._is_mp3 = self._file.format == "MP3"
        self._position = 0

    def _quietly(self):
        """Return a context that keeps the MP3 decoder off the console."""
        return (
            mp3_messages_dropped() if self._is_mp3 else contextlib.nullcontext()
        )

    def _judge_header(self, log):
        """Raise if the header or the log of libsndfile shows a fault."""
        rate, channels = self.sample_rate, self.channels
        lowest, highest = RATES
        if not lowest <= rate <= highest or rate * channels > _MOST_VALUES:
            detail = f"{channels} channels at {rate} Hz are no speech"
            self._fail("implausible header", detail)
        if self.frames <= 0:
            detail = f"no samples by its header, in {self.size} bytes"
            if self.size > 4096:
                detail += "; if it was written to a pipe, convert it"
            self._fail("zero length", detail)
        match = _DATA_SIZE.search(log)
        if match:
            announced, there = map(int, match.groups())
            lacking = announced - there
            if announced < _STREAMED and lacking > TOLERANCE * announced:
                detail = f"{there} of the {announced} announced bytes of audio"
                self._fail("truncated", detail)
        if self._file.format == "NIST":
            with open(self.path, "rb") as stream:
                match = _NIST_LENGTH.search(stream.read(1024))
            if match:
                there, self.frames = self.frames, int(match[1])
                self.check_length(there)
        self._seeks = soundfile.SoundFile.seekable(self._file)
        if not self._seeks and self.frames > _LONG_SECONDS * rate:
            detail = (
                f"{self._file.subtype} is decoded from its beginning for each "
                "crop: convert it to wav or flac before training"
            )
            self.notes.append([CANNOT_SEEK, detail])
        if _NO_END in log:
            detail = "the Ogg file was cut, or recorded from a stream"
            self.notes.append(["no end of stream", detail])
        elif _MORE in log:
            detail = "only the first of several Ogg streams is read"
            self.notes.append(["several streams", detail])
        if self.frames * _FEWEST_BYTES_A_SECOND > self.size * rate:
            self.frames = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Close the file."""
        self._file.close()

    def check_length(self, frames):
        """Raise if fewer frames are there than the header announces.

        Arguments
        ---------
        frames : int
            What was decoded.
        """
        promised = self.frames or frames
        tolerance = TOLERANCE_SECONDS * self.sample_rate
        if promised - frames > max(TOLERANCE * promised, tolerance):
            detail = f"{frames} of the {promised} announced samples"
            self._fail("truncated", detail)
        if frames == 0:
            self._fail("zero length", "no samples")

    def check_end(self):
        """Raise if a FLAC file lacks its end, or is damaged there.

        Only its header tells the length. Other files whose header alone tells
        it (MP3) would have to be read as a whole.
        """
        if self._file.format == "FLAC":
            for _ in self.seconds((self.frames - 1) // self.sample_rate):
                pass
            self.check_length(self._position)

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
        self.check_length(frames)
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
            yield self._mix(block)

    def read_mono(self, start, count):
        """Decode a part of a file that has one channel.

        No second has to be whole for it, unlike in ``seconds``.

        Arguments
        ---------
        start : int
            First sample.
        count : int
            Number of samples.

        Returns
        -------
        numpy.ndarray
            float32 ``[count]``, or fewer where the file ends.

        Raises
        ------
        UnusableAudio
            As ``seconds``.
        """
        self._go_to(start)
        blocks = []
        while count > 0:
            block = self._read(min(count, _BLOCK_SECONDS * self.sample_rate))
            if not len(block):
                break
            blocks.append(block[:, 0])
            count -= len(block)
        if len(blocks) == 1:
            return blocks[0]
        return np.concatenate([np.zeros(0, dtype=np.float32), *blocks])

    def _mix(self, block):
        """Mix a second ``[frames, channels]`` to one channel."""
        if self.channels == 1:
            return block[:, 0]
        # Channel by channel, numpy is tens of times as fast.
        block = np.ascontiguousarray(block.T)
        mean = block.mean(axis=0)
        powers = block.var(axis=1)
        if mean.var() >= _CANCELLED * powers.sum() / self.channels**2:
            return mean
        self.cancelled += 1
        # The first of the channels that are about as loud as the loudest.
        return block[np.flatnonzero(powers > powers.max() / 2)[0]]

    def _go_to(self, frame):
        """Move to a frame, or to the end of a file that ends before it."""
        if frame == self._position:
            return
        if self._seeks:
            try:
                # In Vorbis, libsndfile 1.2 decodes one seek in five wrongly,
                # but never the first one.
                if self._file.format == "OGG" and self._position:
                    self._restart()
                # An MP3 frame has part of its bits in earlier frames, which
                # are up to a third of a second away.
                start = frame - self.sample_rate if self._is_mp3 else frame
                start = min(max(0, start), self._file.frames)
                with self._quietly():
                    self._position = self._file.seek(start)
            except (OSError, RuntimeError):
                # It only said that it can.
                self._seeks = False
                self._restart()
        if frame < self._position:
            self._restart()
        # Decode what lies before the frame.
        while self._position < frame and len(
            self._read(min(self.sample_rate, frame - self._position))
        ):
            pass

    def _restart(self):
        """Open the file again, at its first frame."""
        self._file.close()
        self._open()

    def _read(self, frames):
        """Read the next frames, ``[frames or fewer, channels]``."""
        try:
            with self._quietly():
                block = self._file.read(frames, dtype="float32", always_2d=True)
        except (OSError, RuntimeError, MemoryError) as error:
            at = self._position / self.sample_rate
            detail = getattr(error, "error_string", None) or str(error)
            self._fail("damaged", f"after {at:.1f} s: {detail.strip()}")
        # A comparison with NaN is false.
        if len(block) and not max(block.max(), -block.min()) <= LARGEST:
            wrong = ~(np.abs(block) <= LARGEST).all(axis=1)
            at = self._position + np.flatnonzero(wrong)[0]
            self._fail(
                "samples out of range",
                f"NaN, infinite or beyond {LARGEST:g} at "
                f"{at / self.sample_rate:.3f} s",
            )
        self._position += len(block)
        return block

    def _fail(self, reason, detail):
        """Raise an ``UnusableAudio``."""
        message = f"cannot use {self.path}: {reason}, {detail}"
        raise UnusableAudio(message, reason, detail)
