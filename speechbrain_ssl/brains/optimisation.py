"""The optimiser step: schedules, parameter groups, clipping, skipped steps.

``TrainingBrain`` computes the schedules before training and calls ``take_step``
for every optimiser step. A step with a gradient that is not finite is skipped,
and ``BatchNormStatistics`` undoes its effect on the running statistics.
"""

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
        The names that ``configured`` must have, and no others.
    epochs, steps_per_epoch : int
        Length of the run.
    owner : str
        What the schedules belong to, named in error messages.

    Returns
    -------
    dict
        Name -> values, float64 ``[epochs * steps_per_epoch]``.

    Raises
    ------
    ConfigError
        If a schedule is missing or unknown, or if its values are out of range.
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


def scale_learning_rate(schedules, batch_size, accumulated, reference_batch):
    """Scale the learning rate with the effective batch.

    This is the only place with that rule: the learning rate, with its end and
    its warm-up, is multiplied by effective batch / reference batch. Without a
    reference batch it stays as configured, whatever the number of processes.

    Arguments
    ---------
    schedules : dict
        From ``compute_schedules``; ``lr`` is changed.
    batch_size : int
        Utterances per process and batch.
    accumulated : int
        Batches per optimiser step.
    reference_batch : int or None
        The effective batch that the configured learning rate is for; None if
        it holds for every batch.
    """
    effective_batch = batch_size * distributed.world_size() * accumulated
    scaling = "the configured one"
    if reference_batch is not None:
        schedules["lr"] = schedules["lr"] * (effective_batch / reference_batch)
        scaling += f" x {effective_batch} / {reference_batch}"
    logger.info(
        "Effective batch %d (per process %d x processes %d x accumulated %d); "
        "peak learning rate %.4g = %s",
        effective_batch,
        batch_size,
        distributed.world_size(),
        accumulated,
        schedules["lr"].max(),
        scaling,
    )


def _check_range(name, values):
    """Raise a ``ConfigError`` if scheduled values are out of range."""
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


def parameter_groups(parameters, no_weight_decay, decay_vectors=False):
    """Split parameters into a group with weight decay and one without.

    Biases and the weights of norms are vectors. DINO gives them no weight
    decay; an optimiser over a plain list of parameters, as in WeSpeaker and
    hyperion, decays them like all others.

    Arguments
    ---------
    parameters : list of torch.nn.Parameter
        All parameters that are trained.
    no_weight_decay : iterable of torch.nn.Parameter
        Further parameters that get no weight decay.
    decay_vectors : bool
        Whether vectors get weight decay.

    Returns
    -------
    list of dict
        Two parameter groups for an optimiser; the entry ``decay`` is True for
        the group with weight decay.
    """
    exempt = {id(p) for p in no_weight_decay}
    groups = [{"params": [], "decay": True}, {"params": [], "decay": False}]
    for p in parameters:
        is_exempt = id(p) in exempt or (p.dim() <= 1 and not decay_vectors)
        groups[is_exempt]["params"].append(p)
    for group in groups:
        group["weight_decay"] = 0.0
    return groups


def keep_lr_constant(groups, parameters):
    """Move parameters to groups whose learning rate follows no schedule.

    Arguments
    ---------
    groups : list of dict
        From ``parameter_groups``; groups with ``constant_lr`` are appended.
    parameters : iterable of torch.nn.Parameter
        The parameters to move.
    """
    chosen = {id(p) for p in parameters}
    for group in list(groups):
        moved = [p for p in group["params"] if id(p) in chosen]
        if moved:
            rest = [p for p in group["params"] if id(p) not in chosen]
            group["params"] = rest
            groups.append({**group, "params": moved, "constant_lr": True})


def apply_lr_ratios(groups, encoder):
    """Move an encoder's parameters to groups with a part of the learning rate.

    Arguments
    ---------
    groups : list of dict
        From ``parameter_groups``; groups with ``lr_ratio`` are appended.
    encoder : torch.nn.Module
        Only one with a pre-trained front end has such parameters; see
        ``PretrainedFrontEnd.lr_ratios``.
    """
    front_end = getattr(encoder, "front_end", None)
    if front_end is None:
        return
    ratios = {id(p): r for r, group in front_end.lr_ratios() for p in group}
    for group in list(groups):
        moved = {}
        for p in group["params"]:
            moved.setdefault(ratios.get(id(p), 1.0), []).append(p)
        group["params"] = moved.pop(1.0, [])
        for ratio, params in moved.items():
            groups.append({**group, "params": params, "lr_ratio": ratio})


def take_step(
    optimizer,
    scaler,
    parameters,
    lr,
    peak_lr,
    weight_decay,
    max_norm,
    unclipped=(),
):
    """Take one optimiser step, or skip it if a gradient is not finite.

    Stock SpeechBrain clips the first parameter group only, flips the gradient
    if the maximum norm is negative, and steps on NaN unless told otherwise.
    Here the gradient of every tensor is clipped on its own, as in DINO.

    Arguments
    ---------
    optimizer : torch.optim.Optimizer
        Its groups come from ``parameter_groups``, ``keep_lr_constant`` and
        ``apply_lr_ratios``.
    scaler : torch.amp.GradScaler
        The gradient scaler, enabled for fp16 only.
    parameters : list of torch.nn.Parameter
        All parameters that are trained.
    lr, weight_decay : float
        The scheduled values of this step.
    peak_lr : float
        The learning rate of the groups with ``constant_lr``.
    max_norm, unclipped
        See ``clip_per_tensor_``.

    Returns
    -------
    torch.Tensor or None
        The norm of all gradients together, before clipping; None if the step
        was skipped.
    """
    for group in optimizer.param_groups:
        rate = peak_lr if group.get("constant_lr") else lr
        group["lr"] = rate * group.get("lr_ratio", 1.0)
        group["weight_decay"] = group["decay"] * weight_decay
    scaler.unscale_(optimizer)
    distributed.average_gradients(parameters)
    norm = clip_per_tensor_(parameters, max_norm, unclipped)
    finite = bool(torch.isfinite(norm))
    if finite:
        scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad(set_to_none=True)
    return norm if finite else None


@torch.no_grad()
def clip_per_tensor_(parameters, max_norm, unclipped=()):
    """Scale the gradient of every tensor to a norm of at most ``max_norm``.

    Arguments
    ---------
    parameters : list of torch.nn.Parameter
        Parameters without a gradient are ignored.
    max_norm : float
        Greatest norm of the gradient of one tensor, above 0 (``.inf``: no
        clipping).
    unclipped : iterable of torch.nn.Parameter
        Parameters whose gradient is left as it is.

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
    parameters = [p for p in parameters if p.grad is not None]
    grads = [p.grad for p in parameters]
    norms = torch.stack(torch._foreach_norm(grads))
    if max_norm != float("inf"):
        # Computed on the device throughout: reading a norm on the host would
        # stall it.
        scales = (max_norm / norms.clamp(min=1e-12)).clamp(max=1.0).unbind()
        spared = {id(p) for p in unclipped}
        clipped = [i for i, p in enumerate(parameters) if id(p) not in spared]
        torch._foreach_mul_(
            [grads[i] for i in clipped], [scales[i] for i in clipped]
        )
    return torch.linalg.vector_norm(norms)


class BatchNormStatistics:
    """Restores the running statistics of batch norms after a skipped step.

    A NaN that reaches a batch norm in a skipped step would stay in its running
    statistics for good. Only batch norms are copied: all other state is updated
    in ``after_step``, which a skipped step does not reach, and may be large.

    Arguments
    ---------
    modules : iterable of object
        Objects that are not a ``torch.nn.Module`` are ignored.
    """

    def __init__(self, modules):
        buffers = [
            buffer
            for root in modules
            if isinstance(root, torch.nn.Module)
            for module in root.modules()
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm)
            for buffer in module.buffers()
        ]
        # Buffers of one type are copied together: statistics and counters.
        self._groups = [
            (group, [b.clone() for b in group])
            for wanted in (True, False)
            if (
                group := [b for b in buffers if b.is_floating_point() == wanted]
            )
        ]

    def keep(self):
        """Copy the current statistics; call it after every good step."""
        for buffers, kept in self._groups:
            torch._foreach_copy_(kept, buffers)

    def restore(self):
        """Put back the statistics of the last good step."""
        for buffers, kept in self._groups:
            torch._foreach_copy_(buffers, kept)
