"""Log-mel features with SpeechBrain's values, computed on the batch's device.

With the default settings the values equal those of
``speechbrain.lobes.features.Fbank`` followed by
``InputNormalization(norm_type="sentence", std_norm=False)``. Only the place of
the constants differs: the stock Fbank keeps window and filters as plain
attributes and copies both to the device in every forward pass. With any other
setting, too, a trained model is exported with stock modules in front
(``speechbrain_ssl.publishing.stock_features``).
"""

import torch
from speechbrain.lobes.features import Fbank

from speechbrain_ssl.checks import check_int, check_number
from speechbrain_ssl.errors import ConfigError

#: Window functions by name.
WINDOWS = {"hamming": torch.hamming_window, "hann": torch.hann_window}

#: What may be done with each band of an utterance.
NORMALIZATIONS = ("mean", "mean_variance", "none")

#: Least standard deviation in dB that a band is divided by: digital silence has
#: none. InstanceNorm1d, which has 1e-5 under its root, divides by no less than
#: 0.014 dB.
LEAST_DEVIATION = 0.01


class LogMel(torch.nn.Module):
    """Compute normalised log-mel energies of waveforms.

    Windows of 25 ms every 10 ms, centred on their frame; the waveform is padded
    with zeros at both ends.

    Arguments
    ---------
    n_mels : int
        Number of mel bands (triangular).
    sample_rate : int
        Sampling rate in Hz.
    normalize : str
        ``mean``: subtract the mean over time from each band of an utterance;
        ``mean_variance``: divide it by its standard deviation as well (instance
        normalisation, as in sslsv and 3D-Speaker's RDINO and SDPN); ``none``.
    n_fft : int
        Size of the Fourier transform, at least the 25 ms of the window.
    f_min, f_max : float
        Lower end of the first and upper end of the last band in Hz; None is the
        Nyquist frequency.
    window : str
        ``hamming`` or ``hann``.
    log_floor : float, optional
        Energy that is added to each band before the logarithm (sslsv: 1e-6,
        for waveforms between -1 and 1). None: energies below 1e-10, and those
        80 dB below the greatest of the utterance, are raised to these values,
        which is what SpeechBrain does.

    Raises
    ------
    ConfigError
        If a setting is unknown or out of range.

    Example
    -------
    >>> LogMel(n_mels=80)(torch.rand(2, 16000)).shape
    torch.Size([2, 101, 80])
    """

    def __init__(
        self,
        n_mels=80,
        sample_rate=16000,
        normalize="mean",
        n_fft=400,
        f_min=0,
        f_max=None,
        window="hamming",
        log_floor=None,
    ):
        super().__init__()
        f_max = sample_rate // 2 if f_max is None else f_max
        _check(n_mels, sample_rate, normalize, n_fft, f_min, f_max, window)
        if log_floor is not None:
            check_number("the features", "log_floor", log_floor, above=0)
        self.settings = {
            "n_mels": n_mels,
            "sample_rate": sample_rate,
            "normalize": normalize,
            "n_fft": n_fft,
            "f_min": f_min,
            "f_max": f_max,
            "window": window,
            "log_floor": log_floor,
        }
        self.n_mels = n_mels
        self.sample_rate = sample_rate
        self.normalize = normalize
        self.n_fft = n_fft
        self.log_floor = log_floor
        stock = Fbank(
            n_mels=n_mels,
            sample_rate=sample_rate,
            n_fft=n_fft,
            f_min=f_min,
            f_max=f_max,
        )
        self.hop = stock.compute_STFT.hop_length
        self.win_length = stock.compute_STFT.win_length
        filters = stock.compute_fbanks
        columns = filters.all_freqs_mat.shape[1]
        matrix = filters._create_fbank_matrix(
            filters.f_central.repeat(columns, 1).T,
            filters.band.repeat(columns, 1).T,
        )
        self.amin, self.top_db = filters.amin, filters.top_db
        # Constants, not state, so checkpoints must not contain them.
        self.register_buffer(
            "window", WINDOWS[window](self.win_length), persistent=False
        )
        self.register_buffer("filters", matrix, persistent=False)

    def extra_repr(self):
        """Return the settings: two kinds of features must not look alike."""
        return ", ".join(f"{k}={v!r}" for k, v in self.settings.items())

    def without_normalization(self):
        """Return features with the same settings that are not normalised.

        Returns
        -------
        LogMel
        """
        return LogMel(**{**self.settings, "normalize": "none"})

    def check_encoder(self, encoder):
        """Reject an encoder that takes another number of bands.

        Arguments
        ---------
        encoder : torch.nn.Module
            Its ``arguments`` tell its ``input_size``, if it has any.

        Raises
        ------
        ConfigError
            If it is not the number of bands.
        """
        if getattr(encoder, "takes_waveforms", False):
            raise ConfigError(
                f"{type(encoder).__name__} takes waveforms: include "
                "features/waveform.yaml as `features_block`"
            )
        size = getattr(encoder, "arguments", {}).get("input_size", self.n_mels)
        if size != self.n_mels:
            raise ConfigError(
                f"the features have {self.n_mels} bands, and the encoder takes "
                f"{size}: set `n_mels` of `features_block` and of "
                "`encoder_block` to the same number"
            )

    def example(self):
        """Return a silent crop of one second, to measure an encoder with."""
        return torch.zeros(self.sample_rate, device=self.window.device)

    def num_frames(self, num_samples):
        """Return the number of frames for a number of samples (or a tensor)."""
        return num_samples // self.hop + 1

    def forward(self, waveforms, num_samples=None):
        """Compute the features, always in fp32.

        Arguments
        ---------
        waveforms : torch.Tensor
            ``[batch, samples]``, zero-padded if they differ in length.
        num_samples : torch.Tensor, optional
            True length of each waveform in samples ``[batch]``. Frames after it
            are set to zero and do not enter mean and variance.

        Returns
        -------
        torch.Tensor
            ``[batch, frames, n_mels]`` in dB, or in standard deviations.
        """
        with torch.autocast(waveforms.device.type, enabled=False):
            power = self._power(waveforms.float())
            db = self._decibel(torch.matmul(power, self.filters))
            if num_samples is None:
                return self._normalized(db)
            frames = self.num_frames(num_samples.to(db.device)).view(-1, 1, 1)
            index = torch.arange(db.shape[1], device=db.device).view(1, -1, 1)
            mask = index < frames
            return self._normalized(db, frames, mask) * mask

    def _power(self, waveforms):
        """Compute the power spectrum ``[batch, frames, frequencies]``."""
        spectrum = torch.stft(
            waveforms,
            self.n_fft,
            self.hop,
            self.win_length,
            self.window,
            center=True,
            pad_mode="constant",
            return_complex=True,
        )
        power = torch.view_as_real(spectrum)
        power = power[..., 0].square() + power[..., 1].square()
        return power.transpose(1, 2)

    def _decibel(self, mel):
        """Take the logarithm of energies, bounded from below."""
        if self.log_floor is not None:
            return mel.add(self.log_floor).log10().mul(10)
        db = mel.clamp(min=self.amin).log10().mul(10)
        floor = db.amax(dim=(1, 2), keepdim=True) - self.top_db
        return torch.maximum(db, floor)

    def _normalized(self, db, frames=None, mask=None):
        """Normalise each band over all frames, or those of the mask."""
        if self.normalize == "none":
            return db
        db = db - _mean_over_time(db, frames, mask)
        if self.normalize == "mean":
            return db
        variance = _mean_over_time(db.square(), frames, mask)
        return db / variance.sqrt().clamp(min=LEAST_DEVIATION)


class Waveform(torch.nn.Module):
    """Pass waveforms on, for encoders that compute their own features.

    It has the interface of ``LogMel``; its frames are samples.

    Arguments
    ---------
    sample_rate : int
        Sampling rate in Hz.

    Example
    -------
    >>> Waveform()(torch.rand(2, 16000)).shape
    torch.Size([2, 16000])
    """

    def __init__(self, sample_rate=16000):
        super().__init__()
        self.sample_rate = sample_rate
        self.settings = {"sample_rate": sample_rate}
        # Says where the module is, as it has no other tensor.
        self.register_buffer("place", torch.zeros(()), persistent=False)

    def extra_repr(self):
        """Return the settings: two kinds of features must not look alike."""
        return f"sample_rate={self.sample_rate}"

    def example(self):
        """Return a silent crop of one second, to measure an encoder with."""
        return torch.zeros(self.sample_rate, device=self.place.device)

    def without_normalization(self):
        """Return the features of the baseline without a network.

        Returns
        -------
        LogMel
        """
        return LogMel(sample_rate=self.sample_rate, normalize="none")

    def check_encoder(self, encoder):
        """Reject an encoder that takes features.

        Arguments
        ---------
        encoder : torch.nn.Module
            The encoder.

        Raises
        ------
        ConfigError
            If it has no true attribute ``takes_waveforms``.
        """
        if not getattr(encoder, "takes_waveforms", False):
            raise ConfigError(
                f"{type(encoder).__name__} takes features, not waveforms: "
                "include another block of features/ as `features_block`"
            )

    def num_frames(self, num_samples):
        """Return the number of frames, which is the number of samples."""
        return num_samples

    def forward(self, waveforms, num_samples=None):
        """Return the waveforms, ``[batch, samples]``.

        Arguments
        ---------
        waveforms : torch.Tensor
            ``[batch, samples]``, zero-padded if they differ in length.
        num_samples : torch.Tensor, optional
            Not needed, since nothing depends on the padding.

        Returns
        -------
        torch.Tensor
        """
        return waveforms


def _mean_over_time(values, frames, mask):
    """Return the mean over all frames, or those of the mask."""
    if mask is None:
        return values.mean(1, keepdim=True)
    return (values * mask).sum(1, keepdim=True) / frames


def _check(n_mels, sample_rate, normalize, n_fft, f_min, f_max, window):
    """Raise a ``ConfigError`` for settings that give no features."""
    owner = "the features"
    check_int(owner, "n_mels", n_mels, least=1)
    check_int(owner, "sample_rate", sample_rate, least=1)
    # The window has 25 ms.
    check_int(owner, "n_fft", n_fft, least=sample_rate // 40)
    check_number(owner, "f_min", f_min, least=0, below=f_max)
    check_number(owner, "f_max", f_max, most=sample_rate / 2)
    if normalize not in NORMALIZATIONS:
        raise ConfigError(
            f"normalize must be one of {', '.join(NORMALIZATIONS)}; got "
            f"{normalize!r}"
        )
    if window not in WINDOWS:
        raise ConfigError(
            f"window must be one of {', '.join(WINDOWS)}; got {window!r}"
        )
