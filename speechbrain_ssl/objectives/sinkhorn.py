"""Sinkhorn-Knopp: assigns samples to prototypes in equal shares.

Cuturi, 2013 (arXiv 1306.0895), as SwAV has it (Caron et al., 2020, arXiv
2006.09882, equations 3 to 5): from a matrix Q with one row a sample and one column a
prototype, in turn,

    Q_bk <- Q_bk / sum over b of Q_bk      (all prototypes are used alike)
    Q_bk <- Q_bk / sum over k of Q_bk      (a sample is assigned once)

It works on the logarithm: a cosine divided by SDPN's 0.025 and exponentiated
spans 35 powers of ten, which leaves float32 no room for sums and quotients. The
samples are those of all processes.
"""

import torch
import torch.distributed as dist

from speechbrain_ssl import distributed
from speechbrain_ssl.distributed import sum_over_ranks


@torch.no_grad()
def sinkhorn(logarithms, iterations=3):
    """Balanced assignments, without gradient.

    A NaN in one row makes every row of every process NaN: nobody can be
    balanced against it, and the step is skipped everywhere.

    Arguments
    ---------
    logarithms : torch.Tensor
        ln Q, ``[n, K]``: the samples of this process; every process has at
        least one. For SwAV, cosines / epsilon.
    iterations : int
        How often both sums are set right; the second one is exact at the end.

    Returns
    -------
    torch.Tensor
        float32 ``[n, K]``; each row adds up to 1.

    Raises
    ------
    ValueError
        If there is no iteration.

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
    """Logarithm of the sum over the samples of all processes, ``[K]``."""
    greatest = log_q.amax(0)
    if distributed.is_distributed():
        dist.all_reduce(greatest, dist.ReduceOp.MAX)
    return greatest + sum_over_ranks((log_q - greatest).exp().sum(0)).log()
