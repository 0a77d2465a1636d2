"""Ways from embeddings to clusters, as a configuration declares them.

Each is called with the rows of this process and gives back their clusters and
a few figures for the log. None of them sees a label.
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
    """Spherical k-means, with a number of clusters given or chosen.

    Arguments
    ---------
    clusters : int or list of int
        How many. Of several, the one with the best silhouette is taken, which
        looks at no label (see ``speechbrain_ssl.clustering.choice``, also for
        what it cannot do).
    iterations : int
        Updates of the centroids.

    Example
    -------
    >>> import numpy as np
    >>> corners = np.repeat(np.eye(3), 4, axis=0)
    >>> labels, figures = KMeansClusters(3)(corners, seed=1)
    >>> len(set(labels.tolist())), figures["inertia"] < 1e-4
    (3, True)
    """

    clusters: object
    iterations: int = 30

    #: No label is looked at, and embeddings are.
    labels_seen = "none"

    @property
    def _candidates(self):
        return [self.clusters] if self._one else list(self.clusters)

    @property
    def _one(self):
        return isinstance(self.clusters, int)

    def check(self, total):
        """Refuses numbers of clusters that cannot be, before there are rows.

        Arguments
        ---------
        total : int
            Rows, of all processes.

        Raises
        ------
        ClusteringError
            If a number is not between 1 and ``total`` (of several: above 1
            and below ``total``).
        """
        for clusters in self._candidates:
            check_count(total, clusters)
            if not self._one and not 1 < clusters < total:
                raise ClusteringError(
                    f"of several numbers of clusters each must be above 1 and "
                    f"below the {total} utterances; got {clusters}"
                )

    def check_alone(self):
        """Refuses to choose a number in a distributed run.

        Raises
        ------
        ClusteringError
            If there are several processes and several numbers.
        """
        if not self._one and distributed.is_distributed():
            raise ClusteringError(
                "a number of clusters is chosen in one process: run with "
                "--stop_after=embed, then with --stop_after=cluster without "
                "torchrun, then with --stop_after=train; or give one number"
            )

    def __call__(self, rows, seed, device="cpu", names=None):
        """Clusters the rows of this process.

        Arguments
        ---------
        rows : numpy.ndarray or torch.Tensor
            ``[n, size]``.
        seed : int
            Of the first centroids.
        device : str
            Where to compute.
        names : sequence of str, optional
            The utterances, to name the one at fault.

        Returns
        -------
        tuple
            int64 ``[n]`` clusters, and a dictionary of figures.

        Raises
        ------
        ClusteringError
            If the rows cannot be clustered so.
        """
        options = {
            "init": "k-means++",
            "empty": "reseed",
            "iterations": self.iterations,
            "names": names,
            "device": device,
        }
        figures, clusters = {}, self.clusters
        if not self._one:
            self.check_alone()
            chosen = choose_k(rows, clusters, seed=seed, **options)
            # A silhouette may be NaN, which JSON does not have.
            figures["candidates"] = [
                {k: v for k, v in row.items() if v == v} for row in chosen.table
            ]
            clusters = chosen.clusters
        found = spherical_kmeans(rows, clusters, seed=seed, **options)
        figures["inertia"] = found.inertia[-1]
        return found.assignments.cpu().numpy(), figures


@dataclasses.dataclass(frozen=True)
class MergedClusters:
    """k-means into many clusters, merged by agglomerative clustering.

    Arguments
    ---------
    centroids : int
        Clusters of the k-means.
    clusters : int
        How many are left.
    linkage : str
        ``"ward"`` (Miara et al., 2024: 50 000 into 7 500) or ``"average"`` of
        cosines (Cho's and Villalba's recipes).
    iterations : int
        Updates of the k-means.
    limit_gib : float
        Memory that the merging may take, in GiB.

    Example
    -------
    >>> import numpy as np
    >>> corners = np.repeat(np.eye(3), 4, axis=0)
    >>> labels, figures = MergedClusters(4, 3)(corners, seed=1)
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
        """As ``KMeansClusters``, and the memory for the merging."""
        check_memory(self.centroids, self.limit_gib)
        check_count(total, self.centroids)
        check_count(self.centroids, self.clusters)

    def check_alone(self):
        """Any number of processes will do."""

    def __call__(self, rows, seed, device="cpu", names=None):
        """As ``KMeansClusters``."""
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
        figures = {"inertia": found.kmeans.inertia[-1]}
        return found.assignments.cpu().numpy(), figures
