"""Read part of an audio file as mono float32 at the working sample rate."""

import math

import numpy as np
import soundfile
import torch
import torchaudio.functional

from speechbrain_ssl.errors import AudioError


class AudioFile:
    """An open audio file that is read as mono at a given rate.

    Arguments
    ---------
    path : str
        Any file libsndfile reads (wav, flac, ogg, mp3, ...).
    sample_rate : int
        Hz. A file of another rate is resampled as it is read.

    Attributes
    ----------
    num_samples : int
        Length at ``sample_rate``.

    Raises
    ------
    AudioError
        If the file is missing, unreadable or empty.
    """

    def __init__(self, path, sample_rate=16000):
        self.path = path
        self.sample_rate = sample_rate
        try:
            self._file = soundfile.SoundFile(path)
        # soundfile raises TypeError for a headerless file (.raw).
        except (OSError, RuntimeError, TypeError) as error:
            raise AudioError(f"cannot read {path}: {error}") from error
        if self._file.frames <= 0:
            self._file.close()
            raise AudioError(f"{path} holds no audio (zero samples)")
        rate = self._file.samplerate
        self.num_samples = max(
            1, math.floor(self._file.frames * sample_rate / rate)
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()

    def read(self, start=0, count=None):
        """Read a part of the file.

        Arguments
        ---------
        start : int
            First sample, at ``sample_rate``.
        count : int, optional
            Number of samples, at ``sample_rate``; to the end if not given.

        Returns
        -------
        numpy.ndarray
            float32 ``[count]``, or less where the file ends; several channels
            are averaged.

        Raises
        ------
        AudioError
            If the file is truncated or holds NaN or infinite samples.
        """
        count = self.num_samples - start if count is None else count
        native = self._file.samplerate
        scale = native / self.sample_rate
        try:
            self._file.seek(min(math.floor(start * scale), self._file.frames))
            begin = self._file.tell()
            wave = self._file.read(
                math.ceil(count * scale), dtype="float32", always_2d=True
            )
        except (OSError, RuntimeError) as error:
            raise AudioError(f"cannot read {self.path}: {error}") from error
        promised = min(math.ceil(count * scale), self._file.frames - begin)
        # Lossy formats only estimate their length: allow a tenth of a second.
        if len(wave) == 0 or promised - len(wave) > native // 10:
            raise AudioError(
                f"{self.path} is truncated: its header promises "
                f"{self._file.frames} samples, of which {len(wave)} were read "
                f"from sample {begin} on"
            )
        wave = wave[:, 0] if wave.shape[1] == 1 else wave.mean(axis=1)
        # One sum finds a NaN or an infinity anywhere.
        if not math.isfinite(float(np.sum(wave, dtype=np.float64))):
            raise AudioError(f"{self.path} holds NaN or infinite samples")
        if native != self.sample_rate:
            wave = torchaudio.functional.resample(
                torch.from_numpy(np.ascontiguousarray(wave)),
                native,
                self.sample_rate,
            ).numpy()
        return wave[:count]


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
