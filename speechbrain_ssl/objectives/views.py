"""Comparisons of the crops of two branches: two views or all pairs."""

import math

import torch

from speechbrain_ssl import distributed
from speechbrain_ssl.distributed import mean_over_ranks
from speechbrain_ssl.errors import ConfigError


def check_two_crops(online, target, objective):
    """Reject branches that do not have exactly two crops per utterance.

    Arguments
    ---------
    online, target : speechbrain_ssl.objectives.base.Branch
        The two branches.
    objective : str
        Name of the objective, for the message.

    Raises
    ------
    ConfigError
        If there are not exactly two crops in each branch.
    """
    crops = online.projections.shape[1], target.projections.shape[1]
    if crops != (2, 2):
        raise ConfigError(
            f"{objective} compares two crops of an utterance; set global_crops "
            f"to 2 and local_crops to 0 (got {crops[1]} global crops among "
            f"{crops[0]})"
        )


def two_views(online, target, objective):
    """Return the projections of the two crops that a two-view loss compares.

    Arguments
    ---------
    online, target : speechbrain_ssl.objectives.base.Branch
        The first crop is taken from ``online``, the second from ``target``.
    objective : str
        Name of the objective, for the message.

    Returns
    -------
    left, right : torch.Tensor
        float32 ``[batch, projection size]``.

    Raises
    ------
    ConfigError
        If there are not exactly two crops in each branch.

    Example
    -------
    >>> from speechbrain_ssl.objectives.base import Branch
    >>> branch = Branch(None, torch.randn(4, 2, 8), None)
    >>> left, right = two_views(branch, branch, "VICReg")
    >>> left.shape
    torch.Size([4, 8])
    """
    check_two_crops(online, target, objective)
    return online.projections[:, 0].float(), target.projections[:, 1].float()


def own_rows(count, device):
    """Return the positions of this process's rows among the gathered rows.

    Arguments
    ---------
    count : int
        Number of rows of this process; all processes have equally many.
    device : torch.device
        Device of the result.

    Returns
    -------
    torch.Tensor
        int64 ``[count]``, positions in the result of ``distributed.gather``.

    Example
    -------
    >>> own_rows(3, torch.device("cpu")).tolist()
    [0, 1, 2]
    """
    return torch.arange(count, device=device) + distributed.rank() * count


def mean_over_pairs(target, online, skip_same):
    """Average the products target_q . online_v over batch and pairs (q, v).

    Since the product is linear in both factors, the sum over all pairs is one
    product of sums; the pairs of a crop with itself are then subtracted.

    Arguments
    ---------
    target : torch.Tensor
        ``[batch, global crops, size]``.
    online : torch.Tensor
        ``[batch, crops, size]``; if it has global crops, they come first.
    skip_same : bool
        Whether ``online`` has the global crops, so that v = q is left out.

    Returns
    -------
    torch.Tensor
        A scalar.

    Raises
    ------
    ConfigError
        If there is no pair.

    Example
    -------
    >>> online = torch.ones(3, 4, 2)
    >>> mean_over_pairs(online[:, :2], online, skip_same=True)
    tensor(2.)
    """
    batch, globals_ = target.shape[:2]
    pairs = globals_ * online.shape[1]
    total = (target.sum(1) * online.sum(1)).sum()
    if skip_same:
        pairs -= globals_
        total = total - (target * online[:, :globals_]).sum()
    if pairs == 0:
        raise ConfigError(
            "this objective compares different crops of an utterance, but the "
            "crop plan leaves no pair: give it two global crops or some local "
            "ones"
        )
    return total / (batch * pairs)


def pair_cross_entropy(logits, targets, skip_same):
    """Average -P_q . log softmax(s_v) over batch and pairs (q, v).

    Arguments
    ---------
    logits : torch.Tensor
        s, already divided by the temperature, ``[batch, crops, K]``.
    targets : torch.Tensor
        P, which sums to 1 over K, ``[batch, global crops, K]``.
    skip_same : bool
        As in ``mean_over_pairs``.

    Returns
    -------
    torch.Tensor
        A scalar.

    Example
    -------
    >>> targets = torch.full((3, 2, 4), 0.25)
    >>> pair_cross_entropy(torch.zeros(3, 2, 4), targets, skip_same=True)
    tensor(1.3863)
    """
    # -P.log softmax(s) = logsumexp(s) - P.s, since P sums to 1. This avoids
    # storing the log-softmax of six crops over 65 536 prototypes.
    normaliser = torch.logsumexp(logits, dim=-1, keepdim=True)
    ones = torch.ones_like(targets[..., :1])
    return mean_over_pairs(ones, normaliser, skip_same) - mean_over_pairs(
        targets, logits, skip_same
    )


def entropy(probabilities):
    """Compute the entropy in nats over the last axis.

    Arguments
    ---------
    probabilities : torch.Tensor
        ``[..., K]``.

    Returns
    -------
    torch.Tensor
        ``[...]``.

    Example
    -------
    >>> entropy(torch.tensor([0.5, 0.5, 0.0]))
    tensor(0.6931)
    """
    return torch.special.entr(probabilities).sum(-1)


def prototype_entropies(predictions):
    """Compute entropies of a teacher's predictions, which reveal a collapse.

    Arguments
    ---------
    predictions : torch.Tensor
        Probabilities ``[batch, crops, K]``.

    Returns
    -------
    dict
        In nats: ``teacher_entropy`` (mean of the entropies), ``usage_entropy``
        (entropy of the mean over all processes: how evenly prototypes are
        used) and ``log_prototypes`` (ln K, which both entropies equal when the
        predictions are uniform).

    Example
    -------
    >>> found = prototype_entropies(torch.eye(2)[None])
    >>> float(found["teacher_entropy"]), float(found["usage_entropy"].exp())
    (0.0, 2.0)
    """
    mean = mean_over_ranks(predictions.mean(dim=(0, 1)))
    return {
        "teacher_entropy": entropy(predictions).mean(),
        "usage_entropy": entropy(mean),
        "log_prototypes": math.log(predictions.shape[-1]),
    }
