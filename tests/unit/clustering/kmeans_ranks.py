"""k-means of two processes; run by torchrun, judged by the tests.

torchrun --nproc_per_node=2 kmeans_ranks.py OUTPUT_FOLDER
"""

import sys

import numpy as np
import torch
import torch.distributed as dist

from speechbrain_ssl.clustering.agglomerative import kmeans_then_merge
from speechbrain_ssl.clustering.kmeans import spherical_kmeans
from speechbrain_ssl.clustering.rows import ClusteringError

torch.set_num_threads(1)

CASES = {
    "random": {"init": "random"},
    "k-means++": {"init": "k-means++"},
    # Many clusters and few rows: some become empty.
    "reseed": {"clusters": 120, "empty": "reseed"},
    "merged": {"centroids": 40, "clusters": 6},
}


def rows():
    """All rows, the same everywhere; ``[300, 12]``."""
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(10, 12))
    members = centers[rng.integers(10, size=300)]
    return (members + 0.4 * rng.normal(size=(300, 12))).astype(np.float32)


def cluster(part, options):
    """One case, as a dictionary of tensors."""
    options = {"clusters": 20, "seed": 5} | options
    if "centroids" in options:
        found = kmeans_then_merge(part, **options)
    else:
        found = spherical_kmeans(part, **options)
    names = ("centroids", "assignments", "sizes")
    values = {name: getattr(found, name) for name in names}
    return values | {"inertia": getattr(found, "inertia", None)}


def refusal(call):
    """The message of an error that must come."""
    try:
        call()
    except ClusteringError as error:
        return str(error)
    return "nothing was refused"


def main(folder):
    """Writes what this rank has found to ``rank<r>.pt``."""
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    # Uneven shards, as the last files of a list leave them.
    mine = rows()[:110] if rank == 0 else rows()[110:]
    found = {name: cluster(mine, options) for name, options in CASES.items()}
    bad = mine.copy()
    if rank == 1:
        bad[3, 2] = np.nan
    found["refused"] = refusal(lambda: spherical_kmeans(bad, 4))
    narrow = mine[:, : 12 - rank]
    found["sizes"] = refusal(lambda: spherical_kmeans(narrow, 4))
    found["many"] = refusal(lambda: spherical_kmeans(mine, 301))
    torch.save(found, f"{folder}/rank{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
