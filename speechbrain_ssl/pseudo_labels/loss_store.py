"""The losses and the corrected labels of an epoch, by utterance.

Both stores are buffers, so that a checkpoint takes them along, and become those
of all processes at the end of an epoch.
"""

import math

import torch
import torch.distributed as dist

from speechbrain_ssl import distributed
from speechbrain_ssl.checks import check_int


class LossStore(torch.nn.Module):
    """The loss of each utterance in this epoch and in the one before.

    Both are buffers, so that a checkpoint takes them along; NaN stands for an
    utterance not seen (``torch.equal`` is false of two such buffers).

    Arguments
    ---------
    size : int
        Number N of utterances in the manifest.

    Raises
    ------
    ConfigError
        If the size is below 1.

    Example
    -------
    >>> store = LossStore(3)
    >>> store.record(torch.tensor([2, 0]), torch.tensor([0.5, 4.0]))
    >>> store.finish_epoch().tolist()
    [4.0, nan, 0.5]
    >>> store.losses.tolist()
    [nan, nan, nan]
    """

    def __init__(self, size):
        super().__init__()
        check_int("a loss store", "size", size, least=1)
        for name in ("losses", "previous"):
            self.register_buffer(
                name, torch.full((size,), math.nan, dtype=torch.float32)
            )

    @torch.no_grad()
    def record(self, indices, losses):
        """Keep the losses of a batch; of a repeated utterance the last one.

        Arguments
        ---------
        indices : torch.Tensor
            int64 ``[n]``, positions in the manifest, from 0 to N - 1.
        losses : torch.Tensor
            ``[n]``, in nats.
        """
        device = self.losses.device
        self.losses[indices.to(device)] = losses.detach().float().to(device)

    @torch.no_grad()
    def synchronise(self):
        """Give all processes the losses of all; call it on all of them.

        It may be called any number of times in an epoch. A checkpoint that
        only the first process writes is to be preceded by it. An utterance
        that several processes have seen gets the mean.
        """
        if not distributed.is_distributed():
            return
        seen = ~self.losses.isnan()
        sums = torch.stack([self.losses.nan_to_num(nan=0.0), seen.float()])
        dist.all_reduce(sums)
        # Nobody's is 0 / 0, which is NaN.
        self.losses.copy_(sums[0] / sums[1])

    @torch.no_grad()
    def finish_epoch(self):
        """End the epoch: what was recorded becomes ``previous``.

        Returns
        -------
        torch.Tensor
            float32 ``[N]``, the same in all processes.
        """
        self.synchronise()
        self.previous.copy_(self.losses)
        self.losses.fill_(math.nan)
        return self.previous


class CorrectionStore(torch.nn.Module):
    """The corrected label of each utterance in this epoch.

    It is a buffer, so that a checkpoint takes it along; -1 stands for an
    utterance whose label was not corrected.

    Arguments
    ---------
    size : int
        Number N of utterances in the manifest.

    Example
    -------
    >>> from speechbrain_ssl.pseudo_labels.label_correction import Correction
    >>> store = CorrectionStore(3)
    >>> flags, labels = torch.tensor([True, False]), torch.tensor([7, 8])
    >>> store.record(torch.tensor([2, 0]), Correction(None, flags, labels, None))
    >>> store.finish_epoch().tolist()
    [-1, -1, 7]
    """

    def __init__(self, size):
        super().__init__()
        self.register_buffer("labels", torch.full((size,), -1))

    def record(self, indices, correction):
        """Keep the corrections of a batch.

        Arguments
        ---------
        indices : torch.Tensor
            int64 ``[n]``, positions in the manifest.
        correction : speechbrain_ssl.pseudo_labels.label_correction.Correction
            Of these samples.
        """
        accepted = correction.accepted
        self.labels[indices[accepted]] = correction.labels[accepted]

    def synchronise(self):
        """Give all processes the corrections of all."""
        if distributed.is_distributed():
            dist.all_reduce(self.labels, dist.ReduceOp.MAX)

    def finish_epoch(self):
        """End the epoch: return its corrections, and forget them.

        Returns
        -------
        torch.Tensor
            int64 ``[N]``, the same in all processes.
        """
        self.synchronise()
        labels = self.labels.clone()
        self.labels.fill_(-1)
        return labels
