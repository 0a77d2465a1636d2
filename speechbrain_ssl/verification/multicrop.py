"""Score utterances by several crops and by their whole length.

    score = (mean over all pairs of crops of their cosines
             + cosine of the whole utterances) / 2

with 15 crops of 4 s, as Miara, Lepage and Dehak (*Towards supervised performance
on speaker verification with self-supervised learning by leveraging large-scale
ASR models*, 2024, arXiv 2406.02285) evaluate; the equal weight of both parts is
from their code. A mean of products is the product of the means, so that the
crops of an utterance become one row, and pairs of crops need not be computed.
"""

import numpy as np

from speechbrain_ssl.embedding.rows import unit_rows
from speechbrain_ssl.errors import EmbeddingError


def multicrop_rows(whole, crops, names=None):
    """Compute rows whose inner product is the multi-crop score.

    Arguments
    ---------
    whole : numpy.ndarray
        ``[U, D]``, embeddings of whole utterances.
    crops : numpy.ndarray
        ``[U, D]``, from ``speechbrain_ssl.embedding.crops.embed_crops``.
    names : sequence of str, optional
        ``[U]``, for messages.

    Returns
    -------
    numpy.ndarray
        float32 ``[U, 2 * D]``, for
        ``speechbrain_ssl.verification.scoring.product_scores``.

    Raises
    ------
    EmbeddingError
        If the shapes differ, or as ``unit_rows``.

    Example
    -------
    >>> rows = multicrop_rows(np.array([[2.0, 0.0]]), np.array([[0.6, 0.0]]))
    >>> round(float(rows[0] @ rows[0]), 4)
    0.68
    """
    if np.shape(whole) != np.shape(crops):
        raise EmbeddingError(
            "whole utterances and crops must have embeddings of one shape; "
            f"got {np.shape(whole)} and {np.shape(crops)}"
        )
    rows = np.concatenate([unit_rows(whole, names), crops], axis=1)
    return (rows * np.sqrt(0.5)).astype(np.float32)
