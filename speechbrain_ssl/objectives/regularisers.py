"""Penalties that spread embeddings apart and decorrelate their dimensions.

All are computed over the batch of all processes, with gradient, in float32.
"""

import torch
import torch.nn.functional as F

from speechbrain_ssl import distributed
from speechbrain_ssl.distributed import gather
from speechbrain_ssl.errors import ConfigError

#: Added to a variance before the square root, whose slope at 0 is infinite
#: (VICReg's value).
_VARIANCE_EPSILON = 1e-4

#: Added to a squared distance before the logarithm.
_DISTANCE_EPSILON = 1e-8


def variance_hinge(rows):
    """Compute how far the dimensions' standard deviations fall short of 1.

    Bardes et al., 2022 (arXiv 2105.04906, equation 1), gamma = 1:

        v = 1/d sum over j of max(0, 1 - sqrt(Var(x_j) + 1e-4))

    Arguments
    ---------
    rows : torch.Tensor
        ``[n, d]``, the share of this process.

    Returns
    -------
    torch.Tensor
        A scalar, the same in all processes.

    Raises
    ------
    ConfigError
        If there is only one row.

    Example
    -------
    >>> variance_hinge(torch.zeros(4, 3))
    tensor(0.9900)
    """
    rows = _of_all_ranks(rows)
    return F.relu(1 - (rows.var(0) + _VARIANCE_EPSILON).sqrt()).mean()


def covariance_penalty(rows):
    """Sum the squared covariances of different dimensions.

    Bardes et al., 2022 (arXiv 2105.04906, equations 3 and 4):

        c = 1/d sum over i != j of Cov(x_i, x_j)^2

    Arguments
    ---------
    rows : torch.Tensor
        ``[n, d]``, the share of this process.

    Returns
    -------
    torch.Tensor
        A scalar, the same in all processes.

    Raises
    ------
    ConfigError
        If there is only one row.

    Example
    -------
    >>> covariance_penalty(torch.tensor([[1.0, 1.0], [-1.0, -1.0]]))
    tensor(4.)
    """
    rows = _of_all_ranks(rows)
    centered = rows - rows.mean(0)
    covariance = _product(centered.T, centered) / (len(rows) - 1)
    return off_diagonal(covariance) / rows.shape[1]


def correlation_penalty(rows):
    """Average the squared off-diagonal correlations of the dimensions.

    Lee and Aune, 2021 (arXiv 2109.00783, "better covariance"). It is also our
    reading of the "Frobenius decorrelation" in the dimension regularisation of
    Chen et al., 2025 (arXiv 2505.13826), whose equation and code we have not
    seen: the squared Frobenius norm of the correlation matrix minus the
    identity, divided by d^2. Unlike a covariance, it cannot be lowered by
    shrinking the embeddings.

        b = 1/d^2 sum over i != j of Corr(x_i, x_j)^2

    Arguments
    ---------
    rows : torch.Tensor
        ``[n, d]``, the share of this process.

    Returns
    -------
    torch.Tensor
        A scalar, the same in all processes.

    Raises
    ------
    ConfigError
        If there is only one row.

    Example
    -------
    >>> correlation_penalty(torch.tensor([[3.0, 1.0], [-3.0, -1.0]]))
    tensor(0.5000)
    """
    rows = _of_all_ranks(rows)
    unit = F.normalize(rows - rows.mean(0), dim=0)
    return off_diagonal(_product(unit.T, unit)) / rows.shape[1] ** 2


def koleo(embeddings):
    """Compute KoLeo, minus the Kozachenko-Leonenko estimate of the entropy.

    Sablayrolles et al., 2019 (arXiv 1806.03198, section 3), on unit vectors x:

        - mean over i of ln min over j != i of |x_i - x_j|

    This is computed for each crop among the same crops of the other utterances,
    and summed over the crops, as in DINOv2 and SDPN; those, however, search for
    neighbours on one GPU only. Equal rows count as 1e-4 apart.

    Arguments
    ---------
    embeddings : torch.Tensor
        ``[batch, crops, size]``, of any norm.

    Returns
    -------
    torch.Tensor
        A scalar for the rows of this process.

    Raises
    ------
    ConfigError
        If there is only one utterance.

    Example
    -------
    >>> koleo(torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]]))
    tensor(-0.3466)
    """
    own = F.normalize(embeddings.float(), dim=-1).transpose(0, 1)
    everything = _of_all_ranks(own.transpose(0, 1)).transpose(0, 1)
    with torch.no_grad():
        cosines = _product(own, everything.transpose(1, 2))
        first = distributed.rank() * own.shape[1]
        # An utterance must not be its own neighbour.
        cosines.diagonal(first, 1, 2)[:, : own.shape[1]] = -2.0
        nearest = cosines.argmax(-1, keepdim=True).expand_as(own)
    squares = (own - everything.gather(1, nearest)).square().sum(-1)
    return -(squares + _DISTANCE_EPSILON).log().mean(1).sum() / 2


def _of_all_ranks(rows):
    """Gather the rows of all processes in float32; raise if there is one."""
    rows = gather(rows.float())
    if len(rows) < 2:
        raise ConfigError(
            "a penalty over the batch needs at least two utterances; set "
            "batch_size to 2 or more"
        )
    return rows


def _product(left, right):
    """Multiply matrices in float32, even under autocast."""
    with torch.autocast(left.device.type, enabled=False):
        return left @ right


def off_diagonal(matrix):
    """Sum the squares of a square matrix off its diagonal."""
    return (matrix - matrix.diagonal().diag()).square().sum()
