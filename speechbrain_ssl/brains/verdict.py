"""Tell whether a stage of training has made a model better, without labels."""

import logging

import numpy as np
import torch

from speechbrain_ssl.brains.encoding import crop_features, encode
from speechbrain_ssl.data.halves import HalvesDataset
from speechbrain_ssl.data.loaders import VALID_BATCH
from speechbrain_ssl.data.manifest import rows_of
from speechbrain_ssl.embedding.rows import unit_or_zero
from speechbrain_ssl.errors import ImageError
from speechbrain_ssl.publishing.export import load_encoder
from speechbrain_ssl.verification.label_free_comparison import (
    BETTER,
    UNCLEAR,
    WORSE,
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
    found = embed_exported(
        start, trained, manifest, trained_on, hparams, augmentation, device
    )
    return {} if found is None else compare_label_free(*found[1])


def embed_exported(
    start, trained, manifest, trained_on, hparams, augmentation, device
):
    """Embed the held-out part of a manifest with two exported models.

    Arguments and errors are those of ``compare_exported``.

    Returns
    -------
    tuple
        The manifest of the held-out part, and the embeddings by both models,
        see ``embed_held_out``; None if there are fewer than four utterances.
    """
    models = [load_encoder(model, device) for model in (start, trained)]
    halves = _held_out_halves(
        manifest, trained_on, hparams, models[0][1].sample_rate
    )
    if halves is None:
        return None
    rows = embed_held_out(models, halves, augmentation, hparams["seed"], device)
    return halves.manifest, rows


def compare_modalities(rows, faces, seen):
    """Compare two pairs of encoders, by voice, by face and by both.

    Arguments
    ---------
    rows, faces : tuple of numpy.ndarray
        Embeddings before and after, ``[utterances, crops, size]``, of the voices
        of all held-out utterances, and of the faces of those that have one.
    seen : numpy.ndarray
        Which of all have a face, bool ``[utterances]``.

    Returns
    -------
    dict
        What ``compare_label_free`` finds by voice; and under ``by`` all that it
        finds by ``"voice"``, ``"face"`` and ``"both"``, the embeddings side by
        side. ``verdict`` is ``"worse"`` if one of the three is, else
        ``"better"`` if one of them is.
    """
    both = (
        np.concatenate([unit_or_zero(v[seen]), unit_or_zero(f)], axis=-1)
        for v, f in zip(rows, faces, strict=True)
    )
    by = {
        "voice": compare_label_free(*rows),
        "face": compare_label_free(*faces),
        "both": compare_label_free(*both),
    }
    verdicts = {one["verdict"] for one in by.values()}
    verdict = next(v for v in (WORSE, BETTER, UNCLEAR) if v in verdicts)
    return {**by["voice"], "by": by, "verdict": verdict}


def _held_out_halves(manifest, trained_on, hparams, sample_rate):
    """Return the halves of the utterances that a verdict is based on.

    Arguments
    ---------
    manifest, trained_on, hparams
        As in ``compare_exported``.
    sample_rate : int
        Hz.

    Returns
    -------
    speechbrain_ssl.data.halves.HalvesDataset
        None if there are too few utterances.
    """
    options = {
        "seconds": hparams["valid_seconds"],
        "sample_rate": sample_rate,
    }
    _, held_out = manifest.hold_out(
        hparams["valid_utterances"],
        2 * hparams["valid_seconds"],
        HalvesDataset(manifest, **options).usable,
    )
    held_out = held_out.select(
        np.flatnonzero(~np.isin(held_out.keys, trained_on))
    )
    if not enough(len(held_out), "utterances"):
        return None
    return HalvesDataset(held_out, **options)


def enough(count, what):
    """Return whether so many are enough for a verdict; the log says if not."""
    if count < _LEAST:
        logger.warning(
            "%d held-out %s are too few to say whether training helped",
            count,
            what,
        )
    return count >= _LEAST


def with_face(halves, part):
    """Return which utterances of a part have a face that can be compared.

    However many have none, this is no error: training allows that as well.

    Arguments
    ---------
    halves : speechbrain_ssl.data.face_dataset.FaceHalves
        The pictures of all utterances.
    part : speechbrain_ssl.data.manifest.Manifest
        Some of them.

    Returns
    -------
    numpy.ndarray
        Their positions in ``halves``, int64, in the order of ``part``.
    """
    found = []
    for i in rows_of(part, halves.manifest):
        if not halves.faces.has_face[i]:
            continue
        try:
            halves[i]
        except ImageError as error:
            logger.warning("Not used for validation: %s", error)
        else:
            found.append(i)
    return np.array(found, dtype=np.int64)


@torch.no_grad()
def embed_held_out(models, halves, augmentation, seed, device, places=None):
    """Embed the augmented crops, or pictures, of held-out utterances.

    Arguments
    ---------
    models : list of tuple
        Encoder and features of each model, on the device.
    halves : speechbrain_ssl.data.halves.HalvesDataset
        The utterances; ``FaceHalves`` for pictures.
    augmentation : callable
        As in ``compare_exported``.
    seed : int
        Seed of its draws.
    device : str
        Where to compute.
    places : numpy.ndarray, optional
        Positions of the utterances that are embedded; all by default.

    Returns
    -------
    list of numpy.ndarray
        For each model float32 ``[utterances, crops, size]``, of the same crops.
    """
    if places is None:
        places = np.arange(len(halves))
    # The stretches of the noises, too, are the same in every round.
    augmentation.begin_epoch(1)
    found = [[] for _ in models]
    for first in range(0, len(places), VALID_BATCH):
        chosen = places[first : first + VALID_BATCH]
        batch = halves.collate([halves[int(i)] for i in chosen])
        crops = augmentation(
            batch.to(device).crops[0], (seed, batch.epoch, batch.keys)
        )
        for rows, (encoder, features) in zip(found, models, strict=True):
            embedded = encode(encoder, [crop_features(features, crops)])
            rows.append(embedded.float().cpu().numpy())
    return [np.concatenate(rows) for rows in found]
