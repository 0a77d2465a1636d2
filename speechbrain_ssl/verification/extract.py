"""Embeddings of whole utterances."""

import numpy as np
import torch
from tqdm import tqdm

from speechbrain_ssl.data.audio import AudioFile, fit_length


class _Utterances(torch.utils.data.Dataset):
    """Whole utterances, for loader workers."""

    def __init__(self, paths, sample_rate, min_samples):
        self.paths = paths
        self.sample_rate = sample_rate
        self.min_samples = min_samples

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, i):
        with AudioFile(self.paths[i], self.sample_rate) as audio:
            wave = audio.read()
        return i, fit_length(wave, max(len(wave), self.min_samples))


def _pad(samples):
    """Zero-pads a batch; returns indices, waveforms and lengths."""
    index, waves = zip(*samples, strict=True)
    sizes = [len(w) for w in waves]
    batch = np.zeros((len(waves), max(sizes)), dtype=np.float32)
    for row, wave in zip(batch, waves, strict=True):
        row[: len(wave)] = wave
    return list(index), torch.from_numpy(batch), torch.tensor(sizes)


def _batches(seconds, most_seconds):
    """Indices in batches of similar length, bounded by padded seconds."""
    batches, current = [], []
    for i in np.argsort(-np.asarray(seconds), kind="stable"):
        longest = seconds[current[0]] if current else seconds[i]
        if current and longest * (len(current) + 1) > most_seconds:
            batches.append(current)
            current = []
        current.append(int(i))
    return batches + ([current] if current else [])


@torch.no_grad()
def embed_files(
    encoder,
    features,
    paths,
    seconds=None,
    device="cpu",
    batch_seconds=200.0,
    precision=None,
    num_workers=0,
    min_seconds=0.5,
    progress=True,
):
    """Embeds whole audio files in length-sorted batches.

    An embedding does not depend on the batch it was made in: ``FastECAPA``
    reflects each utterance at its own end (see there).

    Arguments
    ---------
    encoder : torch.nn.Module
        ``encoder(features, lengths)`` -> ``[batch, 1, size]``.
    features : speechbrain_ssl.encoders.features.LogMel
        The input features.
    paths : list of str
        Audio files.
    seconds : list of float, optional
        Their durations, for sorting; read from the headers if not given.
    device : str
        Where to compute.
    batch_seconds : float
        Most seconds of padded audio in a batch; a longer file is a batch of
        its own.
    precision : torch.dtype, optional
        Autocast to this type (``torch.bfloat16``); fp32 if not given.
    num_workers : int
        Loader processes.
    min_seconds : float
        A shorter file is repeated up to this length.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    numpy.ndarray
        float32 ``[files, size]``.

    Raises
    ------
    AudioError
        If a file cannot be read.
    """
    rate = features.sample_rate
    if seconds is None:
        seconds = []
        for path in paths:
            with AudioFile(path, rate) as audio:
                seconds.append(audio.num_samples / rate)
    dataset = _Utterances(paths, rate, round(min_seconds * rate))
    loader = torch.utils.data.DataLoader(
        dataset,
        batch_sampler=_batches(seconds, batch_seconds),
        collate_fn=_pad,
        num_workers=num_workers,
    )
    encoder = encoder.to(device).eval()
    features = features.to(device)
    result = None
    bar = tqdm(
        total=len(paths),
        unit="utt",
        disable=None if progress else True,
        leave=False,
    )
    with bar:
        for index, waves, sizes in loader:
            waves, sizes = waves.to(device), sizes.to(device)
            inputs = features(waves, sizes)
            lengths = features.num_frames(sizes) / inputs.shape[1]
            with torch.autocast(
                waves.device.type, precision, enabled=precision is not None
            ):
                output = encoder(inputs, lengths)
            output = output.squeeze(1).float().cpu().numpy()
            if result is None:
                result = np.zeros((len(paths), output.shape[1]), np.float32)
            result[index] = output
            bar.update(len(index))
    return result
