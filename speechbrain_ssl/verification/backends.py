"""Back-ends: models that are learnt on training embeddings and score trials.

A back-end is declared in a YAML. None of them sees a speaker label: clusters
are pseudo-labels, or are found by k-means in ``fit``.
"""

import numpy as np

from speechbrain_ssl.clustering.kmeans import check_count, spherical_kmeans
from speechbrain_ssl.embedding.rows import as_array, unit_rows
from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.verification.normalisation import (
    check_cohort_size,
    check_kind,
    cohort_centroids,
    cohort_statistics,
    normalise_scores,
)
from speechbrain_ssl.verification.plda import PLDA
from speechbrain_ssl.verification.scoring import check_table, product_scores


class Backend:
    """Base of the back-ends, with clusters that are given or found by k-means.

    A back-end has a ``name``, which names its scores in files and tables, and
    the methods below.

    Arguments
    ---------
    clusters : int or None
        Number of clusters that k-means makes if ``fit`` is given none.
    seed : int
        Seed of k-means.
    """

    def __init__(self, clusters, seed):
        self.clusters = clusters
        self.seed = seed

    def check(self, utterances, clusters=None):
        """Validate the arguments of ``fit`` before hours of embedding.

        Arguments
        ---------
        utterances : int
            Number of training utterances.
        clusters : array_like, optional
            As in ``fit``.

        Raises
        ------
        ConfigError
            As ``fit``.
        ClusteringError
            If k-means cannot make so many clusters.
        """
        raise NotImplementedError

    def fit(self, embeddings, clusters=None):
        """Learn from training utterances.

        Arguments
        ---------
        embeddings : numpy.ndarray
            ``[N, D]``, of training utterances.
        clusters : array_like, optional
            int ``[N]``, pseudo-labels; negative where an utterance has none.
            Found by k-means if they are needed and not given.

        Returns
        -------
        Backend
            The back-end itself.
        """
        raise NotImplementedError

    def score(self, embeddings, trials):
        """Score trials.

        Arguments
        ---------
        embeddings : numpy.ndarray
            ``[U, D]``; row ``i`` belongs to ``trials.names[i]``.
        trials : Trials
            The trials.

        Returns
        -------
        numpy.ndarray
            float64 ``[T]``.
        """
        raise NotImplementedError

    def _count(self, utterances, clusters):
        """Return the number of clusters, given or to be found by k-means."""
        if clusters is not None:
            clusters = np.asarray(clusters)
            return len(np.unique(clusters[clusters >= 0]))
        if self.clusters is None:
            raise ConfigError(
                "this back-end needs clusters: give backend_labels (pseudo "
                "labels), or set its `clusters` to a number for k-means"
            )
        check_count(utterances, self.clusters)
        return self.clusters

    def _kmeans(self, rows):
        """Cluster rows of length one, int ``[N]``."""
        found = spherical_kmeans(rows, self.clusters, seed=self.seed)
        return found.assignments.numpy()


class NormalisedCosine(Backend):
    """Cosine of mean-subtracted embeddings, normalised by a cohort.

    Arguments
    ---------
    kind : str
        ``"z"``, ``"t"`` or ``"s"``, as in ``normalise_scores``.
    top : int or None
        Number of highest cohort scores that are used (adaptive); None: all.
    centroids : bool
        Whether the cohort consists of the centroids of clusters
        (pseudo-speakers) instead of the utterances.
    clusters, seed
        Those of ``Backend``.

    Raises
    ------
    ConfigError
        If ``kind`` is unknown.

    Example
    -------
    >>> from speechbrain_ssl.verification.trials import Trials
    >>> rng = np.random.default_rng(0)
    >>> backend = NormalisedCosine(top=10).fit(rng.normal(size=(50, 4)))
    >>> trials = Trials([1, 0], [0, 0], [1, 2], ["a/1", "a/2", "b/1"])
    >>> backend.name, backend.score(rng.normal(size=(3, 4)), trials).shape
    ('as_norm', (2,))
    """

    def __init__(
        self, kind="s", top=300, centroids=False, clusters=None, seed=0
    ):
        super().__init__(clusters, seed)
        check_kind(kind)
        self.kind = kind
        self.top = top
        self.centroids = centroids
        adaptive = "" if top is None else "a"
        self.name = f"{adaptive}{kind}_norm"

    def check(self, utterances, clusters=None):
        """Raise if the cohort is too small; see ``Backend.check``."""
        size = utterances
        if self.centroids:
            size = self._count(utterances, clusters)
        check_cohort_size(size, self.top)

    def fit(self, embeddings, clusters=None):
        """Build the cohort; see ``Backend.fit``.

        Raises
        ------
        ConfigError
            If the cohort has fewer members than two, or than ``top``.
        EmbeddingError
            If an embedding has no direction.
        """
        embeddings = as_array(embeddings)
        self.check(len(embeddings), clusters)
        self.mean = embeddings.mean(axis=0)
        self.cohort = unit_rows(embeddings, mean=self.mean)
        if self.centroids:
            if clusters is None:
                clusters = self._kmeans(self.cohort)
            self.cohort = cohort_centroids(self.cohort, clusters)
            # K-means may have left some clusters empty.
            check_cohort_size(len(self.cohort), self.top)
        return self

    def score(self, embeddings, trials):
        """Compute normalised cosines; see ``Backend.score``.

        Raises
        ------
        EmbeddingError
            As ``cosine_scores`` and ``cohort_statistics``.
        """
        embeddings = as_array(embeddings)
        check_table(embeddings, trials.names)
        rows = unit_rows(embeddings, trials.names, self.mean)
        mean, deviation = cohort_statistics(
            rows, self.cohort, self.top, trials.names
        )
        scores = product_scores(rows, trials)
        return normalise_scores(scores, trials, mean, deviation, self.kind)


class PLDABackend(Backend):
    """PLDA on clusters; see ``speechbrain_ssl.verification.plda.PLDA``.

    Arguments
    ---------
    lda, iterations
        Those of ``PLDA``.
    clusters, seed
        Those of ``Backend``.
    least, most : int, optional
        Clusters of fewer or more utterances are left out: a small one is
        often a fragment of a speaker, a large one several speakers.

    Example
    -------
    >>> rng = np.random.default_rng(0)
    >>> rows = rng.normal(size=(20, 6)).repeat(8, axis=0)
    >>> rows += 0.1 * rng.normal(size=rows.shape)
    >>> backend = PLDABackend(lda=4, clusters=20).fit(rows)
    >>> backend.name, backend.plda.between.shape
    ('plda', (4,))
    """

    name = "plda"

    def __init__(
        self, lda=None, iterations=10, clusters=None, least=2, most=None, seed=0
    ):
        super().__init__(clusters, seed)
        self.plda = PLDA(lda, iterations)
        self.least = least
        self.most = most

    def check(self, utterances, clusters=None):
        """Raise if no cluster has a size between ``least`` and ``most``.

        See ``Backend.check``.
        """
        self._count(utterances, clusters)
        if clusters is not None:
            self._usable(np.asarray(clusters))

    def _usable(self, clusters):
        """Return the clusters, with -1 for those of an excluded size."""
        _, number, sizes = np.unique(
            clusters, return_inverse=True, return_counts=True
        )
        size = sizes[number]
        most = np.inf if self.most is None else self.most
        usable = (clusters >= 0) & (size >= self.least) & (size <= most)
        if not usable.any():
            raise ConfigError(
                f"none of {len(sizes)} clusters has from {self.least} to "
                f"{self.most} utterances (the largest has {sizes.max()}); "
                "change these bounds or the number of clusters"
            )
        return np.where(usable, clusters, -1)

    def fit(self, embeddings, clusters=None):
        """Train on clusters; see ``Backend.fit``.

        Raises
        ------
        ConfigError
            As ``PLDA.fit``, and if no cluster has a size within the bounds.
        EmbeddingError
            As ``PLDA.fit``.
        """
        embeddings = as_array(embeddings)
        self.check(len(embeddings), clusters)
        if clusters is None:
            mean = embeddings.mean(axis=0)
            rows = unit_rows(embeddings, mean=mean)
            clusters = self._kmeans(rows)
        self.plda.fit(embeddings, self._usable(np.asarray(clusters)))
        return self

    def score(self, embeddings, trials):
        """Compute log-likelihood ratios; see ``PLDA.score``."""
        return self.plda.score(embeddings, trials)
