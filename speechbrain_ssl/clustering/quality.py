"""Measure the quality of clusters, without labels and with them.

Without labels: the silhouette by cosine, the sizes, and the agreement of two
clusterings of the same utterances. The metrics of ``against_speakers`` use
labels: their names begin with ``monitor_``, and nothing may be selected by
them.
"""

import numpy as np
import torch
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from sklearn.metrics.cluster import contingency_matrix

from speechbrain_ssl.clustering.kmeans import similarity_blocks
from speechbrain_ssl.clustering.rows import ClusteringError, unit_rows
from speechbrain_ssl.data.draws import permutation

# Number of rows that are converted to float64 at a time.
_STEP = 16384


def as_labels(labels, count=None):
    """Convert labels to an array, and check them.

    Arguments
    ---------
    labels : array_like
        ``[N]``; whole numbers, as an array or a tensor on any device.
    count : int, optional
        The expected ``N``.

    Returns
    -------
    numpy.ndarray
        int64 ``[N]``.

    Raises
    ------
    ClusteringError
        If the labels are not a list of ``count`` whole numbers.

    Example
    -------
    >>> as_labels(torch.tensor([2, 0])).tolist()
    [2, 0]
    """
    if isinstance(labels, torch.Tensor):
        labels = labels.detach().cpu().numpy()
    labels = np.asarray(labels)
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or not len(labels):
        raise ClusteringError(
            "labels must be a list of whole numbers, one per utterance; got "
            f"{labels.dtype} of shape {labels.shape}"
        )
    if count is not None and len(labels) != count:
        raise ClusteringError(f"{len(labels)} labels for {count} utterances")
    return labels.astype(np.int64)


def silhouette(embeddings, labels, sample=10_000, seed=0, block=None):
    """Compute the mean silhouette by cosine distance (Rousseeuw, 1987).

    For a row ``x`` of a cluster ``c`` of ``n_c > 1`` members,

        a = mean of 1 - cos(x, y) over the other members y of c
        b = least mean of 1 - cos(x, y) over the members y of another cluster
        s = (b - a) / max(a, b)

    and ``s = 0`` for a cluster of one. The mean of a row's products with unit
    rows is its product with their mean, so no pairs need to be compared: the
    cost is that of one k-means assignment, and the result is exact. Only the
    rows that are averaged over are sampled; each is compared with *all* rows.
    (Comparing within a sample, as scikit-learn's ``sample_size`` does, leaves
    most of several thousand clusters with a single member, and so without a
    silhouette.)

    Arguments
    ---------
    embeddings : numpy.ndarray or torch.Tensor
        ``[N, d]``; all of them, even in a distributed run, where rank 0 may
        call this by itself.
    labels : array_like
        ``[N]``, whole numbers.
    sample : int, optional
        Number of rows to average over; None for all.
    seed : int
        Seed of the sample.
    block : int, optional
        Size of the block of similarities in bytes, as in ``nearest``.

    Returns
    -------
    float
        From -1 to 1; higher is better. It is NaN (undefined) if there is only
        one cluster, or if every row is a cluster of its own.

    Raises
    ------
    ClusteringError
        If a row is zero or not finite, or the labels do not fit the rows.

    Example
    -------
    >>> rows = np.array([[1, 0], [1, 0], [0, 1], [0, 1]])
    >>> silhouette(rows, [0, 0, 1, 1])
    1.0
    """
    rows = unit_rows(embeddings, single_process=True)
    labels = as_labels(labels, len(rows))
    names, compact, sizes = np.unique(
        labels, return_inverse=True, return_counts=True
    )
    if not 1 < len(names) < len(rows):
        return float("nan")
    device = rows.device
    compact = torch.from_numpy(compact.reshape(-1)).to(device)
    sizes = torch.from_numpy(sizes).to(device)
    # A compact cluster has distances near 0, where float32 is too coarse.
    sums = torch.zeros(
        len(names), rows.shape[1], dtype=torch.float64, device=device
    )
    for begin in range(0, len(rows), _STEP):
        part = slice(begin, begin + _STEP)
        sums.index_add_(0, compact[part], _wide(rows[part]))
    means = sums / sizes[:, None]
    if sample is not None and sample < len(rows):
        order = permutation(len(rows), seed, "silhouette")
        chosen = torch.from_numpy(np.sort(order[:sample])).to(device)
        rows, compact = rows[chosen], compact[chosen]
    own = sizes[compact].double()
    # A row's distance to itself is 0, so it does not change the sum.
    wide = _wide(rows)
    inner = own - (wide * sums[compact]).sum(1)
    inner = inner.clamp(min=0) / (own - 1).clamp(min=1)
    outer = torch.empty_like(inner)
    for part, cosines in similarity_blocks(rows, means.float(), block):
        cosines.scatter_(1, compact[part, None], -torch.inf)
        other = cosines.argmax(1)
        # Find the nearest cluster in float32; compute its distance in float64.
        outer[part] = 1 - (wide[part] * means[other]).sum(1)
    outer = outer.clamp(min=0)
    score = (outer - inner) / torch.maximum(inner, outer).clamp(min=1e-12)
    score[own == 1] = 0
    return float(score.mean())


def _wide(rows):
    """Normalise rows again in float64, where float32 norms are not exact."""
    return torch.nn.functional.normalize(rows.double(), dim=1)


def cluster_sizes(labels, clusters=None):
    """Compute statistics of the cluster sizes.

    Arguments
    ---------
    labels : array_like
        ``[N]``, whole numbers from 0.
    clusters : int, optional
        Number of possible clusters; by default the highest label plus one.

    Returns
    -------
    dict
        ``clusters`` (number of non-empty clusters), ``empty``,
        ``singletons``, ``effective`` (exp of the entropy of the shares: the
        number of equally large clusters with the same entropy), and over the
        sizes of the non-empty clusters ``size_min``, ``size_q05``,
        ``size_q25``, ``size_median``, ``size_q75``, ``size_q95``,
        ``size_max`` and ``size_mean``.

    Raises
    ------
    ClusteringError
        If a label is negative or not below ``clusters``.

    Example
    -------
    >>> found = cluster_sizes([0, 0, 0, 2], clusters=4)
    >>> found["clusters"], found["empty"], found["singletons"]
    (2, 2, 1)
    """
    labels = as_labels(labels)
    highest = int(labels.max())
    clusters = highest + 1 if clusters is None else clusters
    if labels.min() < 0 or highest >= clusters:
        raise ClusteringError(
            f"labels from {labels.min()} to {highest}, but there are "
            f"{clusters} clusters, numbered from 0"
        )
    every = np.bincount(labels, minlength=clusters)
    sizes = every[every > 0]
    shares = sizes / sizes.sum()
    found = {
        "clusters": len(sizes),
        "empty": clusters - len(sizes),
        "singletons": int((sizes == 1).sum()),
        "effective": float(np.exp(-(shares * np.log(shares)).sum())),
        "size_mean": float(sizes.mean()),
    }
    points = {"min": 0, "q05": 5, "q25": 25, "median": 50}
    points |= {"q75": 75, "q95": 95, "max": 100}
    for name, percent in points.items():
        found[f"size_{name}"] = float(np.percentile(sizes, percent))
    return found


def agreement(keys, labels, other_keys, other_labels):
    """Compare two clusterings, such as those of two rounds, by utterance.

    Neither the numbering of the clusters nor the order of the utterances
    matters, and utterances that only one side has are left out. NMI (normalised
    by the arithmetic mean) rises with the number of clusters even by chance;
    the adjusted Rand index does not.

    Arguments
    ---------
    keys, other_keys : sequence of str
        ``[N]`` and ``[M]``, the utterances of each side.
    labels, other_labels : array_like
        ``[N]`` and ``[M]``, their clusters.

    Returns
    -------
    dict
        ``nmi`` (0 to 1), ``ari`` (0 by chance, 1 for equality) and
        ``utterances``, the number of utterances that both sides have.

    Raises
    ------
    ClusteringError
        If a key occurs twice on one side, or the sides share no utterance.

    Example
    -------
    >>> agreement(["a", "b", "c"], [0, 0, 1], ["c", "b", "a"], [5, 7, 7])
    {'nmi': 1.0, 'ari': 1.0, 'utterances': 3}
    """
    sides = []
    for names, values in ((keys, labels), (other_keys, other_labels)):
        names = np.asarray(names)
        values = as_labels(values, len(names))
        unique, counts = np.unique(names, return_counts=True)
        if len(unique) < len(names):
            raise ClusteringError(
                f"{unique[counts > 1][0]} has more than one label; each "
                "utterance belongs to one cluster"
            )
        sides.append((names, values))
    (names, values), (other_names, other_values) = sides
    common, here, there = np.intersect1d(
        names, other_names, assume_unique=True, return_indices=True
    )
    if not len(common):
        raise ClusteringError(
            "the two clusterings have no utterance in common; they belong to "
            "different manifests"
        )
    left, right = values[here], other_values[there]
    return {
        "nmi": float(normalized_mutual_info_score(left, right)),
        "ari": float(adjusted_rand_score(left, right)),
        "utterances": len(common),
    }


def against_speakers(labels, speakers):
    """Compare clusters with speaker labels. **For monitoring only.**

    Nothing may be selected by these metrics: no checkpoint, no number of
    clusters, no round. A result that reports them must say that labels were
    seen.

    Arguments
    ---------
    labels : array_like
        ``[N]``, the cluster of each utterance.
    speakers : sequence
        ``[N]``, the speaker of each utterance, as a name or a number.

    Returns
    -------
    dict
        ``monitor_nmi``, ``monitor_ari`` and ``monitor_purity`` (share of
        utterances whose speaker is the most frequent one in their cluster).
        Purity is 1 if each utterance is its own cluster, so read it together
        with the sizes.

    Raises
    ------
    ClusteringError
        If there is not exactly one speaker per utterance.

    Example
    -------
    >>> found = against_speakers([0, 0, 0, 1], ["x", "x", "y", "y"])
    >>> found["monitor_purity"]
    0.75
    """
    if isinstance(speakers, torch.Tensor):
        speakers = speakers.cpu()
    speakers = np.unique(np.asarray(speakers), return_inverse=True)[1]
    labels = as_labels(labels, len(speakers))
    table = contingency_matrix(labels, speakers, sparse=True)
    most = table.max(axis=1).toarray().sum()
    return {
        "monitor_nmi": float(normalized_mutual_info_score(labels, speakers)),
        "monitor_ari": float(adjusted_rand_score(labels, speakers)),
        "monitor_purity": float(most / len(labels)),
    }
