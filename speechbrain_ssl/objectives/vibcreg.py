"""VIbCReg: VICReg with a scale-free covariance term.

Lee and Aune, 2021 (arXiv 2109.00783, "better covariance"). It differs from
VICReg in two ways, both taken from the authors' code. The covariance term is
the mean squared *correlation* (see ``regularisers.correlation_penalty``), so
that its weight does not depend on the number of dimensions. And the projector
ends in an iterative normalisation (IterNorm, Huang et al., 2019, arXiv
1904.03441) that whitens groups of dimensions.

With x centred over the batch, S = x^T x / n + e I in a group, and its trace t,

    P_0 = I,    P_k = (3 P_{k-1} - P_{k-1}^3 S / t) / 2,    y = x P_T / sqrt(t)

With T = 5 Newton iterations this is close to x S^{-1/2}.
"""

import torch

from speechbrain_ssl.checks import check_int
from speechbrain_ssl.distributed import gather
from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.objectives.regularisers import correlation_penalty
from speechbrain_ssl.objectives.vicreg import VICReg


class IterNorm(torch.nn.Module):
    """Whiten groups of dimensions by Newton's iteration.

    The statistics are always those of the batch of all processes. No running
    statistics are kept, since the projector is discarded after training. The
    authors normalise each crop separately; this implementation normalises all
    crops together, as the batch norms before it do.

    Arguments
    ---------
    size : int
        Number of dimensions.
    groups : int
        Number of groups, a divisor of ``size``.
    iterations : int
        T. From about eight iterations on, rounding makes this form of Newton's
        iteration diverge.
    epsilon : float
        e.

    Raises
    ------
    ConfigError
        If the groups do not divide the dimensions.

    Example
    -------
    >>> y = IterNorm(4, groups=2)(torch.randn(100, 4))
    >>> y.shape
    torch.Size([100, 4])
    """

    def __init__(self, size, groups, iterations=5, epsilon=1e-5):
        super().__init__()
        check_int("VIbCReg", "groups", groups, least=1)
        if size % groups:
            raise ConfigError(
                f"VIbCReg's groups must divide output_size, got {groups} and "
                f"{size}"
            )
        self.groups = groups
        self.iterations = iterations
        self.epsilon = epsilon
        self.weight = torch.nn.Parameter(torch.ones(size))
        self.bias = torch.nn.Parameter(torch.zeros(size))

    def forward(self, x):
        """Return the whitened, scaled and shifted rows, fp32 ``[n, size]``."""
        with torch.autocast(x.device.type, enabled=False):
            own, everything = (
                rows.unflatten(1, (self.groups, -1)).transpose(0, 1)
                for rows in (x.float(), gather(x.float()))
            )
            mean = everything.mean(1, keepdim=True)
            centered = everything - mean
            eye = torch.eye(own.shape[-1], device=x.device)
            covariance = centered.mT @ centered / centered.shape[1]
            covariance = covariance + self.epsilon * eye
            trace = covariance.diagonal(dim1=1, dim2=2).sum(-1)[:, None, None]
            covariance = covariance / trace
            root = eye.expand_as(covariance)
            for _ in range(self.iterations):
                root = 1.5 * root - 0.5 * root @ root @ root @ covariance
            white = (own - mean) @ root * trace.rsqrt()
        return white.transpose(0, 1).flatten(1) * self.weight + self.bias


class VIbCReg(VICReg):
    """Compute VICReg with correlations and a whitening projector.

    Arguments
    ---------
    embedding_size, hidden, output_size, layers
        See ``Projector``.
    groups : int
        Number of groups of ``IterNorm``.
    invariance_weight, variance_weight, covariance_weight : float
        As in ``VICReg``.

    Raises
    ------
    ConfigError
        If a weight is below 0, or the groups do not divide ``output_size``.

    Example
    -------
    >>> from speechbrain_ssl.objectives.base import Branch
    >>> vibcreg = VIbCReg(8, hidden=16, output_size=12, groups=3)
    >>> views = vibcreg.head(torch.randn(10, 8)).view(5, 2, 12)
    >>> branch = Branch(None, views, vibcreg.head)
    >>> loss, scalars = vibcreg(branch, branch)
    >>> sorted(scalars)
    ['covariance', 'invariance', 'variance']
    """

    penalty = staticmethod(correlation_penalty)

    def __init__(
        self,
        embedding_size,
        hidden=2048,
        output_size=512,
        layers=3,
        groups=64,
        invariance_weight=1.0,
        variance_weight=1.0,
        covariance_weight=8.0,
    ):
        super().__init__(
            embedding_size,
            hidden,
            output_size,
            layers,
            invariance_weight,
            variance_weight,
            covariance_weight,
        )
        self.head = torch.nn.Sequential(
            self.head, IterNorm(output_size, groups)
        )
