"""What the objectives without negatives have in common: predict, do not drift.

They draw the vectors of different crops of an utterance together, and nothing
in the loss shows whether all utterances come to lie at one place.
"""

import torch
import torch.nn.functional as F

from speechbrain_ssl.objectives.views import mean_over_pairs


def mean_cosine(first, second):
    """Mean cosine over the pairs of different crops of an utterance.

    Arguments
    ---------
    first : torch.Tensor
        ``[batch, crops, size]``, global crops first.
    second : torch.Tensor
        ``[batch, global crops, size]``; it gets no gradient.

    Returns
    -------
    torch.Tensor
        A scalar, the mean over batch and pairs v != w of the cosine of
        ``first[:, v]`` and ``second[:, w]``.

    Raises
    ------
    ConfigError
        If no pair is left to compare.

    Example
    -------
    >>> crops = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    >>> float(mean_cosine(crops, crops))
    0.0
    """
    first = F.normalize(first.float(), dim=-1)
    second = F.normalize(second.detach().float(), dim=-1)
    return mean_over_pairs(second, first, skip_same=True)


@torch.no_grad()
def spread(vectors):
    """How evenly vectors lie on the sphere: 0 if collapsed, 1 if evenly.

    Chen and He, 2021 (SimSiam, arXiv 2011.10566, section 4.1): the standard
    deviation of each component of the unit vectors, times the root of their
    size.

    Arguments
    ---------
    vectors : torch.Tensor
        ``[batch, crops, size]``.

    Returns
    -------
    torch.Tensor
        A scalar.

    Example
    -------
    >>> float(spread(torch.ones(4, 2, 3)))
    0.0
    """
    unit = F.normalize(vectors.flatten(0, 1).float(), dim=-1)
    return unit.std(0, correction=0).mean() * unit.shape[-1] ** 0.5
