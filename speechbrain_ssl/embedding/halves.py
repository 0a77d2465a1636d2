"""Embed both halves of utterances, whole and without augmentation.

The threshold without labels is made from them, see
``speechbrain_ssl.verification.label_free_threshold``.
"""

import numpy as np
import torch

from speechbrain_ssl.data.audio import AudioFile, fit_length
from speechbrain_ssl.embedding.extract import MIN_SECONDS

#: Of a longer half only the first 10 s are embedded.
MOST_SECONDS = 10.0


@torch.no_grad()
def embed_halves(encoder, features, manifest, device="cpu"):
    """Embed the first and the second half of each utterance.

    A recording that is verified is embedded whole. So are the halves here,
    since a score depends on the length of what is compared.

    Arguments
    ---------
    encoder : torch.nn.Module
        ``encoder(features)`` -> ``[batch, 1, size]``.
    features : speechbrain_ssl.encoders.features.LogMel
        The input features.
    manifest : speechbrain_ssl.data.manifest.Manifest
        The utterances.
    device : str
        Where to compute.

    Returns
    -------
    numpy.ndarray
        float32 ``[utterances, 2, size]``. A half shorter than ``MIN_SECONDS``
        is repeated until it has that length.

    Raises
    ------
    AudioError
        If an utterance cannot be read.
    """
    rate = features.sample_rate
    encoder, features = encoder.to(device).eval(), features.to(device)
    rows = []
    for index in range(len(manifest)):
        with AudioFile(
            manifest.path(index), rate, float(manifest.durations[index])
        ) as audio:
            half = audio.num_samples // 2
            length = min(half, round(MOST_SECONDS * rate))
            waves = [audio.read(start, length) for start in (0, half)]
        # A lossy file can end some samples before the length in its header.
        length = max(length, round(MIN_SECONDS * rate))
        waves = np.stack([fit_length(wave, length) for wave in waves])
        inputs = features(torch.from_numpy(waves).to(device))
        rows.append(encoder(inputs).squeeze(1).float().cpu().numpy())
    return np.stack(rows)
