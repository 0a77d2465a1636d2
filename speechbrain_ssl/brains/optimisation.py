"""The optimiser step: schedules, clipping, and steps that are not taken."""

import logging

import numpy as np
import torch

from speechbrain_ssl import distributed
from speechbrain_ssl.errors import ConfigError

logger = logging.getLogger(__name__)


def compute_schedules(configured, wanted, epochs, steps_per_epoch, owner):
    """Compute every scheduled value of a run in advance.

    Arguments
    ---------
    configured : dict
        Name -> schedule of ``speechbrain_ssl.schedules``.
    wanted : iterable of str
        The names that must be given, and no others.
    epochs, steps_per_epoch : int
        Length of the run.
    owner : str
        What the schedules are for, named in messages.

    Returns
    -------
    dict
        Name -> values, float64 ``[epochs * steps_per_epoch]``.

    Raises
    ------
    ConfigError
        If a schedule is missing, unknown, or has values that no step can be
        taken with.
    """
    if set(configured) != set(wanted):
        raise ConfigError(
            f"`schedules` must name {sorted(wanted)} for {owner}; "
            f"got {sorted(configured)}"
        )
    schedules = {
        name: schedule(epochs, steps_per_epoch)
        for name, schedule in configured.items()
    }
    for name, values in schedules.items():
        _check_range(name, values)
    return schedules


def scale_learning_rate(schedules, effective_batch, reference_batch):
    """Let the learning rate follow the batch.

    The rule, written here and nowhere else: the learning rate (with its end and
    its warm-up) is multiplied by effective batch / reference batch.

    Arguments
    ---------
    schedules : dict
        From ``compute_schedules``; ``lr`` is changed.
    effective_batch : int
        Utterances per optimiser step, over all processes.
    reference_batch : int
        The batch that the configured learning rate is for.
    """
    schedules["lr"] = schedules["lr"] * (effective_batch / reference_batch)
    logger.info(
        "Effective batch %d (%d processes); peak learning rate %.4g = the "
        "configured one x %d / %d; %d steps",
        effective_batch,
        distributed.world_size(),
        schedules["lr"].max(),
        effective_batch,
        reference_batch,
        len(schedules["lr"]),
    )


def _check_range(name, values):
    """Refuse values that no step can be taken with."""
    low, high = values.min(), values.max()
    if name == "momentum":
        right, rule = low >= 0 and high <= 1, "between 0 and 1"
    elif name.endswith("temperature"):
        right, rule = low > 0, "above 0"
    else:
        right, rule = low >= 0, "not negative"
    if not (right and np.isfinite(values).all()):
        raise ConfigError(
            f"`schedules` gives {name} values from {low:.4g} to {high:.4g}; "
            f"they have to be finite and {rule}"
        )


def parameter_groups(parameters, no_weight_decay):
    """Split parameters: weight decay is for matrices, not for vectors.

    Arguments
    ---------
    parameters : list of torch.nn.Parameter
        All that are trained.
    no_weight_decay : iterable of torch.nn.Parameter
        Matrices without weight decay.

    Returns
    -------
    list of dict
        Two groups for an optimiser; ``decay`` tells which of them decays.
    """
    exempt = {id(p) for p in no_weight_decay}
    groups = [{"params": [], "decay": True}, {"params": [], "decay": False}]
    for p in parameters:
        groups[p.dim() <= 1 or id(p) in exempt]["params"].append(p)
    for group in groups:
        group["weight_decay"] = 0.0
    return groups


def take_step(optimizer, scaler, parameters, lr, weight_decay, max_norm):
    """Take one step of the optimiser, or none if a gradient is not finite.

    Stock SpeechBrain clips the first parameter group only, takes a negative
    maximum as an order to flip the gradient, and steps on NaN unless told
    otherwise. Here every tensor is clipped on its own, as DINO does.

    Arguments
    ---------
    optimizer : torch.optim.Optimizer
        With the groups of ``parameter_groups``.
    scaler : torch.amp.GradScaler
        The gradient scaler of fp16; disabled otherwise.
    parameters : list of torch.nn.Parameter
        All that are trained.
    lr, weight_decay : float
        Of this step.
    max_norm : float
        See ``clip_per_tensor_``.

    Returns
    -------
    torch.Tensor or None
        The norm of all gradients before clipping; None if the step was skipped.
    """
    for group in optimizer.param_groups:
        group["lr"] = lr
        group["weight_decay"] = group["decay"] * weight_decay
    scaler.unscale_(optimizer)
    distributed.average_gradients(parameters)
    norm = clip_per_tensor_(parameters, max_norm)
    finite = bool(torch.isfinite(norm))
    if finite:
        scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad(set_to_none=True)
    return norm if finite else None


@torch.no_grad()
def clip_per_tensor_(parameters, max_norm):
    """Scale every gradient tensor to a norm of at most ``max_norm``.

    Arguments
    ---------
    parameters : list of torch.nn.Parameter
        Those without gradient are passed over.
    max_norm : float
        Greatest norm of a single tensor, above 0 (``.inf``: no clipping).

    Returns
    -------
    torch.Tensor
        The norm of all gradients together, before clipping; not finite if any
        gradient is not.

    Raises
    ------
    ConfigError
        If ``max_norm`` is not above 0.
    """
    if not max_norm > 0:
        raise ConfigError(
            f"`clip_per_tensor` must be above 0, got {max_norm}; write .inf to "
            "switch clipping off"
        )
    grads = [p.grad for p in parameters if p.grad is not None]
    norms = torch.stack(torch._foreach_norm(grads))
    if max_norm != float("inf"):
        # One multiplication per tensor, and none waits for the host.
        scales = (max_norm / norms.clamp(min=1e-12)).clamp(max=1.0)
        torch._foreach_mul_(grads, list(scales.unbind()))
    return torch.linalg.vector_norm(norms)


class BatchNormStatistics:
    """The running statistics that the last good step has left.

    A batch norm that has seen a NaN in a skipped step would keep it for good.
    Other state moves in ``after_step`` only, and may be large.

    Arguments
    ---------
    modules : iterable of object
        Those that are no ``torch.nn.Module`` are passed over.
    """

    def __init__(self, modules):
        self._buffers = [
            buffer
            for root in modules
            if isinstance(root, torch.nn.Module)
            for module in root.modules()
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm)
            for buffer in module.buffers()
        ]
        self.keep()

    def keep(self):
        """Note the statistics as they are."""
        self._kept = [b.clone() for b in self._buffers]

    def restore(self):
        """Put back what was noted."""
        for buffer, kept in zip(self._buffers, self._kept, strict=True):
            buffer.copy_(kept)
