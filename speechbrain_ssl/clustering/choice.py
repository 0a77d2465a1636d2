"""Choose a number of clusters without labels.

The criterion is the mean silhouette, which is high if clusters are compact and
far apart. What it can and cannot do:

* It compares numbers of clusters *within one method on one set of embeddings*.
  There, over 122 sets of labels, the silhouette correlated with the EER at
  -0.55 to -0.62 (CAMSAT's study); across methods, at less than 0.17 in either
  direction. It does not tell which of two encoders or two rounds is better.
* It sees structure, not speakers. Two clusters, women and men, may well have
  the best silhouette of all, as may the sessions of a recording. The candidates
  must be plausible numbers of speakers: a few factors of two around a guess,
  not every number from 2.
* Training on pseudo-labels tolerates too many clusters better than too few,
  which no criterion of this kind takes into account. The published systems fix
  ``k`` (7 500 on VoxCeleb2, for 5 994 speakers).
"""

import dataclasses

import numpy as np

from speechbrain_ssl import distributed
from speechbrain_ssl.clustering.kmeans import spherical_kmeans
from speechbrain_ssl.clustering.quality import silhouette
from speechbrain_ssl.clustering.rows import ClusteringError, unit_rows

#: Number of rows that the silhouette is averaged over.
SILHOUETTE_SAMPLE = 10_000


@dataclasses.dataclass
class Choice:
    """Hold the chosen number of clusters, and the metrics of all candidates.

    Arguments
    ---------
    clusters : int
        The chosen number.
    table : list of dict
        One row per candidate: ``clusters``, ``silhouette``, ``inertia``,
        ``nonempty``.
    """

    clusters: int
    table: list


def choose_k(
    embeddings,
    candidates,
    seed=0,
    init="k-means++",
    empty="reseed",
    **options,
):
    """Choose a number of clusters by the silhouette, without labels.

    The module's docstring describes the limits of the criterion. Each candidate
    takes one k-means; the silhouette is averaged over ``SILHOUETTE_SAMPLE``
    rows. This works in a single process only.

    Arguments
    ---------
    embeddings : numpy.ndarray or torch.Tensor
        ``[N, d]``. About ten utterances per cluster suffice, so take a part of
        a large set.
    candidates : sequence of int
        Numbers of clusters to compare; the smallest wins a tie.
    seed : int
        Seed of the initial centroids and of the silhouette's sample.
    init, empty, **options
        Passed to ``spherical_kmeans``.

    Returns
    -------
    Choice
        The chosen number, and a table of all candidates.

    Raises
    ------
    ClusteringError
        If there is no candidate, or a candidate has no silhouette because it
        is below 2 or not below the number of utterances.

    Example
    -------
    >>> corners = np.repeat(np.eye(4), 10, axis=0)
    >>> noise = np.random.default_rng(0).normal(size=corners.shape)
    >>> choose_k(corners + 0.05 * noise, [2, 4, 8]).clusters
    4
    """
    if distributed.is_distributed():
        raise ClusteringError(
            "the number of clusters can be chosen in a single process only; "
            "choose it before the distributed run starts"
        )
    rows = unit_rows(
        embeddings, options.pop("names", None), options.pop("device", None)
    )
    candidates = sorted({int(k) for k in candidates})
    if not candidates or not 1 < candidates[0] <= candidates[-1] < len(rows):
        raise ClusteringError(
            f"candidates {candidates}: each must be at least 2 and less than "
            f"the number of utterances, {len(rows)}"
        )
    options |= {"init": init, "empty": empty}
    table = []
    for clusters in candidates:
        found = spherical_kmeans(rows, clusters, seed=seed, **options)
        row = {"clusters": clusters, "inertia": found.inertia[-1]}
        row["nonempty"] = int((found.sizes > 0).sum())
        row["silhouette"] = silhouette(
            rows,
            found.assignments,
            SILHOUETTE_SAMPLE,
            seed,
            options.get("block"),
        )
        table.append(row)
    # NaN ranks last. argmax takes the first of several equal scores.
    scores = np.nan_to_num([row["silhouette"] for row in table], nan=-np.inf)
    return Choice(candidates[int(np.argmax(scores))], table)
