"""Rows of all processes, of whatever number each of them has."""

import torch
import torch.distributed as dist

from speechbrain_ssl import distributed


@torch.no_grad()
def gather_rows(*tensors):
    """Concatenates tensors of all processes along their first axis.

    ``distributed.gather`` wants the same shape everywhere; here the last
    process may have fewer rows than the others, or none. The order is that of
    the ranks. Without gradient.

    Arguments
    ---------
    *tensors : torch.Tensor
        ``[rows, ...]``, with the same number of rows in all of them; the other
        axes and the types must be the same in every process.

    Returns
    -------
    tuple of torch.Tensor
        ``[rows of all processes, ...]`` for each.

    Example
    -------
    >>> index, values = gather_rows(torch.tensor([3, 1]), torch.zeros(2, 4))
    >>> index.tolist(), values.shape
    ([3, 1], torch.Size([2, 4]))
    """
    if not distributed.is_distributed():
        return tensors
    rows, device = len(tensors[0]), tensors[0].device
    counts = torch.zeros(
        distributed.world_size(), dtype=torch.int64, device=device
    )
    counts[distributed.rank()] = rows
    dist.all_reduce(counts)
    counts = counts.tolist()
    most = max(counts)
    gathered = []
    for tensor in tensors:
        padded = tensor.new_zeros(most, *tensor.shape[1:])
        padded[:rows] = tensor
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        gathered.append(
            torch.cat([p[:n] for p, n in zip(parts, counts, strict=True)])
        )
    return tuple(gathered)
