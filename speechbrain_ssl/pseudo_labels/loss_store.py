"""The losses and the corrected labels of an epoch, by utterance.

Both stores keep them in buffers, so that checkpoints contain them, and combine
those of all processes at the end of an epoch.
"""

import math

import torch
import torch.distributed as dist

from speechbrain_ssl import distributed
from speechbrain_ssl.checks import check_int


class LossStore(torch.nn.Module):
    """Keep the loss of each utterance in this epoch and in the previous one.

    Both are buffers, so that checkpoints contain them. NaN marks an utterance
    that was not seen, so ``torch.equal`` is False even for identical buffers.

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
        """Store the losses of a batch; a repeated utterance keeps its last.

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
        """Share the losses among all processes; call it in all of them.

        It may be called any number of times in an epoch. Call it before rank 0
        writes a checkpoint. An utterance that several processes have seen gets
        its mean loss.
        """
        if not distributed.is_distributed():
            return
        seen = ~self.losses.isnan()
        sums = torch.stack([self.losses.nan_to_num(nan=0.0), seen.float()])
        dist.all_reduce(sums)
        # An utterance that no process has seen becomes 0 / 0, which is NaN.
        self.losses.copy_(sums[0] / sums[1])

    @torch.no_grad()
    def finish_epoch(self):
        """End the epoch: move the recorded losses to ``previous``.

        Returns
        -------
        torch.Tensor
            The losses, float32 ``[N]``, the same in all processes.
        """
        self.synchronise()
        self.previous.copy_(self.losses)
        self.losses.fill_(math.nan)
        return self.previous


class JointLossStore(torch.nn.ModuleDict):
    """Keep the losses of several modalities, as one ``LossStore`` does.

    Losses are dictionaries from modality to what ``LossStore`` has, with NaN
    where an utterance lacks the modality.

    Arguments
    ---------
    size : int
        Number N of utterances in the manifest.
    modalities : sequence of str
        Names of the modalities.

    Example
    -------
    >>> store = JointLossStore(2, ("audio", "face"))
    >>> losses = {"audio": torch.tensor([0.5]), "face": torch.tensor([4.0])}
    >>> store.record(torch.tensor([1]), losses)
    >>> store.finish_epoch()["face"].tolist()
    [nan, 4.0]
    """

    def __init__(self, size, modalities):
        super().__init__({m: LossStore(size) for m in modalities})

    @property
    def previous(self):
        """Losses of the previous epoch, ``[N]`` by modality."""
        return {m: store.previous for m, store in self.items()}

    def record(self, indices, losses):
        """Store the losses of a batch; see ``LossStore.record``."""
        for m, store in self.items():
            store.record(indices, losses[m])

    def synchronise(self):
        """Share the losses among all processes; call it in all of them."""
        for store in self.values():
            store.synchronise()

    def finish_epoch(self):
        """End the epoch; see ``LossStore.finish_epoch``."""
        return {m: store.finish_epoch() for m, store in self.items()}


class CorrectionStore(torch.nn.Module):
    """Keep the corrected label of each utterance in this epoch.

    The labels are a buffer, so that checkpoints contain them. -1 marks an
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
        """Store the accepted corrections of a batch.

        Arguments
        ---------
        indices : torch.Tensor
            int64 ``[n]``, positions in the manifest.
        correction : speechbrain_ssl.pseudo_labels.label_correction.Correction
            The corrections of these samples.
        """
        # Indexing by the mask would wait for the device.
        labels = torch.where(correction.accepted, correction.labels, -1)
        self.labels.scatter_reduce_(0, indices, labels, "amax")

    def synchronise(self):
        """Share the corrections among all processes; call it in all of them."""
        if distributed.is_distributed():
            dist.all_reduce(self.labels, dist.ReduceOp.MAX)

    def finish_epoch(self):
        """End the epoch: return its corrections and reset the store.

        Returns
        -------
        torch.Tensor
            The corrected labels, int64 ``[N]``, the same in all processes.
        """
        self.synchronise()
        labels = self.labels.clone()
        self.labels.fill_(-1)
        return labels
