"""Kaldi's log-mel energies as w2v-BERT 2.0 takes them, on the batch's device.

The feature extractor of transformers computes them with numpy, one utterance
after the other, so that each training step would wait for a copy to the CPU.
"""

import math

import torch

#: Samples of a window and between two windows, at 16 kHz.
WINDOW, HOP = 400, 160

_N_FFT = 512
_PREEMPHASIS = 0.97
# Float epsilon, below which no energy falls before the logarithm.
_FLOOR = 1.192092955078125e-07


class KaldiFeatures(torch.nn.Module):
    """Compute the input of w2v-BERT 2.0 from waveforms of one length.

    80 log-mel energies (Kaldi's, 20 to 8 000 Hz, Povey window, no dither) every
    10 ms, normalised to zero mean and unit variance over the utterance; two
    frames side by side are one input frame of the encoder. An odd last frame
    is left out.

    Example
    -------
    >>> KaldiFeatures()(torch.rand(2, 16000)).shape
    torch.Size([2, 49, 160])
    """

    def __init__(self):
        super().__init__()
        time = torch.arange(WINDOW, dtype=torch.float64, device="cpu")
        hann = 0.5 - 0.5 * torch.cos(2 * math.pi * time / (WINDOW - 1))
        # Constants, not state: checkpoints must not contain them. They are
        # made on the CPU even where an encoder is built without memory.
        self.register_buffer("window", hann.pow(0.85).float(), persistent=False)
        self.register_buffer("filters", _filters(), persistent=False)

    def forward(self, waveforms):
        """Compute the features, always in fp32.

        Arguments
        ---------
        waveforms : torch.Tensor
            ``[batch, samples]`` between -1 and 1, at 16 kHz.

        Returns
        -------
        torch.Tensor
            ``[batch, frames, 160]``.
        """
        with torch.autocast(waveforms.device.type, enabled=False):
            # Kaldi reads 16-bit integers.
            frames = (waveforms.float() * 2**15).unfold(1, WINDOW, HOP)
            frames = frames - frames.mean(2, keepdim=True)
            first = frames[..., :1] * (1 - _PREEMPHASIS)
            rest = frames[..., 1:] - _PREEMPHASIS * frames[..., :-1]
            frames = torch.cat([first, rest], dim=2) * self.window
            power = torch.fft.rfft(frames, _N_FFT).abs().square()
            mel = torch.matmul(power, self.filters).clamp(min=_FLOOR).log()
            # The variance divides by one frame less.
            mel = (mel - mel.mean(1, keepdim=True)) / (
                mel.var(1, keepdim=True) + 1e-7
            ).sqrt()
            even = mel.shape[1] // 2 * 2
            return mel[:, :even].reshape(len(mel), even // 2, -1)


def _filters(bands=80, low=20.0, high=8000.0, rate=16000):
    """Return Kaldi's triangles, ``[frequencies, bands]``, of equal mel width."""

    def mel(hertz):
        return 1127.0 * torch.log1p(hertz / 700.0)

    ends = mel(torch.tensor([low, high], dtype=torch.float64, device="cpu"))
    corners = torch.linspace(
        *ends.tolist(), bands + 2, dtype=torch.float64, device="cpu"
    )
    bins = torch.arange(_N_FFT // 2 + 1, dtype=torch.float64, device="cpu")
    points = mel(bins * rate / _N_FFT)[:, None]
    width = corners[1] - corners[0]
    rising = (points - corners[:-2]) / width
    falling = (corners[2:] - points) / width
    return torch.minimum(rising, falling).clamp(min=0).float()
