"""Sinkhorn-Knopp: assign samples to prototypes in equal shares.

Cuturi, 2013 (arXiv 1306.0895), as used by SwAV (Caron et al., 2020, arXiv
2006.09882, equations 3 to 5). Given a matrix Q with one row per sample and one
column per prototype, these two steps alternate:

    Q_bk <- Q_bk / sum over b of Q_bk      (all prototypes are used equally)
    Q_bk <- Q_bk / sum over k of Q_bk      (each sample is assigned once)

The computation uses logarithms: a cosine divided by SDPN's 0.025 and
exponentiated spans 35 powers of ten, which leaves float32 no room for sums and
quotients. The samples are those of all processes.
"""

import torch
import torch.distributed as dist

from speechbrain_ssl import distributed
from speechbrain_ssl.distributed import sum_over_ranks


@torch.no_grad()
def sinkhorn(logarithms, iterations=3):
    """Compute balanced assignments, without gradient.

    A NaN in one row makes every row in every process NaN, so that all processes
    skip the step.

    Arguments
    ---------
    logarithms : torch.Tensor
        ln Q, ``[n, K]``: the samples of this process, at least one in every
        process. For SwAV, cosines / epsilon.
    iterations : int
        Number of times that both steps are taken. At the end the row sums are
        exact and the column sums are approximate.

    Returns
    -------
    torch.Tensor
        float32 ``[n, K]``; each row adds up to 1.

    Raises
    ------
    ValueError
        If ``iterations`` is below 1.

    Example
    -------
    >>> scores = torch.tensor([[2.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    >>> sinkhorn(scores, iterations=50).sum(0)
    tensor([2., 2.])
    """
    if iterations < 1:
        raise ValueError(f"iterations must be at least 1, got {iterations}")
    log_q = logarithms.float()
    for _ in range(iterations):
        log_q = log_q - _log_sum_of_columns(log_q)
        log_q = torch.log_softmax(log_q, dim=1)
    return log_q.exp_()


def _log_sum_of_columns(log_q):
    """Return the log of the sum over samples of all processes, ``[K]``."""
    greatest = log_q.amax(0)
    if distributed.is_distributed():
        dist.all_reduce(greatest, dist.ReduceOp.MAX)
    return greatest + sum_over_ranks((log_q - greatest).exp().sum(0)).log()
