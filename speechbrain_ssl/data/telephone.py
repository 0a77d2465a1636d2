"""Send crops through a simulated telephone: its band, then a speech codec.

The channel is that of narrow-band telephony: 300 to 3400 Hz (ITU-T G.712), 8 kHz,
and one of

* ``mu_law`` and ``a_law``: the two laws of ITU-T G.711, 64 kbit/s. They map
  every sample to one of 256 levels, which is done on the training device.
* ``gsm``: GSM 06.10 full rate, 13 kbit/s, and ``opus`` at 8 kHz, by libsndfile
  on the CPU: 4 and 12 ms for each second of audio on one core of an Intel Xeon.

A crop passes the codec at 26 dB below full scale, the level that ITU-T tests
codecs at, and leaves with the power that it came with: at its own level, a faint
crop would drown in the steps of the codec. What it has in the band is raised by
20 dB at most (a default of ours), so that a crop with next to nothing there
does not become loud clicks.
"""

import io

import numpy as np
import soundfile
import torch
import torchaudio.functional

from speechbrain_ssl.checks import check_number
from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.upload import upload

#: Sampling rate of the telephone network in Hz.
RATE = 8000

#: Pass band in Hz, and where it has faded out on either side.
_BAND, _FADED = (300.0, 3400.0), (200.0, 3800.0)

#: Root mean square at the codec's input: 26 dB below full scale.
_LEVEL = 10 ** (-26 / 20)

#: Greatest gain in power of what is in the band.
_MOST_GAIN = 10 ** (20 / 10)

#: Name -> libsndfile's names of container and encoding.
_IN_MEMORY = {"gsm": ("WAV", "GSM610"), "opus": ("OGG", "OPUS")}
_G711 = {"mu_law": "ULAW", "a_law": "ALAW"}

#: The codecs by name.
CODECS = (*_G711, *_IN_MEMORY)


class Telephone(torch.nn.Module):
    """Sends some crops through the telephone.

    Arguments
    ---------
    probability : float
        Share of the crops that pass it; 0 leaves it out.
    codecs : list of str
        One of these is drawn for each crop: ``mu_law``, ``a_law``, ``gsm``,
        ``opus``.
    sample_rate : int
        Sampling rate of the crops in Hz, a multiple of 8000.

    Raises
    ------
    ConfigError
        If the probability is not from 0 to 1, a codec is unknown, or the
        sampling rate is no multiple of 8000.

    Example
    -------
    >>> telephone = Telephone(probability=1.0, codecs=["a_law", "gsm"])
    >>> crops = torch.randn(2, 16000)
    >>> telephone(crops, np.array([0.1, 0.9])).shape
    torch.Size([2, 16000])
    """

    def __init__(
        self,
        probability=0.0,
        codecs=("mu_law", "a_law"),
        sample_rate=16000,
    ):
        super().__init__()
        owner = "the telephone augmentation"
        check_number(owner, "probability", probability, least=0, most=1)
        if not codecs or not set(codecs) <= set(CODECS):
            raise ConfigError(
                f"{owner}'s codecs must be some of {', '.join(CODECS)}; got "
                f"{codecs}"
            )
        if sample_rate % RATE:
            raise ConfigError(
                f"{owner} needs a sampling rate that is a multiple of {RATE} "
                f"Hz; got {sample_rate}"
            )
        self.probability = probability
        self.codecs = tuple(codecs)
        self.sample_rate = sample_rate
        for name, encoding in _G711.items():
            self.register_buffer(
                f"{name}_levels", _g711_levels(encoding), persistent=False
            )

    @torch.no_grad()
    def forward(self, waves, draws):
        """Send all of these waveforms through the telephone.

        Arguments
        ---------
        waves : torch.Tensor
            ``[n, samples]``.
        draws : numpy.ndarray
            In [0, 1), ``[n]``: which codec.

        Returns
        -------
        torch.Tensor
            ``[n, samples]``, each with the power that it had before, or with
            20 dB more than it had in the band, if that is less.
        """
        length = waves.shape[1]
        before = waves.square().mean(1, keepdim=True)
        narrow = _band_limit(waves, self.sample_rate)
        narrow = narrow[:, :: self.sample_rate // RATE]
        power = narrow.square().mean(1, keepdim=True).clamp(min=1e-12)
        narrow = (narrow * (_LEVEL / power.sqrt())).clamp(-1, 1)
        which = (np.asarray(draws) * len(self.codecs)).astype(int)
        for number, name in enumerate(self.codecs):
            rows = np.flatnonzero(which == number)
            if len(rows):
                index = upload(rows, waves.device)
                narrow[index] = self._round_trip(narrow[index], name)
        wide = torchaudio.functional.resample(narrow, RATE, self.sample_rate)
        wide = wide[:, :length]
        after = wide.square().mean(1, keepdim=True).clamp(min=1e-12)
        wanted = torch.minimum(before, _MOST_GAIN * power)
        return wide * (wanted / after).sqrt()

    def _round_trip(self, waves, name):
        """Encode and decode waveforms ``[n, samples]`` at 8 kHz."""
        if name in _G711:
            # Both laws decide for the nearest level, but for a quarter of a step
            # where two of their segments meet.
            levels = getattr(self, f"{name}_levels")
            limits = (levels[1:] + levels[:-1]) / 2
            return levels[torch.bucketize(waves, limits)]
        decoded = [_through_file(wave, name) for wave in waves.cpu().numpy()]
        return torch.from_numpy(np.stack(decoded)).to(waves.device)


def _band_limit(waves, sample_rate):
    """Attenuate what a telephone does not transmit; no delay."""
    # Padded, so that the end of a crop does not ring at its beginning.
    size = waves.shape[1] + sample_rate // 10
    hertz = torch.fft.rfftfreq(size, 1 / sample_rate, device=waves.device)
    low = (hertz - _FADED[0]) / (_BAND[0] - _FADED[0])
    high = (_FADED[1] - hertz) / (_FADED[1] - _BAND[1])
    gain = torch.minimum(low, high).clamp(0, 1)
    limited = torch.fft.irfft(torch.fft.rfft(waves, size) * gain, size)
    return limited[:, : waves.shape[1]]


def _g711_levels(encoding):
    """Return the distinct levels of a law of G.711, in rising order."""
    levels, _ = soundfile.read(
        io.BytesIO(bytes(range(256))),
        format="RAW",
        subtype=encoding,
        samplerate=RATE,
        channels=1,
        dtype="float32",
    )
    return torch.from_numpy(np.unique(levels))


def _through_file(wave, name):
    """Write a waveform at 8 kHz to a file in memory and read it again."""
    container, encoding = _IN_MEMORY[name]
    stream = io.BytesIO()
    soundfile.write(stream, wave, RATE, format=container, subtype=encoding)
    stream.seek(0)
    decoded, _ = soundfile.read(stream, dtype="float32")
    # Codecs work on blocks: the last one may be longer, or missing in part.
    decoded = decoded[: len(wave)]
    return np.pad(decoded, (0, len(wave) - len(decoded)))
