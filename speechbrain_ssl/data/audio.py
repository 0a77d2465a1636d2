"""Read part of an audio file as mono float32 at the working sample rate."""

import math

import numpy as np
import soxr

from speechbrain_ssl.data.decoder import (
    TOLERANCE,
    TOLERANCE_SECONDS,
    Decoder,
    UnusableAudio,
)
from speechbrain_ssl.data.packed import PackedAudio, is_packed

#: A part is decoded from this many seconds before it on, so that the filter of
#: the resampler has settled: it rings for less than a tenth of that.
_MARGIN_SECONDS = 0.1


class AudioFile:
    """An open audio file that is read as mono at a given rate.

    Arguments
    ---------
    path : str
        Any file libsndfile reads (wav, flac, ogg, mp3, ...), or an utterance in
        a shard (``data.packed``).
    sample_rate : int
        Hz. A file of another rate is resampled as it is read.
    seconds : float, optional
        The duration in the manifest. A file of another length has changed since
        it was prepared and is not read. By default the header is believed, or
        the samples are counted where its length cannot be true.

    Attributes
    ----------
    num_samples : int
        Length at ``sample_rate``.

    Raises
    ------
    AudioError
        If the file is missing, unreadable, empty, or of another length.
    """

    def __init__(self, path, sample_rate=16000, seconds=None):
        self.path = path
        self.sample_rate = sample_rate
        self._decoder = (PackedAudio if is_packed(path) else Decoder)(path)
        # Where the last part that was read ended, what has been decoded beyond
        # it, and the rest of the file.
        self._next = self._rest = self._stream = None
        try:
            frames = self._length(seconds)
        except UnusableAudio:
            self._decoder.close()
            raise
        rate = self._decoder.sample_rate
        self.num_samples = max(1, math.floor(frames * sample_rate / rate))

    def _length(self, seconds):
        """Find the number of frames; raise if the file has changed."""
        frames, rate = self._decoder.frames, self._decoder.sample_rate
        if seconds is None:
            return self._decoder.count() if frames is None else frames
        if frames is None:
            return round(seconds * rate)
        if abs(frames / rate - seconds) > _tolerance(seconds):
            there = f"{frames / rate:.2f} s, and not the {seconds:.2f} s"
            raise UnusableAudio(
                f"{self.path} has {there} of its manifest: it was cut or "
                "replaced; restore it, correct the duration, or delete "
                "prepare.json in the folder of the manifest and prepare the "
                "corpus again",
                "length changed",
                there,
            )
        # A preparation may have found the header of a lossy file to promise
        # too much. A manifest in memory rounds hours to a millisecond.
        return min(frames, round((seconds + 0.01) * rate))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._decoder.close()

    def read(self, start=0, count=None):
        """Read a part of the file.

        The part equals the same samples of the whole file, up to 1e-4 of full
        scale where it is resampled, and 1e-3 where it is decoded from Opus. A
        codec that cannot seek (GSM 6.10, G.721, NMS ADPCM) is decoded from its
        beginning, unless the part begins where the last one ended.

        Arguments
        ---------
        start : int
            First sample, at ``sample_rate``.
        count : int, optional
            Number of samples, at ``sample_rate``; to the end if not given.

        Returns
        -------
        numpy.ndarray
            float32 ``[count]``, or less where the file ends. Several channels
            are averaged, unless they cancel (see ``Decoder.seconds``).

        Raises
        ------
        AudioError
            If the file is truncated or holds NaN, infinite or absurdly large
            samples.
        """
        count = self.num_samples - start if count is None else count
        promised = min(count, self.num_samples - start)
        decoder = self._decoder
        if decoder.channels == 1 and decoder.sample_rate == self.sample_rate:
            wave = decoder.read_mono(start, promised)
        else:
            wave = self._converted(start, promised)
        tolerance = _tolerance(self.num_samples / self.sample_rate)
        if len(wave) == 0 or (
            promised - len(wave) > tolerance * self.sample_rate
        ):
            there = f"{len(wave)} of {promised} samples"
            raise UnusableAudio(
                f"{self.path} is truncated: {there} are there, from "
                f"{start / self.sample_rate:.2f} s on",
                "truncated",
                there,
            )
        return wave

    def _converted(self, start, count):
        """Read a part that is mixed or resampled."""
        # None until the part has been read, which may fail.
        last_end, self._next = self._next, None
        if start == last_end:
            pieces, skip = [self._rest], 0
        else:
            # The samples of both rates coincide at whole seconds.
            margin = round(_MARGIN_SECONDS * self.sample_rate)
            second = max(0, start - margin) // self.sample_rate
            pieces = [np.zeros(0, dtype=np.float32)]
            skip = start - second * self.sample_rate
            self._stream = resampled(self._decoder, self.sample_rate, second)
        length = sum(map(len, pieces))
        while length < skip + count:
            piece = next(self._stream, None)
            if piece is None:
                break
            pieces.append(piece)
            length += len(piece)
        wave = np.concatenate(pieces)[skip:]
        self._next, self._rest = start + count, wave[count:].copy()
        return wave[:count]


def resampled(decoder, rate, second=0):
    """Decode a file from one of its seconds on, at another sample rate.

    Arguments
    ---------
    decoder : Decoder
        The open file, or an object with its ``sample_rate`` and ``seconds``.
    rate : int
        Hz.
    second : int
        The second to begin with.

    Yields
    ------
    numpy.ndarray
        float32 ``[samples]`` at ``rate``, any number of them.

    Raises
    ------
    UnusableAudio
        As ``Decoder.seconds``.
    """
    if decoder.sample_rate == rate:
        yield from decoder.seconds(second)
        return
    stream = soxr.ResampleStream(decoder.sample_rate, rate, 1, dtype="float32")
    length = 0
    for wave in decoder.seconds(second):
        length += len(wave)
        yield stream.resample_chunk(np.ascontiguousarray(wave))
    # Zeros up to one sample at the new rate, which there always is of a file.
    lacking = max(0, -(-decoder.sample_rate // rate) - length) if length else 0
    yield stream.resample_chunk(np.zeros(lacking, np.float32), last=True)


def _tolerance(seconds):
    """Return by how much a length may differ from its announcement, in s."""
    return max(TOLERANCE_SECONDS, TOLERANCE * seconds)


def fit_length(wave, count):
    """Repeat a waveform until it is long enough, then cut it.

    This is how every utterance that is too short is handled: it is repeated
    from its beginning. (Zeros would be a cue that the utterance is short.)

    Arguments
    ---------
    wave : numpy.ndarray
        ``[samples]``.
    count : int
        Samples wanted.

    Returns
    -------
    numpy.ndarray
        ``[count]``.
    """
    if len(wave) < count:
        wave = np.tile(wave, -(-count // len(wave)))
    return wave[:count]
