"""Run objectives in two processes; started by torchrun, checked by tests.

torchrun --nproc_per_node=2 objective_ranks_a.py OUTPUT_FOLDER
"""

import copy
import sys

import torch
import torch.distributed as dist

from speechbrain_ssl import distributed
from speechbrain_ssl.objectives.base import Branch
from speechbrain_ssl.objectives.byol import BYOL
from speechbrain_ssl.objectives.cpc import CPC
from speechbrain_ssl.objectives.distillation import Distillation
from speechbrain_ssl.objectives.lim import LIM
from speechbrain_ssl.objectives.moco import MoCo
from speechbrain_ssl.objectives.simclr import SimCLR
from speechbrain_ssl.objectives.simsiam import SimSiam
from speechbrain_ssl.sync_batch_norm import synchronise_batch_norms

torch.set_num_threads(1)

SIZE = 6
_LAYERS = {"hidden": 8, "output_size": 5}


def distillation():
    """Return one with a teacher of 8 utterances."""
    objective = Distillation("x", SIZE, teacher_size=5, relation_weight=2.0)
    generator = torch.Generator().manual_seed(2)
    objective.set_targets(torch.randn(8, 5, generator=generator))
    return objective


#: Name -> (objective, crops).
CASES = {
    "simclr with a margin": (lambda: SimCLR(0.2, 0.3, "arcface"), 2),
    "simclr of four crops": (lambda: SimCLR(0.2, 0.1), 4),
    # A queue of 20 is not a multiple of the 8 keys of a step.
    "moco": (lambda: MoCo(SIZE, queue=20, temperature=0.2, margin=0.1), 2),
    "byol": (lambda: BYOL(SIZE, **_LAYERS, predictor_hidden=7), 2),
    "simsiam": (lambda: SimSiam(SIZE, **_LAYERS, predictor_hidden=7), 3),
    "cpc": (lambda: CPC(SIZE, SIZE, hidden=5, steps=2, frames_per_step=2), 2),
    "lim bce": (lambda: LIM(SIZE, "bce", 9), 2),
    "lim mine": (lambda: LIM(SIZE, "mine", 9), 2),
    "lim nce": (lambda: LIM(SIZE, "nce", 0, **_LAYERS), 2),
    "distillation": (distillation, 2),
}

STEPS = 4
#: The step that is skipped.
SKIPPED = 1


def inputs(crops):
    """Return a batch ``[8, crops, frames, channels]``, equal everywhere."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(8, crops, 12, SIZE, generator=generator)
    # Utterances differ, and the two halves differ in mean and scale.
    x = x + torch.randn(8, 1, 1, SIZE, generator=generator)
    x[4:] = 2 * x[4:] - 1
    return x


def branch(weight, head, x):
    """Encode linearly; return frames, their means, and projections."""
    frames = x @ weight.T
    embeddings = frames.mean(2)
    vectors = head(embeddings.flatten(0, 1)).unflatten(0, x.shape[:2])
    index = torch.arange(len(x)) + distributed.rank() * len(x)
    return Branch(embeddings, vectors, head, index, frames=frames)


def run(name, x):
    """Take some steps on this process's part of the batch.

    There is no optimiser: only the input and the state of the objective change
    from step to step.
    """
    torch.manual_seed(1)
    objective = CASES[name][0]()
    weight = torch.nn.Parameter(torch.eye(SIZE) + 0.1)
    slow = torch.eye(SIZE) - 0.1
    objective = synchronise_batch_norms(objective)
    teacher = copy.deepcopy(objective.head)
    parameters = {"weight": weight, **dict(objective.named_parameters())}
    found = {"losses": [], "local": [], "scalars": [], "grads": []}
    for step in range(STEPS):
        batch = x + step * x.roll(1, dims=-1)
        first = second = branch(weight, objective.head, batch)
        if objective.momentum:
            with torch.no_grad():
                second = branch(slow, teacher, batch)
        loss, scalars = objective(first, second)
        loss.backward()
        distributed.average_gradients(list(parameters.values()))
        found["local"].append(loss.detach())
        found["losses"].append(distributed.mean_over_ranks(loss.detach()))
        found["scalars"].append(
            {
                key: distributed.mean_over_ranks(value)
                for key, value in scalars.items()
                # "spread" is a standard deviation over the batch of one process.
                if key != "spread"
            }
        )
        found["grads"].append({k: p.grad for k, p in parameters.items()})
        for parameter in parameters.values():
            parameter.grad = None
        if step == SKIPPED:
            objective.skip_step()
        else:
            objective.after_step()
    found["state"] = objective.state_dict()
    return found


def main(folder):
    """Write the results of this rank to ``rank<r>.pt``."""
    dist.init_process_group("gloo")
    rank = distributed.rank()
    found = {
        name: run(name, inputs(crops).chunk(2)[rank])
        for name, (_, crops) in CASES.items()
    }
    torch.save(found, f"{folder}/rank{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
