"""Check the space for the batches of loader workers, and explain its lack.

Loader workers hand over their batches in shared memory, which Linux shows as
the folder /dev/shm. In a container it is often small (64 MB with Docker). If it
is full, torch's loader kills the worker with a bus error, or waits forever for a
batch that a thread of the worker failed to hand over.
"""

import os
import shutil

import torch

from speechbrain_ssl.errors import ConfigError

FOLDER = "/dev/shm"

#: Batches that torch's loader requests of each worker in advance.
PREFETCH = 2

_REMEDY = (
    "start the container with more of it (docker run --shm-size=8g, or "
    "--ipc=host)"
)

#: What torch says if the space is used up, in the worker or about it.
_SIGNS = (
    "Bus error",
    "out of shared memory",
    "shared memory object",
    "shared memory(shm)",
    "write to file </torch_",
)


def check_space(dataset, items, batch_size, num_workers):
    """Raise, before the first step, if the batches cannot fit.

    Arguments
    ---------
    dataset : torch.utils.data.Dataset
        It has a method ``collate``, which makes a batch with a property
        ``nbytes``.
    items : list
        Some items of the data set; their samples show how large the others
        are. A single one does not: one of floats makes its batch twice as large.
    batch_size : int
        Samples per batch.
    num_workers : int
        Workers of the loader; nothing is checked if there are none.

    Raises
    ------
    ConfigError
        If all requested batches together are larger than the free space.
    """
    if not num_workers or not os.path.isdir(FOLDER):
        return
    some = dataset.collate([dataset[item] for item in items])
    batch = some.nbytes * batch_size // len(items)
    # The processes of a machine share the space.
    workers = num_workers * int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    needed = workers * PREFETCH * batch
    free = shutil.disk_usage(FOLDER).free
    if needed > free:
        raise ConfigError(
            f"the loader workers ({workers}) put up to {PREFETCH} batches of "
            f"{_megabytes(batch)} each into shared memory, "
            f"{_megabytes(needed)} in all, but {FOLDER} has only "
            f"{_megabytes(free)} left: {_REMEDY}, or lower `num_workers` (0 "
            "needs none) or `batch_size`"
        )


def share(tensor):
    """Move a tensor of a batch to shared memory, if this is a loader worker.

    The loader would do the same after the batch has been collated, but then an
    error does not reach the process that trains.

    Arguments
    ---------
    tensor : torch.Tensor
        Changed in place.

    Returns
    -------
    torch.Tensor
        The same one.

    Raises
    ------
    RuntimeError
        If there is no space left; ``explain`` says what to do.
    """
    in_worker = torch.utils.data.get_worker_info() is not None
    return tensor.share_memory_() if in_worker else tensor


def explain(error):
    """Explain an error that means that shared memory is used up.

    Arguments
    ---------
    error : BaseException
        Any error.

    Returns
    -------
    str or None
        A sentence with the remedy; None if the error means something else.

    Example
    -------
    >>> explain(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    >>> explain(RuntimeError("DataLoader worker is killed by signal: Bus error"))[:39]
    'a loader worker ran out of shared memor'
    """
    while error is not None:
        if any(sign in str(error) for sign in _SIGNS):
            return (
                f"a loader worker ran out of shared memory ({FOLDER}): "
                f"{_REMEDY}, or set `num_workers: 0`"
            )
        error = error.__cause__ or error.__context__
    return None


def _megabytes(count):
    return f"{count / 1e6:.0f} MB"
