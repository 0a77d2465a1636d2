"""Pseudo-labels by agglomerative clustering with PLDA scores.

The steps are those of hyperion's recipe for self-supervised training
(``egs/voxceleb/ssl.v1``, ``cos_ahc_plda_ahc``), of the group of Cho et al.:

0. The mean is subtracted from the embeddings, and PCA keeps 99 % of their
   variance.
1. k-means makes many small clusters.
2. Their centroids are merged by average linkage of cosines, down to a threshold.
3. PLDA is trained on the merged clusters of medium size.
4. The small clusters of step 1 are merged again, by average linkage of PLDA
   scores, down to another threshold. A cluster is represented by the mean of
   its members, scaled to length one.
5. A Gaussian with diagonal covariance is fitted to each cluster. Utterances
   whose posterior for their own cluster is too low get no label.

What differs: hyperion's PLDA has a subspace of 100 dimensions between speakers,
ours a full covariance after LDA; it runs k-means again, on PLDA's latent
variables, before step 4; our k-means is spherical.

This class is not in ``clustering``, because PLDA is above that package.
"""

import dataclasses
import logging

import numpy as np
from sklearn.mixture import GaussianMixture

from speechbrain_ssl import distributed
from speechbrain_ssl.checks import check_int, check_number
from speechbrain_ssl.clustering.agglomerative import (
    check_memory,
    merge_by_scores,
)
from speechbrain_ssl.clustering.kmeans import check_count, spherical_kmeans
from speechbrain_ssl.clustering.rows import ClusteringError
from speechbrain_ssl.embedding.rows import refuse_rows
from speechbrain_ssl.verification.normalisation import cluster_sums
from speechbrain_ssl.verification.plda import PLDA

logger = logging.getLogger(__name__)

# Least variance of a cluster in a coordinate, in which the variance within all
# clusters is 1.
_FLOOR = 1e-3

# Number of posteriors that are computed at a time.
_BLOCK = 2**24


@dataclasses.dataclass(frozen=True)
class PLDAClusters:
    """Merge k-means clusters by PLDA scores, and drop doubtful utterances.

    Arguments
    ---------
    centroids : int
        Number of clusters of the k-means. hyperion has a quarter of the
        recordings.
    cosine_threshold : float or list of float
        Smallest mean cosine at which clusters are merged in step 2: one for
        all rounds, or one for each (the last one then holds for all later
        ones). hyperion's are 0.8, then 0.6.
    plda_threshold : float or list of float
        The same for the mean log-likelihood ratio in step 4, in nats. 0: one
        speaker is as likely as two. hyperion's are -400, then 0.
    least, most : int
        Sizes of the clusters that PLDA is trained on.
    lda : int
        Number of dimensions of PLDA, at most the number of its clusters less
        one.
    variance : float
        Share of the variance that PCA keeps.
    posterior : float
        An utterance is kept if the posterior of its own cluster is above this;
        0.9 in hyperion. 0 keeps all.
    round : int
        Number of the round, from 1.
    iterations : int
        Number of centroid updates of the k-means.
    limit_gib : float
        Memory limit of each merging, in GiB.

    Raises
    ------
    ConfigError
        If an argument is out of its range.

    Example
    -------
    >>> rng = np.random.default_rng(0)
    >>> rows = np.repeat(5 * np.eye(6), 20, axis=0) + rng.normal(size=(120, 6))
    >>> cluster = PLDAClusters(24, 0.6, 0.0, least=4, most=99, lda=5)
    >>> labels, metrics = cluster(rows, seed=1)
    >>> metrics["plda_clusters"], metrics["confident"] > 0.8
    (6, True)
    """

    centroids: int
    cosine_threshold: object
    plda_threshold: object
    least: int = 8
    most: int = 50
    lda: int = 100
    variance: float = 0.99
    posterior: float = 0.9
    round: int = 1
    iterations: int = 30
    limit_gib: float = 24.0

    #: For ``results.json``: clustering uses embeddings and no labels.
    labels_seen = "none"

    def __post_init__(self):
        owner = "PLDAClusters"
        check_int(owner, "least", self.least, least=2)
        check_int(owner, "most", self.most, least=self.least)
        check_int(owner, "round", self.round, least=1)
        check_number(owner, "variance", self.variance, above=0, most=1)
        check_number(owner, "posterior", self.posterior, least=0, below=1)
        for name in ("cosine_threshold", "plda_threshold"):
            for value in np.atleast_1d(getattr(self, name)).tolist():
                check_number(owner, name, value)

    def check(self, total):
        """Reject an impossible number of centroids, or too much memory."""
        check_memory(self.centroids, self.limit_gib)
        check_count(total, self.centroids)

    def check_alone(self):
        """Raise in a distributed run: one process merges all embeddings.

        Raises
        ------
        ClusteringError
            If there are several processes.
        """
        if distributed.is_distributed():
            raise ClusteringError(
                "clusters are merged by PLDA scores in a single process only: "
                "run with --stop_after=embed, then with --stop_after=cluster "
                "without torchrun, then with --stop_after=train"
            )

    def __call__(self, rows, seed, device="cpu", names=None):
        """Cluster all rows; see ``KMeansClusters``.

        Returns
        -------
        tuple
            The cluster of each row, int64 ``[n]``, -1 where the posterior is
            too low; and a dictionary of metrics for the log.

        Raises
        ------
        EmbeddingError
            If a row is not finite, or equals the mean of all rows.
        ClusteringError
            If the thresholds leave nothing to tell apart: a single cluster,
            PLDA's as many as there are centroids, none that PLDA can be trained
            on, or none with a high posterior.
        ConfigError
            If ``lda`` is larger than possible.
        """
        self.check_alone()
        refuse_rows(~np.isfinite(rows).all(axis=1), names, "is not finite")
        rows = principal_components(rows, self.variance)
        found = spherical_kmeans(
            rows,
            self.centroids,
            self.iterations,
            seed=seed,
            init="k-means++",
            empty="reseed",
            names=names,
            device=device,
        )
        used, cells = np.unique(
            found.assignments.cpu().numpy(), return_inverse=True
        )
        points = found.centroids.cpu().numpy()[used].astype(np.float64)
        first = self._merge(
            "cosine_threshold",
            lambda begin, end: points[begin:end] @ points.T,
            len(points),
        )[cells]
        plda = self._train_plda(rows, first)
        sums = cluster_sums(rows, cells, len(points))
        means = plda.transform(sums / np.bincount(cells)[:, None])
        labels = self._merge(
            "plda_threshold",
            lambda begin, end: plda.llr(means[begin:end], means),
            len(means),
        )[cells]
        metrics = {
            "inertia": found.inertia[-1],
            "cosine_clusters": int(first.max()) + 1,
            "plda_clusters": int(labels.max()) + 1,
        }
        if self.posterior > 0:
            own = own_posteriors(plda.transform(rows, names), labels)
            labels = np.where(own > self.posterior, labels, -1)
            if len(np.unique(labels[labels >= 0])) < 2:
                raise ClusteringError(
                    f"fewer than two of {metrics['plda_clusters']} clusters "
                    "have a member whose posterior is above `posterior` = "
                    f"{self.posterior:g}: lower it, or change `plda_threshold`"
                )
        metrics["confident"] = float(np.mean(labels >= 0))
        return labels, metrics

    def _merge(self, key, scores, count):
        """Merge down to the threshold of this round; return labels."""
        values = np.atleast_1d(getattr(self, key)).tolist()
        threshold = values[min(self.round, len(values)) - 1]
        labels, merges = merge_by_scores(
            scores, count, threshold, self.limit_gib
        )
        clusters = int(labels.max()) + 1
        logger.info(
            "%s %g: %d centroids are merged into %d clusters",
            key,
            threshold,
            count,
            clusters,
        )
        if clusters == 1:
            raise ClusteringError(
                f"`{key}` of {threshold:g} merges all {count} centroids into "
                f"one cluster: the last merge has a mean score of "
                f"{merges[-1]:.4g}, and half of them are above "
                f"{np.median(merges):.4g}; set a threshold between the two"
            )
        # Without a merge by cosines PLDA is trained on the k-means clusters.
        if clusters == count and key == "plda_threshold":
            raise ClusteringError(
                f"`{key}` of {threshold:g} merges none of {count} centroids: "
                f"the highest score of a pair is {merges[0]:.4g}, and half of "
                f"the merges would be above {np.median(merges):.4g}; lower the "
                "threshold"
            )
        return labels

    def _train_plda(self, rows, labels):
        """Train PLDA on the clusters of medium size."""
        sizes = np.bincount(labels)
        medium = (sizes >= self.least) & (sizes <= self.most)
        if medium.sum() < 2:
            raise ClusteringError(
                f"of {len(sizes)} clusters (from {sizes.min()} to {sizes.max()} "
                f"utterances) {int(medium.sum())} have from {self.least} to "
                f"{self.most}, and PLDA needs at least two: change "
                "`cosine_threshold`, or these limits"
            )
        return PLDA(self.lda).fit(rows, np.where(medium[labels], labels, -1))


def principal_components(rows, variance):
    """Centre rows, and rotate them to the directions of largest variance.

    Arguments
    ---------
    rows : numpy.ndarray
        ``[N, D]``.
    variance : float
        Share of the variance that is kept, above 0 and at most 1.

    Returns
    -------
    numpy.ndarray
        float64 ``[N, P]``, with the smallest possible P.

    Example
    -------
    >>> rows = np.array([[1.0, 5.0, 0.1], [3.0, 5.0, 0.0], [5.0, 5.0, 0.1]])
    >>> principal_components(rows, 0.99).shape
    (3, 1)
    """
    rows = rows - rows.mean(axis=0, dtype=np.float64)
    values, vectors = np.linalg.eigh(rows.T @ rows)
    shares = np.cumsum(values[::-1]) / values.sum()
    count = min(int(np.searchsorted(shares, variance)) + 1, len(shares))
    return rows @ vectors[:, ::-1][:, :count]


def own_posteriors(rows, labels):
    """Compute the posterior of each row's own cluster.

    Every cluster is a Gaussian with its mean, its diagonal covariance and its
    share of the rows. A cluster of one row has the least variance, 1e-3, in every
    coordinate, so that in the many dimensions of PLDA the posterior of that row
    is about 1, and no threshold drops it.

    Arguments
    ---------
    rows : numpy.ndarray
        ``[N, P]``, in coordinates in which the variance within clusters is
        about 1.
    labels : numpy.ndarray
        int64 ``[N]``, from 0; every cluster has a member.

    Returns
    -------
    numpy.ndarray
        float64 ``[N]``.

    Example
    -------
    >>> rows = np.array([[0.0], [1.0], [2.0], [9.0], [10.0], [11.0]])
    >>> bool(own_posteriors(rows, np.array([0, 0, 0, 1, 1, 1])).min() > 0.99)
    True
    """
    sizes = np.bincount(labels)
    means = cluster_sums(rows, labels, len(sizes)) / sizes[:, None]
    squares = cluster_sums((rows - means[labels]) ** 2, labels, len(sizes))
    variances = np.maximum(squares / sizes[:, None], _FLOOR)
    model = GaussianMixture(len(sizes), covariance_type="diag")
    # What a fit would estimate, given the clusters.
    model.weights_ = sizes / sizes.sum()
    model.means_ = means
    model.covariances_ = variances
    model.precisions_cholesky_ = 1 / np.sqrt(variances)
    step = max(1, _BLOCK // len(sizes))
    parts = [
        np.take_along_axis(
            model.predict_proba(rows[begin : begin + step]),
            labels[begin : begin + step, None],
            axis=1,
        )[:, 0]
        for begin in range(0, len(rows), step)
    ]
    return np.concatenate(parts)
