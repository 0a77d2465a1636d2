"""Clusters of rows that every process has.

The memory of an objective, or embeddings that were gathered, are the same in all
processes of a distributed run. Each clusters a share of them, as if it had no
others, and all put the result together.
"""

import dataclasses

import torch

from speechbrain_ssl import distributed
from speechbrain_ssl.clustering.agglomerative import (
    check_memory,
    kmeans_then_merge,
)
from speechbrain_ssl.clustering.kmeans import spherical_kmeans
from speechbrain_ssl.distributed import sum_over_ranks
from speechbrain_ssl.errors import ConfigError


def clusters_of_all(
    embeddings, chosen, clusters, *, merge_from=None, **options
):
    """Clusters rows that every process has.

    Each process clusters its share of them, and all have the whole result.

    Arguments
    ---------
    embeddings : torch.Tensor
        ``[N, d]``, the same in every process.
    chosen : torch.Tensor
        int64 ``[n]``, the rows that are clustered, on the same device.
    clusters : int
        How many.
    merge_from : int, optional
        So many clusters of a k-means are merged (``kmeans_then_merge``);
        without it ``clusters`` are those of a k-means.
    **options
        For ``spherical_kmeans``, but for ``names``. What is merged begins by
        k-means++ and without empty clusters, unless they say otherwise.

    Returns
    -------
    KMeans or Merged
        With the ``assignments`` of all chosen rows, ``[n]``.

    Raises
    ------
    ClusteringError
        As ``spherical_kmeans`` and ``kmeans_then_merge``.

    Example
    -------
    >>> rows = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
    >>> clusters_of_all(rows, torch.tensor([0, 2]), 2).sizes.tolist()
    [1, 1]
    """
    share = torch.arange(len(chosen), device=chosen.device)
    share = share.tensor_split(distributed.world_size())[distributed.rank()]
    rows = embeddings[chosen[share]]
    if merge_from is None:
        found = spherical_kmeans(rows, clusters, **options)
    else:
        options = {"init": "k-means++", "empty": "reseed", **options}
        found = kmeans_then_merge(rows, merge_from, clusters, **options)
    labels = torch.zeros_like(chosen)
    labels[share] = found.assignments
    return dataclasses.replace(found, assignments=sum_over_ranks(labels))


def check_merge_from(name, merge_from, clusters):
    """Refuses what ``clusters_of_all`` cannot merge, hours before it would.

    Arguments
    ---------
    name : str
        What the user calls it.
    merge_from : int or None
        Clusters of the k-means; None is always allowed.
    clusters : int
        The most clusters that are made of them.

    Raises
    ------
    ConfigError
        If it is no number above ``clusters``.
    ClusteringError
        If the merging would take more memory than it may.
    """
    if merge_from is None:
        return
    if not isinstance(merge_from, int) or merge_from <= clusters:
        raise ConfigError(
            f"{name} is the number of small clusters that `clusters` are made "
            f"of: above {clusters}, got {merge_from!r}"
        )
    check_memory(merge_from)
