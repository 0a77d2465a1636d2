"""Baselines without training.

Compare a trained encoder's results with these: whatever the mean spectrum of a
recording reveals about its speaker and its channel comes without training.
"""

import torch


class LogMelStatistics(torch.nn.Module):
    """Compute the mean and standard deviation of the features over time.

    It has the interface of an encoder and no parameters. Give it features that
    are *not* mean-normalised, ``LogMel(normalize="none")``; otherwise half of
    the output is zero.

    Example
    -------
    >>> LogMelStatistics()(torch.rand(2, 120, 80)).shape
    torch.Size([2, 1, 160])
    """

    def forward(self, x, lengths=None):
        """Compute the statistics of a batch of feature sequences.

        Arguments
        ---------
        x : torch.Tensor
            Features ``[batch, frames, features]``.
        lengths : torch.Tensor, optional
            Relative length of each utterance ``[batch]``, 1.0 for the longest
            one. Without it all frames are valid.

        Returns
        -------
        torch.Tensor
            ``[batch, 1, 2 * features]``, the means first. The deviation
            divides by the number of frames.
        """
        # Not in bf16: the deviation is a small difference of large numbers.
        x = x.float()
        frames = x.shape[1]
        if lengths is None:
            lengths = torch.ones(len(x), device=x.device)
        # Rounded, not rounded up: 300 / 500 * 500 is 300.00003 in fp32.
        count = (lengths.to(x.device) * frames).round().clamp(1, frames)
        count = count.view(-1, 1, 1)
        mask = torch.arange(frames, device=x.device).view(1, -1, 1) < count
        mean = (x * mask).sum(1, keepdim=True) / count
        square = (x - mean).square() * mask
        deviation = (square.sum(1, keepdim=True) / count).sqrt()
        return torch.cat([mean, deviation], dim=2)


class PixelValues(torch.nn.Module):
    """Return the pixels of a picture, scaled down, as its embedding.

    It has the interface of an encoder of pictures and no parameters.

    Example
    -------
    >>> PixelValues()(torch.rand(2, 3, 112, 112)).shape
    torch.Size([2, 1, 768])
    """

    #: Pixels on a side that are kept.
    SIDE = 16

    def forward(self, x):
        """Scale pictures ``[batch, 3, height, width]`` down, ``[batch, 1, n]``."""
        small = torch.nn.functional.adaptive_avg_pool2d(x.float(), self.SIDE)
        return small.flatten(1).unsqueeze(1)
