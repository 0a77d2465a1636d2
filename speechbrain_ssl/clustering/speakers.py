"""Group embeddings of recordings by speaker, of a known number or not."""

import numpy as np
import torch
from scipy.cluster import hierarchy

from speechbrain_ssl.clustering.agglomerative import merge_centroids
from speechbrain_ssl.clustering.kmeans import spherical_kmeans
from speechbrain_ssl.clustering.quality import silhouette
from speechbrain_ssl.clustering.rows import unit_rows
from speechbrain_ssl.errors import ConfigError

# Up to this many files all pairs are compared, in 0.8 GB.
_ALL_PAIRS = 10_000
# A larger set is grouped into so many by k-means first.
_CENTROIDS = 5_000


def find_speakers(embeddings, speakers=None):
    """Group recordings by speaker, with Ward's criterion.

    More than 10 000 recordings are first grouped by k-means.

    Arguments
    ---------
    embeddings : numpy.ndarray
        ``[N, size]``, one for each recording.
    speakers : int, optional
        Number of speakers. If not given, it is the number, from 2 to half the
        recordings, whose groups have the best silhouette.

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
    rows = unit_rows(embeddings).cpu()
    count = len(rows)
    if speakers is None and count < 4:
        raise ConfigError(
            f"{count} usable files are too few to estimate the number of "
            "speakers; give it with --speakers"
        )
    if speakers is not None and speakers > count:
        raise ConfigError(
            f"--speakers={speakers}, but there are only {count} usable files"
        )
    if count <= _ALL_PAIRS:
        return _group(rows, speakers)
    found = spherical_kmeans(
        rows, max(_CENTROIDS, speakers or 0), init="k-means++", empty="reseed"
    )
    used, members = torch.unique(found.assignments, return_inverse=True)
    return _group(found.centroids[used], speakers)[members.numpy()]


def _group(points, speakers):
    """Group unit rows that are few enough to compare all pairs."""
    if speakers is not None:
        return merge_centroids(points, speakers).numpy()
    tree = hierarchy.linkage(points.double().numpy(), "ward")
    best, labels = -np.inf, np.zeros(len(points), np.int64)
    for number in candidates(len(points)):
        cut = hierarchy.fcluster(tree, number, "maxclust").astype(np.int64) - 1
        # Identical recordings cannot be divided.
        if cut.max() > 0:
            score = silhouette(points, cut)
            if score > best:
                best, labels = score, cut
    return labels


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
