"""Run collectives in two processes; started by torchrun, checked by tests.

torchrun --nproc_per_node=2 collectives.py OUTPUT_FOLDER
"""

import sys

import torch
import torch.distributed as dist

from speechbrain_ssl import distributed
from speechbrain_ssl.brains.means import RunningMeans
from speechbrain_ssl.objectives.base import Branch
from speechbrain_ssl.objectives.simclr import SimCLR
from speechbrain_ssl.sync_batch_norm import synchronise_batch_norms

torch.set_num_threads(1)


def inputs():
    """Return a global batch ``[8, 5, 7]``, the same in every process."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(8, 5, 7, generator=generator) * 3 + 1
    # Let the halves of the two processes differ in mean and scale.
    x[4:] = 2 * x[4:] - 5
    return x


#: Axes of the input -> the batch norm that takes it.
SHAPES = {
    "two": torch.nn.BatchNorm1d,
    "three": torch.nn.BatchNorm1d,
    "four": torch.nn.BatchNorm2d,
}


def shaped(name):
    """Return the global batch with the number of axes that ``name`` says."""
    x = inputs()
    if name == "two":
        return x[:, :, 0]
    if name == "four":
        # Rows of an image that differ in scale.
        return torch.stack([x, 3 * x.flip(2) - 1, x.roll(1, 0)], dim=2)
    return x


def norm(rank, kind=torch.nn.BatchNorm1d):
    """Return a batch norm that differs between ranks."""
    torch.manual_seed(10 + rank)
    layer = kind(5, momentum=0.3)
    torch.nn.init.normal_(layer.weight)
    torch.nn.init.normal_(layer.bias)
    return torch.nn.Sequential(layer)


def loss_of(y):
    """Return a loss with another weight for each row and channel."""
    weights = torch.arange(y[0].numel()).view_as(y[0]) / y[0].numel()
    return (y.sin() * weights).flatten(1).sum(1).mean()


def normalise(name, rank):
    """Apply our batch norm to this rank's half, forward and backward."""
    net = synchronise_batch_norms(norm(rank, SHAPES[name]))
    distributed.broadcast_state([net])
    x = shaped(name).chunk(2)[rank].clone().requires_grad_()
    y = net(x)
    loss_of(y).backward()
    local = net[0].weight.grad.clone()
    distributed.average_gradients(list(net.parameters()))
    evaluated = net.eval()(x)
    return {
        "type": type(net[0]).__name__,
        "y": y.detach(),
        # The loss of the whole batch is the mean of both.
        "x_grad": x.grad / 2,
        "local_grad": local,
        "weight_grad": net[0].weight.grad,
        "bias_grad": net[0].bias.grad,
        "state": net[0].state_dict(),
        "evaluated": evaluated.detach(),
    }


def contrast(rank):
    """Apply SimCLR to this rank's half; average gradients as the Brain does."""
    weight = torch.nn.Parameter(torch.eye(7)[:4].clone())
    views = (inputs()[:, :2].chunk(2)[rank]) @ weight.T
    objective = SimCLR(temperature=0.2)
    branch = Branch(views, views, objective.head)
    loss, _ = objective(branch, branch)
    loss.backward()
    distributed.average_gradients([weight])
    return {
        "loss": distributed.mean_over_ranks(loss.detach()),
        "grad": weight.grad,
    }


def main(folder):
    """Write the results of this rank to ``rank<r>.pt``."""
    dist.init_process_group("gloo")
    rank = distributed.rank()
    found = {"rank": rank, "world": distributed.world_size()}
    found |= {name: normalise(name, rank) for name in SHAPES}
    found["simclr"] = contrast(rank)
    mine = torch.tensor([1.0, 2.0]) * (rank + 1)
    found["mean"] = distributed.mean_over_ranks(mine)
    found["kept"] = mine
    means = RunningMeans()
    for loss in (1.0, 3.0):
        means.add(loss=torch.tensor(loss + 10 * rank))
    found["running"] = means.read()
    resumed = RunningMeans()
    resumed.load(means.state())
    found["resumed"] = resumed.read()
    parameters = [torch.nn.Parameter(torch.zeros(s)) for s in (3, (2, 2), 1)]
    parameters[0].grad = torch.full((3,), float(rank))
    parameters[1].grad = torch.eye(2) * (10.0 * rank)
    distributed.average_gradients(parameters)
    found["averaged"] = [p.grad for p in parameters]
    try:
        torch.nn.SyncBatchNorm.convert_sync_batchnorm(norm(rank))(inputs())
        found["stock"] = "works"
    except ValueError as error:
        found["stock"] = str(error)
    torch.save(found, f"{folder}/rank{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
