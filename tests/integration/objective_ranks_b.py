"""Run batch objectives in two processes; started by torchrun, checked by tests.

torchrun --nproc_per_node=2 objective_ranks_b.py OUTPUT_FOLDER
"""

import sys

import torch
import torch.distributed as dist
import torch.distributed.nn.functional

from speechbrain_ssl import distributed
from speechbrain_ssl.objectives.barlow import BarlowTwins
from speechbrain_ssl.objectives.base import Branch
from speechbrain_ssl.objectives.deepcluster import DeepCluster
from speechbrain_ssl.objectives.dino import DINO
from speechbrain_ssl.objectives.dino_head import DINOHead
from speechbrain_ssl.objectives.dino_regularisers import KoLeo, RDINOPenalties
from speechbrain_ssl.objectives.sdpn import SDPN
from speechbrain_ssl.objectives.swav import SwAV
from speechbrain_ssl.objectives.teacher import MomentumTeacher
from speechbrain_ssl.objectives.vibcreg import VIbCReg
from speechbrain_ssl.objectives.vicreg import VICReg
from speechbrain_ssl.objectives.wmse import WMSE
from speechbrain_ssl.sync_batch_norm import synchronise_batch_norms

torch.set_num_threads(1)

FEATURES, SIZE, UTTERANCES = 7, 5, 19

_HEAD = {"hidden": 9, "output_size": 4}
_DINO = {"prototypes": 6, "hidden": 9, "bottleneck": 4}
_PENALTIES = {
    "wide": 8,
    "regularisers": [RDINOPenalties(1.0, 0.5), KoLeo(0.1)],
}
_KNOBS = {"teacher_temperature": 0.05, "cosine_weight": 0.0}


def _dino(size, regularisers=(), centering="mean", **head):
    return DINO(DINOHead(size, **head), regularisers, centering=centering)


#: Name -> (constructor, options, crops, global crops, scheduled values).
CASES = {
    "swav": (SwAV, {"prototypes": 6, **_HEAD}, 3, 2, {}),
    # 13 rows do not split evenly; the queue is full after the second step.
    "swav queue": (
        SwAV,
        {"prototypes": 6, **_HEAD, "queue": 13, "queue_start_epoch": 2},
        3,
        2,
        {},
    ),
    "deepcluster": (DeepCluster, {"prototypes": [3, 4], **_HEAD}, 3, 2, {}),
    "vicreg": (VICReg, _HEAD, 2, 2, {}),
    "vibcreg": (VIbCReg, {**_HEAD, "groups": 2}, 2, 2, {}),
    "barlow": (BarlowTwins, {**_HEAD, "scale": 1.0}, 2, 2, {}),
    # Eight rows in one sub-batch: half of them in each process.
    "wmse": (WMSE, {**_HEAD, "whitening_size": 8, "epsilon": 0.1}, 2, 2, {}),
    "sdpn": (SDPN, {**_DINO, "dimension_weight": 0.5}, 4, 1, {}),
    "dino penalties": (_dino, {**_DINO, **_PENALTIES}, 4, 2, _KNOBS),
    "dino sinkhorn": (_dino, {**_DINO, "centering": "sinkhorn"}, 4, 2, _KNOBS),
}

#: Indices of the utterances of each step; here every step is an epoch.
STEPS = (
    [3, 18, 0, 7, 11, 5, 2, 9],
    # Only two of them have a cluster of DeepCluster's, both in one process.
    [1, 4, 6, 8, 3, 12, 0, 14],
    [3, 15, 8, 0, 16, 2, 13, 1],
)


def inputs(step, crops):
    """Return a global batch ``[8, crops, features]``, equal everywhere."""
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(8, crops, FEATURES, generator=generator)
    x = x + torch.randn(8, 1, FEATURES, generator=generator)
    # Let the halves of the two processes differ in mean and scale.
    x[4:] = 2 * x[4:] - 3
    return x


def branch(encoder, head, x, index):
    """Return a branch of crops, as the Brain makes it."""
    embeddings = encoder(x)
    vectors = head(embeddings.flatten(0, 1)).unflatten(0, x.shape[:2])
    return Branch(embeddings, vectors, head, index)


def run(name):
    """Take some steps on this process's share, and return the results."""
    make, options, crops, globals_, scheduled = CASES[name]
    torch.manual_seed(1)
    objective, encoder = make(SIZE, **options), torch.nn.Linear(FEATURES, SIZE)
    objective = synchronise_batch_norms(objective)
    teacher = MomentumTeacher(encoder, objective.head)
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.mul_(1.1)
    objective.set_up(UTTERANCES, seed=3)
    parameters = [*encoder.parameters(), *objective.parameters()]
    found = {"loss": [], "grads": [], "scalars": []}
    share = slice(None)
    if distributed.is_distributed():
        share = slice(4 * distributed.rank(), 4 * distributed.rank() + 4)
    for step, numbers in enumerate(STEPS):
        objective.before_epoch(step + 1)
        x = inputs(step, crops)[share]
        index = torch.tensor(numbers)[share]
        if objective.momentum:
            with torch.no_grad():
                target = branch(
                    teacher.encoder, teacher.head, x[:, :globals_], index
                )
            x = x if objective.student_sees_global_crops else x[:, globals_:]
        online = branch(encoder, objective.head, x, index)
        if not objective.momentum:
            target = Branch(
                online.embeddings[:, :globals_],
                online.projections[:, :globals_],
                objective.head,
                index,
            )
        loss, scalars = objective(online, target, **scheduled)
        loss.backward()
        distributed.average_gradients(parameters)
        found["loss"].append(distributed.mean_over_ranks(loss.detach()))
        found["scalars"].append(
            {
                key: distributed.mean_over_ranks(torch.as_tensor(value))
                for key, value in scalars.items()
            }
        )
        found["grads"].append(
            [torch.zeros(()) if p.grad is None else p.grad for p in parameters]
        )
        with torch.no_grad():
            for parameter in parameters:
                if parameter.grad is not None:
                    parameter -= 0.05 * parameter.grad
                parameter.grad = None
        objective.after_step()
    found["state"] = objective.state_dict()
    return found


def transposed_gradient(gather):
    """Return the gradient of gathered rows, transposed on its way."""
    rows = torch.zeros(2, 3, requires_grad=True)
    columns = gather(rows).T * torch.arange(12.0).view(3, 4)
    columns.sum().backward()
    return rows.grad


def main(folder):
    """Write the results of this rank to ``rank<r>.pt``."""
    dist.init_process_group("gloo")
    found = {name: run(name) for name in CASES}
    found["stock gradient"] = transposed_gradient(
        lambda rows: torch.cat(torch.distributed.nn.functional.all_gather(rows))
    )
    found["gradient"] = transposed_gradient(distributed.gather)
    torch.save(found, f"{folder}/rank{distributed.rank()}.pt")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
