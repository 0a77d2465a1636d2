"""Group embeddings of recordings by speaker, of a known number or not."""

import numpy as np
import torch
from scipy.cluster import hierarchy

from speechbrain_ssl.clustering.agglomerative import merge_centroids
from speechbrain_ssl.clustering.kmeans import spherical_kmeans
from speechbrain_ssl.clustering.quality import silhouette
from speechbrain_ssl.clustering.rows import unit_rows
from speechbrain_ssl.errors import ConfigError, counted

# Up to this many files all pairs are compared, in 0.8 GB.
_ALL_PAIRS = 10_000
# A larger set is grouped into so many by k-means first, so that the time grows
# with the number of files and not with its square.
_CENTROIDS = 2_000
# Share of the silhouette of rows without clusters that does not count. It is
# ours; results/speaker_counting compares it with others.
_CHANCE = 0.5
# Rows whose variance in all directions is smaller are equal up to rounding.
_SAME = 1e-10


def find_speakers(embeddings, speakers=None):
    """Group recordings by speaker, with Ward's criterion.

    The directions in which embeddings vary most are shortened first (see
    ``half_whiten``). More than 10 000 recordings are grouped by k-means before
    the groups are merged; in a distributed run all processes take part in that,
    unless it is called within ``distributed.single_process``.

    Arguments
    ---------
    embeddings : numpy.ndarray
        ``[N, size]``, one for each recording.
    speakers : int, optional
        Number of speakers. If not given, it is the number, from 2 to half the
        recordings, whose groups have the best silhouette, less half of what
        rows without groups have (see ``unclustered``).

    Returns
    -------
    numpy.ndarray
        int ``[N]``, the number of each recording's speaker, from 0.

    Raises
    ------
    ConfigError
        If there are fewer recordings than speakers, or too few to estimate
        their number.

    Example
    -------
    >>> voices = np.repeat(np.eye(4), 5, axis=0)
    >>> voices += 0.05 * np.random.default_rng(0).normal(size=voices.shape)
    >>> len(set(find_speakers(voices).tolist()))
    4
    """
    rows = half_whiten(unit_rows(embeddings).cpu())
    count = len(rows)
    if speakers is None and count < 4:
        raise ConfigError(
            f"{counted(count, 'usable file')} cannot tell the number of "
            "speakers; give it with --speakers"
        )
    if speakers is not None and speakers > count:
        raise ConfigError(
            f"--speakers={speakers}, and the number of usable files is {count}"
        )
    if count <= _ALL_PAIRS:
        return _group(rows, speakers)
    found = spherical_kmeans(
        rows, max(_CENTROIDS, speakers or 0), init="k-means++", empty="reseed"
    )
    used, members = torch.unique(found.assignments, return_inverse=True)
    return _group(found.centroids[used], speakers)[members.numpy()]


def half_whiten(rows):
    """Centre rows and divide each principal component by the root of its deviation.

    A few directions, such as that of the sex of a voice, dominate the cosines of
    some models, and the silhouette is then best for two groups. Full whitening
    would lift the noise of small components as high as the voice. Components
    beyond the ``N / 2``-th of ``N`` rows are divided by what that one is, since
    their deviations are not known well.

    Arguments
    ---------
    rows : torch.Tensor
        float32 ``[N, size]``, of length one.

    Returns
    -------
    torch.Tensor
        float32 ``[N, size]``, of length one; rows that are all equal as they
        came.

    Example
    -------
    >>> rows = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [0.8, 0.6]])
    >>> half_whiten(rows).norm(dim=1).round(decimals=4).tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    centred = rows - rows.mean(dim=0)
    variances, axes = torch.linalg.eigh(centred.T @ centred / len(rows))
    if variances[-1] < _SAME:
        return rows
    smallest = variances[-min(len(rows) // 2, len(variances))]
    # The other bound is for components without any variance.
    scale = variances.clamp(min=max(smallest, 1e-6 * variances[-1])) ** 0.25
    return torch.nn.functional.normalize(centred @ axes / scale)


def _group(points, speakers):
    """Group unit rows that are few enough to compare all pairs."""
    if speakers is not None:
        return merge_centroids(points, speakers).numpy()
    chance = unclustered(points)
    tree, chance_tree = _tree(points), _tree(chance)
    best, labels = -np.inf, np.zeros(len(points), np.int64)
    for number in candidates(len(points)):
        cut = _cut(tree, number)
        # Identical recordings cannot be divided.
        if cut.max() > 0:
            score = silhouette(points, cut) - _CHANCE * silhouette(
                chance, _cut(chance_tree, number)
            )
            if score > best:
                best, labels = score, cut
    return labels


def unclustered(points):
    """Draw rows that vary as much as others in each direction, without clusters.

    The silhouette of any rows is high for two groups, where few directions
    dominate, and for very many. What it is for rows without clusters says how
    much of it is not due to the groups, as in the gap statistic (Tibshirani,
    Walther and Hastie, 2001).

    Arguments
    ---------
    points : torch.Tensor
        float32 ``[N, size]``, of length one, and uncorrelated, as
        ``half_whiten`` makes them.

    Returns
    -------
    torch.Tensor
        float32 ``[N, size]``, normally distributed and then scaled to length
        one; always the same draw.

    Example
    -------
    >>> unclustered(torch.eye(4)).norm(dim=1).round(decimals=4).tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    draws = np.random.default_rng(1).normal(size=tuple(points.shape))
    rows = torch.from_numpy(draws).float() * points.square().mean(dim=0).sqrt()
    return torch.nn.functional.normalize(rows)


def _tree(points):
    return hierarchy.linkage(points.double().numpy(), "ward")


def _cut(tree, number):
    """Return the clusters of each row, from 0, at most ``number`` of them."""
    return hierarchy.fcluster(tree, number, "maxclust").astype(np.int64) - 1


def candidates(count):
    """List the numbers of speakers to compare for a number of files.

    They rise from 2 to half the files, by a tenth each, since a speaker with a
    single file cannot be recognised as one.

    Example
    -------
    >>> candidates(12), len(candidates(1000))
    ([2, 3, 4, 5, 6], 50)
    """
    found = [2]
    while found[-1] < count // 2:
        found.append(max(found[-1] + 1, round(found[-1] * 1.1)))
    return [number for number in found if number <= count // 2]


def by_size(labels):
    """Number clusters from 1, the largest first.

    Arguments
    ---------
    labels : numpy.ndarray
        ``[N]``, any integers.

    Returns
    -------
    numpy.ndarray
        ``[N]``.

    Example
    -------
    >>> by_size(np.array([7, 3, 3, 5])).tolist()
    [2, 1, 1, 3]
    """
    values, first, inverse, sizes = np.unique(
        labels, return_index=True, return_inverse=True, return_counts=True
    )
    # Clusters of one size are ordered by their first file.
    order = np.lexsort((first, -sizes))
    rank = np.empty(len(values), dtype=int)
    rank[order] = np.arange(1, len(values) + 1)
    return rank[inverse]
