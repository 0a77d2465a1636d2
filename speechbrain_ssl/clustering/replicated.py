"""Cluster rows that every process of a distributed run holds.

An objective's memory, or embeddings that were gathered, are the same in all
processes. Each process passes only its share of the rows to the clustering, and
the assignments are then combined.
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
    """Cluster rows that every process holds.

    Each process clusters its share of the rows, and all receive the whole
    result.

    Arguments
    ---------
    embeddings : torch.Tensor
        ``[N, d]``, the same in every process.
    chosen : torch.Tensor
        int64 ``[n]``, the rows to cluster, on the same device.
    clusters : int
        Number of clusters.
    merge_from : int, optional
        Number of k-means clusters that are merged into ``clusters``
        (``kmeans_then_merge``); without it, k-means makes ``clusters``
        directly.
    **options
        Options of ``spherical_kmeans`` except ``names``. With ``merge_from``,
        ``init`` defaults to k-means++ and ``empty`` to reseed.

    Returns
    -------
    KMeans or Merged
        The result, with the ``assignments`` of all chosen rows, ``[n]``.

    Raises
    ------
    ClusteringError
        As in ``spherical_kmeans`` and ``kmeans_then_merge``.

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
    """Reject a ``merge_from`` that would otherwise fail hours into the run.

    Arguments
    ---------
    name : str
        What the user calls the setting, for the message.
    merge_from : int or None
        Number of k-means clusters; None is always allowed.
    clusters : int
        Largest number of clusters that they are merged into.

    Raises
    ------
    ConfigError
        If ``merge_from`` is not a whole number above ``clusters``.
    ClusteringError
        If the merging would exceed its memory limit.
    """
    if merge_from is None:
        return
    if not isinstance(merge_from, int) or merge_from <= clusters:
        raise ConfigError(
            f"{name} is the number of small clusters that are merged into "
            f"`clusters`: it must be above {clusters}, got {merge_from!r}"
        )
    check_memory(merge_from)
