"""Batches and files of synthetic voices, for Brains with pseudo-positives."""

import numpy as np
import soundfile
import torch

from speechbrain_ssl.data.manifest import Manifest, StringColumn

RATE = 16000


class Referenced(torch.utils.data.Dataset):
    """Batches of noise that name their utterances and have reference crops.

    Arguments
    ---------
    batches : torch.utils.data.Dataset
        ``CropBatch`` objects, all of one size.
    """

    def __init__(self, batches):
        self.batches = batches
        self.size = len(batches[0].index)
        generator = torch.Generator().manual_seed(8)
        shape = (len(batches), self.size, 4800)
        self.references = 0.1 * torch.randn(shape, generator=generator)

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, number):
        batch = self.batches[number]
        batch.index = number * self.size + torch.arange(self.size)
        batch.keys = batch.index.numpy().astype(np.uint64)
        batch.reference = self.references[number].clone()
        return batch


class Rest:
    """Yields the numbers of the batches that a sampler resumes with."""

    def __init__(self, sampler):
        self.sampler = sampler

    def __len__(self):
        return len(self.sampler)

    def __iter__(self):
        first, self.sampler.first_batch = self.sampler.first_batch, 0
        return iter(range(first, len(self.sampler)))


def write_voices(folder, utterances, hum, voices=4, seconds=0.7):
    """Write files of noise, each with the hum of one voice; return a manifest.

    Features that keep the mean of the utterance tell loud hums apart with any
    encoder; without a hum no encoder can tell any voices apart.
    """
    rng = np.random.default_rng(4)
    time = np.arange(round(seconds * RATE)) / RATE
    paths = []
    for i in range(utterances):
        pitch = 400 * 2.2 ** (i % voices)
        wave = hum * np.sin(2 * np.pi * pitch * time + rng.uniform(0, 6))
        wave += rng.normal(0, 0.01, len(time))
        paths.append(str(folder / f"{i}.wav"))
        soundfile.write(paths[-1], wave, RATE)
    names = StringColumn.from_strings([f"u{i}" for i in range(utterances)])
    column = StringColumn.from_strings(paths)
    return Manifest(names, column, [seconds] * utterances)
