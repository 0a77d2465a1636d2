"""Turn crops into features, embeddings and projections.

Each function flattens ``[batch, crops, ...]``, calls a module on all crops at
once, and restores the two axes. The Brains use these functions for the online
and the target branch alike.
"""

import logging

import torch

from speechbrain_ssl import distributed
from speechbrain_ssl.errors import ConfigError

logger = logging.getLogger(__name__)

#: With fewer crops in a forward pass, batch norms are mostly noise (ours).
FEW_ROWS = 8


def compile_encoder(brain):
    """Compile the encoder of a Brain in place (``--compile``).

    Stock SpeechBrain replaces a module by a compiled wrapper, whose prefix
    would end up in the names of exported weights.

    Arguments
    ---------
    brain : speechbrain.Brain
        The Brain, with its run options.

    Raises
    ------
    ConfigError
        If ``--jit`` is set.
    """
    if brain.jit:
        raise ConfigError(
            "--jit: SpeechBrain's ECAPA_TDNN cannot be scripted; take --compile"
        )
    if brain.compile:
        brain.encoder.compile(mode=brain.compile_mode)


def check_rows(encoder, crops, batch_size, synchronised=True):
    """Reject batches with too few crops for batch norms of whole crops.

    Such norms, behind the pooling or the embedding, have one value for each
    crop. In training one crop would be normalised to nothing, and two to plus
    and minus one.

    Arguments
    ---------
    encoder : torch.nn.Module
        An encoder; others than those of this library are not checked.
    crops : speechbrain_ssl.data.crops.CropPlan
        The crops of a sample. Those of one length share a forward pass.
    batch_size : int
        Utterances per process and batch.
    synchronised : bool
        Whether the batch norms see the batch of all processes.

    Raises
    ------
    ConfigError
        If a forward pass has a single crop.
    """
    if not getattr(encoder, "needs_two_rows", False):
        return
    fewest = min(number for number, _ in crops.groups)
    rows = batch_size * fewest
    if synchronised:
        rows *= distributed.world_size()
    remedy = "raise `batch_size` (accumulated batches do not count)"
    if rows < 2:
        raise ConfigError(
            "the encoder's batch norm behind pooling or embedding cannot be "
            f"trained on a batch of one crop: {remedy}"
        )
    if rows < FEW_ROWS:
        logger.warning(
            "the encoder's batch norm behind pooling or embedding is trained "
            "on %d crops at a time, too few for their mean and variance to "
            "mean much: %s",
            rows,
            remedy,
        )


def crop_features(features, crops):
    """Compute the features of crops.

    Arguments
    ---------
    features : torch.nn.Module
        Maps waveforms ``[n, samples]`` to ``[n, frames, features]``.
    crops : torch.Tensor
        ``[batch, crops, samples]``.

    Returns
    -------
    torch.Tensor
        ``[batch, crops, frames, features]``.
    """
    return features(crops.flatten(0, 1)).unflatten(0, crops.shape[:2])


def encode(encoder, inputs):
    """Compute embeddings of groups of crops, with one forward pass per length.

    Arguments
    ---------
    encoder : torch.nn.Module
        Maps ``[n, frames, features]`` to ``[n, 1, size]``.
    inputs : list of torch.Tensor
        Features ``[batch, crops, frames, features]``, one tensor for each crop
        length.

    Returns
    -------
    torch.Tensor
        Embeddings ``[batch, crops of all groups, size]``.
    """
    return torch.cat(
        [
            encoder(x.flatten(0, 1)).squeeze(1).unflatten(0, x.shape[:2])
            for x in inputs
        ],
        dim=1,
    )


def encode_with_frames(encoder, inputs):
    """Compute embeddings together with the frames they were pooled from.

    Arguments
    ---------
    encoder : torch.nn.Module
        An encoder with a method ``with_frames``.
    inputs : list of torch.Tensor
        A single tensor ``[batch, crops, frames, features]``: all crops must
        have the same length.

    Returns
    -------
    tuple of torch.Tensor
        Embeddings ``[batch, crops, size]`` and frames
        ``[batch, crops, time, channels]``.
    """
    (x,) = inputs
    embeddings, frames = encoder.with_frames(x.flatten(0, 1))
    return (
        embeddings.squeeze(1).unflatten(0, x.shape[:2]),
        frames.unflatten(0, x.shape[:2]),
    )


def project(head, embeddings):
    """Project embeddings ``[batch, crops, size]`` with a head."""
    projections = head(embeddings.flatten(0, 1))
    return projections.unflatten(0, embeddings.shape[:2])
