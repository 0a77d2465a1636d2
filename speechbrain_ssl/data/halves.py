"""Crops of held-out utterances for label-free validation."""

import numpy as np
import torch

from speechbrain_ssl.data.audio import AudioFile, fit_length
from speechbrain_ssl.data.dataset import CropBatch
from speechbrain_ssl.data.draws import uniform


class HalvesDataset(torch.utils.data.Dataset):
    """Several crops from the first and as many from the second half.

    The crops are the same in every epoch, so that epochs are comparable.

    Arguments
    ---------
    manifest : speechbrain_ssl.data.manifest.Manifest
        Held-out utterances.
    seconds : float
        Length of a crop.
    crops_per_half : int
        Crops drawn from each half.
    seed : int
        Seed of the draws.
    sample_rate : int
        Hz.
    """

    #: Validation draws belong to no epoch of training.
    EPOCH = 0

    def __init__(
        self, manifest, seconds=2.0, crops_per_half=2, seed=0, sample_rate=16000
    ):
        self.manifest = manifest
        self.samples = round(seconds * sample_rate)
        self.crops_per_half = crops_per_half
        self.seed = seed
        self.sample_rate = sample_rate

    def __len__(self):
        return len(self.manifest)

    def __getitem__(self, index):
        """Returns position and crops ``[2 * crops_per_half, samples]``.

        Raises
        ------
        AudioError
            If the utterance cannot be read: validation on other data than
            yesterday's would not be comparable.
        """
        with AudioFile(self.manifest.path(index), self.sample_rate) as audio:
            wave = audio.read()
        middle = max(1, len(wave) // 2)
        draws = uniform(
            self.seed,
            self.manifest.keys[index],
            "halves",
            size=2 * self.crops_per_half,
        )
        crops = []
        for number, draw in enumerate(draws):
            first = number < self.crops_per_half
            half = wave[:middle] if first else wave[middle:]
            half = fit_length(half, max(len(half), self.samples))
            start = int(draw * (len(half) - self.samples + 1))
            crops.append(half[start : start + self.samples])
        return index, np.stack(crops)

    def collate(self, samples):
        """Makes a ``CropBatch`` with one group of crops."""
        index, crops = zip(*samples, strict=True)
        index = np.array(index, dtype=np.int64)
        return CropBatch(
            crops=[torch.from_numpy(np.stack(crops))],
            index=torch.from_numpy(index),
            keys=self.manifest.keys[index],
            epoch=self.EPOCH,
            bad=[],
        )
