"""Rows of embeddings: as arrays, of length one, and refused by name."""

import numpy as np

from speechbrain_ssl.errors import EmbeddingError

# What centring may leave of a vector before only rounding is left.
_ROUNDING = 1e-6


def as_array(values):
    """Convert an array or a tensor of any device and type to float64."""
    if hasattr(values, "detach"):
        # numpy has no bfloat16.
        values = values.detach().cpu().double().numpy()
    return np.asarray(values, dtype=np.float64)


def unit_rows(embeddings, names=None, mean=None):
    """Centre rows and scale them to length one.

    ``speechbrain_ssl.clustering.rows.unit_rows`` is for a million rows: it works
    on a device, piece by piece, in all processes of a run, and subtracts no mean.

    Arguments
    ---------
    embeddings : numpy.ndarray or torch.Tensor
        ``[N, D]``.
    names : sequence of str, optional
        ``[N]``, for messages; without them a row is called by its number.
    mean : numpy.ndarray or torch.Tensor, optional
        ``[D]``, subtracted first.

    Returns
    -------
    numpy.ndarray
        float32 ``[N, D]``.

    Raises
    ------
    EmbeddingError
        If this is no table, the mean does not fit, or a row is not finite, is
        zero, or equals the mean.

    Example
    -------
    >>> unit_rows([[3, 0], [0, 2]], mean=[1, 0])[0].tolist()
    [1.0, 0.0]
    """
    embeddings = as_array(embeddings)
    if embeddings.ndim != 2:
        raise EmbeddingError(
            "embeddings must be a table, a row for each utterance; got shape "
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


def refuse_rows(bad, names, why):
    """Raise for the first bad row, if there is one.

    Arguments
    ---------
    bad : numpy.ndarray
        bool ``[N]``.
    names : sequence of str or None
        ``[N]``; without them a row is called by its number.
    why : str
        The reason, as the end of a sentence.

    Raises
    ------
    EmbeddingError
        With the row, and how many there are.
    """
    if bad.any():
        first = int(np.argmax(bad))
        who = f"row {first}" if names is None else f"'{names[first]}'"
        raise EmbeddingError(
            f"the embedding of {who} {why}; {int(bad.sum())} of {len(bad)} "
            "utterances are like that"
        )
