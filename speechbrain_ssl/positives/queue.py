"""SSPS's queue of positive projections.

Each slot holds the position of an utterance in the manifest and the target
branch's projections of its global crops. New rows overwrite the oldest ones,
whatever utterance these belong to; the size need not be a multiple of the
batch.

An unfilled slot has the position -1. It must never be used as an index, where
it would silently mean "the last utterance". If an utterance is in the queue
twice (from the end of one epoch and the beginning of the next), its newest
projections are used.
"""

import torch


class PositiveQueue(torch.nn.Module):
    """Keep recent projections in a first-in, first-out queue.

    All state is in buffers, and no operation synchronises with the host.

    Arguments
    ---------
    size : int
        Number of slots.
    utterances : int
        Length of the manifest.
    crops : int
        Number of global crops per sample.
    vector_size : int
        Size of a crop's projection.

    Example
    -------
    >>> queue = PositiveQueue(size=3, utterances=10, crops=1, vector_size=2)
    >>> queue.push(torch.tensor([4, 7]), torch.ones(2, 1, 2))
    >>> queue.ids.tolist()
    [4, 7, -1]
    >>> queue.push(torch.tensor([5, 4]), torch.zeros(2, 1, 2))
    >>> queue.ids.tolist()
    [4, 7, 5]
    """

    def __init__(self, size, utterances, crops, vector_size):
        super().__init__()
        self.size = size
        self.utterances = utterances
        self.register_buffer("ids", torch.full((size,), -1))
        self.register_buffer("vectors", torch.zeros(size, crops, vector_size))
        # Slot of the next row, which is the oldest one.
        self.register_buffer("place", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def push(self, ids, vectors):
        """Store rows; the last row is the newest.

        Arguments
        ---------
        ids : torch.Tensor
            Positions in the manifest, int64 ``[rows]``; -1 occupies a slot but
            marks it unfilled.
        vectors : torch.Tensor
            ``[rows, crops, vector size]``.
        """
        # If there are more rows than slots, only the newest fit.
        ids, vectors = ids[-self.size :], vectors[-self.size :]
        step = torch.arange(len(ids), device=self.ids.device)
        slots = (self.place + step) % self.size
        self.ids[slots] = ids
        self.vectors[slots] = vectors.to(self.vectors.dtype)
        self.place.copy_((self.place + len(ids)) % self.size)

    @torch.no_grad()
    def sorted_by(self, groups):
        """Sort the utterances in the queue by the group each belongs to.

        Arguments
        ---------
        groups : torch.Tensor
            int64 ``[utterances]``; an utterance with a negative group is left
            out.

        Returns
        -------
        keys : torch.Tensor
            int64 ``[size]``, ascending: group * utterances + position in the
            manifest, so that ``torch.searchsorted`` finds both groups and
            utterances. Slots that are left out have the largest int64, and
            come last.
        slots : torch.Tensor
            int64 ``[size]``, the slot of each key.
        """
        nothing = torch.iinfo(torch.int64).max
        step = torch.arange(self.size, device=self.ids.device)
        # Oldest first.
        slots = (self.place + step) % self.size
        ids = self.ids[slots]
        group = torch.where(ids < 0, -1, groups[ids.clamp(min=0)])
        keys = torch.where(group < 0, nothing, group * self.utterances + ids)
        # A stable sort puts the newest of several equal keys last.
        keys, order = torch.sort(keys, stable=True)
        slots = slots[order]
        older = torch.zeros_like(keys, dtype=torch.bool)
        older[:-1] = keys[:-1] == keys[1:]
        keys, order = torch.sort(torch.where(older, nothing, keys), stable=True)
        return keys, slots[order]
