"""SSPS and cluster-aware sampling of two processes; judged by the tests.

torchrun --nproc_per_node=2 positives_ranks.py OUTPUT_FOLDER
"""

import sys

import numpy as np
import torch
import torch.distributed as dist

from speechbrain_ssl.objectives.simclr import SimCLR
from speechbrain_ssl.positives.cluster_aware import ClusterAware
from speechbrain_ssl.positives.ssps import SSPS

torch.set_num_threads(1)


def rows():
    """All embeddings, the same everywhere; ``[101, 12]``."""
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(10, 12))
    members = centers[rng.integers(10, size=101)]
    members = members + 0.4 * rng.normal(size=(101, 12))
    return torch.from_numpy(members).float()


def run(rank, world):
    """Two epochs of steps; the last batch of each is of uneven shares."""
    x = rows()
    keys = np.arange(101, dtype=np.uint64) * 7919
    ssps = SSPS(clusters=12, queue=37, start_epoch=2, neighbours=2)
    ssps.set_up(
        SimCLR(),
        utterances=101,
        reference_size=12,
        crops=2,
        vector_size=12,
        batch=10,
        seed=3,
    )
    pseudo_positives = []
    for epoch in (1, 2, 3):
        ssps.before_epoch(epoch)
        for index in torch.arange(101).roll(epoch).split(10):
            # Shares of 5 and 5; of 1 and 0 in the last step.
            mine = torch.tensor_split(index, world)[rank]
            if ssps.active(epoch):
                found = ssps.draw(mine, epoch, keys[mine.numpy()])
                pseudo_positives.append(found.utterances)
            ssps.observe(
                mine, x[mine], torch.stack([x[mine], epoch + x[mine]], dim=1)
            )
            ssps.after_step()
    aware = ClusterAware(clusters=12, start_epoch=2, merge_from=30)
    aware.set_up(utterances=101, local_crops=4, seed=3)
    aware.recluster(2, x)
    return {
        "state": ssps.state_dict(),
        "pseudo_positives": pseudo_positives,
        "aware": aware.assignments,
    }


def main(folder):
    """Writes what this rank has found to ``rank<r>.pt``."""
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    found = run(rank, dist.get_world_size())
    torch.save(found, f"{folder}/rank{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
