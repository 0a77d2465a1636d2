"""Communicate between processes; with one process, do nothing.

Gradients are averaged by hand, in one flat all-reduce per optimiser step, and
not by ``DistributedDataParallel``. SpeechBrain would wrap each module of a
Brain separately, and wrapped modules fail if their batch norms run twice before
a backward pass, as with multi-crop. An all-reduce of some tens of megabytes
takes little time compared with a step of an ECAPA.
"""

import contextlib
import itertools
import os
import socket

import torch
import torch.distributed as dist
import torch.distributed.nn.functional

_single = False


@contextlib.contextmanager
def single_process():
    """Make this process act as if it were the only one.

    Inside the context ``world_size`` is 1, and the functions of this module do
    not communicate.

    Example
    -------
    >>> with single_process():
    ...     world_size()
    1
    """
    global _single
    before, _single = _single, True
    try:
        yield
    finally:
        _single = before


def leave():
    """Leave the process group, at the end of a script.

    If the interpreter tears down the threads of gloo instead, the process is
    aborted now and then although its work is done.
    """
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def is_distributed():
    """Return whether there is more than one process."""
    return (
        not _single
        and dist.is_available()
        and dist.is_initialized()
        and (dist.get_world_size() > 1)
    )


def renew_store():
    """Let processes that torchrun has started again meet in a new store.

    Call it before the process group is joined. In the store of torchrun's agent
    are still the addresses of the processes before them: with torch 2.14 a
    process that comes first would connect to these, and fail. Agents of several
    hosts count their restarts each on its own, so this is for one host.
    """
    attempt = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))
    hosts = os.environ.get("GROUP_WORLD_SIZE", "1")
    serves = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if attempt == 0 or hosts != "1" or not serves:
        return
    address, port = os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]
    agent = dist.TCPStore(address, int(port), is_master=False)
    key = f"speechbrain_ssl/port/{attempt}"
    if os.environ["RANK"] == "0":
        with socket.socket() as free:
            free.bind(("", 0))
            agent.set(key, str(free.getsockname()[1]))
    os.environ["MASTER_PORT"] = agent.get(key).decode()
    # Rank 0 serves it now.
    os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "False"


def rank():
    """Return the rank of this process; 0 in a single process."""
    return dist.get_rank() if is_distributed() else 0


def world_size():
    """Return the number of processes."""
    return dist.get_world_size() if is_distributed() else 1


def collective_device():
    """Return the device that tensors must be on for a collective."""
    if is_distributed() and dist.get_backend() == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def mean_over_ranks(tensor):
    """Return the mean of a tensor over all processes, without gradient."""
    if is_distributed():
        tensor = tensor.clone()
        dist.all_reduce(tensor)
        tensor /= world_size()
    return tensor


def sum_over_ranks(tensor):
    """Add up a tensor over all processes, in place.

    Arguments
    ---------
    tensor : torch.Tensor
        The same shape in every process.

    Returns
    -------
    torch.Tensor
        The same tensor.

    Example
    -------
    >>> sum_over_ranks(torch.ones(2)).tolist()
    [1.0, 1.0]
    """
    if is_distributed():
        dist.all_reduce(tensor)
    return tensor


def from_rank_0(values):
    """Return rank 0's whole numbers, in every process.

    Arguments
    ---------
    values : list of int or bool
        As many in every process.

    Returns
    -------
    list of int

    Example
    -------
    >>> from_rank_0([True, 3])
    [1, 3]
    """
    tensor = torch.tensor([int(v) for v in values], device=collective_device())
    if is_distributed():
        dist.broadcast(tensor, src=0)
    return tensor.tolist()


def object_from_rank_0(value):
    """Return rank 0's value, in every process; it must be picklable.

    For the start of a run and other rare occasions: it is slow.

    Example
    -------
    >>> object_from_rank_0("name")
    'name'
    """
    values = [value]
    if is_distributed():
        dist.broadcast_object_list(values, src=0, device=collective_device())
    return values[0]


def on_any_rank(wanted):
    """Return, in every process, whether ``wanted`` is true in any of them.

    Example
    -------
    >>> on_any_rank(False)
    False
    """
    flag = torch.tensor([bool(wanted)], device=collective_device()).int()
    return bool(sum_over_ranks(flag))


class SameStep:
    """Lets all processes act after the same step, when any of them wants to.

    After each step a process looks at a key of the process group's store, which
    is quicker than a collective. The average of the gradients keeps the
    processes within one step of each other. All must create the object.

    Example
    -------
    >>> SameStep().ask(True, step=7)
    True
    """

    _created = itertools.count()

    def __init__(self):
        self.number = next(self._created)
        self.acted = 0

    def ask(self, wanted, step):
        """Return whether to act now.

        Arguments
        ---------
        wanted : bool
            Whether this process wants to act.
        step : int
            The number of the step, the same in all processes.

        Returns
        -------
        bool
            With several processes it becomes true one step after the first of
            them wanted to act.
        """
        if not is_distributed():
            return wanted
        store = dist.distributed_c10d._get_default_store()
        key = f"speechbrain_ssl/{self.number}/{self.acted}"
        if store.check([key]):
            if int(store.get(key)) <= step:
                self.acted += 1
                return True
        elif wanted:
            store.set(key, str(step + 1))
        return False


@torch.no_grad()
def gather_rows(*tensors):
    """Concatenate tensors of all processes along their first axis.

    Unlike ``gather``, it allows each process another number of rows (the last
    one may have fewer, or none), and it has no gradient. The rows are in the
    order of the ranks.

    Arguments
    ---------
    *tensors : torch.Tensor
        ``[rows, ...]``, with the same number of rows in all of them; the other
        axes and the types must be the same in every process.

    Returns
    -------
    tuple of torch.Tensor
        ``[rows of all processes, ...]`` for each.

    Example
    -------
    >>> index, values = gather_rows(torch.tensor([3, 1]), torch.zeros(2, 4))
    >>> index.tolist(), values.shape
    ([3, 1], torch.Size([2, 4]))
    """
    if not is_distributed():
        return tensors
    rows, device = len(tensors[0]), tensors[0].device
    counts = torch.zeros(world_size(), dtype=torch.int64, device=device)
    counts[rank()] = rows
    counts = sum_over_ranks(counts).tolist()
    most = max(counts)
    gathered = []
    for tensor in tensors:
        padded = tensor.new_zeros(most, *tensor.shape[1:])
        padded[:rows] = tensor
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        gathered.append(
            torch.cat([p[:n] for p, n in zip(parts, counts, strict=True)])
        )
    return tuple(gathered)


def gather(tensor):
    """Concatenate a tensor of all processes along its first axis.

    The shape must be the same in every process. The gradient of a row flows
    back to the process that it came from, summed over all processes. Together
    with ``average_gradients`` this gives the gradient of the mean loss.
    """
    if not is_distributed():
        return tensor
    rows = torch.cat(
        torch.distributed.nn.functional.all_gather(tensor.contiguous())
    )
    if rows.requires_grad:
        # torch's backward pass receives into a tensor with the memory layout of
        # the gradient it sends. The gradient of a transposed product is not
        # contiguous and would arrive scrambled.
        rows.register_hook(torch.Tensor.contiguous)
    return rows


@torch.no_grad()
def redistribute(rows, order):
    """Deal the rows of all processes out anew, without gradient.

    Arguments
    ---------
    rows : torch.Tensor
        ``[rows, ...]``, the same shape in every process.
    order : numpy.ndarray
        A permutation of the rows of all processes, the same in each: process r
        gets the r-th part of it. Its inverse (``argsort``) undoes it.

    Returns
    -------
    torch.Tensor
        ``[rows, ...]``.

    Example
    -------
    >>> import numpy as np
    >>> redistribute(torch.tensor([5, 6, 7]), np.array([2, 0, 1])).tolist()
    [7, 5, 6]
    """
    count = len(rows)
    mine = order[rank() * count : (rank() + 1) * count]
    return gather(rows)[torch.from_numpy(mine).to(rows.device)]


@torch.no_grad()
def average_gradients(parameters):
    """Average the gradients over all processes, in place.

    Parameters without a gradient are skipped. They are the same ones in every
    process, because all processes run the same graph.
    """
    if not is_distributed():
        return
    grads = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.reshape(-1) for g in grads])
    dist.all_reduce(flat)
    flat /= world_size()
    offset = 0
    for grad in grads:
        grad.copy_(flat[offset : offset + grad.numel()].view_as(grad))
        offset += grad.numel()


@torch.no_grad()
def broadcast_state(modules):
    """Copy the parameters and buffers of rank 0 to all processes."""
    if is_distributed():
        for module in modules:
            for tensor in module.state_dict().values():
                dist.broadcast(tensor, src=0)


@torch.no_grad()
def broadcast_statistics(modules):
    """Copy the running statistics of rank 0's batch norms to all processes.

    ``DistributedDataParallel`` does so in every forward pass where batch norms
    are not synchronised.
    """
    if not is_distributed():
        return
    buffers = [
        buffer
        for root in modules
        for module in root.modules()
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm)
        for buffer in (module.running_mean, module.running_var)
    ]
    flat = torch.cat(buffers)
    dist.broadcast(flat, src=0)
    sizes = [len(buffer) for buffer in buffers]
    for buffer, value in zip(buffers, flat.split(sizes), strict=True):
        buffer.copy_(value)
