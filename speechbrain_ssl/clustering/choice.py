"""A number of clusters, chosen without labels.

The criterion is the mean silhouette: clusters are tight and apart. What it can
and cannot do:

* Compare numbers of clusters *within one method on one set of embeddings*.
  There, over 122 sets of labels, the silhouette correlated with the EER at
  -0.55 to -0.62 (CAMSAT's study); over methods at less than 0.17 either way.
  It does not say which of two encoders or which of two rounds is better.
* It sees structure, not speakers. Two clusters, of women and of men, may well
  have the best silhouette of all, as may the sessions of a recording. The
  candidates must be what the number of speakers could be: some factors of two
  around a guess, not everything from 2.
* Training on pseudo labels forgives too many clusters more readily than too
  few, which no criterion of this kind knows. The published systems fix ``k``
  (7 500 on VoxCeleb2, for 5 994 speakers).
"""

import dataclasses

import numpy as np

from speechbrain_ssl import distributed
from speechbrain_ssl.clustering.kmeans import spherical_kmeans
from speechbrain_ssl.clustering.quality import silhouette
from speechbrain_ssl.clustering.rows import ClusteringError, unit_rows

#: Rows the silhouette is averaged over.
SILHOUETTE_SAMPLE = 10_000


@dataclasses.dataclass
class Choice:
    """The number of clusters that was chosen, and why.

    Arguments
    ---------
    clusters : int
        The number.
    table : list of dict
        A row a candidate: ``clusters``, ``silhouette``, ``inertia``,
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

    The limits of the criterion are at the head of this file. Each candidate
    costs one k-means; the silhouette is averaged over ``SILHOUETTE_SAMPLE``
    rows. In one process only.

    Arguments
    ---------
    embeddings : numpy.ndarray or torch.Tensor
        ``[N, d]``. Some ten utterances a cluster suffice: take a part of a
        large set.
    candidates : sequence of int
        Numbers of clusters to compare; of equals the smallest is chosen.
    seed : int
        Of the first centroids and of the sample.
    init, empty, **options
        For ``spherical_kmeans``.

    Returns
    -------
    Choice
        The number, and a table of all candidates.

    Raises
    ------
    ClusteringError
        If there is no candidate, or one has no figure: a number of clusters
        below 2 or as high as the number of utterances.

    Example
    -------
    >>> corners = np.repeat(np.eye(4), 10, axis=0)
    >>> noise = np.random.default_rng(0).normal(size=corners.shape)
    >>> choose_k(corners + 0.05 * noise, [2, 4, 8]).clusters
    4
    """
    if distributed.is_distributed():
        raise ClusteringError(
            "the number of clusters is chosen in one process; run it on rank 0 "
            "before the others start"
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
    # NaN, which beats none, is last; of equals argmax takes the first.
    scores = np.nan_to_num([row["silhouette"] for row in table], nan=-np.inf)
    return Choice(candidates[int(np.argmax(scores))], table)
