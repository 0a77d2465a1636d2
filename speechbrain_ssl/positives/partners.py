"""SSPS's draw of a partner for each sample: a cluster, then a member of it."""

import dataclasses

import numpy as np
import torch


@dataclasses.dataclass
class Partners:
    """The partners that SSPS has drawn for the samples of a batch.

    Attributes
    ----------
    utterances : torch.Tensor
        Position of the partner in the manifest, int64 ``[batch]``; -1 where
        there is none.
    slots : torch.Tensor
        Its slot in the queue, int64 ``[batch]``; -1 likewise.
    clusters : torch.Tensor
        The drawn cluster, int64 ``[batch]``; -1 where there is none.
    """

    utterances: torch.Tensor
    slots: torch.Tensor
    clusters: torch.Tensor


def draw_neighbours(clusters, near, draws):
    """Draw one of the nearest clusters of each cluster; all are as likely.

    Arguments
    ---------
    clusters : torch.Tensor
        int64 ``[batch]``; -1 for none.
    near : torch.Tensor
        The nearest clusters of each, int64 ``[K, neighbours]``.
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
    # Upper ends of the parts of [0, 1] that the neighbours have.
    ends = np.arange(1, count + 1) / count
    which = np.searchsorted(ends, draws, side="right")
    which = torch.from_numpy(which).to(near.device)
    drawn = near[clusters.clamp(min=0), which]
    return torch.where(clusters < 0, -1, drawn)


def draw_members(queue, assignments, clusters, index, draws):
    """Draw an utterance of each cluster that is in the queue, not one's own.

    Arguments
    ---------
    queue : speechbrain_ssl.positives.queue.PositiveQueue
        The candidates.
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
    Partners
        One for each sample, or none where the cluster has no other member in
        the queue.
    """
    keys, slots = queue.sorted_by(assignments)
    # Of a cluster -1 no key is to be found, nor of one behind the last.
    first = clusters * queue.utterances
    begin = torch.searchsorted(keys, first)
    end = torch.searchsorted(keys, first + queue.utterances)
    own = torch.searchsorted(keys, first + index)
    last = len(keys) - 1
    own_there = keys[own.clamp(max=last)] == first + index
    count = end - begin - own_there.long()
    chosen = begin + (draws * count).long()
    # The sample's own place is stepped over.
    chosen += (own_there & (chosen >= own)).long()
    there = (clusters >= 0) & (count > 0)
    slots = torch.where(there, slots[chosen.clamp(max=last)], -1)
    ids = queue.ids[slots.clamp(min=0)]
    return Partners(
        torch.where(there, ids, -1), slots, torch.where(there, clusters, -1)
    )


def put_vectors(target, queue, partners):
    """Put the vectors of partners in the place of those of the samples.

    Embeddings stay: an objective that compares those as well compares those of
    the sample.

    Arguments
    ---------
    target : speechbrain_ssl.objectives.base.Branch
        Not changed.
    queue : speechbrain_ssl.positives.queue.PositiveQueue
        Which the partners were drawn from.
    partners : Partners
        Of the same samples.

    Returns
    -------
    speechbrain_ssl.objectives.base.Branch
        With other ``vectors``; those that are replaced have no gradient.
    """
    vectors = target.projections
    new = queue.vectors[partners.slots.clamp(min=0)].to(vectors.dtype)
    replaced = (partners.slots >= 0)[:, None, None]
    return dataclasses.replace(
        target, projections=torch.where(replaced, new, vectors)
    )
