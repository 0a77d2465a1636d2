"""Carry waveforms as 16-bit integers where nothing is lost.

Batches travel from the loader workers to the training process through shared
memory, of which a container has 64 MB by default. What is read from a 16-bit
file is a multiple of 1/32768, and takes half the space as an integer. Other
audio (24 bits, floating point, resampled, a mean of channels, lossy) would be
rounded, so it stays as it is.
"""

import numpy as np
import torch

_SCALE = 32768.0


def pack(waves):
    """Stack waveforms into a tensor of 16-bit integers, if that is exact.

    Arguments
    ---------
    waves : sequence of numpy.ndarray
        float32, of equal shapes; or one array, whose rows they are.

    Returns
    -------
    torch.Tensor
        int16 if every sample is a multiple of 1/32768 in [-1, 1), otherwise
        ``waves`` in float32.

    Example
    -------
    >>> import numpy as np
    >>> pack(np.array([[0.5, -1.0]], dtype=np.float32))
    tensor([[ 16384, -32768]], dtype=torch.int16)
    >>> pack(np.array([[0.5, 1.0]], dtype=np.float32))
    tensor([[0.5000, 1.0000]])
    """
    # There may be no rows.
    shape = np.shape(waves[:1])[1:]
    integers = torch.empty((len(waves), *shape), dtype=torch.int16)
    # One by one, so that what is computed stays in the cache.
    for wave, packed in zip(waves, integers, strict=True):
        scaled = torch.from_numpy(wave) * _SCALE
        packed.copy_(scaled)
        # A sample that was rounded, clipped or wrapped differs.
        if not torch.equal(packed.float(), scaled):
            return torch.from_numpy(np.stack(waves))
    return integers


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
