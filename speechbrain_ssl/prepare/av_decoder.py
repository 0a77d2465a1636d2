"""Decode audio that libsndfile cannot read: AAC, Opus in WebM, WMA, AMR, ...

PyAV brings the decoders of FFmpeg along. It is an extra of this package and
imported only here.
"""

import importlib.util
import os

import numpy as np

from speechbrain_ssl.data.decoder import TOLERANCE, Decoder

#: How to install PyAV, for messages.
INSTALL = 'pip install "speechbrain_ssl[formats]"'

# Formats whose duration is stated. Of a raw stream (aac, ac3, amr) FFmpeg only
# estimates it from the bit rate.
_STATE_DURATION = ("ape", "asf", "matroska", "mov", "tta", "wv")

# By which the stated duration may exceed that of the samples: it may include
# the delay of a coder and what fills its last block.
_PADDING_SECONDS = 0.25


def has_pyav():
    """Return whether PyAV is installed."""
    return importlib.util.find_spec("av") is not None


class AVDecoder(Decoder):
    """An open file that PyAV decodes, from its beginning to its end.

    The first audio stream is read, whatever other streams there are.

    Arguments
    ---------
    path : str or pathlib.Path
        The file.

    Raises
    ------
    UnusableAudio
        If the file is missing, unreadable, empty or without audio. While it is
        read: if it is damaged, or lacks its end.
    """

    def _open(self):
        """Open the file and decode its first samples."""
        try:
            self._file = _AVFile(os.fspath(self.path))
        except (OSError, RuntimeError, ValueError, MemoryError) as error:
            self._fail("unreadable", str(error))
        self._position, self._is_mp3 = 0, False

    def _judge_header(self, log):
        """Believe no length: it is found by decoding."""
        self.frames, self.notes = None, []
        self._seeks = False

    def _read(self, frames):
        """Read the next frames; raise at the end if there should be more."""
        block = super()._read(frames)
        if len(block) == 0:
            if self._file.damage:
                self._fail("damaged", self._file.damage)
            announced = self._file.seconds
            seconds = self._position / self.sample_rate
            if announced - seconds > max(
                _PADDING_SECONDS, TOLERANCE * announced
            ):
                detail = f"{seconds:.2f} of the {announced:.2f} announced s"
                self._fail("truncated", detail)
        return block


class _AVFile:
    """Gives a file that PyAV decodes the interface of a ``SoundFile``.

    Arguments
    ---------
    path : str
        The file.

    Attributes
    ----------
    samplerate, channels : int
        Hz, and number of channels, of the first samples. Later ones are
        converted if the stream changes.
    seconds : float
        The stated duration; 0 where there is none.
    damage : str
        What is wrong with the packets read so far; empty where hardly any is
        damaged.
    """

    frames = None
    extra_info = ""

    def __init__(self, path):
        import av

        self._av = av
        self.damage = ""
        try:
            self._container = av.open(path, **_open_options(av))
        except av.FFmpegError as error:
            raise RuntimeError(_text(error)) from error
        try:
            self._stream = self._first_audio()
            self.seconds = self._stated_seconds()
            self._blocks = self._decode()
            self._rest = next(self._blocks, None)
            if self._rest is None:
                raise RuntimeError(self.damage or "no samples")
        except BaseException:
            self.close()
            raise
        self.channels = self._rest.shape[1]

    def _first_audio(self):
        """Return the first audio stream."""
        streams = self._container.streams
        if not streams.audio:
            kinds = ", ".join(sorted({stream.type for stream in streams}))
            raise RuntimeError(f"no audio stream, only {kinds or 'a header'}")
        if streams.audio[0].codec_context is None:
            raise RuntimeError("no decoder for its audio; is it encrypted?")
        return streams.audio[0]

    def _stated_seconds(self):
        """Return the duration that the container states."""
        kind = self._container.format.name.split(",")[0]
        if kind not in _STATE_DURATION:
            return 0.0
        if self._stream.duration is not None:
            return float(self._stream.duration * self._stream.time_base)
        # That of the longest stream; another one may be a longer video.
        if len(self._container.streams) == 1 and self._container.duration:
            return self._container.duration / self._av.time_base
        return 0.0

    def _decode(self):
        """Yield arrays ``[samples, channels]``."""
        kind = resampler = None
        for frame in self._frames():
            if kind is None:
                self.samplerate = frame.sample_rate
                layout = frame.layout.name
            now = frame.format.name, frame.layout.name, frame.sample_rate
            if now != kind:
                # A stream may change its channels, its rate or its format.
                if resampler is not None:
                    yield from map(_samples, resampler.resample(None))
                resampler = self._av.AudioResampler(
                    "fltp", layout, self.samplerate
                )
                kind = now
            # Gaps in the time stamps are not filled.
            frame.pts = None
            yield from map(_samples, resampler.resample(frame))
        if resampler is not None:
            yield from map(_samples, resampler.resample(None))

    def _frames(self):
        """Yield the frames of the stream; skip and count damaged packets."""
        packets = damaged = 0
        for packet in self._container.demux(self._stream):
            packets += 1
            try:
                frames = packet.decode()
            except self._av.FFmpegError as error:
                damaged, why = damaged + 1, _text(error)
                continue
            yield from frames
        # The last packet of a stream that was cut is damaged.
        if damaged > max(1, TOLERANCE * packets):
            self.damage = (
                f"{damaged} of {packets} packets cannot be decoded: {why}"
            )

    def read(self, frames, dtype="float32", always_2d=True):
        """Read the next frames, ``[frames or fewer, channels]``, float32."""
        pieces, length = [self._rest], len(self._rest)
        try:
            while length < frames:
                pieces.append(next(self._blocks))
                length += len(pieces[-1])
        except StopIteration:
            pass
        except (self._av.FFmpegError, ValueError) as error:
            raise RuntimeError(_text(error)) from error
        block = np.concatenate(pieces)
        self._rest = block[frames:]
        return block[:frames]

    def close(self):
        """Close the file."""
        self._container.close()


def _samples(frame):
    """Return the samples of a planar frame as ``[samples, channels]``."""
    return frame.to_ndarray().T


def _open_options(av):
    """Return what makes PyAV open a file whose tags are not UTF-8."""
    # Since PyAV 19 it always does.
    old = int(av.__version__.split(".")[0]) < 19
    return {"metadata_errors": "ignore"} if old else {}


def _text(error):
    """Describe an error of FFmpeg without its number and the path."""
    return getattr(error, "strerror", None) or str(error)
