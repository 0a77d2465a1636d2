"""Clustering methods that a configuration can choose from.

Each is called with the rows of this process and returns their clusters and a
few figures for the log. None of them uses labels.
"""

import dataclasses

from speechbrain_ssl import distributed
from speechbrain_ssl.clustering.agglomerative import (
    check_memory,
    kmeans_then_merge,
)
from speechbrain_ssl.clustering.choice import choose_k
from speechbrain_ssl.clustering.kmeans import check_count, spherical_kmeans
from speechbrain_ssl.clustering.rows import ClusteringError


@dataclasses.dataclass(frozen=True)
class KMeansClusters:
    """Cluster by spherical k-means, with a given or chosen number of clusters.

    Arguments
    ---------
    clusters : int or list of int
        Number of clusters. Of several, the one with the best silhouette is
        taken, which needs no labels (see ``speechbrain_ssl.clustering.choice``
        for the limits of that criterion).
    iterations : int
        Number of centroid updates.

    Example
    -------
    >>> import numpy as np
    >>> corners = np.repeat(np.eye(3), 4, axis=0)
    >>> labels, metrics = KMeansClusters(3)(corners, seed=1)
    >>> len(set(labels.tolist())), metrics["inertia"] < 1e-4
    (3, True)
    """

    clusters: object
    iterations: int = 30

    #: For ``results.json``: clustering uses embeddings and no labels.
    labels_seen = "none"

    @property
    def _candidates(self):
        return [self.clusters] if self._one else list(self.clusters)

    @property
    def _one(self):
        return isinstance(self.clusters, int)

    def check(self, total):
        """Reject impossible numbers of clusters before the rows are computed.

        Arguments
        ---------
        total : int
            Number of rows in all processes.

        Raises
        ------
        ClusteringError
            If a number is not between 1 and ``total`` (if there are several
            numbers: above 1 and below ``total``).
        """
        for clusters in self._candidates:
            check_count(total, clusters)
            if not self._one and not 1 < clusters < total:
                raise ClusteringError(
                    f"each of several numbers of clusters must be above 1 and "
                    f"below the {total} utterances; got {clusters}"
                )

    def check_alone(self):
        """Raise if a number would have to be chosen in a distributed run.

        Raises
        ------
        ClusteringError
            If there are several processes and several numbers of clusters.
        """
        if not self._one and distributed.is_distributed():
            raise ClusteringError(
                "a number of clusters can be chosen in a single process only: "
                "run with --stop_after=embed, then with --stop_after=cluster "
                "without torchrun, then with --stop_after=train; or give one "
                "number"
            )

    def __call__(self, rows, seed, device="cpu", names=None):
        """Cluster the rows of this process.

        Arguments
        ---------
        rows : numpy.ndarray or torch.Tensor
            ``[n, size]``.
        seed : int
            Seed of the initial centroids.
        device : str
            Where to compute.
        names : sequence of str, optional
            Keys of the utterances, for error messages.

        Returns
        -------
        tuple
            The cluster of each row, int64 ``[n]``, and a dictionary of metrics
            for the log.

        Raises
        ------
        ClusteringError
            If there are too few rows, or a row is zero or not finite.
        """
        options = {
            "init": "k-means++",
            "empty": "reseed",
            "iterations": self.iterations,
            "names": names,
            "device": device,
        }
        metrics, clusters = {}, self.clusters
        if not self._one:
            self.check_alone()
            chosen = choose_k(rows, clusters, seed=seed, **options)
            # A silhouette may be NaN, which JSON cannot represent.
            metrics["candidates"] = [
                {k: v for k, v in row.items() if v == v} for row in chosen.table
            ]
            clusters = chosen.clusters
        found = spherical_kmeans(rows, clusters, seed=seed, **options)
        metrics["inertia"] = found.inertia[-1]
        return found.assignments.cpu().numpy(), metrics


@dataclasses.dataclass(frozen=True)
class MergedClusters:
    """Cluster by k-means, then merge the clusters agglomeratively.

    Arguments
    ---------
    centroids : int
        Number of clusters of the k-means.
    clusters : int
        Number of clusters after merging.
    linkage : str
        ``"ward"`` (Miara et al., 2024: 50 000 into 7 500) or ``"average"`` of
        cosines (the recipes of Cho and Villalba).
    iterations : int
        Number of centroid updates of the k-means.
    limit_gib : float
        Memory limit of the merging, in GiB.

    Example
    -------
    >>> import numpy as np
    >>> corners = np.repeat(np.eye(3), 4, axis=0)
    >>> labels, metrics = MergedClusters(4, 3)(corners, seed=1)
    >>> len(set(labels.tolist()))
    3
    """

    centroids: int
    clusters: int
    linkage: str = "ward"
    iterations: int = 30
    limit_gib: float = 24.0

    labels_seen = KMeansClusters.labels_seen

    def check(self, total):
        """Reject impossible numbers of clusters, or too much memory."""
        check_memory(self.centroids, self.limit_gib)
        check_count(total, self.centroids)
        check_count(self.centroids, self.clusters)

    def check_alone(self):
        """Accept any number of processes; nothing is chosen here."""

    def __call__(self, rows, seed, device="cpu", names=None):
        """Cluster the rows of this process; see ``KMeansClusters``."""
        found = kmeans_then_merge(
            rows,
            self.centroids,
            self.clusters,
            self.linkage,
            limit_gib=self.limit_gib,
            seed=seed,
            init="k-means++",
            empty="reseed",
            iterations=self.iterations,
            names=names,
            device=device,
        )
        metrics = {"inertia": found.kmeans.inertia[-1]}
        return found.assignments.cpu().numpy(), metrics
