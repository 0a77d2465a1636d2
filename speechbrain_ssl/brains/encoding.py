"""Turn crops into features, embeddings and projections.

Each function flattens ``[batch, crops, ...]``, calls a module on all crops at
once, and restores the two axes. The Brains use these functions for the online
and the target branch alike.
"""

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
