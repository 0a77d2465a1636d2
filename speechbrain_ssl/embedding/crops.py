"""Compute embeddings of several crops of a file, evenly spread over it."""

import numpy as np
import torch

from speechbrain_ssl.checks import check_int, check_number
from speechbrain_ssl.data.audio import AudioFile, fit_length
from speechbrain_ssl.data.pcm16 import pack, unpack
from speechbrain_ssl.embedding.extract import MOST_SECONDS, progress_bar
from speechbrain_ssl.embedding.rows import unit_rows
from speechbrain_ssl.interruption import init_loader_worker
from speechbrain_ssl.shared_memory import share


class CropGrid:
    """Place crops of equal length evenly, from the first sample to the last.

    Arguments
    ---------
    count : int
        Number of crops per utterance.
    seconds : float
        Length of a crop. An utterance that is not longer has a single crop; a
        shorter utterance is repeated from its beginning to fill it.

    Raises
    ------
    ConfigError
        If ``count`` is below 1 or ``seconds`` below 0.1.

    Example
    -------
    >>> CropGrid(3, 1.0).starts(32000, 16000).tolist()
    [0, 8000, 16000]
    >>> CropGrid(3, 1.0).starts(8000, 16000).tolist()
    [0]
    """

    def __init__(self, count=15, seconds=4.0):
        check_int("CropGrid", "count", count, 1)
        check_number("CropGrid", "seconds", seconds, least=0.1)
        self.count = count
        self.seconds = seconds

    def __repr__(self):
        return f"CropGrid(count={self.count}, seconds={self.seconds})"

    def starts(self, num_samples, sample_rate):
        """Return each crop's first sample, int64 ``[count]`` or ``[1]``."""
        room = num_samples - round(self.seconds * sample_rate)
        if room <= 0:
            return np.zeros(1, dtype=np.int64)
        return np.linspace(0, room, self.count).astype(np.int64)


class _Crops(torch.utils.data.Dataset):
    """Read all crops of an utterance in loader workers."""

    def __init__(self, paths, grid, sample_rate):
        self.paths = paths
        self.grid = grid
        self.sample_rate = sample_rate

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, i):
        rate = self.sample_rate
        length = round(self.grid.seconds * rate)
        with AudioFile(self.paths[i], rate) as audio:
            if audio.num_samples <= MOST_SECONDS * rate:
                # Crops may overlap: decode each sample once.
                wave = audio.read()
                wave = fit_length(wave, max(length, len(wave)))
                starts = self.grid.starts(len(wave), rate)
                crops = [wave[s : s + length] for s in starts]
            else:
                starts = self.grid.starts(audio.num_samples, rate)
                crops = [
                    fit_length(audio.read(int(s), length), length)
                    for s in starts
                ]
        return np.full(len(crops), i), np.stack(crops)


def _join(samples):
    """Concatenate the crops of several utterances, and their indices."""
    index, crops = zip(*samples, strict=True)
    return np.concatenate(index), share(pack(np.concatenate(crops)))


@torch.no_grad()
def embed_crops(
    encoder,
    features,
    paths,
    grid,
    device="cpu",
    batch_seconds=200.0,
    precision=None,
    num_workers=0,
    progress=True,
):
    """Compute the mean unit embedding of each file's crops.

    Arguments
    ---------
    encoder : torch.nn.Module
        ``encoder(features, lengths)`` -> ``[batch, 1, size]``.
    features : speechbrain_ssl.encoders.features.LogMel
        The input features.
    paths : list of str
        Audio files.
    grid : CropGrid
        The positions of the crops.
    device : str
        Where to compute.
    batch_seconds : float
        Largest number of seconds of audio in a batch; the crops of one file are
        always in the same batch.
    precision : torch.dtype, optional
        Type for autocast; fp32 if not given.
    num_workers : int
        Number of loader processes.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    numpy.ndarray
        float32 ``[files, size]``. The rows do not have unit norm: the more the
        crops of a file differ, the smaller is the norm of its row.

    Raises
    ------
    AudioError
        If a file cannot be read.
    EmbeddingError
        If an embedding is zero or not finite.
    """
    rate = features.sample_rate
    loader = torch.utils.data.DataLoader(
        _Crops(paths, grid, rate),
        batch_size=max(1, int(batch_seconds / (grid.count * grid.seconds))),
        collate_fn=_join,
        num_workers=num_workers,
        pin_memory=torch.device(device).type == "cuda",
        # The loader must not draw from the global generator.
        generator=torch.Generator(),
        worker_init_fn=init_loader_worker,
    )
    encoder = encoder.to(device).eval()
    features = features.to(device)
    result, counts = None, np.zeros(len(paths))
    with progress_bar(progress, len(paths)) as bar:
        for index, waves in loader:
            inputs = features(unpack(waves.to(device, non_blocking=True)))
            with torch.autocast(
                inputs.device.type, precision, enabled=precision is not None
            ):
                output = encoder(inputs, torch.ones(len(inputs), device=device))
            names = [paths[i] for i in index]
            output = unit_rows(output.squeeze(1), names)
            if result is None:
                result = np.zeros((len(paths), output.shape[1]), np.float32)
            np.add.at(result, index, output)
            np.add.at(counts, index, 1)
            bar.update(len(np.unique(index)))
    return (result / counts[:, None]).astype(np.float32)
