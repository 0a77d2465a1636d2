"""From crops to features, embeddings and projections."""

import torch


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
    """Embed groups of crops; crops of equal length share a forward pass.

    Arguments
    ---------
    encoder : torch.nn.Module
        Maps ``[n, frames, features]`` to ``[n, 1, size]``.
    inputs : list of torch.Tensor
        One tensor for each length, ``[batch, crops, frames, features]``.

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
    """Embed crops and keep the frames that were pooled.

    Arguments
    ---------
    encoder : torch.nn.Module
        An encoder that has ``with_frames``.
    inputs : list of torch.Tensor
        A single tensor ``[batch, crops, frames, features]``: all crops are of
        one length.

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
    """Apply a head to embeddings ``[batch, crops, size]``."""
    projections = head(embeddings.flatten(0, 1))
    return projections.unflatten(0, embeddings.shape[:2])
