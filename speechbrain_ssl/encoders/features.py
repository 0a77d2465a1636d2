"""Log-mel features with SpeechBrain's values, computed on the batch's device.

The values equal those of ``speechbrain.lobes.features.Fbank`` followed by
``InputNormalization(norm_type="sentence", std_norm=False)``, so a model trained
on these features is exported with those two stock modules in front. Only the
place of the constants differs: the stock Fbank keeps window and filters as
plain attributes and copies both to the device in every forward pass.
"""

import torch
from speechbrain.lobes.features import Fbank


class LogMel(torch.nn.Module):
    """Compute mean-normalised log-mel energies of waveforms.

    Arguments
    ---------
    n_mels : int
        Number of mel bands (triangular, 0 Hz to the Nyquist frequency).
    sample_rate : int
        Sampling rate in Hz.
    mean_norm : bool
        Whether to subtract the mean over time of each utterance.

    Example
    -------
    >>> LogMel(n_mels=80)(torch.rand(2, 16000)).shape
    torch.Size([2, 101, 80])
    """

    def __init__(self, n_mels=80, sample_rate=16000, mean_norm=True):
        super().__init__()
        self.n_mels = n_mels
        self.sample_rate = sample_rate
        self.mean_norm = mean_norm
        stock = Fbank(n_mels=n_mels, sample_rate=sample_rate)
        self.n_fft = stock.compute_STFT.n_fft
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
            "window", stock.compute_STFT.window, persistent=False
        )
        self.register_buffer("filters", matrix, persistent=False)

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
            are set to zero and do not enter the mean.

        Returns
        -------
        torch.Tensor
            ``[batch, frames, n_mels]`` in dB.
        """
        with torch.autocast(waveforms.device.type, enabled=False):
            spectrum = torch.stft(
                waveforms.float(),
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
            mel = torch.matmul(power.transpose(1, 2), self.filters)
            db = mel.clamp_(min=self.amin).log10_().mul_(10)
            floor = db.amax(dim=(1, 2), keepdim=True) - self.top_db
            db = torch.maximum(db, floor)
            if num_samples is None:
                if self.mean_norm:
                    db = db - db.mean(1, keepdim=True)
                return db
            frames = self.num_frames(num_samples.to(db.device)).view(-1, 1, 1)
            index = torch.arange(db.shape[1], device=db.device).view(1, -1, 1)
            mask = index < frames
            if self.mean_norm:
                db = db - (db * mask).sum(1, keepdim=True) / frames
            return db * mask
