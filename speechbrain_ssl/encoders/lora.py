"""Low-rank adapters on the weights of linear layers (LoRA).

Hu et al., 2021 (arXiv 2106.09685): a frozen weight ``W`` is used as
``W + alpha / rank * up down``, and only ``down`` and ``up`` are trained.

The adapters are parametrizations of the *weight*. Those of the package peft
replace the layer's forward pass instead. The attention of WavLM never calls it,
but passes the weights of its projections to a function of torch: adapters of
peft on them get no gradient, and nothing says so. A parametrized weight is
adapted wherever it is read.
"""

import math

import torch
from torch.nn.utils import parametrize

from speechbrain_ssl.checks import check_int
from speechbrain_ssl.errors import ConfigError


class LowRank(torch.nn.Module):
    """Add a trained product of two thin matrices to a frozen weight.

    Arguments
    ---------
    weight : torch.Tensor
        The weight, ``[outputs, inputs]``.
    rank : int
        Number of rows of ``down`` and columns of ``up``.
    alpha : float
        The product is multiplied by ``alpha / rank``.
    """

    def __init__(self, weight, rank, alpha):
        super().__init__()
        outputs, inputs = weight.shape
        self.scale = alpha / rank
        self.down = torch.nn.Parameter(weight.new_empty(rank, inputs))
        self.up = torch.nn.Parameter(weight.new_zeros(outputs, rank))
        torch.nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, weight):
        """Return the adapted weight, ``[outputs, inputs]``."""
        return weight + self.scale * (self.up @ self.down)


def add_adapters(model, layers, rank, alpha):
    """Put adapters on the linear layers with certain names, in place.

    Arguments
    ---------
    model : torch.nn.Module
        The model; all its own parameters are frozen.
    layers : list of str
        Last parts of the names of the layers, such as ``q_proj``.
    rank, alpha
        See ``LowRank``.

    Raises
    ------
    ConfigError
        If a name belongs to no linear layer, or the rank is not positive.
    """
    check_int("LoRA", "rank", rank, least=1)
    model.requires_grad_(False)
    linear = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
    }
    endings = sorted({name.rsplit(".", 1)[-1] for name in linear})
    for wanted in layers:
        if wanted not in endings:
            raise ConfigError(
                f"LoRA: {type(model).__name__} has no linear layer named "
                f"{wanted}; it has {', '.join(endings)}"
            )
    for name, module in linear.items():
        if name.rsplit(".", 1)[-1] in layers:
            parametrize.register_parametrization(
                module, "weight", LowRank(module.weight, rank, alpha)
            )


def adapters(model):
    """Return name -> ``LowRank`` of all adapters of a model."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, LowRank)
    }


def check_adapters(model, run):
    """Reject adapters that the model's output does not depend on.

    Arguments
    ---------
    model : torch.nn.Module
        A model with adapters.
    run : callable
        Called without arguments; returns a tensor of the model's output.

    Raises
    ------
    ConfigError
        If ``up`` of an adapter gets no gradient. (That of ``down`` is zero
        before the first step, since ``up`` is.)
    """
    found, output = adapters(model), run()
    # Unequal weights: the sum of a layer norm's output does not change.
    weights = torch.linspace(-1, 1, output.shape[-1])
    gradients = torch.autograd.grad(
        (output * weights).sum(),
        [adapter.up for adapter in found.values()],
        allow_unused=True,
    )
    idle = [
        name
        for name, gradient in zip(found, gradients, strict=True)
        if gradient is None or not gradient.any()
    ]
    if idle:
        raise ConfigError(
            f"LoRA: {len(idle)} of {len(found)} adapters would not be trained, "
            f"because {type(model).__name__} does not use the weight of their "
            f"layer ({idle[0].split('.parametrizations')[0]}, for example); "
            "name other layers"
        )


def merge_adapters(model):
    """Replace adapted layers by linear ones with the adapted weights, in place.

    torch's ``remove_parametrizations`` would also break every copy of the
    layer, because copies share its class.
    """
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, torch.nn.Linear) and adapters(layer):
                merged = torch.nn.Linear(
                    layer.in_features, layer.out_features, device="meta"
                )
                merged.weight = torch.nn.Parameter(layer.weight.detach())
                merged.bias = layer.bias
                parent.add_module(name, merged)
