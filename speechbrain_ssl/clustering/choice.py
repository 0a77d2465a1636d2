"""A number of clusters, chosen without labels.

Two criteria, both of one set of embeddings:

* **silhouette**: clusters are tight and apart.
* **stability**: two k-means from different first centroids find the same
  clusters (adjusted Rand index, which does not rise with ``k`` by chance).

What they can and cannot do:

* Compare numbers of clusters *within one method on one set of embeddings*.
  There, over 122 sets of labels, the silhouette correlated with the EER at
  -0.55 to -0.62 (CAMSAT's study); over methods at less than 0.17 either way.
  Neither figure says which of two encoders or which of two rounds is better.
* They see structure, not speakers. Two clusters, of women and of men, may well
  have the best silhouette of all, as may the sessions of a recording. The
  candidates must be what the number of speakers could be: some factors of two
  around a guess, not everything from 2.
* Training on pseudo labels forgives too many clusters more readily than too
  few, which no criterion of this kind knows. The published systems fix ``k``
  (7 500 on VoxCeleb2, for 5 994 speakers).
* A stable clustering need not be a good one: ``k = 1`` is perfectly stable,
  and stability can rank low a ``k`` that splits a speaker now here, now there.
"""

import dataclasses

import numpy as np
from sklearn.metrics import adjusted_rand_score

from speechbrain_ssl import distributed
from speechbrain_ssl.clustering.kmeans import spherical_kmeans
from speechbrain_ssl.clustering.quality import silhouette
from speechbrain_ssl.clustering.rows import ClusteringError, unit_rows


@dataclasses.dataclass
class Choice:
    """The number of clusters that was chosen, and why.

    Arguments
    ---------
    clusters : int
        The number.
    criterion : str
        What it was chosen by.
    table : list of dict
        A row a candidate: ``clusters``, ``silhouette``, ``stability`` (NaN
        where it was not asked for), ``inertia``, ``nonempty``.
    """

    clusters: int
    criterion: str
    table: list


def choose_k(
    embeddings,
    candidates,
    criterion="silhouette",
    seed=0,
    sample=10_000,
    init="k-means++",
    empty="reseed",
    **options,
):
    """Chooses a number of clusters by a criterion without labels.

    The limits of the criteria are at the head of this file. Each candidate
    costs one k-means (two with stability). In one process only.

    Arguments
    ---------
    embeddings : numpy.ndarray or torch.Tensor
        ``[N, d]``. Some ten utterances a cluster suffice: take a part of a
        large set.
    candidates : sequence of int
        Numbers of clusters to compare.
    criterion : str
        ``"silhouette"``, ``"stability"``, or ``"both"``: the best sum of the
        two ranks. Of equals the smallest number.
    seed : int
        Of the first centroids (``seed + 1`` for the second k-means) and of
        the sample.
    sample : int, optional
        Rows the silhouette is averaged over; None for all.
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
    ValueError
        If the criterion is unknown.

    Example
    -------
    >>> corners = np.repeat(np.eye(4), 10, axis=0)
    >>> noise = np.random.default_rng(0).normal(size=corners.shape)
    >>> choose_k(corners + 0.05 * noise, [2, 4, 8]).clusters
    4
    """
    if criterion not in ("silhouette", "stability", "both"):
        raise ValueError(
            "criterion is 'silhouette', 'stability' or 'both', not "
            f"{criterion!r}"
        )
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
        row["silhouette"] = row["stability"] = float("nan")
        if criterion != "stability":
            row["silhouette"] = silhouette(
                rows, found.assignments, sample, seed, options.get("block")
            )
        if criterion != "silhouette":
            again = spherical_kmeans(rows, clusters, seed=seed + 1, **options)
            row["stability"] = float(
                adjusted_rand_score(
                    found.assignments.cpu(), again.assignments.cpu()
                )
            )
        table.append(row)
    used = ["silhouette", "stability"] if criterion == "both" else [criterion]
    score = sum(_ranks([row[name] for row in table]) for name in used)
    return Choice(candidates[int(np.argmax(score))], criterion, table)


def _ranks(figures):
    """How many others each figure beats; NaN, which beats none, is last."""
    figures = np.nan_to_num(np.asarray(figures), nan=-np.inf)
    return (figures[:, None] > figures[None, :]).sum(1)
