"""Copy small arrays to the device without waiting for it."""

import numpy as np
import torch


def upload(array, device):
    """Copy an array to a device; the host does not wait for the copy.

    A GPU can only copy from pinned memory by itself. From other memory the
    driver may first wait until everything queued before has been computed.

    Arguments
    ---------
    array : numpy.ndarray
        Of any shape and type.
    device : str or torch.device
        Where it is needed.

    Returns
    -------
    torch.Tensor
        The same shape and type, on the device.

    Example
    -------
    >>> upload(np.array([3, 1]), "cpu")
    tensor([3, 1])
    """
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    if torch.device(device).type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
