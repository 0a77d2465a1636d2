"""Find recordings in which more than one voice is likely.

Short probes of a recording are embedded and divided into two groups. If one
person speaks throughout, the groups are alike. The threshold was chosen on
joined utterances of known speakers, see results/long_recordings.
"""

import numpy as np
import torch

from speechbrain_ssl.data.audio import AudioFile
from speechbrain_ssl.data.silence import frame_energies, speech_level
from speechbrain_ssl.embedding.crops import CropGrid
from speechbrain_ssl.embedding.extract import progress_bar
from speechbrain_ssl.embedding.rows import unit_rows
from speechbrain_ssl.errors import AudioError

#: The probes of a recording. They do not overlap, so a recording must be as
#: long as all of them together.
PROBES = CropGrid(12, 5.0)
LEAST_SECONDS = PROBES.count * PROBES.seconds

#: Below this cosine of the two groups more than one voice is likely.
SAME_VOICE = 0.6

# A probe counts from this share of speech on (one second).
_LEAST_SPEECH = 0.2

# Probes with speech that the cosine needs, and those in the smaller group: a
# single odd probe, such as a cough, must not count as a voice.
_LEAST_PROBES = 6
_LEAST_IN_GROUP = 2


def _read_probes(path, seconds, sample_rate):
    """Read the probes with speech of a recording, ``[probes, samples]``."""
    length = round(PROBES.seconds * sample_rate)
    try:
        with AudioFile(path, sample_rate, float(seconds)) as audio:
            starts = PROBES.starts(audio.num_samples, sample_rate)
            probes = [audio.read(int(s), length) for s in starts]
    except AudioError:
        return torch.zeros(0, length)
    # A lossy file may end before the length in its header.
    probes = np.stack([p for p in probes if len(p) == length])
    energies = np.stack([frame_energies(p, sample_rate) for p in probes])
    speech = energies > speech_level(energies.ravel())
    return torch.from_numpy(probes[speech.mean(axis=1) > _LEAST_SPEECH])


@torch.no_grad()
def voice_agreement(
    encoder, features, paths, seconds, device="cpu", progress=True
):
    """Compute how alike the two most different groups of probes are.

    Arguments
    ---------
    encoder : torch.nn.Module
        ``encoder(features, lengths)`` -> ``[batch, 1, size]``.
    features : speechbrain_ssl.encoders.features.LogMel
        The input features.
    paths : list of str
        Recordings.
    seconds : list of float
        Their durations.
    device : str
        Where to compute.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    numpy.ndarray
        The cosines of ``group_cosine``, float64 ``[recordings]``; NaN for a
        recording that is shorter than ``LEAST_SECONDS``, has speech in fewer
        than six probes, or cannot be read.
    """
    found = np.full(len(paths), np.nan)
    seconds = np.asarray(seconds)
    chosen = np.flatnonzero(seconds >= LEAST_SECONDS)
    encoder = encoder.to(device).eval()
    features = features.to(device)
    with progress_bar(progress and len(chosen) > 0, len(chosen)) as bar:
        for i in chosen:
            waves = _read_probes(paths[i], seconds[i], features.sample_rate)
            if len(waves) >= _LEAST_PROBES:
                output = encoder(features(waves.to(device)))
                found[i] = group_cosine(unit_rows(output.squeeze(1)))
            bar.update(1)
    return found


def group_cosine(rows):
    """Divide embeddings into two groups, and compare the groups' means.

    The embeddings are ordered along their first principal component, and cut
    where the lengths of the two sums are the greatest together, which is the
    criterion of spherical k-means.

    Arguments
    ---------
    rows : numpy.ndarray
        Unit embeddings, ``[N, size]``, at least four.

    Returns
    -------
    float
        The cosine of the means of the two groups, each of at least two
        embeddings.

    Example
    -------
    >>> group_cosine(np.array([[1, 0], [0, 1], [1, 0], [0, 1], [1, 0.0]]))
    0.0
    >>> round(group_cosine(np.array([[1, 0], [1, 0], [1, 0], [0, 1.0]])), 4)
    0.7071
    """
    rows = np.asarray(rows, dtype=np.float64)
    direction = np.linalg.svd(rows - rows.mean(0), full_matrices=False)[2][0]
    order = np.argsort(rows @ direction, kind="stable")
    left = np.cumsum(rows[order], axis=0)
    right = left[-1] - left
    cuts = slice(_LEAST_IN_GROUP - 1, len(rows) - _LEAST_IN_GROUP)
    left, right = left[cuts], right[cuts]
    lengths = np.linalg.norm(left, axis=1), np.linalg.norm(right, axis=1)
    best = int(np.argmax(lengths[0] + lengths[1]))
    product = lengths[0][best] * lengths[1][best]
    return float(left[best] @ right[best] / product)
