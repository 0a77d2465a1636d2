"""Hold noises and room responses on the training device.

Files are read once. A bank is one int16 tensor, so that noise for a crop is
indexed on the device instead of read from a file. To limit the size, only part
of each file is kept: with 30 s a bank of all of MUSAN takes about 1.6 GB.
"""

import os

import numpy as np
import torch
from tqdm import tqdm

from speechbrain_ssl.data.audio import AudioFile
from speechbrain_ssl.data.draws import uniform
from speechbrain_ssl.data.manifest import Manifest
from speechbrain_ssl.errors import AudioError, ConfigError, ManifestError

_NOISE_REMEDY = (
    "name a folder of noises (`--noise_folder`, or `--musan_folder` for "
    "VoxCeleb), another manifest (`--noise_csv`, `--music_csv` or "
    "`--speech_csv`; null where that kind is not at hand), or train without "
    "noise (`--noise_csv=null --music_csv=null --speech_csv=null --noise=0 "
    "--both=0`, and `--clean` such that the probabilities add up to 1)"
)
_RESPONSE_REMEDY = (
    "name a folder of room responses (`--rirs_folder`), another manifest "
    "(`--rirs_csv`), or train without rooms (`--rirs_csv=null --reverb=0 "
    "--both=0`, and `--clean` such that the probabilities add up to 1)"
)


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


#: Longest stretch kept of a noise recording.
NOISE_SECONDS = 30.0

#: Longest room response kept.
RESPONSE_SECONDS = 1.0

#: Most responses kept: 10 000 of 1 s take 320 MB.
MOST_RESPONSES = 10_000


def _read_all(manifest_paths, sample_rate, seconds, most=None):
    """Yield path and waveform of the files of a manifest.

    Which part of a long file is read, and which files if there are more than
    ``most``, depends on their keys alone.
    """
    manifest = Manifest.read(manifest_paths)
    order = np.argsort(manifest.keys)[:most]
    # disable=None: a bar on a terminal, nothing in a log file.
    bar = tqdm(np.sort(order), desc="noise and rooms", disable=None)
    for i in bar:
        with AudioFile(
            manifest.path(i), sample_rate, float(manifest.durations[i])
        ) as audio:
            room = max(0, audio.num_samples - round(seconds * sample_rate))
            start = int(uniform(manifest.keys[i], "bank") * (room + 1))
            yield (
                audio.path,
                audio.read(
                    start, min(audio.num_samples, round(seconds * sample_rate))
                ),
            )


class NoiseBank(torch.nn.Module):
    """Noise recordings of one kind; ``NOISE_SECONDS`` are kept of each.

    Arguments
    ---------
    manifest : str or list of str
        CSV file(s) of the recordings.
    snr : list of float
        Lowest and highest signal-to-noise ratio in dB.
    voices : list of int
        Least and greatest number of recordings that are added up, with equal
        power, before the SNR is set ([1, 1] for noise and music, [3, 8] for
        babble).
    sample_rate : int
        Hz.
    """

    def __init__(
        self,
        manifest,
        snr,
        voices=(1, 1),
        sample_rate=16000,
    ):
        super().__init__()
        self.manifest = manifest
        self.snr = tuple(snr)
        self.voices = tuple(voices)
        self.sample_rate = sample_rate
        # Read from disk again after a restart, so it stays out of checkpoints.
        self.register_buffer("samples", None, persistent=False)
        self.register_buffer("offsets", None, persistent=False)

    def load(self):
        """Read the files, unless that is done already.

        Raises
        ------
        ConfigError
            If there is no such manifest.
        ManifestError
            If the manifest is malformed or none of its files holds sound.
        """
        if self.samples is not None:
            return
        _check_manifest(self.manifest, "noise", _NOISE_REMEDY)
        waves = [
            _to_int16(wave)
            for _, wave in _read_all(
                self.manifest, self.sample_rate, NOISE_SECONDS
            )
            if np.any(wave)
        ]
        if not waves:
            raise ManifestError(f"all files of {self.manifest} are silent")
        offsets = np.cumsum([0] + [len(w) for w in waves])
        self.samples = torch.from_numpy(np.concatenate(waves))
        self.offsets = torch.from_numpy(offsets)

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
    reverberation does not delay a crop, and to end after ``RESPONSE_SECONDS``.
    ``MOST_RESPONSES`` are kept, chosen by their keys.

    Arguments
    ---------
    manifest : str or list of str
        CSV file(s) of the responses.
    sample_rate : int
        Hz.
    """

    def __init__(self, manifest, sample_rate=16000):
        super().__init__()
        self.manifest = manifest
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
        most = round(RESPONSE_SECONDS * self.sample_rate)
        waves = []
        for path, wave in _read_all(
            self.manifest, self.sample_rate, 60.0, MOST_RESPONSES
        ):
            if not np.any(wave):
                raise AudioError(f"the room response {path} is silent")
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
    return torch.minimum(
        (draws * count).long(), torch.as_tensor(count, device=draws.device) - 1
    )


def _fast_size(size):
    """Return the next length 2^a, 3*2^a or 5*2^a, which an FFT likes."""
    powers = [factor << shift for factor in (1, 3, 5) for shift in range(31)]
    return min(p for p in powers if p >= size)
