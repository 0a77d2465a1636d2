"""Convert embeddings to unit rows, and reject bad ones by name."""

import numpy as np

from speechbrain_ssl.errors import EmbeddingError

# A row whose centred norm is at most this fraction of its norm equals the mean,
# up to rounding.
_ROUNDING = 1e-6


def as_array(values):
    """Convert an array, or a tensor on any device, to a float64 array."""
    if hasattr(values, "detach"):
        # numpy has no bfloat16.
        values = values.detach().cpu().double().numpy()
    return np.asarray(values, dtype=np.float64)


def unit_rows(embeddings, names=None, mean=None):
    """Centre rows and scale them to unit norm.

    For millions of rows there is ``speechbrain_ssl.clustering.rows.unit_rows``,
    which works on a device, piece by piece, in all processes of a run, and does
    not centre.

    Arguments
    ---------
    embeddings : numpy.ndarray or torch.Tensor
        ``[N, D]``.
    names : sequence of str, optional
        ``[N]``, for error messages, which otherwise give the row's number.
    mean : numpy.ndarray or torch.Tensor, optional
        ``[D]``, subtracted before normalisation.

    Returns
    -------
    numpy.ndarray
        float32 ``[N, D]``.

    Raises
    ------
    EmbeddingError
        If the embeddings are not a table, the mean does not fit, or a row is
        not finite, is zero, or equals the mean.

    Example
    -------
    >>> unit_rows([[3, 0], [0, 2]], mean=[1, 0])[0].tolist()
    [1.0, 0.0]
    """
    embeddings = as_array(embeddings)
    if embeddings.ndim != 2:
        raise EmbeddingError(
            "embeddings must be a table of one row per utterance; got shape "
            f"{embeddings.shape}"
        )
    refuse_rows(~np.isfinite(embeddings).all(axis=1), names, "is not finite")
    length = np.linalg.norm(embeddings, axis=1)
    refuse_rows(length == 0, names, "is zero (is the recording silent?)")
    if mean is not None:
        mean = as_array(mean).reshape(-1)
        if mean.shape != embeddings.shape[1:] or not np.isfinite(mean).all():
            raise EmbeddingError(
                f"the mean must be {embeddings.shape[1]} finite numbers; got "
                f"shape {mean.shape}, {int((~np.isfinite(mean)).sum())} of "
                "them not finite"
            )
        scale = length
        embeddings = embeddings - mean
        length = np.linalg.norm(embeddings, axis=1)
        refuse_rows(
            length <= _ROUNDING * scale,
            names,
            "equals the mean (has the encoder collapsed?)",
        )
    return (embeddings / length[:, None]).astype(np.float32)


def unit_or_zero(rows):
    """Scale rows to unit norm, and leave rows of zeros as they are.

    Arguments
    ---------
    rows : numpy.ndarray
        ``[..., D]``.

    Returns
    -------
    numpy.ndarray
        ``[..., D]``, of the same type.

    Example
    -------
    >>> unit_or_zero(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.6, 0.8], [0.0, 0.0]]
    """
    norms = np.linalg.norm(rows, axis=-1, keepdims=True)
    return rows / np.maximum(norms, 1e-12)


def refuse_rows(bad, names, why):
    """Raise for the first bad row, if any, and name its utterance.

    Arguments
    ---------
    bad : numpy.ndarray
        bool ``[N]``.
    names : sequence of str or None
        ``[N]``; if None, the message gives the row's number.
    why : str
        The reason, as the end of a sentence.

    Raises
    ------
    EmbeddingError
        If there is a bad row. The message names the first one, and how many
        there are.
    """
    if bad.any():
        first = int(np.argmax(bad))
        who = f"row {first}" if names is None else f"'{names[first]}'"
        raise EmbeddingError(
            f"the embedding of {who} {why}; {int(bad.sum())} of {len(bad)} "
            "utterances are affected"
        )
