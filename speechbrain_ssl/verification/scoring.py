"""Cosine scores of trials, as products of rows of length one."""

import numpy as np

from speechbrain_ssl.errors import EmbeddingError

# A centred vector shorter than this share of the original is rounding.
_ROUNDING = 1e-6


def cosine_scores(embeddings, trials, mean=None, chunk=65536):
    """Compute the cosine similarity of the two sides of every trial.

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
        Number of trials that are gathered at a time; bounds the memory.

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
    embeddings = as_array(embeddings)
    check_table(embeddings, trials.names)
    return product_scores(
        unit_rows(embeddings, trials.names, mean), trials, chunk
    )


def product_scores(rows, trials, chunk=65536):
    """Compute the inner product of the two sides of every trial.

    Arguments
    ---------
    rows : numpy.ndarray
        ``[U, D]``; row ``i`` belongs to ``trials.names[i]``.
    trials : Trials
        The trials, ``T`` of them.
    chunk : int
        Number of trials that are gathered at a time; bounds the memory.

    Returns
    -------
    numpy.ndarray
        ``[T]``, of the type of ``rows``.

    Example
    -------
    >>> from speechbrain_ssl.verification.trials import Trials
    >>> trials = Trials([1], [0], [1], ["a/1", "a/2"])
    >>> product_scores(np.array([[1.0, 2.0], [3.0, 1.0]]), trials).tolist()
    [5.0]
    """
    scores = np.empty(len(trials), dtype=rows.dtype)
    for begin in range(0, len(trials), chunk):
        part = slice(begin, begin + chunk)
        np.einsum(
            "td,td->t",
            rows[trials.left[part]],
            rows[trials.right[part]],
            out=scores[part],
        )
    return scores


def as_array(values):
    """Convert an array or a tensor of any device and type to float64."""
    if hasattr(values, "detach"):
        # numpy has no bfloat16.
        values = values.detach().cpu().double().numpy()
    return np.asarray(values, dtype=np.float64)


def check_table(embeddings, names):
    """Refuse embeddings that are not one row for each name of the trials."""
    if embeddings.ndim != 2 or len(embeddings) != len(names):
        raise EmbeddingError(
            f"the trials name {len(names)} utterances, so the embeddings must "
            f"be a table of {len(names)} rows; got shape {embeddings.shape}"
        )


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
