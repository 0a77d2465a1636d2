"""Compute cosine scores of trials, as products of rows of length one."""

import numpy as np

from speechbrain_ssl.embedding.rows import as_array, unit_rows
from speechbrain_ssl.errors import EmbeddingError


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
        normalised. It must be the mean of training utterances, never of the
        trials.
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
        equals the mean, so that it has no direction. Names the utterance.

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


def check_table(embeddings, names):
    """Raise unless there is one embedding for each name of the trials."""
    if embeddings.ndim != 2 or len(embeddings) != len(names):
        raise EmbeddingError(
            f"the trials name {len(names)} utterances, so the embeddings must "
            f"be a table of {len(names)} rows; got shape {embeddings.shape}"
        )
