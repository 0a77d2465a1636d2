"""Spherical k-means, on any device, in one process or many.

Lloyd's algorithm on the unit sphere (Dhillon and Modha, "Concept
decompositions for large sparse text data using clustering", 2001). With unit
rows ``x_i`` and unit centroids ``m_c``, these two steps alternate:

    a_i = argmax over c of x_i . m_c
    m_c = S_c / |S_c|,    S_c = sum of x_i over a_i = c

Neither of the two steps can raise the inertia

    sum over i of |x_i - m_{a_i}|^2 = 2 * (N - sum over i of x_i . m_{a_i})

**The members are summed in fixed point**: each coordinate becomes an integer
multiple of 2^-36, which is finer than float32's resolution for anything above
2^-12. A sum of integers does not depend on their order, so the update of the
centroids does not depend on the order of the rows, the size of the blocks, the
number of processes, or the order of a GPU's threads. Only the products are
rounded; they decide between centroids that are equally near up to the seventh
digit.

**Time** is ``O(N * k * d)`` per iteration. **Memory**, in bytes, for ``N`` rows
in this process: ``4 * N * d`` for the unit rows, ``24 * k * d`` for centroids
and sums, and one block of similarities: 2 MiB on a CPU (to fit its cache) and
256 MiB elsewhere, or a single row of ``4 * k`` bytes if that is larger.
k-means++ adds, for a sample of ``M = min(N, 16 * k)`` rows and ``2 + ln k``
tries, ``O(M * k * d * ln k)`` of time and, in every process, temporarily
``4 * M * (d + 2 * ln k + 8)`` bytes.
"""

import dataclasses

import numpy as np
import torch
import torch.distributed as dist

from speechbrain_ssl import distributed
from speechbrain_ssl.clustering.rows import (
    ClusteringError,
    Shards,
    exact_products,
    unit_rows,
)
from speechbrain_ssl.data.draws import permutation, uniform
from speechbrain_ssl.distributed import sum_over_ranks
from speechbrain_ssl.upload import upload

# A sum of 2^27 (134 million) coordinates of at most 1, in units of 2^-36, fits
# into 63 bits.
_FIXED = 2.0**36
_MOST_ROWS = 2**27

# Rows per cluster in the sample that k-means++ draws from.
_SAMPLE = 16


@dataclasses.dataclass
class KMeans:
    """Hold the result of a spherical k-means.

    Arguments
    ---------
    centroids : torch.Tensor
        float32 ``[k, d]``, of unit norm.
    assignments : torch.Tensor
        int64 ``[N]``, the nearest centroid of each row of this process.
    inertia : list of float
        Sum of the squared distances of all rows (of all processes) to their
        centroids, before the first update and after each. It never rises. It
        is computed as a difference of float32 sums, so values below ``1e-6 *
        N`` are rounding error.
    sizes : torch.Tensor
        int64 ``[k]``, number of members of each cluster in all processes; 0
        for an empty cluster.
    """

    centroids: torch.Tensor
    assignments: torch.Tensor
    inertia: list
    sizes: torch.Tensor


def spherical_kmeans(
    embeddings,
    clusters,
    iterations=10,
    seed=0,
    init="random",
    empty="keep",
    names=None,
    device=None,
    block=None,
):
    """Cluster embeddings by direction.

    With the defaults this is the clustering of SSPS (papers 2505.14561 and
    2501.17772): the initial centroids are members drawn at random, 10 updates
    and one last assignment follow, and an empty cluster keeps its centroid.
    ``k-means++`` and ``reseed`` find a lower inertia; use them for
    pseudo-labels.

    In a distributed run every process calls this with its share of the rows,
    of any size. The result equals that of one process with all rows in the
    order of the ranks.

    Arguments
    ---------
    embeddings : numpy.ndarray or torch.Tensor
        ``[N, d]``, of any norm.
    clusters : int
        Number of clusters ``k``.
    iterations : int
        Number of centroid updates. It stops early only if a further update
        would change nothing.
    seed : int
        Seed of the initial centroids. Nothing else is drawn.
    init : str or torch.Tensor
        ``"random"``: ``k`` rows, drawn without replacement. ``"k-means++"``:
        rows of a sample of ``16 * k``, each drawn with a probability
        proportional to its squared distance to those already drawn, the best
        of ``2 + ln k`` tries (Arthur and Vassilvitskii, 2007). Or the initial
        centroids themselves, ``[k, d]``.
    empty : str
        What happens to a cluster without members. ``"keep"``: it keeps its
        centroid, and may gain members later. ``"reseed"``: its centroid moves
        to one of the rows that are farthest from their own centroids.
    names : sequence of str, optional
        ``[N]``, keys of the utterances, for error messages.
    device : str or torch.device, optional
        Where to compute; by default, where the embeddings are.
    block : int, optional
        Size of the block of similarities, in bytes.

    Returns
    -------
    KMeans
        Centroids, assignments, inertia and sizes, on the device.

    Raises
    ------
    ClusteringError
        If there are fewer rows than clusters, a row is zero or not finite, or
        the initial centroids have the wrong shape.
    ValueError
        If an option is unknown.

    Example
    -------
    >>> rows = np.array([[1, 0], [2, 0.1], [0, 1], [0.2, 3]])
    >>> found = spherical_kmeans(rows, 2, init="k-means++")
    >>> found.assignments.tolist() in ([0, 0, 1, 1], [1, 1, 0, 0])
    True
    >>> found.sizes.tolist()
    [2, 2]
    """
    if empty not in ("keep", "reseed"):
        raise ValueError(f"empty is 'keep' or 'reseed', not {empty!r}")
    if isinstance(init, str) and init not in ("random", "k-means++"):
        raise ValueError(
            f"init is 'random', 'k-means++' or centroids, not {init!r}"
        )
    if iterations < 0:
        raise ValueError(f"iterations is 0 or more, not {iterations}")
    rows = unit_rows(embeddings, names, device)
    shards = Shards(rows)
    check_count(shards.total, clusters)
    centroids = _first_centroids(shards, clusters, seed, init)
    before, inertia = None, []
    while True:
        labels, best = nearest(rows, centroids, block)
        # Rounding may raise a cosine slightly above 1.
        gap = (1 - best.double()).sum().clamp(min=0)
        inertia.append(2 * float(sum_over_ranks(gap)))
        if len(inertia) > iterations or _same(before, labels):
            break
        sums, sizes = _sums(rows, labels, clusters)
        centroids = _update(sums, centroids)
        before = labels
        empty_clusters = (sizes == 0).nonzero().flatten()
        if empty == "reseed" and len(empty_clusters):
            far = _worst(shards, labels, best, sizes, len(empty_clusters))
            centroids[empty_clusters[: len(far)]] = shards.pick(far)
            # After reseeding, unchanged labels do not imply convergence.
            before = None
    sizes = sum_over_ranks(torch.bincount(labels, minlength=clusters))
    return KMeans(centroids, labels, inertia, sizes)


def check_count(total, clusters):
    """Reject a number of clusters that is impossible for a number of rows.

    Arguments
    ---------
    total : int
        Number of rows in all processes.
    clusters : int
        The requested number of clusters.

    Raises
    ------
    ClusteringError
        If ``clusters`` is not between 1 and ``total``, or there are too many
        rows.

    Example
    -------
    >>> check_count(10, 10)
    """
    if clusters < 1:
        raise ClusteringError(
            f"the number of clusters must be at least 1; it is {clusters}"
        )
    if clusters > total:
        raise ClusteringError(
            f"{clusters} clusters cannot be made of {total} utterances; "
            "ask for fewer with `clusters`, about a tenth of the utterances"
        )
    if total > _MOST_ROWS:
        raise ClusteringError(
            f"cannot cluster {total} utterances: the sums are exact for at "
            f"most {_MOST_ROWS}"
        )


def nearest(rows, centroids, block=None):
    """Find the nearest centroid of each row, by cosine.

    Arguments
    ---------
    rows : torch.Tensor
        float32 ``[N, d]``, of unit norm.
    centroids : torch.Tensor
        float32 ``[k, d]``, of unit norm, on the same device.
    block : int, optional
        Size of the block of similarities, in bytes; by default 2 MiB on a CPU
        and 256 MiB elsewhere.

    Returns
    -------
    labels : torch.Tensor
        int64 ``[N]``, the index of the nearest centroid.
    cosines : torch.Tensor
        float32 ``[N]``, the cosine with the nearest centroid.

    Example
    -------
    >>> labels, cosines = nearest(torch.eye(3), torch.eye(3)[[2, 0, 1]])
    >>> labels.tolist(), cosines.tolist()
    ([1, 2, 0], [1.0, 1.0, 1.0])
    """
    labels = torch.empty(len(rows), dtype=torch.int64, device=rows.device)
    cosines = torch.empty(len(rows), device=rows.device)
    for part, similarities in similarity_blocks(rows, centroids, block):
        torch.max(similarities, dim=1, out=(cosines[part], labels[part]))
    return labels, cosines


def similarity_blocks(rows, centroids, block=None):
    """Yield the products of rows and centroids, block by block.

    Arguments
    ---------
    rows, centroids, block
        As in ``nearest``.

    Yields
    ------
    part : slice
        The rows of the block.
    similarities : torch.Tensor
        float32 ``[rows of the block, k]``; the next block overwrites it.

    Example
    -------
    >>> blocks = similarity_blocks(torch.eye(3), torch.eye(3), block=24)
    >>> [(part.start, part.stop) for part, _ in blocks]
    [(0, 2), (2, 4)]
    """
    if block is None:
        block = 2**21 if rows.device.type == "cpu" else 2**28
    step = max(1, min(len(rows), block // (4 * len(centroids))))
    buffer = torch.empty(step, len(centroids), device=rows.device)
    for begin in range(0, len(rows), step):
        part = slice(begin, begin + step)
        out = buffer[: len(rows[part])]
        with exact_products():
            torch.mm(rows[part], centroids.T, out=out)
        yield part, out


def centroids_of(rows, labels, clusters):
    """Compute the centroids of given clusters; that of an empty one is zero.

    Arguments
    ---------
    rows : torch.Tensor
        float32 ``[N, d]``, of unit norm; the share of this process.
    labels : torch.Tensor
        int64 ``[N]``, from 0 to ``clusters - 1``.
    clusters : int
        Number of clusters.

    Returns
    -------
    torch.Tensor
        float32 ``[clusters, d]``, the same in every process.

    Example
    -------
    >>> centroids_of(torch.eye(2), torch.tensor([0, 0]), 2)
    tensor([[0.7071, 0.7071],
            [0.0000, 0.0000]])
    """
    sums, _ = _sums(rows, labels, clusters)
    return _update(sums, rows.new_zeros(clusters, rows.shape[1]))


def _sums(rows, labels, clusters):
    """Compute each cluster's sum (int64, in units of 2^-36) and size."""
    sums = torch.zeros(
        clusters, rows.shape[1], dtype=torch.int64, device=rows.device
    )
    # In bounded blocks, since int64 takes twice the memory of the rows.
    step = max(1, (2**21 if rows.device.type == "cpu" else 2**27) // 1024)
    for begin in range(0, len(rows), step):
        part = slice(begin, begin + step)
        fixed = (rows[part] * _FIXED).round_().long()
        sums.index_add_(0, labels[part], fixed)
    sizes = torch.bincount(labels, minlength=clusters)
    return sum_over_ranks(sums), sum_over_ranks(sizes)


def _update(sums, old):
    """Normalise the sums; keep the old centroid if a sum has no direction."""
    sums = sums.double()
    lengths = sums.norm(dim=1, keepdim=True)
    # If the members cancel each other, the direction of the sum is rounding.
    directed = lengths > 1e-6 * _FIXED
    return torch.where(
        directed, (sums / lengths.clamp(min=1)).to(old.dtype), old
    )


def _same(before, labels):
    """Return whether no label has changed in any process."""
    if before is None:
        changed = torch.ones(1, dtype=torch.int64, device=labels.device)
    else:
        changed = (before != labels).sum().view(1)
    return int(sum_over_ranks(changed)) == 0


def _worst(shards, labels, best, sizes, count):
    """Find the rows farthest from their centroids; equal in all processes.

    A row that is alone in its cluster is skipped, since the update has just
    moved the centroid onto it.
    """
    candidates = (sizes[labels] > 1).nonzero().flatten()
    # A stable sort orders equally far rows by their number.
    order = torch.sort(best[candidates], stable=True).indices[:count]
    chosen = candidates[order]
    numbers, cosines = chosen + shards.first, best[chosen]
    if distributed.is_distributed():
        found = [None] * distributed.world_size()
        dist.all_gather_object(found, (numbers.cpu(), cosines.cpu()))
        numbers = torch.cat([n for n, _ in found])
        cosines = torch.cat([c for _, c in found])
        order = torch.sort(cosines, stable=True).indices[:count]
        numbers = numbers[order].to(labels.device)
    return numbers


def _first_centroids(shards, clusters, seed, init):
    """Return the initial centroids, ``[k, d]``."""
    if not isinstance(init, str):
        shape = (clusters, shards.rows.shape[1])
        if np.shape(init) != shape:
            raise ClusteringError(
                f"initial centroids of shape {tuple(np.shape(init))}; "
                f"{clusters} clusters of these embeddings need {shape}"
            )
        return unit_rows(init, device=shards.rows.device)
    order = permutation(shards.total, seed, "k-means")
    device = shards.rows.device
    if init == "random":
        return shards.pick(torch.from_numpy(order[:clusters]).to(device))
    sample = torch.from_numpy(order[: _SAMPLE * clusters]).to(device)
    return _plus_plus(shards.pick(sample), clusters, seed)


@exact_products()
def _plus_plus(rows, clusters, seed):
    """Draw initial centroids ``[clusters, d]`` by greedy k-means++.

    The result is the same in all processes. At each turn several rows are
    drawn, and the one that leaves the smallest total distance is kept, as in
    scikit-learn. All of them share one pass over the sample, which dominates
    the time.
    """
    trials = 2 + int(np.log(clusters))
    # The order of the sample is random already, so the first one is row 0.
    # The numbers stay on the device: the host waits once in each turn.
    chosen = torch.zeros(clusters, dtype=torch.int64, device=rows.device)
    distances = (1 - rows @ rows[0]).clamp(min=0)
    for turn in range(1, clusters):
        # Rows closer than rounding error count as equal.
        weights = torch.where(distances < 1e-6, 0.0, distances.double())
        weights.index_fill_(0, chosen[turn - 1 : turn], 0)
        # On a CPU: a running sum on a GPU may differ between two runs.
        ends = np.cumsum(weights.cpu().numpy())
        if ends[-1] == 0:
            # There are fewer distinct rows than clusters: fill up with others.
            left = np.setdiff1d(np.arange(len(rows)), chosen[:turn].cpu())
            chosen[turn:] = upload(left[: clusters - turn], rows.device)
            break
        at = uniform(seed, "k-means++", turn, size=trials) * ends[-1]
        drawn = np.searchsorted(ends, at, side="right")
        drawn = upload(drawn, rows.device)
        # [trials, sample], so that each sum runs over contiguous memory.
        left = torch.mm(rows[drawn], rows.T).neg_().add_(1).clamp_(min=0)
        torch.minimum(left, distances, out=left)
        best = left.sum(1, dtype=torch.float64).argmin(keepdim=True)
        distances = left[best][0]
        chosen[turn : turn + 1] = drawn[best]
    return rows[chosen]
