"""Batch norm over all processes, the same with gloo and NCCL.

``torch.nn.SyncBatchNorm`` does not accept tensors on a CPU. On GPUs it allows
each process another number of rows, selects the processes that have any by a
boolean mask, and so makes the host wait for the device in every layer. Here all
processes have equally many rows, and one all-reduce of sums is all it takes.
"""

import torch
import torch.distributed as dist

from speechbrain_ssl import distributed


class SyncBatchNorm(torch.nn.modules.batchnorm._BatchNorm):
    """Batch norm over all processes.

    Both the statistics and the backward pass are those of the global batch. It
    replaces ``BatchNorm1d`` and ``BatchNorm2d``.
    """

    def _check_input_dim(self, x):
        """Accept any number of axes: the replaced layer fitted its input."""

    def forward(self, x):
        """Normalise ``[batch, channels, ...]`` over all axes but channels."""
        if not (self.training and distributed.is_distributed()):
            return super().forward(x)
        y, mean, variance = _Normalise.apply(
            x, self.weight, self.bias, self.eps
        )
        with torch.no_grad():
            total = distributed.world_size() * x.numel() // x.shape[1]
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            unbiased = variance * (total / (total - 1))
            self.running_var.lerp_(unbiased, self.momentum)
        return y


class _Normalise(torch.autograd.Function):
    """Normalise by the statistics of the batches of all processes.

    With the gradient g of the output, and E the mean of a channel over the rows
    of all processes, the gradient of the input is

        weight (g - E[g] - x_hat E[g x_hat]) / sqrt(variance + eps)
    """

    @staticmethod
    def forward(ctx, x, weight, bias, eps):
        axes = [axis for axis in range(x.dim()) if axis != 1]
        # In fp32, whatever the precision of the input.
        wide = x.float()
        sums = torch.stack([wide.sum(axes), wide.square().sum(axes)])
        dist.all_reduce(sums)
        total = distributed.world_size() * x.numel() // x.shape[1]
        mean, square = sums / total
        variance = (square - mean.square()).clamp(min=0)
        ctx.save_for_backward(x, weight, mean, variance)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, variance)
        y = torch.nn.functional.batch_norm(
            x, mean, variance, weight, bias, training=False, eps=eps
        )
        return y, mean, variance

    @staticmethod
    def backward(ctx, grad, *_):
        x, weight, mean, variance = ctx.saved_tensors
        affine = weight is not None
        # As if mean and variance were constants; the other two are sums.
        dx, dweight, dbias = torch.ops.aten.native_batch_norm_backward(
            grad.contiguous(),
            x,
            weight,
            mean,
            variance,
            None,
            None,
            False,
            ctx.eps,
            [True, True, True],
        )
        sums = torch.stack([dbias, dweight]).float()
        dist.all_reduce(sums)
        total = distributed.world_size() * x.numel() // x.shape[1]
        scale = (variance + ctx.eps).rsqrt()
        means = sums / total * (scale * weight if affine else scale)
        shape = [1, -1] + [1] * (x.dim() - 2)
        offset, slope, mean = (
            row.view(shape) for row in (means[0], means[1] * scale, mean)
        )
        dx = dx - torch.addcmul(offset, slope, x - mean)
        dx = dx.to(x.dtype)
        return dx, *((dweight, dbias) if affine else (None, None)), None


def synchronise_batch_norms(module):
    """Replace the batch norms of a module by ones over all processes.

    Arguments
    ---------
    module : torch.nn.Module
        Its submodules are replaced in place.

    Returns
    -------
    torch.nn.Module
        The same module.
    """
    if not distributed.is_distributed():
        return module
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if type(child) in (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d):
                new = SyncBatchNorm(
                    child.num_features,
                    child.eps,
                    child.momentum,
                    affine=child.affine,
                )
                new.load_state_dict(child.state_dict())
                new.train(child.training)
                setattr(parent, name, new)
    return module


def prepare_modules(modules, device, synchronise=True):
    """Move modules to the device, equal in all processes.

    All processes start with the parameters and buffers of rank 0.

    Arguments
    ---------
    modules : torch.nn.ModuleDict
        Its entries are moved in place.
    device : str
        The device of this process.
    synchronise : bool
        Whether batch norms become ones over all processes.
    """
    for module in modules.values():
        if synchronise:
            synchronise_batch_norms(module)
        module.to(device)
    distributed.broadcast_state(modules.values())
