"""From utterance indices to crops: what a loader worker does.

A worker opens each utterance once, reads the stretch its crops lie in, and cuts
them. All arithmetic on batches (noise, reverberation, features) waits for the
training device.
"""

import dataclasses

import numpy as np
import torch

from speechbrain_ssl.data.audio import AudioFile, fit_length
from speechbrain_ssl.data.draws import uniform
from speechbrain_ssl.errors import AudioError


@dataclasses.dataclass
class CropBatch:
    """A batch of samples, each with its crops.

    Attributes
    ----------
    crops : list of torch.Tensor
        One tensor for each group of the crop plan, float32
        ``[batch, crops, samples]``.
    index : torch.Tensor
        Position of each utterance in the manifest, int64 ``[batch]``.
    keys : numpy.ndarray
        Utterance keys, uint64 ``[batch]``, which address all further draws.
    epoch : int
        The epoch the batch belongs to.
    bad : list of tuple
        (path, reason) of utterances that could not be used; another utterance
        stands in their place.
    """

    crops: list
    index: torch.Tensor
    keys: np.ndarray
    epoch: int
    bad: list

    def to(self, device):
        """Moves the crops; called by the Brain, not by workers."""
        self.crops = [c.to(device, non_blocking=True) for c in self.crops]
        return self

    def pin_memory(self):
        """Called by the loader where pinning is asked for."""
        self.crops = [c.pin_memory() for c in self.crops]
        return self


class CropDataset(torch.utils.data.Dataset):
    """Crops of utterances, addressed by (epoch, index).

    Arguments
    ---------
    manifest : speechbrain_ssl.data.manifest.Manifest
        The utterances.
    plan : speechbrain_ssl.data.crops.CropPlan
        How crops are cut.
    seed : int
        Seed of all draws.

    Notes
    -----
    An utterance that cannot be used (unreadable, NaN) is replaced by another
    one, drawn at the address of the bad one, and reported in the batch. The
    Brain writes the table of such files and stops a run in which they are many.
    """

    #: How many replacements are tried before the worker gives up.
    max_replacements = 10

    def __init__(self, manifest, plan, seed):
        self.manifest = manifest
        self.plan = plan
        self.seed = seed

    def __len__(self):
        return len(self.manifest)

    def __getitem__(self, item):
        """Reads one sample.

        Arguments
        ---------
        item : tuple of int
            Epoch and position in the manifest.

        Returns
        -------
        tuple
            Epoch, position, list of crops per group, list of bad files.

        Raises
        ------
        AudioError
            If none of ``max_replacements`` utterances in a row can be read.
        """
        epoch, index = item
        bad = []
        for attempt in range(self.max_replacements):
            key = self.manifest.keys[index]
            try:
                return epoch, index, self._crops(index, epoch, key), bad
            except AudioError as error:
                bad.append((self.manifest.path(index), str(error)))
                draw = uniform(self.seed, epoch, key, "replace", attempt)
                index = int(draw * len(self.manifest))
        raise AudioError(
            f"{len(bad)} utterances in a row cannot be used, the last one: "
            f"{bad[-1][1]}. Check that the corpus is where the manifest says, "
            "or prepare it again with `--check=decode`, which sorts out bad "
            "files beforehand"
        )

    def _crops(self, index, epoch, key):
        address = (self.seed, epoch, key)
        plan = self.plan
        with AudioFile(self.manifest.path(index), plan.sample_rate) as audio:
            start, count = plan.chunk(
                audio.num_samples, float(uniform(*address, "chunk"))
            )
            wave = audio.read(start, count)
        longest = max(length for _, length in plan.groups)
        wave = fit_length(wave, max(len(wave), longest))
        return [
            np.stack([wave[s : s + length] for s in starts])
            for (_, length), starts in zip(
                plan.groups, plan.starts(len(wave), address), strict=True
            )
        ]

    def collate(self, samples):
        """Makes a ``CropBatch`` of what ``__getitem__`` returned."""
        epochs, index, crops, bad = zip(*samples, strict=True)
        index = np.array(index, dtype=np.int64)
        return CropBatch(
            crops=[
                torch.from_numpy(np.stack(group))
                for group in zip(*crops, strict=True)
            ],
            index=torch.from_numpy(index),
            keys=self.manifest.keys[index],
            epoch=epochs[0],
            bad=[entry for entries in bad for entry in entries],
        )
