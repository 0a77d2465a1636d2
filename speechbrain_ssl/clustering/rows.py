"""Normalise embeddings to unit rows, and reject rows without a direction.

Everything in this package compares directions. A row of zeros has none, and a
NaN would spread from one utterance to the centroid of its cluster and from
there to all of its members. Both are therefore rejected here, by name.
"""

import contextlib

import numpy as np
import torch
import torch.distributed as dist

from speechbrain_ssl import distributed
from speechbrain_ssl.errors import EmbeddingError

# Number of rows that are converted to float64 at a time.
_STEP = 16384


class ClusteringError(EmbeddingError):
    """Embeddings or a request that cannot be clustered, with the reason."""


@contextlib.contextmanager
def exact_products():
    """Multiply matrices in full fp32, inside this context.

    Importing SpeechBrain lets GPUs round the factors to 10 bits (TF32). Cosines
    are then wrong by up to 1e-3: duplicates are taken for different rows, and the
    inertia may rise.

    Example
    -------
    >>> with exact_products():
    ...     torch.backends.cuda.matmul.allow_tf32
    False
    """
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def unit_rows(embeddings, names=None, device=None, single_process=False):
    """Normalise embeddings to unit rows in float32, on the clustering device.

    The source is read piece by piece, so it may be a memory map. The result
    takes ``4 * N * d`` bytes.

    Arguments
    ---------
    embeddings : numpy.ndarray or torch.Tensor
        ``[N, d]``, of any floating type.
    names : sequence of str, optional
        ``[N]``, keys of the utterances, for error messages.
    device : str or torch.device, optional
        Device of the result; by default that of the embeddings, or the CPU for
        an array.
    single_process : bool
        Whether only this process of a distributed run calls the function.

    Returns
    -------
    torch.Tensor
        float32 ``[N, d]``.

    Raises
    ------
    ClusteringError
        If the embeddings are not a table, or a row is zero or not finite. In a
        distributed run all processes raise if one has such a row, unless
        ``single_process``.

    Example
    -------
    >>> unit_rows(np.array([[3.0, 4.0], [0.0, 2.0]])).tolist()
    [[0.6000000238418579, 0.800000011920929], [0.0, 1.0]]
    """
    if single_process:
        return _unit_rows(embeddings, names, device)
    rows, problem = None, None
    try:
        rows = _unit_rows(embeddings, names, device)
    except ClusteringError as error:
        problem = error
    raise_on_all_ranks(problem, embeddings)
    return rows


def _unit_rows(embeddings, names, device):
    """Normalise the rows of this process, without talking to the others."""
    if not isinstance(embeddings, torch.Tensor):
        embeddings = np.asanyarray(embeddings)
    if embeddings.ndim != 2 or embeddings.shape[1] == 0:
        raise ClusteringError(
            "embeddings must be a table of one row per utterance; got shape "
            f"{tuple(embeddings.shape)}"
        )
    if names is not None and len(names) != len(embeddings):
        raise ClusteringError(
            f"{len(embeddings)} embeddings but {len(names)} names: they belong "
            "to different manifests"
        )
    if device is None:
        device = getattr(embeddings, "device", "cpu")
        device = device if isinstance(device, torch.device) else "cpu"
    rows = torch.empty(
        tuple(embeddings.shape), dtype=torch.float32, device=device
    )
    for begin in range(0, len(rows), _STEP):
        part = embeddings[begin : begin + _STEP]
        if not isinstance(part, torch.Tensor):
            # Copy: a memory map is often read-only, which torch warns about.
            part = torch.from_numpy(np.array(part, dtype=np.float64))
        # In float64, so that the norm of huge or tiny rows keeps its precision.
        part = part.detach().to(device).double()
        lengths = part.norm(dim=1, keepdim=True)
        usable = lengths.isfinite() & (lengths > 0)
        if not usable.all():
            first = int((~usable).flatten().nonzero()[0])
            _refuse(begin + first, float(lengths[first]), names)
        rows[begin : begin + _STEP] = part / lengths
    return rows


def _refuse(index, length, names):
    """Raise for a row that has no direction, and name its utterance."""
    where = f"row {index}"
    if names is not None:
        where = f"{names[index]} ({where})"
    if length == 0:
        what = "zero, so it has no direction; is the file digital silence?"
    else:
        what = "not finite (NaN or infinity); did the training diverge?"
    raise ClusteringError(f"the embedding of {where} is {what}")


def raise_on_all_ranks(problem, embeddings):
    """Raise in all processes if one has a problem; else the others would hang.

    All processes also raise if their embeddings differ in dimension.
    """
    if distributed.is_distributed():
        shape = np.shape(embeddings)
        size = shape[1] if len(shape) == 2 else 0
        state = torch.tensor(
            [problem is not None, size, -size],
            device=distributed.collective_device(),
        )
        dist.all_reduce(state, dist.ReduceOp.MAX)
        failed, widest, narrowest = state.tolist()
        if problem is None and failed:
            problem = ClusteringError(
                "another process has rejected its embeddings; its message "
                "names the utterance"
            )
        if problem is None and widest != -narrowest:
            problem = ClusteringError(
                f"embeddings of {-narrowest} and of {widest} dimensions in "
                "different processes: they are of different models"
            )
    if problem is not None:
        raise problem


class Shards:
    """Number the rows of all processes consecutively.

    Rows are numbered in the order of the ranks, so that every process refers to
    a row by the same number, however many processes there are.

    Arguments
    ---------
    rows : torch.Tensor
        ``[N_rank, d]``, the rows of this process.

    Example
    -------
    >>> shards = Shards(torch.eye(3))
    >>> shards.total, shards.pick(torch.tensor([2, 0])).tolist()
    (3, [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    """

    def __init__(self, rows):
        self.rows = rows
        counts = torch.zeros(
            distributed.world_size(), dtype=torch.int64, device=rows.device
        )
        counts[distributed.rank()] = len(rows)
        counts = distributed.sum_over_ranks(counts).tolist()
        #: Number of rows in all processes.
        self.total = sum(counts)
        #: Number of this process's first row.
        self.first = sum(counts[: distributed.rank()])

    def pick(self, numbers):
        """Fetch rows by their numbers, in every process.

        Arguments
        ---------
        numbers : torch.Tensor
            int64 ``[M]``, the same in every process.

        Returns
        -------
        torch.Tensor
            The rows, ``[M, d]``, the same in every process.
        """
        local = numbers - self.first
        here = (local >= 0) & (local < len(self.rows))
        picked = self.rows.new_zeros(len(numbers), self.rows.shape[1])
        picked[here] = self.rows[local[here]]
        return distributed.sum_over_ranks(picked)
