"""Compute metrics of an encoder that need no label.

All of them are computed from several crops of each of some held-out utterances.
They can be compared between epochs of a run and between runs of a method;
across methods they are only a hint.
"""

import numpy as np

from speechbrain_ssl.embedding.rows import unit_or_zero
from speechbrain_ssl.verification.metrics import eer


def _effective_rank(values):
    """Compute exp of the entropy of values, after scaling them to sum to 1."""
    values = np.clip(values, 0, None)
    p = values / max(values.sum(), 1e-30)
    p = p[p > 0]
    return float(np.exp(-(p * np.log(p)).sum()))


def pseudo_scores(left, right):
    """Compute the centred cosines of all first halves with all second halves.

    Arguments
    ---------
    left, right : numpy.ndarray
        Embeddings ``[utterances, size]`` of the first and second halves.

    Returns
    -------
    numpy.ndarray
        ``[utterances, utterances]``; the halves of one utterance are on the
        diagonal.
    """
    mean = np.concatenate([left, right]).mean(0)
    return unit_or_zero(left - mean) @ unit_or_zero(right - mean).T


def pseudo_eer(left, right):
    """Compute the EER of halves of one utterance against halves of two.

    Targets are the pairs (left_i, right_i), nontargets all pairs of different
    utterances. Augment the halves differently, or the channel alone tells the
    utterances apart.

    Arguments
    ---------
    left, right : numpy.ndarray
        Embeddings ``[utterances, size]`` of the first and second halves.

    Returns
    -------
    float
        Percent.

    Example
    -------
    >>> import numpy as np
    >>> pseudo_eer(np.eye(4), np.eye(4))
    0.0
    """
    scores = pseudo_scores(left, right)
    targets = np.eye(len(scores), dtype=bool)
    return 100.0 * float(eer(scores.ravel(), targets.ravel())[0])


def rank_me(embeddings):
    """Compute the effective rank of a set of embeddings.

    RankMe (Garrido et al., 2022, arXiv 2210.02885, equation 1): exp of the
    entropy of the normalised singular values. A falling value is an alarm; a
    high one proves nothing, since channel and content fill dimensions too.

    Arguments
    ---------
    embeddings : numpy.ndarray
        ``[n, size]``.

    Returns
    -------
    float
        Between 1 and min(n, size).

    Example
    -------
    >>> import numpy as np
    >>> round(rank_me(np.eye(4)), 3)
    4.0
    """
    return _effective_rank(np.linalg.svd(embeddings, compute_uv=False))


def lidar(embeddings, regulariser=1e-4):
    """Compute the effective rank of the linear discriminant matrix.

    LiDAR (Thilak et al., 2023, arXiv 2312.04000): a class is an utterance, its
    members are augmented crops of it; with between-class covariance S_b and
    within-class covariance S_w, the effective rank of
    S_w^(-1/2) S_b S_w^(-1/2). Dimensions that vary only with the augmentation
    do not contribute.

    Arguments
    ---------
    embeddings : numpy.ndarray
        ``[utterances, crops, size]`` with at least two of each.
    regulariser : float
        Added to the diagonal of S_w, relative to its mean.

    Returns
    -------
    float
        Between 1 and ``size``.
    """
    rows = embeddings.astype(np.float64)
    utterances, crops, size = rows.shape
    means = rows.mean(1)
    within = (rows - means[:, None]).reshape(-1, size)
    within = within.T @ within / (utterances * (crops - 1))
    centered = means - means.mean(0)
    between = centered.T @ centered / (utterances - 1)
    scale = max(np.trace(within) / size, 1e-12)
    values, vectors = np.linalg.eigh(
        within + regulariser * scale * np.eye(size)
    )
    whiten = vectors / np.sqrt(values)
    return _effective_rank(np.linalg.eigvalsh(whiten.T @ between @ whiten))


def label_free_scores(embeddings):
    """Compute all label-free metrics of a set of crops.

    Arguments
    ---------
    embeddings : numpy.ndarray
        ``[utterances, crops, size]``; the first half of the crops comes from
        the first half of each utterance, the rest from the second.

    Returns
    -------
    dict
        ``pseudo_eer`` (percent), ``lidar``, ``rankme``, ``mean_cosine``: the
        mean cosine of different utterances (1 where all embeddings are the
        same), and their number, ``utterances``.
    """
    utterances, crops, size = embeddings.shape
    flat = embeddings.reshape(-1, size)
    first = unit_or_zero(embeddings[:, 0])
    total = first.sum(0)
    pairs = utterances * (utterances - 1)
    return {
        "pseudo_eer": pseudo_eer(embeddings[:, 0], embeddings[:, crops // 2]),
        "lidar": lidar(embeddings),
        "rankme": rank_me(flat),
        "mean_cosine": float((total @ total - (first**2).sum()) / pairs),
        "utterances": utterances,
    }
