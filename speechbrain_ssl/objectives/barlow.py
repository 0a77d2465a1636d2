"""Barlow Twins: drive the correlation matrix of two crops to the identity.

Zbontar et al., 2021 (arXiv 2103.03230, equations 1 and 2). Let Z and Z' be the
projections of the two crops, each dimension standardised over the batch. Then

    C = Z^T Z' / n
    L = sum over i of (1 - C_ii)^2 + lambda sum over i != j of C_ij^2

The loss is multiplied by a scale that bounds the gradient when there are
thousands of dimensions (sslsv has it, the paper does not).
"""

import torch

from speechbrain_ssl.checks import check_number
from speechbrain_ssl.distributed import gather
from speechbrain_ssl.objectives.base import Objective
from speechbrain_ssl.objectives.projector import Projector
from speechbrain_ssl.objectives.regularisers import off_diagonal
from speechbrain_ssl.objectives.views import two_views

#: Added to a variance before the square root, as batch norm does.
_EPSILON = 1e-5


class BarlowTwins(Objective):
    """Compute the redundancy-reduction loss between two views.

    Arguments
    ---------
    embedding_size, hidden, output_size, layers
        See ``Projector``.
    off_diagonal_weight : float
        lambda.
    scale : float
        Factor of the whole loss.

    Raises
    ------
    ConfigError
        If the weight is below 0 or the scale is not above 0.

    Example
    -------
    >>> from speechbrain_ssl.objectives.base import Branch
    >>> barlow = BarlowTwins(8, hidden=16, output_size=12)
    >>> views = barlow.head(torch.randn(10, 8)).view(5, 2, 12)
    >>> branch = Branch(None, views, barlow.head)
    >>> loss, scalars = barlow(branch, branch)
    >>> sorted(scalars)
    ['diagonal', 'off_diagonal']
    """

    def __init__(
        self,
        embedding_size,
        hidden=2048,
        output_size=512,
        layers=3,
        off_diagonal_weight=0.005,
        scale=0.025,
    ):
        super().__init__()
        check_number(
            "BarlowTwins", "off_diagonal_weight", off_diagonal_weight, least=0
        )
        check_number("BarlowTwins", "scale", scale, above=0)
        self.head = Projector(embedding_size, hidden, output_size, layers)
        self.off_diagonal_weight = off_diagonal_weight
        self.scale = scale

    def forward(self, online, target):
        """Compute the loss.

        Arguments
        ---------
        online, target : speechbrain_ssl.objectives.base.Branch
            The first crop is taken from ``online``, the second from
            ``target``.

        Returns
        -------
        tuple
            Loss, and the scalars ``diagonal`` (mean of C_ii; 1 if the crops
            agree) and ``off_diagonal`` (mean of C_ij^2 over i != j).

        Raises
        ------
        ConfigError
            If there are not exactly two crops.
        """
        left, right = map(
            _standardised, two_views(online, target, "Barlow Twins")
        )
        with torch.autocast(left.device.type, enabled=False):
            correlation = left.T @ right / len(left)
        diagonal = correlation.diagonal()
        off = off_diagonal(correlation)
        loss = (1 - diagonal).square().sum() + self.off_diagonal_weight * off
        size = len(diagonal)
        scalars = {
            "diagonal": diagonal.detach().mean(),
            "off_diagonal": off.detach() / max(1, size * (size - 1)),
        }
        return self.scale * loss, scalars


def _standardised(rows):
    """Gather rows and give each dimension mean 0 and variance 1."""
    rows = gather(rows)
    centered = rows - rows.mean(0)
    return centered * (centered.square().mean(0) + _EPSILON).rsqrt()
