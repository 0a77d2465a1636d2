"""Cluster by k-means, then merge the centroids by agglomerative clustering.

Agglomerative clustering follows the shape of the clusters better than k-means,
but compares all pairs. Merging some ten thousand centroids instead of a million
utterances makes it affordable. The published code of Miara et al. (arXiv
2406.02285) merges 50 000 into 7 500 for VoxCeleb2, with Ward's criterion; Cho
and Villalba use average linkage of cosines, and later of PLDA scores, and stop
at a threshold (``merge_by_scores``).

Every centroid has the same weight, however many members it has, as in that
code.

**Memory**: SciPy, which scikit-learn calls, too, holds two copies of the
``K * (K - 1) / 2`` distances of ``K`` centroids in float64. The peak is
``8 * K * (K - 1)`` bytes: 20 GB (18.6 GiB) for 50 000, 0.8 GB for 10 000. **Time** is
``O(K^2 * d)`` for the distances and ``O(K^2)`` for the merging, on one core.
"""

import dataclasses

import numpy as np
import torch
import torch.distributed as dist
from scipy.cluster import hierarchy
from sklearn.cluster import AgglomerativeClustering

from speechbrain_ssl import distributed
from speechbrain_ssl.clustering.kmeans import (
    KMeans,
    centroids_of,
    check_count,
    spherical_kmeans,
)
from speechbrain_ssl.clustering.rows import ClusteringError, unit_rows

# Number of points whose scores are computed at a time.
_BLOCK = 512


@dataclasses.dataclass
class Merged:
    """Hold clusters that were merged from those of a k-means.

    Arguments
    ---------
    centroids : torch.Tensor
        float32 ``[clusters, d]``, the normalised means of the members.
    assignments : torch.Tensor
        int64 ``[N]``, the cluster of each row of this process.
    sizes : torch.Tensor
        int64 ``[clusters]``, number of members in all processes; none is 0.
    parents : torch.Tensor
        int64 ``[K]``, the merged cluster of each k-means cluster; -1 for one
        without members.
    kmeans : KMeans
        The k-means whose clusters were merged.
    """

    centroids: torch.Tensor
    assignments: torch.Tensor
    sizes: torch.Tensor
    parents: torch.Tensor
    kmeans: KMeans


def merging_bytes(count):
    """Return the peak memory of merging ``count`` centroids, in bytes.

    Arguments
    ---------
    count : int
        Number of centroids.

    Returns
    -------
    int
        ``8 * count * (count - 1)``.

    Example
    -------
    >>> round(merging_bytes(50_000) / 2**30, 1)
    18.6
    """
    return 8 * count * (count - 1)


def merge_centroids(centroids, clusters, linkage="ward", limit_gib=24.0):
    """Merge centroids until ``clusters`` clusters are left.

    Arguments
    ---------
    centroids : numpy.ndarray or torch.Tensor
        ``[K, d]``; they are normalised first.
    clusters : int
        Number of clusters after merging.
    linkage : str
        ``"ward"``: make the merge that adds least to the squared distances
        within clusters. ``"average"``: merge the two clusters whose centroids
        have the highest mean cosine.
    limit_gib : float
        Memory limit in GiB; see the module's docstring.

    Returns
    -------
    torch.Tensor
        int64 ``[K]`` on the CPU, from 0 to ``clusters - 1``. In a distributed
        run rank 0 merges, and all processes receive its answer.

    Raises
    ------
    ClusteringError
        If the distances do not fit into ``limit_gib``, there are fewer
        centroids than clusters, or a centroid is zero or not finite.
    ValueError
        If the linkage is unknown.

    Example
    -------
    >>> corners = np.array([[1, 0], [1, 0.1], [0, 1], [0.1, 1]])
    >>> labels = merge_centroids(corners, 2).tolist()
    >>> labels in ([0, 0, 1, 1], [1, 1, 0, 0])
    True
    """
    if linkage not in ("ward", "average"):
        raise ValueError(f"linkage is 'ward' or 'average', not {linkage!r}")
    check_memory(len(centroids), limit_gib)
    if not 1 <= clusters <= len(centroids):
        raise ClusteringError(
            f"{len(centroids)} centroids cannot be merged into {clusters} "
            "clusters"
        )
    points = unit_rows(centroids).cpu()
    labels = torch.zeros(len(points), dtype=torch.int64)
    # scikit-learn cannot cluster a single centroid.
    if distributed.rank() == 0 and len(points) > 1:
        found = AgglomerativeClustering(
            n_clusters=clusters,
            linkage=linkage,
            metric="euclidean" if linkage == "ward" else "cosine",
        ).fit_predict(points.double().numpy())
        labels = torch.from_numpy(found.astype(np.int64))
    if distributed.is_distributed():
        box = [labels]
        dist.broadcast_object_list(box, src=0)
        labels = box[0]
    return labels


def merge_by_scores(scores, count, threshold, limit_gib=24.0):
    """Merge points by average linkage, as long as a pair scores enough.

    The two clusters are merged next between whose members the mean score is
    highest; the merging ends when that mean falls below the threshold.

    Arguments
    ---------
    scores : callable
        ``scores(first, last)`` returns the scores of the points ``first`` to
        ``last - 1`` with all points, ``[last - first, count]``. They are
        symmetric.
    count : int
        Number K of points.
    threshold : float
        Smallest mean score of a merge.
    limit_gib : float
        Memory limit in GiB; see the module's docstring.

    Returns
    -------
    tuple of numpy.ndarray
        The cluster of each point, int64 ``[K]`` from 0; and the mean scores of
        all K - 1 merges, those below the threshold included, in descending
        order.

    Raises
    ------
    ClusteringError
        If the distances do not fit into ``limit_gib``.

    Example
    -------
    >>> points = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    >>> labels, merges = merge_by_scores(
    ...     lambda first, last: points[first:last] @ points.T, 3, 0.7
    ... )
    >>> int(labels.max()) + 1, merges.round(1).tolist()
    (2, [0.8, 0.3])
    """
    check_memory(count, limit_gib)
    if count == 1:
        return np.zeros(1, np.int64), np.zeros(0)
    pairs = np.empty(count * (count - 1) // 2)
    place = 0
    for first in range(0, count, _BLOCK):
        block = scores(first, min(first + _BLOCK, count))
        for row, values in enumerate(block, first):
            pairs[place : place + count - 1 - row] = values[row + 1 :]
            place += count - 1 - row
    # A distance must not be negative.
    highest = pairs.max()
    np.subtract(highest, pairs, out=pairs)
    tree = hierarchy.linkage(pairs, "average")
    labels = hierarchy.fcluster(tree, highest - threshold, criterion="distance")
    return labels.astype(np.int64) - 1, highest - tree[:, 2]


def check_memory(count, limit_gib=24.0):
    """Reject a number of centroids whose distances exceed the memory limit.

    Arguments
    ---------
    count : int
        Number of centroids.
    limit_gib : float
        Memory limit in GiB.

    Raises
    ------
    ClusteringError
        If the merging would take more. The message says how much, and how many
        centroids would fit.

    Example
    -------
    >>> check_memory(50_000, limit_gib=24)
    """
    need = merging_bytes(count)
    if need > limit_gib * 2**30:
        most = int((limit_gib * 2**30 / 8) ** 0.5)
        raise ClusteringError(
            f"merging {count} centroids takes {need / 2**30:.1f} GiB for the "
            f"distances between all pairs, more than the limit of "
            f"{limit_gib:g} GiB; about {most} centroids would fit"
        )


def kmeans_then_merge(
    embeddings,
    centroids=50_000,
    clusters=7_500,
    linkage="ward",
    limit_gib=24.0,
    **options,
):
    """Cluster embeddings by k-means, and merge the clusters.

    Arguments
    ---------
    embeddings : numpy.ndarray or torch.Tensor
        ``[N, d]``; the share of this process in a distributed run.
    centroids : int
        Number of clusters of the k-means.
    clusters : int
        Number of clusters after merging.
    linkage : str
        ``"ward"`` or ``"average"``, as in ``merge_centroids``.
    limit_gib : float
        Memory limit of the merging in GiB, checked before the k-means begins.
    **options
        Passed to ``spherical_kmeans``.

    Returns
    -------
    Merged
        Centroids, assignments and sizes after merging, and the k-means.

    Raises
    ------
    ClusteringError
        As in ``spherical_kmeans`` and ``merge_centroids``.

    Example
    -------
    >>> rows = torch.nn.functional.one_hot(torch.arange(12) % 4).float()
    >>> found = kmeans_then_merge(rows, 4, 2, init="k-means++")
    >>> int(found.sizes.sum()), len(found.centroids)
    (12, 2)
    """
    check_memory(centroids, limit_gib)
    if clusters > centroids:
        raise ClusteringError(
            f"{centroids} centroids cannot be merged into {clusters} clusters; "
            "set `centroids` above `clusters`"
        )
    names = options.pop("names", None)
    rows = unit_rows(embeddings, names, options.pop("device", None))
    found = spherical_kmeans(rows, centroids, **options)
    # An empty k-means cluster could become an empty merged cluster.
    used = (found.sizes > 0).nonzero().flatten()
    check_count(len(used), clusters)
    labels = merge_centroids(
        found.centroids[used], clusters, linkage, limit_gib
    )
    parents = torch.full_like(found.sizes, -1)
    parents[used] = labels.to(parents.device)
    sizes = torch.zeros_like(found.sizes[:clusters])
    sizes.index_add_(0, parents[used], found.sizes[used])
    assignments = parents[found.assignments]
    merged = centroids_of(rows, assignments, clusters)
    return Merged(merged, assignments, sizes, parents, found)
