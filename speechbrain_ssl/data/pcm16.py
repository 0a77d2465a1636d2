"""Carry waveforms as 16-bit integers where nothing is lost.

Batches travel from the loader workers to the training process through shared
memory, of which a container has 64 MB by default. What is read from a 16-bit
file is a multiple of 1/32768, and takes half the space as an integer. Other
audio (24 bits, floating point, resampled, a mean of channels, lossy) would be
rounded, so it stays as it is.
"""

import torch

_SCALE = 32768.0


def pack(waves):
    """Turn waveforms into a tensor of 16-bit integers, if that is exact.

    Arguments
    ---------
    waves : numpy.ndarray
        float32, of any shape.

    Returns
    -------
    torch.Tensor
        int16 if every sample is a multiple of 1/32768 in [-1, 1), otherwise
        ``waves`` in float32.

    Example
    -------
    >>> import numpy as np
    >>> pack(np.array([0.5, -1.0], dtype=np.float32))
    tensor([ 16384, -32768], dtype=torch.int16)
    >>> pack(np.array([0.5, 1.0], dtype=np.float32))
    tensor([0.5000, 1.0000])
    """
    waves = torch.from_numpy(waves)
    scaled = waves * _SCALE
    integers = scaled.to(torch.int16)
    # A sample that was rounded, clipped or wrapped differs.
    return integers if torch.equal(integers.float(), scaled) else waves


def unpack(waves):
    """Undo ``pack``, on any device.

    Arguments
    ---------
    waves : torch.Tensor
        int16 or float32.

    Returns
    -------
    torch.Tensor
        float32, the same values that were packed.
    """
    return waves / _SCALE if waves.dtype == torch.int16 else waves
