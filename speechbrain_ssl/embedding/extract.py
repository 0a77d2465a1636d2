"""Compute embeddings of whole audio files."""

import contextlib
import math

import numpy as np
import torch

from speechbrain_ssl.data.audio import AudioFile, fit_length
from speechbrain_ssl.errors import AudioError
from speechbrain_ssl.progress import open_bar
from speechbrain_ssl.shared_memory import share

#: A shorter file is repeated until it has this length, in seconds.
MIN_SECONDS = 0.5


class _Pieces(torch.utils.data.Dataset):
    """Read pieces of audio files in loader workers."""

    def __init__(self, paths, seconds, pieces, sample_rate, min_samples):
        self.paths = paths
        self.seconds = seconds
        self.pieces = pieces
        self.sample_rate = sample_rate
        self.min_samples = min_samples

    def __len__(self):
        return len(self.pieces)

    def __getitem__(self, number):
        i, part, parts = self.pieces[number]
        try:
            with AudioFile(
                self.paths[i], self.sample_rate, float(self.seconds[i])
            ) as audio:
                start = audio.num_samples * part // parts
                end = audio.num_samples * (part + 1) // parts
                wave = audio.read(start, end - start)
        except AudioError as error:
            # The caller decides whether an unreadable file is an error.
            return i, None, str(error)
        return i, fit_length(wave, max(len(wave), self.min_samples)), None


def _pad(samples):
    """Zero-pad a batch; return indices, waveforms, lengths and bad files."""
    bad = [(i, reason) for i, wave, reason in samples if wave is None]
    index = [i for i, wave, _ in samples if wave is not None]
    waves = [wave for _, wave, _ in samples if wave is not None]
    sizes = [len(w) for w in waves]
    batch = np.zeros((len(waves), max(sizes, default=0)), dtype=np.float32)
    for row, wave in zip(batch, waves, strict=True):
        row[: len(wave)] = wave
    return index, share(torch.from_numpy(batch)), torch.tensor(sizes), bad


def _batches(seconds, most_seconds):
    """Group indices into batches of similar length and bounded padded size."""
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
    most_seconds=None,
    bad=None,
    progress=True,
):
    """Embed whole audio files in length-sorted batches.

    An embedding does not depend on the other files in its batch, since the
    encoders exclude padding (see ``FastECAPA``). A file shorter than
    ``MIN_SECONDS`` is repeated until it has that length.

    With ``most_seconds``, a longer file is cut into equal pieces, and its
    embedding is the mean of the pieces' unit embeddings. An hour-long file then
    takes no more memory than a short one.

    Arguments
    ---------
    encoder : torch.nn.Module
        ``encoder(features, lengths)`` -> ``[batch, 1, size]``.
    features : speechbrain_ssl.encoders.features.LogMel
        The input features.
    paths : list of str
        Audio files.
    seconds : list of float, optional
        Durations of the files, for sorting; read from the headers if not given.
        A file of another length has changed and is not read.
    device : str
        Where to compute.
    batch_seconds : float
        Largest number of seconds of padded audio in a batch; a longer file
        forms a batch of its own.
    precision : torch.dtype, optional
        Type for autocast (``torch.bfloat16``); fp32 if not given.
    num_workers : int
        Number of loader processes.
    most_seconds : float, optional
        Length of the longest piece; files are not cut if not given.
    bad : list, optional
        Receives a tuple (index of the file, reason) for each file that cannot
        be read; the rows of those files are NaN.
    progress : bool or tqdm.tqdm or ProgressLines
        Whether to show a progress bar, or an existing bar to advance.

    Returns
    -------
    numpy.ndarray
        float32 ``[files, size]``.

    Raises
    ------
    AudioError
        If a file cannot be read and ``bad`` is not given, or if no file can be
        read.
    """
    rate = features.sample_rate
    if seconds is None:
        seconds = _durations(paths, rate)
    pieces, lengths = [], []
    for i, length in enumerate(seconds):
        parts = 1
        if most_seconds is not None:
            parts = max(1, math.ceil(float(length) / most_seconds))
        pieces += [(i, part, parts) for part in range(parts)]
        lengths += [float(length) / parts] * parts
    loader = torch.utils.data.DataLoader(
        _Pieces(paths, seconds, pieces, rate, round(MIN_SECONDS * rate)),
        batch_sampler=_batches(lengths, batch_seconds),
        collate_fn=_pad,
        num_workers=num_workers,
        # The loader must not draw from the global generator.
        generator=torch.Generator(),
    )
    counts = np.bincount([i for i, _, _ in pieces], minlength=len(paths))
    encoder = encoder.to(device).eval()
    features = features.to(device)
    result, unreadable = None, {}
    with progress_bar(progress, len(paths)) as bar:
        for index, waves, sizes, failed in loader:
            unreadable.update(failed)
            if failed and bad is None:
                raise AudioError(failed[0][1])
            if not index:
                continue
            waves, sizes = waves.to(device), sizes.to(device)
            inputs = features(waves, sizes)
            frames = features.num_frames(sizes) / inputs.shape[1]
            with torch.autocast(
                waves.device.type, precision, enabled=precision is not None
            ):
                output = encoder(inputs, frames)
            output = output.squeeze(1).float().cpu().numpy()
            if result is None:
                result = np.zeros((len(paths), output.shape[1]), np.float32)
            # Only files in several pieces are averaged over unit embeddings.
            several = counts[index] > 1
            length = np.linalg.norm(output[several], axis=1, keepdims=True)
            output[several] /= np.maximum(length, 1e-12)
            np.add.at(result, index, output / counts[index][:, None])
            bar.update(float((1 / counts[index]).sum()))
    if unreadable:
        bad += sorted(unreadable.items())
        if result is None:
            raise AudioError(
                f"none of {len(paths)} files can be read; the first one: "
                f"{bad[0][1]}"
            )
        result[sorted(unreadable)] = np.nan
    return result


def _durations(paths, rate):
    """Read durations from the headers; 0 for a file that cannot be read."""
    seconds = []
    for path in paths:
        try:
            with AudioFile(path, rate) as audio:
                seconds.append(audio.num_samples / rate)
        except AudioError:
            seconds.append(0.0)
    return seconds


def progress_bar(progress, total):
    """Open a new bar, or reuse the given one without closing it."""
    if not isinstance(progress, bool):
        return contextlib.nullcontext(progress)
    return open_bar(
        total=total,
        unit="utt",
        disable=not progress,
        leave=False,
        bar_format="{l_bar}{bar}| {n:.0f}/{total} [{elapsed}<{remaining}, "
        "{rate_fmt}]",
    )
