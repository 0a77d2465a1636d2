"""Hold noises and room responses on the training device.

A bank is one int16 tensor, so that noise for a crop is indexed on the device
instead of read from a file. To limit its size, only a stretch of each noise is
kept, and another one for each epoch: of MUSAN, 30 s of each file take 1.5 GB and
everything 12.6 GB; of RIRS_NOISES, 1 s of 10 000 responses takes 0.32 GB, of all
60 000 1.9 GB. Every process needs as much on its device, and twice as much in
memory while it reads.
"""

import logging
import os

import numpy as np
import torch

from speechbrain_ssl.checks import check_int, check_number
from speechbrain_ssl.data.audio import AudioFile, fit_length
from speechbrain_ssl.data.draws import uniform
from speechbrain_ssl.data.manifest import Manifest
from speechbrain_ssl.errors import AudioError, ConfigError, ManifestError
from speechbrain_ssl.progress import open_bar

logger = logging.getLogger(__name__)

_NOISE_REMEDY = (
    "name a folder of noises (`--noise_folder`, or `--musan_folder` for "
    "VoxCeleb, `--noise_manifests` for emotions), another manifest (`--noise_csv`, `--music_csv` or "
    "`--speech_csv`; null where that kind is not at hand), or train without "
    "noise (`--noise_csv=null --music_csv=null --speech_csv=null --noise=0 "
    "--both=0`, and `--clean` such that the probabilities add up to 1)"
)
_RESPONSE_REMEDY = (
    "name a folder of room responses (`--rirs_folder`, or "
    "`--noise_manifests` for emotions), another manifest "
    "(`--rirs_csv`), or train without rooms (`--rirs_csv=null --reverb=0 "
    "--both=0`, and `--clean` such that the probabilities add up to 1)"
)

#: No room answers longer; a file that is longer is no response (seconds).
_LONGEST_RESPONSE = 60.0

#: Most stretches of a file that are read in search of one that is not silent.
_DRAWS = 10


def _to_int16(wave):
    """Scale a waveform to full range; the SNR sets its level later."""
    peak = max(float(np.abs(wave).max()), 1e-5)
    return np.round(wave * (32767 / peak)).astype(np.int16)


def _check_manifest(manifest_paths, what, remedy):
    """Raise a ``ConfigError`` if a manifest does not exist."""
    if isinstance(manifest_paths, (str, os.PathLike)):
        manifest_paths = [manifest_paths]
    for path in manifest_paths:
        if not os.path.isfile(path):
            raise ConfigError(
                f"the augmentation adds {what} but there is no manifest "
                f"{path}: {remedy}"
            )


def _stretch(audio, key, seconds, epoch):
    """Read a stretch of an open file, which depends on its key and the epoch.

    Another one is drawn where it is silent, a limited number of times.
    """
    count = round(min(audio.num_samples, seconds * audio.sample_rate))
    room = audio.num_samples - count
    for draw in uniform(key, epoch, "bank", size=_DRAWS if room else 1):
        wave = audio.read(int(draw * (room + 1)), count)
        if np.any(wave):
            break
    return wave


def _progress(rows):
    """Iterate with the bar of both banks."""
    return open_bar(rows, desc="noise and rooms", unit=" files")


class NoiseBank(torch.nn.Module):
    """Noise recordings of one kind.

    Arguments
    ---------
    manifest : str or list of str
        CSV file(s) of the recordings.
    snr : list of float
        Lowest and highest signal-to-noise ratio in dB.
    voices : list of int
        Least and greatest number of recordings that are added up, with equal
        power, before the SNR is set ([1, 1] for noise and music; babble has
        more than one).
    seconds : float
        Longest stretch kept of a recording. Where a recording is longer,
        ``begin_epoch`` reads another stretch. With .inf it is kept as a whole.
    sample_rate : int
        Hz.

    Raises
    ------
    ConfigError
        If the length or the numbers of voices are not possible.
    """

    def __init__(
        self,
        manifest,
        snr,
        voices=(1, 1),
        seconds=30.0,
        sample_rate=16000,
    ):
        super().__init__()
        if not seconds > 0:
            raise ConfigError(
                f"a noise bank's seconds must be above 0, got {seconds}"
            )
        least, most = voices
        check_int("a noise bank", "first number of voices", least, least=1)
        check_int("a noise bank", "second number of voices", most, least=least)
        self.manifest = manifest
        self.snr = tuple(snr)
        self.voices = tuple(voices)
        self.seconds = seconds
        self.sample_rate = sample_rate
        # Read from disk again after a restart, so it stays out of checkpoints.
        self.register_buffer("samples", None, persistent=False)
        self.register_buffer("offsets", None, persistent=False)
        # Path, key and duration of each file, and whether there is more of it.
        self.files = []

    def load(self):
        """Read the files, unless that is done already.

        Raises
        ------
        ConfigError
            If there is no such manifest.
        ManifestError
            If the manifest is malformed or none of its files holds sound.
        AudioError
            If a file is not what it was when it was prepared.
        """
        if self.samples is not None:
            return
        _check_manifest(self.manifest, "noise", _NOISE_REMEDY)
        manifest = Manifest.read(self.manifest)
        waves, silent = [], []
        for i in _progress(range(len(manifest))):
            path, key = manifest.path(i), manifest.keys[i]
            seconds = float(manifest.durations[i])
            with AudioFile(path, self.sample_rate, seconds) as audio:
                wave = _stretch(audio, key, self.seconds, 0)
                more = audio.num_samples > len(wave)
            if np.any(wave):
                waves.append(_to_int16(wave))
                self.files.append((path, key, seconds, more))
            else:
                silent.append(path)
        if not waves:
            raise ManifestError(f"all files of {self.manifest} are silent")
        if silent:
            logger.warning(
                "%d of %d noises of %s are silent and are left out; the first "
                "is %s",
                len(silent),
                len(manifest),
                self.manifest,
                silent[0],
            )
        offsets = np.cumsum([0] + [len(w) for w in waves])
        self.samples = torch.from_numpy(np.concatenate(waves))
        self.offsets = torch.from_numpy(offsets)

    def begin_epoch(self, epoch):
        """Read another stretch of each file that is not kept as a whole.

        Arguments
        ---------
        epoch : int
            The stretch depends on it and on the file, so that a resumed run
            reads the same one.

        Raises
        ------
        AudioError
            If a file is not what it was when it was prepared.
        """
        longer = [i for i, (*_, more) in enumerate(self.files) if more]
        if not longer:
            return
        offsets = self.offsets.tolist()
        for i in _progress(longer):
            path, key, seconds, _ = self.files[i]
            with AudioFile(path, self.sample_rate, seconds) as audio:
                wave = _stretch(audio, key, self.seconds, epoch)
                if not np.any(wave):
                    # The one that ``load`` read sounds.
                    wave = _stretch(audio, key, self.seconds, 0)
            # A lossy file may end some samples before the length in its header.
            wave = fit_length(wave, offsets[i + 1] - offsets[i])
            self.samples[offsets[i] : offsets[i + 1]] = torch.from_numpy(
                _to_int16(wave)
            )

    def gather(self, file_draws, start_draws, length):
        """Cut pieces of noise of unit power.

        Arguments
        ---------
        file_draws, start_draws : torch.Tensor
            In [0, 1), ``[n]``: which file, and where in it.
        length : int
            Samples; a shorter file is repeated.

        Returns
        -------
        torch.Tensor
            float32 ``[n, length]``.
        """
        files = _index(file_draws, len(self.offsets) - 1)
        begin = self.offsets[files]
        size = self.offsets[files + 1] - begin
        start = _index(start_draws, (size - length + 1).clamp(min=1))
        step = torch.arange(length, device=begin.device)
        index = begin[:, None] + (start[:, None] + step) % size[:, None]
        wave = self.samples[index].float()
        power = wave.square().mean(1, keepdim=True)
        return wave * power.clamp(min=1e-3).rsqrt()


class ResponseBank(torch.nn.Module):
    """Room impulse responses.

    A response is cut to begin at its direct path (its greatest sample), so that
    reverberation does not delay a crop.

    Arguments
    ---------
    manifest : str or list of str
        CSV file(s) of the responses.
    seconds : float
        Longest response kept; a longer one is cut.
    most : int, optional
        Most responses kept, chosen by their keys; None keeps all.
    sample_rate : int
        Hz.

    Raises
    ------
    ConfigError
        If the length or the number is not above 0.
    """

    def __init__(self, manifest, seconds=1.0, most=10_000, sample_rate=16000):
        super().__init__()
        check_number("the room responses", "seconds", seconds, above=0)
        if most is not None:
            check_int("the room responses", "most", most, least=1)
        self.manifest = manifest
        self.seconds = seconds
        self.most = most
        self.sample_rate = sample_rate
        self.register_buffer("responses", None, persistent=False)

    def load(self):
        """Read the files, unless that is done already.

        Raises
        ------
        ConfigError
            If there is no such manifest.
        ManifestError
            If the manifest is malformed.
        AudioError
            If a response is silent.
        """
        if self.responses is not None:
            return
        _check_manifest(self.manifest, "reverberation", _RESPONSE_REMEDY)
        manifest = Manifest.read(self.manifest)
        chosen = np.sort(np.argsort(manifest.keys)[: self.most])
        most = round(self.seconds * self.sample_rate)
        waves = []
        for i in _progress(chosen):
            with AudioFile(
                manifest.path(i),
                self.sample_rate,
                float(manifest.durations[i]),
            ) as audio:
                wave = _stretch(audio, manifest.keys[i], _LONGEST_RESPONSE, 0)
            if not np.any(wave):
                raise AudioError(f"the room response {audio.path} is silent")
            wave = wave[int(np.abs(wave).argmax()) :][:most]
            waves.append(_to_int16(wave))
        longest = max(len(w) for w in waves)
        bank = np.zeros((len(waves), longest), dtype=np.int16)
        for row, wave in zip(bank, waves, strict=True):
            row[: len(wave)] = wave
        self.responses = torch.from_numpy(bank)

    def apply(self, waves, draws):
        """Convolve every waveform with a response of its own.

        The convolution is linear (zero-padded to the sum of the lengths): the
        tail of a crop does not wrap around to its beginning.

        Arguments
        ---------
        waves : torch.Tensor
            ``[n, samples]``.
        draws : torch.Tensor
            In [0, 1), ``[n]``: which response.

        Returns
        -------
        torch.Tensor
            ``[n, samples]``, each with the power that it had before.
        """
        chosen = self.responses[_index(draws, len(self.responses))].float()
        length = waves.shape[1]
        size = _fast_size(length + chosen.shape[1] - 1)
        spectrum = torch.fft.rfft(waves, size)
        spectrum = spectrum * torch.fft.rfft(chosen, size)
        wet = torch.fft.irfft(spectrum, size)[:, :length]
        before = waves.square().sum(1, keepdim=True)
        after = wet.square().sum(1, keepdim=True).clamp(min=1e-12)
        return wet * (before / after).sqrt()


def _index(draws, count):
    """Turn draws in [0, 1) into indices below ``count`` (int or ``[n]``)."""
    # In fp32 a draw just below 1 is rounded to 1, once in 2^25 draws.
    return (draws * count).long().clamp(max=count - 1)


def _fast_size(size):
    """Return the next length 2^a, 3*2^a or 5*2^a, which an FFT likes."""
    powers = [factor << shift for factor in (1, 3, 5) for shift in range(31)]
    return min(p for p in powers if p >= size)
