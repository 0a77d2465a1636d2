"""Run MoCo with shuffled keys in two processes; started by torchrun.

torchrun --nproc_per_node=2 moco_ranks.py keys OUTPUT_FOLDER
torchrun --nproc_per_node=2 moco_ranks.py train STEP TRAIN.PY ARGS

The first writes keys of a teacher with a batch norm; the second trains until an
optimiser step, 0 being the end.
"""

import runpy
import sys
import types

import torch
import torch.distributed as dist

from speechbrain_ssl import distributed
from speechbrain_ssl.brains.ssl_brain import SSLBrain
from speechbrain_ssl.data.draws import permutation
from speechbrain_ssl.objectives.teacher import MomentumTeacher

#: Rows of each process, crops, frames, bands.
SHAPE = (4, 2, 3, 5)

#: Where the permutation of the keys is drawn.
SEED, EPOCH, STEP = 7, 2, 3


def inputs():
    """Return the crops of both processes, which differ in mean and scale."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2 * SHAPE[0], *SHAPE[1:], generator=generator)
    x[4:] = 2 * x[4:] - 5
    return x


class Encoder(torch.nn.Module):
    """A mean over time and a batch norm, ``[n, frames, 5]`` to ``[n, 1, 5]``."""

    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(5)

    def forward(self, x):
        return self.norm(x.mean(1)).unsqueeze(1)


def write_keys(folder):
    """Write what this process has seen to ``rank<r>.pt``."""
    dist.init_process_group("gloo")
    rank = distributed.rank()
    mine = inputs()[4 * rank : 4 * rank + 4]
    order = permutation(8, 1, "any")
    dealt = distributed.redistribute(mine, order)
    teacher = MomentumTeacher(Encoder(), torch.nn.Identity()).train()
    brain = types.SimpleNamespace(
        objective=types.SimpleNamespace(shuffles_keys=True),
        hparams=types.SimpleNamespace(seed=SEED),
        epoch=EPOCH,
        step=STEP,
        teacher=teacher,
    )
    branch = SSLBrain._by_teacher(brain, [mine], torch.arange(4))
    statistics = [teacher.encoder.norm.running_mean.clone()]
    distributed.broadcast_statistics([teacher])
    statistics.append(teacher.encoder.norm.running_mean.clone())
    torch.save(
        {
            "dealt": dealt,
            "back": distributed.redistribute(dealt, order.argsort()),
            "keys": branch.projections,
            "statistics": statistics,
        },
        f"{folder}/rank{rank}.pt",
    )
    dist.barrier()
    dist.destroy_process_group()


def train_until(step, script, argv):
    """Train, and leave after a step, before a checkpoint is written."""
    original = SSLBrain.on_fit_batch_end

    def leave(brain, *args):
        original(brain, *args)
        if brain.optimizer_step == step:
            dist.barrier()
            dist.destroy_process_group()
            sys.exit(0)

    SSLBrain.on_fit_batch_end = leave
    runpy.run_path(script)["main"](argv)
    distributed.leave()


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1] == "keys":
        write_keys(sys.argv[2])
    else:
        train_until(int(sys.argv[2]), sys.argv[3], sys.argv[4:])
