"""Collectives that are no-ops in a single process.

Gradients are averaged by hand, in one flat all-reduce per optimiser step, and
not by ``DistributedDataParallel``: SpeechBrain wraps each module of a Brain on
its own, and wrapped modules whose batch norms run twice before a backward pass
(multi-crop) fail. One all-reduce of some tens of megabytes per step is small
beside a step of an ECAPA.
"""

import contextlib

import torch
import torch.distributed as dist
import torch.distributed.nn.functional

_alone = False


@contextlib.contextmanager
def alone():
    """Within it, this process does something without the others.

    What would be a collective is that of a single process.

    Example
    -------
    >>> with alone():
    ...     world_size()
    1
    """
    global _alone
    before, _alone = _alone, True
    try:
        yield
    finally:
        _alone = before


def is_distributed():
    """Whether there is more than one process."""
    return (
        not _alone
        and dist.is_available()
        and dist.is_initialized()
        and (dist.get_world_size() > 1)
    )


def rank():
    """Number of this process."""
    return dist.get_rank() if is_distributed() else 0


def world_size():
    """Number of processes."""
    return dist.get_world_size() if is_distributed() else 1


def collective_device():
    """Where a tensor has to be for the collectives of this run."""
    if is_distributed() and dist.get_backend() == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def mean_over_ranks(tensor):
    """Mean of a tensor over all processes, without gradient."""
    if is_distributed():
        tensor = tensor.clone()
        dist.all_reduce(tensor)
        tensor /= world_size()
    return tensor


def gather(tensor):
    """Concatenates a tensor of all processes along its first axis.

    Gradients flow back to the process a row came from, summed over all; with
    ``average_gradients`` that is the gradient of the mean loss.
    """
    if not is_distributed():
        return tensor
    rows = torch.cat(
        torch.distributed.nn.functional.all_gather(tensor.contiguous())
    )
    if rows.requires_grad:
        # torch's backward receives into a tensor laid out as the gradient it
        # sends; one that comes of a transposed product would arrive scrambled.
        rows.register_hook(torch.Tensor.contiguous)
    return rows


@torch.no_grad()
def average_gradients(parameters):
    """Averages the gradients of all processes, in place.

    A parameter without gradient here may have one elsewhere; all processes run
    the same graph, so that does not happen between them by construction.
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
    """Gives all processes the parameters and buffers of rank 0."""
    if is_distributed():
        for module in modules:
            for tensor in module.state_dict().values():
                dist.broadcast(tensor, src=0)


class GlooSyncBatchNorm(torch.nn.modules.batchnorm._BatchNorm):
    """Batch norm over all processes, on CPUs.

    ``torch.nn.SyncBatchNorm`` refuses CPU tensors. This one serves tests and
    CPU clusters; statistics are those of the global batch, and so is the
    backward pass. It stands for batch norms of one and of two dimensions.
    """

    def _check_input_dim(self, x):
        """Any number of axes; the layer it replaces has been chosen to fit."""

    def forward(self, x):
        """Normalises ``[batch, channels, ...]`` over all axes but channels."""
        if not (self.training and is_distributed()):
            return super().forward(x)
        axes = [axis for axis in range(x.dim()) if axis != 1]
        wide = x.float()
        count = wide.numel() // wide.shape[1]
        sums = torch.cat([wide.sum(axes), wide.square().sum(axes)])
        sums = torch.distributed.nn.functional.all_reduce(sums)
        total = count * world_size()
        mean, square = (sums / total).chunk(2)
        variance = (square - mean.square()).clamp(min=0)
        with torch.no_grad():
            self.num_batches_tracked += 1
            rate = self.momentum
            unbiased = variance * total / (total - 1)
            self.running_mean.lerp_(mean, rate)
            self.running_var.lerp_(unbiased, rate)
        shape = [1, -1] + [1] * (x.dim() - 2)
        scale = (variance + self.eps).rsqrt()
        if self.affine:
            scale = self.weight * scale
        shift = -mean * scale
        if self.affine:
            shift = self.bias + shift
        return (wide * scale.view(shape) + shift.view(shape)).to(x.dtype)


def synchronise_batch_norms(module, device_type):
    """Replaces the batch norms of a module by ones over all processes.

    Arguments
    ---------
    module : torch.nn.Module
        Changed in place where it has batch norms as children.
    device_type : str
        ``"cuda"`` takes torch's SyncBatchNorm, anything else our own.

    Returns
    -------
    torch.nn.Module
        The module to use from now on.
    """
    if not is_distributed():
        return module
    if device_type == "cuda":
        return torch.nn.SyncBatchNorm.convert_sync_batchnorm(module)
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if type(child) in (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d):
                new = GlooSyncBatchNorm(
                    child.num_features,
                    child.eps,
                    child.momentum,
                    affine=child.affine,
                )
                new.load_state_dict(child.state_dict())
                new.train(child.training)
                setattr(parent, name, new)
    return module


def prepare_modules(modules, device, device_type):
    """Make modules of all processes equal, with batch norms over all of them.

    Arguments
    ---------
    modules : torch.nn.ModuleDict
        Its entries are replaced.
    device : str
        Where they go.
    device_type : str
        See ``synchronise_batch_norms``.
    """
    for name in modules:
        modules[name] = synchronise_batch_norms(modules[name], device_type).to(
            device
        )
    broadcast_state(modules.values())
