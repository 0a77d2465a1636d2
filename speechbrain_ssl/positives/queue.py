"""The queue of positive vectors of SSPS.

Each of its slots holds the position of an utterance in the manifest and
what the target branch made of its global crops. New rows overwrite the oldest
ones, whatever utterance they belong to: the size need not be a multiple of the
batch.

What a slot must never do is stand for an utterance that is not in it: an
unfilled one has the number -1, which as an index would silently mean "the last
utterance". And where an utterance is in the queue twice (the end of one epoch
and the beginning of the next), its newest vector counts.
"""

import torch


class PositiveQueue(torch.nn.Module):
    """A first-in, first-out queue of vectors, one row an utterance.

    Everything is a buffer; nothing waits for the host.

    Arguments
    ---------
    size : int
        Slots.
    utterances : int
        Length of the manifest.
    crops : int
        Global crops of a sample.
    vector_size : int
        Size of the vector of a crop.

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
        # Where the next row goes: the oldest slot.
        self.register_buffer("place", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def push(self, ids, vectors):
        """Store rows, the last one as the newest.

        Arguments
        ---------
        ids : torch.Tensor
            Positions in the manifest, int64 ``[rows]``; -1 takes a slot and
            leaves it unfilled.
        vectors : torch.Tensor
            ``[rows, crops, vector size]``.
        """
        # Of more rows than slots only the newest can stay.
        ids, vectors = ids[-self.size :], vectors[-self.size :]
        step = torch.arange(len(ids), device=self.ids.device)
        slots = (self.place + step) % self.size
        self.ids[slots] = ids
        self.vectors[slots] = vectors.to(self.vectors.dtype)
        self.place.copy_((self.place + len(ids)) % self.size)

    @torch.no_grad()
    def sorted_by(self, groups):
        """Sort the utterances in the queue by a group each belongs to.

        Arguments
        ---------
        groups : torch.Tensor
            int64 ``[utterances]``; one with a negative group is left out.

        Returns
        -------
        keys : torch.Tensor
            int64 ``[size]``, ascending: group * utterances + position in the
            manifest, so that ``torch.searchsorted`` finds groups and
            utterances alike. The largest int64 stands behind them in the place
            of slots that do not count.
        slots : torch.Tensor
            int64 ``[size]``, the slot of each.
        """
        nothing = torch.iinfo(torch.int64).max
        step = torch.arange(self.size, device=self.ids.device)
        # Oldest first.
        slots = (self.place + step) % self.size
        ids = self.ids[slots]
        group = torch.where(ids < 0, -1, groups[ids.clamp(min=0)])
        keys = torch.where(group < 0, nothing, group * self.utterances + ids)
        # A stable sort leaves the newest of equals last.
        keys, order = torch.sort(keys, stable=True)
        slots = slots[order]
        older = torch.zeros_like(keys, dtype=torch.bool)
        older[:-1] = keys[:-1] == keys[1:]
        keys, order = torch.sort(torch.where(older, nothing, keys), stable=True)
        return keys, slots[order]
