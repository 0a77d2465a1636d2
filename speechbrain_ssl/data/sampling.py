"""Choose the utterances of each batch, and resume inside an epoch."""

import torch

from speechbrain_ssl.data.draws import permutation
from speechbrain_ssl.errors import ConfigError


class EpochBatchSampler(torch.utils.data.Sampler):
    """Yields batches of (epoch, index), in an order given by seed and epoch.

    All ranks use the same permutation. Global batch ``b`` holds its elements
    ``b * batch_size * world_size`` onwards, of which rank ``r`` takes the
    ``r``-th part: one process with batch 64 and two with 32 each see the same
    global batches.

    Arguments
    ---------
    num_samples : int
        Utterances in the manifest.
    batch_size : int
        Samples per batch and rank.
    seed : int
        Seed of the order.
    rank, world_size : int
        This process and how many there are.
    multiple : int
        The number of batches in an epoch is rounded down to a multiple of
        this (the gradient accumulation factor), so that no batch at the end
        of an epoch is lost before its optimiser step.
    sources : callable, optional
        Chooses the utterances that the crops of a sample are cut from:
        ``sources(epoch, index)`` -> positions in the manifest, int64
        ``[crops]``. The batches are then of (epoch, index, sources). They are
        chosen here, in the process that trains, since loader workers never
        learn of a clustering that was made after their start.

    Raises
    ------
    ConfigError
        If there are too few utterances for one optimiser step.

    Example
    -------
    >>> sampler = EpochBatchSampler(5, batch_size=2, seed=1)
    >>> sampler.set_epoch(1)
    >>> [len(batch) for batch in sampler]
    [2, 2]
    """

    def __init__(
        self,
        num_samples,
        batch_size,
        seed,
        rank=0,
        world_size=1,
        multiple=1,
        sources=None,
    ):
        self.num_samples = num_samples
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.sources = sources
        self.epoch = 1
        self.first_batch = 0
        batches = num_samples // (batch_size * world_size)
        self.batches = batches // multiple * multiple
        if self.batches == 0:
            raise ConfigError(
                f"{num_samples} utterances do not fill one step of "
                f"{batch_size} x {world_size} processes x {multiple} "
                "accumulated batches; lower `batch_size`"
            )

    def __len__(self):
        return self.batches

    def set_epoch(self, epoch):
        """Set the epoch; ``speechbrain.Brain`` calls it before each one."""
        self.epoch = epoch

    def seek(self, batch):
        """Start the next iteration at this batch of the epoch."""
        self.first_batch = batch

    def __iter__(self):
        order = permutation(self.num_samples, self.seed, self.epoch, "batches")
        size, ranks = self.batch_size, self.world_size
        # A resumed epoch continues where it stopped; the next starts at 0.
        first, self.first_batch = self.first_batch, 0
        for batch in range(first, self.batches):
            start = (batch * ranks + self.rank) * size
            yield [self._item(int(i)) for i in order[start : start + size]]

    def _item(self, index):
        """Return what the data set needs to know of a sample."""
        if self.sources is None:
            return self.epoch, index
        return self.epoch, index, self.sources(self.epoch, index)
