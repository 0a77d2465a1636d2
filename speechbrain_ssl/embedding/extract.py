"""Compute embeddings of audio files, or of their windows.

Memory is bounded whatever the length of a file: no more than one batch is held
at a time, and a file that is longer than a window is never read at once.
"""

import contextlib
import math
from typing import NamedTuple

import numpy as np
import torch

from speechbrain_ssl.checks import check_number
from speechbrain_ssl.data.audio import AudioFile, fit_length
from speechbrain_ssl.data.pcm16 import pack, unpack
from speechbrain_ssl.data.silence import (
    frame_energies,
    speech_level,
    trim_silence,
)
from speechbrain_ssl.errors import AudioError
from speechbrain_ssl.interruption import init_loader_worker
from speechbrain_ssl.progress import open_bar
from speechbrain_ssl.shared_memory import share

#: A shorter window is repeated until it has this length, in seconds.
MIN_SECONDS = 0.5

#: A longer file is embedded in windows, in seconds (a default of ours). For a
#: window of this length ECAPA-TDNN with 1024 channels takes about 0.6 GB in
#: fp32, see results/long_recordings.
MOST_SECONDS = 60.0


class Windows(NamedTuple):
    """Embeddings of windows, ordered by file and time.

    Attributes
    ----------
    files : numpy.ndarray
        Index of the file that a window belongs to, int64 ``[W]``.
    starts, ends : numpy.ndarray
        Where a window begins and ends in its file, in seconds, float64
        ``[W]``.
    embeddings : numpy.ndarray
        float32 ``[W, size]``.
    """

    files: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    embeddings: np.ndarray

    def select(self, keep):
        """Return the windows of some of the files, which are renumbered.

        Arguments
        ---------
        keep : numpy.ndarray
            Whether a file is kept, bool ``[files]``.

        Returns
        -------
        Windows
        """
        chosen = Windows(*(column[keep[self.files]] for column in self))
        return chosen._replace(files=np.cumsum(keep)[chosen.files] - 1)


class _Reader(torch.utils.data.Dataset):
    """Read windows of audio files in loader workers.

    A file remains open until its last window has been read, since a codec that
    cannot seek is then decoded once, and not from the start for each window.

    Arguments
    ---------
    paths : list of str
        Audio files.
    seconds : list of float
        Their durations. A file of another length is not read, and so never a
        window that is longer than intended.
    windows : list of tuple
        File, number of the window, and number of windows of that file.
    sample_rate : int
        Hz.
    trim : bool
        Whether to trim silence.
    """

    def __init__(self, paths, seconds, windows, sample_rate, trim):
        self.paths = paths
        self.seconds = seconds
        self.windows = windows
        self.sample_rate = sample_rate
        self.trim = trim
        self._file = self._audio = self._level = None

    def __len__(self):
        return len(self.windows)

    def __getitem__(self, number):
        """Return number, waveform or None, (start, end) and reason or None."""
        i, part, parts = self.windows[number]
        try:
            if self._file != i:
                self._open(i, parts)
            audio = self._audio
            start = audio.num_samples * part // parts
            end = audio.num_samples * (part + 1) // parts
            wave = audio.read(start, end - start)
        except AudioError as error:
            self._close()
            # The caller decides whether an unreadable file is an error.
            return number, None, None, str(error)
        if self.trim:
            wave = trim_silence(wave, self.sample_rate, level=self._level)
        if part == parts - 1:
            self._close()
        if len(wave) > 0:
            least = round(MIN_SECONDS * self.sample_rate)
            wave = fit_length(wave, max(len(wave), least))
        return number, wave, (start, end), None

    def _open(self, i, parts):
        self._close()
        self._audio = AudioFile(
            self.paths[i], self.sample_rate, float(self.seconds[i])
        )
        self._file = i
        if self.trim and parts > 1:
            # A window of nothing but background noise is silent beside the
            # others, not in itself.
            self._level = self._speech_level(parts)

    def _close(self):
        if self._audio is not None:
            self._audio.__exit__()
        self._file = self._audio = self._level = None

    def _speech_level(self, parts):
        """Compute the level of speech of the whole file, window by window."""
        total, energies = self._audio.num_samples, []
        for part in range(parts):
            start, end = total * part // parts, total * (part + 1) // parts
            wave = self._audio.read(start, end - start)
            energies.append(frame_energies(wave, self.sample_rate))
        return speech_level(np.concatenate(energies))


def _pad(samples):
    """Zero-pad a batch; return numbers, waveforms, sizes, times, bad windows."""
    bad = [(number, reason) for number, _, _, reason in samples if reason]
    # A window of which nothing is left has no speech.
    good = [s for s in samples if s[1] is not None and len(s[1])]
    numbers = [number for number, _, _, _ in good]
    sizes = [len(wave) for _, wave, _, _ in good]
    batch = np.zeros((len(good), max(sizes, default=0)), dtype=np.float32)
    for row, (_, wave, _, _) in zip(batch, good, strict=True):
        row[: len(wave)] = wave
    times = [times for _, _, times, _ in good]
    return (
        numbers,
        share(pack(batch)),
        torch.tensor(sizes),
        times,
        bad,
    )


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
def embed_windows(
    encoder,
    features,
    paths,
    window_seconds,
    seconds=None,
    device="cpu",
    batch_seconds=200.0,
    precision=None,
    num_workers=0,
    trim=False,
    bad=None,
    progress=True,
    multiple=1,
):
    """Embed windows of audio files in length-sorted batches.

    A file is divided into as few windows of equal length as its length allows,
    so that the last one is not shorter than the others. An embedding does not
    depend on the other windows in its batch, since the encoders exclude padding
    (see ``FastECAPA``). A window shorter than ``MIN_SECONDS`` is repeated until
    it has that length.

    Arguments
    ---------
    encoder : torch.nn.Module
        ``encoder(features, lengths)`` -> ``[batch, 1, size]``.
    features : speechbrain_ssl.encoders.features.LogMel
        The input features.
    paths : list of str
        Audio files.
    window_seconds : float
        Length of the longest window.
    seconds : list of float, optional
        Durations of the files; read from the headers if not given. A file of
        another length has changed and is not read.
    device : str
        Where to compute.
    batch_seconds : float
        Largest number of seconds of padded audio in a batch; a longer window
        forms a batch of its own.
    precision : torch.dtype, optional
        Type for autocast (``torch.bfloat16``); fp32 if not given.
    num_workers : int
        Number of loader processes.
    trim : bool
        Whether to trim silence from every window before it is embedded, see
        ``speechbrain_ssl.data.silence``. Windows without speech are left out.
    bad : list, optional
        Receives a tuple (index of the file, reason) for each file of which some
        window cannot be read; such a file has no windows in the result.
    progress : bool or tqdm.tqdm or ProgressLines
        Whether to show a progress bar, or an existing bar to advance.
    multiple : int
        The number of windows of every file is a multiple of this one.

    Returns
    -------
    Windows

    Raises
    ------
    ConfigError
        If the windows are too short.
    AudioError
        If a file cannot be read and ``bad`` is not given, or if no file can be
        read.
    """
    check_number(
        "embedding",
        "length of a window",
        window_seconds,
        least=MIN_SECONDS,
        remedy="set embed_most_seconds in the configuration",
    )
    rate = features.sample_rate
    if seconds is None:
        seconds = _durations(paths, rate)
    windows, lengths = [], []
    for i, length in enumerate(seconds):
        least = math.ceil(float(length) / (multiple * window_seconds))
        parts = multiple * max(1, least)
        windows += [(i, part, parts) for part in range(parts)]
        lengths += [float(length) / parts] * parts
    loader = torch.utils.data.DataLoader(
        _Reader(paths, seconds, windows, rate, trim),
        batch_sampler=_batches(lengths, batch_seconds),
        collate_fn=_pad,
        num_workers=num_workers,
        pin_memory=torch.device(device).type == "cuda",
        # The loader must not draw from the global generator.
        generator=torch.Generator(),
        worker_init_fn=init_loader_worker,
    )
    files = np.array([i for i, _, _ in windows], dtype=np.int64)
    shares = np.array([1 / parts for _, _, parts in windows])
    times = np.full((len(windows), 2), np.nan)
    encoder = encoder.to(device).eval()
    features = features.to(device)
    rows, unreadable = None, {}
    with progress_bar(progress, len(paths)) as bar:
        for numbers, waves, sizes, found, failed in loader:
            if failed and bad is None:
                raise AudioError(failed[0][1])
            for number, reason in failed:
                unreadable.setdefault(int(files[number]), reason)
            if not numbers:
                continue
            output = _embed(encoder, features, waves, sizes, device, precision)
            if rows is None:
                rows = np.zeros((len(windows), output.shape[1]), np.float32)
            rows[numbers], times[numbers] = output, np.array(found) / rate
            bar.update(float(shares[numbers].sum()))
    heard = np.isfinite(times[:, 0])
    for i in np.setdiff1d(files, files[heard]).tolist():
        # The silence of all its windows has been trimmed.
        unreadable.setdefault(i, f"{paths[i]} holds no speech")
    failed = sorted(unreadable.items())
    if failed and bad is None:
        raise AudioError(failed[0][1])
    if failed:
        bad += failed
    if rows is None:
        raise AudioError(
            f"none of {len(paths)} files can be read; the first one: "
            f"{failed[0][1]}"
        )
    kept = heard & ~np.isin(files, sorted(unreadable))
    return Windows(files[kept], *times[kept].T, rows[kept])


def embed_files(
    encoder,
    features,
    paths,
    seconds=None,
    most_seconds=MOST_SECONDS,
    bad=None,
    **options,
):
    """Embed audio files.

    A file that is longer than ``most_seconds`` is divided into windows, see
    ``embed_windows``, and its embedding is the mean of their unit embeddings.

    Arguments
    ---------
    encoder, features, paths, seconds, **options
        As in ``embed_windows``.
    most_seconds : float
        Length of the longest file that is embedded whole, and of the longest
        window of the others.
    bad : list, optional
        As in ``embed_windows``; the rows of those files are NaN.

    Returns
    -------
    numpy.ndarray
        float32 ``[files, size]``.

    Raises
    ------
    ConfigError, AudioError
        As in ``embed_windows``.
    """
    found = embed_windows(
        encoder, features, paths, most_seconds, seconds, bad=bad, **options
    )
    return mean_windows(found, len(paths))


def mean_windows(windows, count):
    """Average the unit embeddings of each file's windows.

    Arguments
    ---------
    windows : Windows
        The windows.
    count : int
        Number of files.

    Returns
    -------
    numpy.ndarray
        float32 ``[count, size]``. The row of a file with a single window is the
        embedding of that window, of any norm; that of a file without a window
        is NaN.

    Example
    -------
    >>> found = Windows(
    ...     np.array([0, 0, 1]),
    ...     np.array([0.0, 5.0, 0.0]),
    ...     np.array([5.0, 10.0, 3.0]),
    ...     np.array([[2.0, 0.0], [0.0, 4.0], [3.0, 0.0]], np.float32),
    ... )
    >>> mean_windows(found, 2).tolist()
    [[0.5, 0.5], [3.0, 0.0]]
    """
    counts = np.bincount(windows.files, minlength=count)
    rows = windows.embeddings.copy()
    several = counts[windows.files] > 1
    norms = np.linalg.norm(rows[several], axis=1, keepdims=True)
    rows[several] /= np.maximum(norms, 1e-12)
    result = np.zeros((count, rows.shape[1]), np.float32)
    np.add.at(result, windows.files, rows)
    result[counts == 0] = np.nan
    return result / np.maximum(counts, 1)[:, None].astype(np.float32)


def _embed(encoder, features, waves, sizes, device, precision):
    """Embed a padded batch, float32 ``[batch, size]``."""
    waves = unpack(waves.to(device, non_blocking=True))
    sizes = sizes.to(device, non_blocking=True)
    inputs = features(waves, sizes)
    frames = features.num_frames(sizes) / inputs.shape[1]
    with torch.autocast(
        waves.device.type, precision, enabled=precision is not None
    ):
        output = encoder(inputs, frames)
    return output.squeeze(1).float().cpu().numpy()


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
