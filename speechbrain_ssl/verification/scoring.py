"""Cosine scores of trials."""

import numpy as np

from speechbrain_ssl.errors import UserError

# What centring may leave of a vector before only rounding is left.
_ROUNDING = 1e-6


class EmbeddingError(UserError):
    """Embeddings that cannot be scored, with the utterance at fault."""


def cosine_scores(embeddings, trials, mean=None, chunk=65536):
    """Cosine similarity of the two sides of every trial.

    Arguments
    ---------
    embeddings : numpy.ndarray or torch.Tensor
        ``[U, D]``; row ``i`` belongs to ``trials.names[i]``.
    trials : Trials
        The trials, ``T`` of them.
    mean : numpy.ndarray or torch.Tensor, optional
        ``[D]``, subtracted from every embedding before its length is
        normalised. Take it from training utterances, never from the trials'.
    chunk : int
        How many trials are gathered at a time; bounds the memory.

    Returns
    -------
    numpy.ndarray
        float32 ``[T]``, from -1 to 1 up to rounding.

    Raises
    ------
    EmbeddingError
        If the shapes do not fit, or an embedding is not finite, is zero, or
        equals the mean: such a one has no direction. The utterance is named.

    Example
    -------
    >>> from speechbrain_ssl.verification.trials import Trials
    >>> trials = Trials([1, 0], [0, 0], [1, 2], ["a/1", "a/2", "b/1"])
    >>> cosine_scores([[1, 0], [2, 0], [0, 3]], trials).tolist()
    [1.0, 0.0]
    """
    unit = _unit_rows(_as_array(embeddings), trials.names, mean)
    scores = np.empty(len(trials), dtype=np.float32)
    for begin in range(0, len(trials), chunk):
        part = slice(begin, begin + chunk)
        np.einsum(
            "td,td->t",
            unit[trials.left[part]],
            unit[trials.right[part]],
            out=scores[part],
        )
    return scores


def _as_array(values):
    """float64 array of what may be a tensor, on any device, of any type."""
    if hasattr(values, "detach"):
        # numpy has no bfloat16.
        values = values.detach().cpu().double().numpy()
    return np.asarray(values, dtype=np.float64)


def _unit_rows(embeddings, names, mean):
    """Centred rows of length one, float32 ``[U, D]``; refuses bad rows."""
    if embeddings.ndim != 2 or len(embeddings) != len(names):
        raise EmbeddingError(
            f"the trials name {len(names)} utterances, so the embeddings must "
            f"be a table of {len(names)} rows; got shape {embeddings.shape}"
        )
    _refuse(~np.isfinite(embeddings).all(axis=1), names, "is not finite")
    length = np.linalg.norm(embeddings, axis=1)
    _refuse(length == 0, names, "is zero (is the recording silent?)")
    if mean is not None:
        mean = _as_array(mean).reshape(-1)
        if mean.shape != embeddings.shape[1:] or not np.isfinite(mean).all():
            raise EmbeddingError(
                f"the mean must be {embeddings.shape[1]} finite numbers; got "
                f"shape {mean.shape}, {int((~np.isfinite(mean)).sum())} of "
                "them not finite"
            )
        scale = length
        embeddings = embeddings - mean
        length = np.linalg.norm(embeddings, axis=1)
        _refuse(
            length <= _ROUNDING * scale,
            names,
            "equals the mean (has the encoder collapsed?)",
        )
    return (embeddings / length[:, None]).astype(np.float32)


def _refuse(bad, names, why):
    """Raises for the first bad row, if there is one."""
    if bad.any():
        raise EmbeddingError(
            f"the embedding of '{names[int(np.argmax(bad))]}' {why}; "
            f"{int(bad.sum())} of {len(names)} utterances are like that"
        )
