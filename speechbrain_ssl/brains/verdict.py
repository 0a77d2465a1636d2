"""Tell whether a stage of training has made a model better, without labels."""

import logging

import numpy as np
import torch

from speechbrain_ssl.brains.encoding import crop_features, encode
from speechbrain_ssl.data.halves import HalvesDataset
from speechbrain_ssl.data.loaders import VALID_BATCH
from speechbrain_ssl.publishing.export import load_encoder
from speechbrain_ssl.verification.label_free_comparison import (
    compare_label_free,
)

logger = logging.getLogger(__name__)

# The bootstrap over utterances needs so many.
_LEAST = 4


def compare_exported(
    start, trained, manifest, trained_on, hparams, augmentation, device
):
    """Compare two exported models on the held-out part of a manifest.

    The part is that of self-supervised training on the same manifest, but for
    utterances that the stage was trained on: a stage holds out of those that
    have labels, and fewer where they are few.

    Arguments
    ---------
    start, trained : str
        Folders of the model before and after the stage.
    manifest : speechbrain_ssl.data.manifest.Manifest
        The training set.
    trained_on : numpy.ndarray
        Keys of the utterances that the stage was trained on, uint64.
    hparams : dict
        ``valid_utterances``, ``valid_seconds`` and ``seed`` are read.
    augmentation : speechbrain_ssl.data.augmentation.Augmentation
        Makes the halves of an utterance differ; loaded, on the device.
    device : str
        Where to compute.

    Returns
    -------
    dict
        See ``compare_label_free``; empty if there are fewer than four
        utterances.

    Raises
    ------
    ManifestError, AudioError
        If there are too few usable utterances.
    """
    models = [load_encoder(model, device) for model in (start, trained)]
    options = {
        "seconds": hparams["valid_seconds"],
        "sample_rate": models[0][1].sample_rate,
    }
    _, held_out = manifest.hold_out(
        hparams["valid_utterances"],
        2 * hparams["valid_seconds"],
        HalvesDataset(manifest, **options).usable,
    )
    held_out = held_out.select(
        np.flatnonzero(~np.isin(held_out.keys, trained_on))
    )
    if len(held_out) < _LEAST:
        logger.warning(
            "%d held-out utterances are too few to say whether training helped",
            len(held_out),
        )
        return {}
    crops = HalvesDataset(held_out, **options)
    # The stretches of the noises, too, are the same in every round.
    augmentation.begin_epoch(1)
    found = [[], []]
    for first in range(0, len(crops), VALID_BATCH):
        last = min(first + VALID_BATCH, len(crops))
        batch = crops.collate([crops[i] for i in range(first, last)])
        noisy = augmentation(
            batch.to(device).crops[0],
            (hparams["seed"], batch.epoch, batch.keys),
        )
        for rows, model in zip(found, models, strict=True):
            rows.append(_embed(*model, noisy))
    return compare_label_free(*(np.concatenate(rows) for rows in found))


@torch.no_grad()
def _embed(encoder, features, crops):
    """Embed crops ``[batch, crops, samples]``: ``[batch, crops, size]``."""
    rows = encode(encoder, [crop_features(features, crops)])
    return rows.float().cpu().numpy()
