"""Train PLDA on clusters, and score trials by matrix products.

The model is the two-covariance one (Brummer and de Villiers, *The speaker
partitioning problem*, 2010): utterance ``j`` of cluster ``k`` is

    x_kj = m + y_k + e_kj,   y_k ~ N(0, B),   e_kj ~ N(0, W)

with full covariances ``B`` between and ``W`` within clusters. A subspace for
``y`` is not needed, since the LDA in front reduces the dimensions. Training is
maximum likelihood by exact EM; the score of a trial is the log-likelihood ratio
of "one y" against "two".

Why not SpeechBrain's ``PLDA``: it takes the embeddings as an object with a
string for each of them, loops over clusters, and returns scores as a full
matrix of models and segments (some 170 GB for Vox1-E), its rows sorted by name.
Here ``B`` and ``W`` are diagonalised together, so that EM and the score are a
few products. They can be tested against the joint Gaussian of all utterances.

In front: centring, LDA, whitening, length normalisation (Garcia-Romero and
Espy-Wilson, *Analysis of i-vector length normalization*, 2011). Hyperion's
self-supervised recipe has the same parts; their order here is ours.
"""

import numpy as np
from scipy import linalg

from speechbrain_ssl.embedding.rows import as_array, refuse_rows
from speechbrain_ssl.errors import ConfigError, EmbeddingError
from speechbrain_ssl.verification.normalisation import cluster_sums, members
from speechbrain_ssl.verification.scoring import check_table, product_scores

# Least variance of every direction, as a share of the mean variance.
_FLOOR = 1e-6


class PLDA:
    """LDA, whitening, length normalisation and two-covariance PLDA.

    Arguments
    ---------
    lda : int, optional
        Number of dimensions after LDA, at most the number of clusters less
        one. By default all are kept.
    iterations : int
        Steps of EM, which starts at the moments; these are close to the
        solution if all clusters have one size. 10 is our default.

    Attributes
    ----------
    mean : numpy.ndarray
        ``[D]``, of the training utterances.
    projection : numpy.ndarray
        ``[D, P]``, LDA and whitening.
    basis : numpy.ndarray
        ``[P, P]``; turns a projected row of length one, less ``offset``, into
        coordinates in which ``W`` is the identity and ``B`` diagonal.
    offset : numpy.ndarray
        ``[P]``, the ``m`` of the model.
    between : numpy.ndarray
        ``[P]``, the diagonal of ``B`` in these coordinates.

    Example
    -------
    >>> rng = np.random.default_rng(0)
    >>> clusters = np.repeat(np.arange(50), 8)
    >>> rows = rng.normal(size=(50, 6))[clusters]
    >>> rows = rows + 0.3 * rng.normal(size=rows.shape)
    >>> plda = PLDA(lda=5).fit(rows, clusters)
    >>> from speechbrain_ssl.verification.trials import Trials
    >>> trials = Trials([1, 0], [0, 0], [1, 2], ["a/1", "a/2", "b/1"])
    >>> same, other = plda.score(rows[[8, 9, 16]], trials)
    >>> bool(same > 0 > other)
    True
    """

    def __init__(self, lda=None, iterations=10):
        self.lda = lda
        self.iterations = iterations

    def fit(self, embeddings, clusters):
        """Estimate all parts on the same utterances.

        Arguments
        ---------
        embeddings : numpy.ndarray or torch.Tensor
            ``[N, D]``.
        clusters : array_like
            int ``[N]``, pseudo-labels; utterances with a negative one are
            left out.

        Returns
        -------
        PLDA
            The model itself.

        Raises
        ------
        ConfigError
            If fewer than two clusters are left, no cluster has two
            utterances, or ``lda`` is larger than possible.
        EmbeddingError
            If the embeddings are not a table, not finite, or all the same.
        """
        rows, number, sizes = members(_table(embeddings), clusters)
        if len(sizes) < 2 or sizes.max() < 2:
            raise ConfigError(
                f"PLDA was given {len(sizes)} clusters, the largest of "
                f"{int(sizes.max())} utterances; it needs at least two "
                "clusters, and two utterances in some of them"
            )
        self.mean = rows.mean(axis=0)
        rows = rows - self.mean
        self.projection = np.eye(rows.shape[1])
        if self.lda is not None:
            self.projection = lda_directions(rows, number, sizes, self.lda)
        total = rows @ self.projection
        self.projection = self.projection @ _whitening(total)
        rows = self._directions(rows)
        self.offset, self.basis, self.between = _two_covariances(
            rows, number, sizes, self.iterations
        )
        return self

    def transform(self, embeddings, names=None):
        """Compute coordinates in which the score is a sum over dimensions.

        Arguments
        ---------
        embeddings : numpy.ndarray or torch.Tensor
            ``[U, D]``.
        names : sequence of str, optional
            ``[U]``, for messages.

        Returns
        -------
        numpy.ndarray
            float64 ``[U, P]``.

        Raises
        ------
        EmbeddingError
            If a row is not finite, of another width, or has no direction left.
        """
        rows = _table(embeddings, names)
        if rows.shape[1] != len(self.mean):
            raise EmbeddingError(
                f"PLDA was trained on embeddings of {len(self.mean)} "
                f"dimensions; these have {rows.shape[1]}"
            )
        rows = self._directions(rows - self.mean, names)
        return (rows - self.offset) @ self.basis

    def score(self, embeddings, trials):
        """Compute log-likelihood ratios of trials, in nats.

        A model of several recordings is represented by their mean embedding
        and scored like a single recording.

        Arguments
        ---------
        embeddings : numpy.ndarray or torch.Tensor
            ``[U, D]``; row ``i`` belongs to ``trials.names[i]``.
        trials : Trials
            The trials.

        Returns
        -------
        numpy.ndarray
            float64 ``[T]``; positive scores favour a single speaker.

        Raises
        ------
        EmbeddingError
            As ``transform``.
        """
        embeddings = as_array(embeddings)
        check_table(embeddings, trials.names)
        rows, own = self._terms(self.transform(embeddings, trials.names))
        scores = product_scores(rows, trials)
        return scores + own[trials.left] + own[trials.right]

    def llr(self, left, right):
        """Compute log-likelihood ratios of all pairs of two tables, in nats.

        Arguments
        ---------
        left, right : numpy.ndarray
            ``[n, P]`` and ``[m, P]``, from ``transform``.

        Returns
        -------
        numpy.ndarray
            float64 ``[n, m]``; positive scores favour a single speaker.
        """
        left, own = self._terms(left)
        right, other = self._terms(right)
        scores = left @ right.T
        scores += own[:, None]
        scores += other
        return scores

    def _terms(self, rows):
        """Split the score: a product of rows, and a term for each side."""
        # In each coordinate both sides have variance t = 1 + b and, for a
        # single speaker, covariance b: a ratio of Gaussians in two dimensions.
        b, t = self.between, 1 + self.between
        determinant = 1 + 2 * b
        own = rows**2 @ (-0.5 * b**2 / (t * determinant))
        own += 0.5 * np.sum(np.log(t) - 0.5 * np.log(determinant))
        return rows * np.sqrt(b / determinant), own

    def _directions(self, rows, names=None):
        """Project centred rows and scale them to length one."""
        rows = rows @ self.projection
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        refuse_rows(
            lengths[:, 0] == 0,
            names,
            "equals the mean of the training utterances",
        )
        return rows / lengths


def _table(embeddings, names=None):
    """Convert embeddings to a float64 table of finite numbers."""
    rows = as_array(embeddings)
    if rows.ndim != 2:
        raise EmbeddingError(
            "embeddings must be a table, a row for each utterance; got shape "
            f"{rows.shape}"
        )
    refuse_rows(~np.isfinite(rows).all(axis=1), names, "is not finite")
    return rows


def scatters(rows, number, sizes):
    """Compute sums of squares between and within clusters.

    Arguments
    ---------
    rows : numpy.ndarray
        ``[N, D]``.
    number : numpy.ndarray
        int ``[N]``, the cluster of each row, from 0.
    sizes : numpy.ndarray
        ``[K]``, the number of rows in each cluster.

    Returns
    -------
    tuple of numpy.ndarray
        Means of the clusters ``[K, D]``; scatter between them (each weighted
        by its size) and scatter within them, both ``[D, D]`` sums, not means.

    Example
    -------
    >>> rows = np.array([[0.0], [2.0], [5.0]])
    >>> means, between, within = scatters(
    ...     rows, np.array([0, 0, 1]), np.array([2, 1])
    ... )
    >>> means.ravel().tolist(), within.item(), round(between.item(), 3)
    ([1.0, 5.0], 2.0, 10.667)
    """
    means = cluster_sums(rows, number, len(sizes)) / sizes[:, None]
    residual = rows - means[number]
    around = means - rows.mean(axis=0)
    return means, (around.T * sizes) @ around, residual.T @ residual


def lda_directions(rows, number, sizes, size):
    """Find the directions with the largest ratio of between to within scatter.

    Arguments
    ---------
    rows, number, sizes
        As in ``scatters``.
    size : int
        Number of directions.

    Returns
    -------
    numpy.ndarray
        ``[D, size]``, the best first; the covariance within clusters becomes
        the identity.

    Raises
    ------
    ConfigError
        If ``size`` is larger than possible.
    EmbeddingError
        If no cluster has any spread.

    Example
    -------
    >>> rows = np.array([[0.0, 1], [0, -1], [5, 1], [5.1, -1]])
    >>> found = lda_directions(rows, np.array([0, 0, 1, 1]), np.array([2, 2]), 1)
    >>> bool(abs(found[0, 0]) > 10 * abs(found[1, 0]))
    True
    """
    most = min(rows.shape[1], len(sizes) - 1)
    if not 1 <= size <= most:
        raise ConfigError(
            f"lda is {size}: embeddings of {rows.shape[1]} dimensions in "
            f"{len(sizes)} clusters leave from 1 to {most}; lower it, or make "
            "more clusters"
        )
    _, between, within = scatters(rows, number, sizes)
    within /= len(rows) - len(sizes)
    _, vectors = linalg.eigh(between, _lifted(within))
    return vectors[:, ::-1][:, :size]


def _lifted(covariance):
    """Add a little to a covariance, so that it has an inverse."""
    size = len(covariance)
    level = np.trace(covariance) / size
    if not level > 0:
        raise EmbeddingError(
            "the embeddings of each cluster are all the same: nothing can be "
            "learnt about how utterances of one speaker differ"
        )
    return covariance + _FLOOR * level * np.eye(size)


def _whitening(rows):
    """Return the ``[P, P]`` that whitens centred rows."""
    values, vectors = np.linalg.eigh(_lifted(rows.T @ rows / len(rows)))
    return vectors / np.sqrt(values)


def _two_covariances(rows, number, sizes, iterations):
    """Fit the two-covariance model by EM.

    Returns the mean ``[P]``, a basis ``[P, P]`` in which the covariance within
    clusters is the identity and that between them diagonal, and the diagonal
    ``[P]``.
    """
    means, between, within = scatters(rows, number, sizes)
    count, total = len(sizes), sizes.sum()
    scatter = within
    # Moments. If all clusters have one size, n0 is that size.
    within = _lifted(scatter / max(total - count, 1))
    n0 = (total - (sizes.astype(float) ** 2).sum() / total) / (count - 1)
    between = (between / (count - 1) - within) / n0
    center = sizes @ means / total
    basis, b = _diagonalise(between, within)
    for _ in range(iterations):
        # E: given its utterances, y of a cluster is Gaussian. In the basis of
        # both covariances its dimensions are independent.
        weight = sizes[:, None] * b / (sizes[:, None] * b + 1)
        variance = b / (sizes[:, None] * b + 1)
        around = (means - center) @ basis
        back = np.linalg.inv(basis)
        y = center + (weight * around) @ back
        # M: mean and covariance of y; covariance of the residuals.
        center = y.mean(axis=0)
        between = (y - center).T @ (y - center) / count
        between += (back.T * variance.mean(axis=0)) @ back
        off = means - y
        within = scatter + (off.T * sizes) @ off
        within += (back.T * (sizes @ variance)) @ back
        basis, b = _diagonalise(between, within / total)
    return center, basis, b


def _diagonalise(between, within):
    """Find the basis where ``within`` is the identity, ``between`` diagonal."""
    values, basis = linalg.eigh(between, _lifted(within))
    # EM cannot leave zero, and moments may be negative.
    return basis, np.maximum(values, _FLOOR)
