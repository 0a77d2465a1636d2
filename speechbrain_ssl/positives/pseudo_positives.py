"""Draw SSPS's pseudo-positives: first a cluster, then a member of it."""

import dataclasses

import numpy as np
import torch

from speechbrain_ssl.upload import upload


@dataclasses.dataclass
class PseudoPositives:
    """Hold the pseudo-positives drawn for the samples of a batch.

    Attributes
    ----------
    utterances : torch.Tensor
        Position of the pseudo-positive in the manifest, int64 ``[batch]``; -1
        for a sample without one.
    slots : torch.Tensor
        Its slot in the queue, int64 ``[batch]``; -1 likewise.
    clusters : torch.Tensor
        The cluster it was drawn from, int64 ``[batch]``; -1 likewise.
    """

    utterances: torch.Tensor
    slots: torch.Tensor
    clusters: torch.Tensor


def draw_neighbours(clusters, near, draws):
    """Draw one of each cluster's nearest clusters, with equal probability.

    Arguments
    ---------
    clusters : torch.Tensor
        int64 ``[batch]``; -1 for none.
    near : torch.Tensor
        The nearest clusters of each cluster, int64 ``[K, neighbours]``.
    draws : numpy.ndarray
        float64 ``[batch]``, uniform in [0, 1).

    Returns
    -------
    torch.Tensor
        int64 ``[batch]``; -1 where there is none.

    Example
    -------
    >>> near = torch.tensor([[1, 2], [2, 0], [0, 1]])
    >>> draws = np.array([0.1, 0.9, 0.5])
    >>> draw_neighbours(torch.tensor([0, 0, -1]), near, draws).tolist()
    [1, 2, -1]
    """
    count = near.shape[1]
    # Upper ends of the equal parts of [0, 1] that belong to the neighbours.
    ends = np.arange(1, count + 1) / count
    which = np.searchsorted(ends, draws, side="right")
    which = upload(which, near.device)
    drawn = near[clusters.clamp(min=0), which]
    return torch.where(clusters < 0, -1, drawn)


def draw_members(queue, assignments, clusters, index, draws):
    """Draw, for each sample, another utterance of a cluster from the queue.

    Arguments
    ---------
    queue : speechbrain_ssl.positives.queue.PositiveQueue
        The queue, which holds the candidates.
    assignments : torch.Tensor
        The cluster of each utterance, int64 ``[utterances]``; -1 for none.
    clusters : torch.Tensor
        The cluster to draw from for each sample, int64 ``[batch]``; -1 for
        none.
    index : torch.Tensor
        The samples' own positions in the manifest, int64 ``[batch]``.
    draws : torch.Tensor
        float64 ``[batch]``, uniform in [0, 1).

    Returns
    -------
    PseudoPositives
        One per sample, or none (-1) if the cluster has no other member in the
        queue.
    """
    keys, slots = queue.sorted_by(assignments)
    # Cluster -1 and clusters past the last one match no key.
    first = clusters * queue.utterances
    begin = torch.searchsorted(keys, first)
    end = torch.searchsorted(keys, first + queue.utterances)
    own = torch.searchsorted(keys, first + index)
    last = len(keys) - 1
    own_there = keys[own.clamp(max=last)] == first + index
    count = end - begin - own_there.long()
    chosen = begin + (draws * count).long()
    # Skip the sample's own position.
    chosen += (own_there & (chosen >= own)).long()
    there = (clusters >= 0) & (count > 0)
    slots = torch.where(there, slots[chosen.clamp(max=last)], -1)
    ids = queue.ids[slots.clamp(min=0)]
    return PseudoPositives(
        torch.where(there, ids, -1), slots, torch.where(there, clusters, -1)
    )


@torch.no_grad()
def expected_coverage(queue, assignments, near=None):
    """Compute the mean probability that an utterance has a pseudo-positive.

    The queue changes during an epoch, but stays a random part of the training
    set, so at the start of an epoch this predicts its coverage.

    Arguments
    ---------
    queue : speechbrain_ssl.positives.queue.PositiveQueue
        The queue.
    assignments : torch.Tensor
        The cluster of each utterance, int64 ``[utterances]``; -1 for none.
    near : torch.Tensor, optional
        The clusters that each cluster draws from, int64 ``[K, neighbours]``;
        -1 for none. By default a cluster draws from itself, but an utterance
        never itself.

    Returns
    -------
    float

    Example
    -------
    >>> from speechbrain_ssl.positives.queue import PositiveQueue
    >>> queue = PositiveQueue(size=2, utterances=4, crops=1, vector_size=1)
    >>> queue.push(torch.tensor([0, 1]), torch.zeros(2, 1, 1))
    >>> expected_coverage(queue, torch.tensor([0, 1, 1, -1]))
    0.25
    """
    known = assignments >= 0
    queued = torch.zeros_like(known)
    queued[queue.ids[queue.ids >= 0]] = True
    count = int(assignments.max()) + 1 if near is None else len(near)
    members = torch.bincount(assignments[queued & known], minlength=count)
    clusters = assignments[known]
    if near is None:
        found = (members[clusters] > queued[known]).float()
    else:
        near = near[clusters]
        found = ((near >= 0) & (members[near] > 0)).float().mean(1)
    return float(found.sum()) / len(assignments)


def put_vectors(target, queue, drawn):
    """Replace the samples' projections with those of their pseudo-positives.

    Embeddings are not replaced: an objective that compares embeddings too uses
    those of the sample.

    Arguments
    ---------
    target : speechbrain_ssl.objectives.base.Branch
        The target branch, which is not modified.
    queue : speechbrain_ssl.positives.queue.PositiveQueue
        The queue that the pseudo-positives were drawn from.
    drawn : PseudoPositives
        The pseudo-positives of the branch's samples.

    Returns
    -------
    speechbrain_ssl.objectives.base.Branch
        A copy with new ``projections``; replaced rows have no gradient.
    """
    vectors = target.projections
    new = queue.vectors[drawn.slots.clamp(min=0)].to(vectors.dtype)
    replaced = (drawn.slots >= 0)[:, None, None]
    return dataclasses.replace(
        target, projections=torch.where(replaced, new, vectors)
    )
