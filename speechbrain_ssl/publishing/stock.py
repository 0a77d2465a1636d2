"""Rebuild encoders from classes that stock SpeechBrain and torch provide.

SpeechBrain has an ECAPA-TDNN, but not our ResNet: its own is another network.
Our ResNet therefore becomes a *sequence* of stock layers with the same output.
A residual branch needs no class of its own, because the output of a ReLU passes
the next ReLU unchanged: the first convolution of a block copies its input to
additional channels (a kernel that is one in its middle), and the second one
adds them. ::

    x  ->  [conv1(x); x]  ->  ReLU  ->  conv2(.) + shortcut(.)  ->  ReLU

So this package need not be installed where the model is used. The price: on one
core stock SpeechBrain took 1.8 times as long as our forward pass for ResNet-34
(300 frames of 80 bands) and 2.4 times for the fast one, and has 11.3 M
parameters instead of 6.6 M, 4.1 M instead of 1.4 M. Norms are folded into the
convolutions where that is exact, since the network is for inference only. So is
the batch norm behind an embedding, in an ECAPA-TDNN too: stock SpeechBrain has
none there.

The sequence has the bands as its last dimension, so every kernel is transposed.
"""

import copy
import json

import torch
from speechbrain.lobes.models.ECAPA_TDNN import AttentiveStatisticsPooling
from speechbrain.lobes.models.ResNet import SEBlock
from speechbrain.nnet.containers import LengthsCapableSequential

from speechbrain_ssl.encoders.ecapa import FastECAPA
from speechbrain_ssl.encoders.resnet import FastResNet34, ResNet34
from speechbrain_ssl.errors import ConfigError

# The sigmoid of this is exactly one in fp32.
_OPEN = 100.0


def stock_encoder(encoder):
    """Rebuild an encoder in stock classes.

    Arguments
    ---------
    encoder : torch.nn.Module
        ``FastECAPA``, ``ResNet34`` or ``FastResNet34``.

    Returns
    -------
    tuple
        The HyperPyYAML of ``embedding_model`` (str) and its state dictionary,
        on the CPU.

    Raises
    ------
    ConfigError
        If the encoder is of another class.

    Example
    -------
    >>> text, state = stock_encoder(ResNet34(8, 4, channels=2, blocks=[1] * 4))
    >>> print("\\n".join(text.splitlines()[:2]))
    embedding_model: !new:speechbrain.nnet.containers.LengthsCapableSequential
        image: !new:torch.nn.Unflatten {dim: 1, unflattened_size: !tuple "(1, -1)"}
    """
    if isinstance(encoder, FastECAPA):
        encoder = fold_embedding_norm(encoder)
        lines = [
            "embedding_model: "
            "!new:speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN"
        ]
        for name, value in encoder.arguments.items():
            lines.append(f"    {name}: {_yaml_value(value)}")
        state = encoder.state_dict()
    elif isinstance(encoder, (ResNet34, FastResNet34)):
        sequence = _sequence(encoder)
        lines, state = sequence.yaml(), sequence.state_dict()
    else:
        raise ConfigError(
            f"an encoder of class {type(encoder).__name__} cannot be exported "
            "for stock SpeechBrain; those that can: FastECAPA, ResNet34, "
            "FastResNet34"
        )
    state = {name: value.detach().cpu() for name, value in state.items()}
    return "\n".join(lines), state


def waveform_encoder(encoder):
    """Write an encoder of waveforms as YAML that names our own classes.

    SpeechBrain loads such a folder where this package is installed. Its own
    wrappers of pre-trained models need a second folder with the model, and
    nothing of SpeechBrain pools as our back ends do.

    Arguments
    ---------
    encoder : speechbrain_ssl.encoders.mhfa.PretrainedEncoder
        The encoder, without adapters.

    Returns
    -------
    tuple
        The HyperPyYAML of ``compute_features`` and ``mean_var_norm`` (str),
        that of ``embedding_model`` (str), and its state dictionary.
    """
    front = (
        "# Needs `pip install speechbrain-ssl[hf]`.\n"
        "compute_features: "
        "!new:speechbrain_ssl.encoders.features.Waveform {}\n"
        "mean_var_norm: !new:speechbrain_ssl.encoders.features.Waveform {}"
    )
    kind, arguments = type(encoder), dict(encoder.arguments)
    front_end = arguments.pop("front_end")
    lines = [
        f"embedding_model: !new:{kind.__module__}.{kind.__name__}",
        "    front_end: !apply:speechbrain_ssl.encoders.pretrained."
        "PretrainedFrontEnd.described",
    ]
    for name, value in front_end.items():
        lines.append(f"        {name}: {json.dumps(value)}")
    for name, value in arguments.items():
        lines.append(f"    {name}: {json.dumps(value)}")
    state = {k: v.detach().cpu() for k, v in encoder.state_dict().items()}
    return front, "\n".join(lines), state


@torch.no_grad()
def fold_embedding_norm(encoder):
    """Fold the batch norm behind the embedding into the layer before it.

    Arguments
    ---------
    encoder : torch.nn.Module
        ``FastECAPA``, ``ResNet34`` or ``FastResNet34``, in evaluation mode.

    Returns
    -------
    torch.nn.Module
        A copy on the CPU without that norm, which computes the same
        embeddings; the encoder itself if it has no such norm.

    Example
    -------
    >>> encoder = ResNet34(8, 4, 2, [1] * 4, embedding_batch_norm=True).eval()
    >>> "embedding_batch_norm" in fold_embedding_norm(encoder).arguments
    False
    """
    if encoder.embedding_norm is None:
        return encoder
    encoder = copy.deepcopy(encoder).cpu()
    scale, shift = _affine(encoder.embedding_norm)
    layer = getattr(encoder.fc, "conv", encoder.fc)
    wide = scale.view(-1, *[1] * (layer.weight.dim() - 1))
    layer.weight.copy_(layer.weight.double() * wide)
    layer.bias.copy_(layer.bias.double() * scale + shift)
    encoder.embedding_norm = None
    return encoder


def _yaml_value(value):
    """Write a constructor's argument as HyperPyYAML."""
    if isinstance(value, type):
        return f"!name:{value.__module__}.{value.__qualname__}"
    if isinstance(value, tuple):
        return f'!tuple "{value}"'
    # JSON's numbers and lists are YAML's.
    return json.dumps(value)


class _Sequence:
    """Sequence of stock layers and the arguments that each was created with."""

    def __init__(self):
        self.layers, self.lines = {}, []

    def add(self, name, kind, tensors=None, **arguments):
        """Append ``kind(**arguments)`` and set tensors of its state."""
        layer = kind(**arguments)
        if tensors:
            state = layer.state_dict()
            for key, value in tensors.items():
                state[key] = value.reshape(state[key].shape)
            layer.load_state_dict(state)
        self.layers[name] = layer
        # Classes of torch.nn are named by their short path.
        short = getattr(torch.nn, kind.__name__, None) is kind
        module = "torch.nn" if short else kind.__module__
        text = ", ".join(f"{k}: {_yaml_value(v)}" for k, v in arguments.items())
        # Without arguments there is nothing between the braces.
        self.lines.append(
            f"    {name}: !new:{module}.{kind.__name__}"
            + (f" {{{text}}}" if text else "")
        )

    def conv(self, name, weight, bias, stride=(1, 1)):
        """Add a padded convolution; the bands are its last dimension."""
        outputs, inputs, *kernel = weight.shape
        self.add(
            name,
            torch.nn.Conv2d,
            {"weight": weight.transpose(2, 3), "bias": bias},
            in_channels=inputs,
            out_channels=outputs,
            kernel_size=kernel[::-1],
            stride=list(stride)[::-1],
            padding=[size // 2 for size in kernel[::-1]],
        )

    def yaml(self):
        """Return the layers as lines of HyperPyYAML."""
        kind = LengthsCapableSequential
        first = f"embedding_model: !new:{kind.__module__}.{kind.__name__}"
        return [first, *self.lines]

    def state_dict(self):
        """Return the state of the whole sequence."""
        return LengthsCapableSequential(**self.layers).state_dict()


def _folded(conv, norm):
    """Fold a convolution and the norm behind it into weight and bias (fp64)."""
    scale, shift = _affine(norm)
    weight = conv.weight.detach().double() * scale.view(-1, 1, 1, 1)
    return weight, shift


def _affine(norm):
    """Return the scale and the shift of a norm in evaluation mode."""
    scale = norm.weight.detach().double()
    scale = scale / (norm.running_var.double() + norm.eps).sqrt()
    return scale, norm.bias.detach() - norm.running_mean.double() * scale


def _handing_on(weight, inputs):
    """Extend a convolution by channels that copy its input."""
    size = weight.shape[2]
    through = weight.new_zeros(inputs, inputs, size, size)
    index = torch.arange(inputs)
    through[index, index, size // 2, size // 2] = 1
    return torch.cat([weight, through])


def _shortcut(block):
    """Return the matrix and the bias of a block's shortcut."""
    if block.shortcut is None:
        outputs = block.conv2.out_channels
        return (
            torch.eye(outputs, dtype=torch.float64),
            torch.zeros(outputs, dtype=torch.float64),
        )
    weight, bias = _folded(*block.shortcut)
    return weight[:, :, 0, 0], bias


def _middle(matrix, like):
    """Place a matrix in the middle of a kernel of the size of another."""
    size = like.shape[2]
    kernel = like.new_zeros(*matrix.shape, size, size)
    kernel[:, :, size // 2, size // 2] = matrix
    return kernel


def _add_basic(sequence, name, block):
    """Add a ``BasicBlock``: two convolutions, two ReLU."""
    inputs, outputs = block.conv1.in_channels, block.conv1.out_channels
    first, bias = _folded(block.conv1, block.bn1)
    bias = torch.cat([bias, bias.new_zeros(inputs)])
    stride = block.conv1.stride
    sequence.conv(f"{name}a", _handing_on(first, inputs), bias, stride)
    sequence.add(f"{name}b", torch.nn.ReLU)
    second, bias = _folded(block.conv2, block.bn2)
    matrix, shift = _shortcut(block)
    second = torch.cat([second, _middle(matrix, second)], dim=1)
    sequence.conv(f"{name}c", second, bias + shift)
    sequence.add(f"{name}d", torch.nn.ReLU)
    return outputs


def _add_gated(sequence, name, block):
    """Add a ``GatedBlock``, whose gates do not change the copied channels."""
    inputs, outputs = block.conv1.in_channels, block.conv1.out_channels
    weight = block.conv1.weight.detach().double()
    sequence.conv(
        f"{name}a",
        _handing_on(weight, inputs),
        weight.new_zeros(outputs + inputs),
        block.conv1.stride,
    )
    sequence.add(f"{name}b", torch.nn.ReLU)
    scale, shift = _affine(block.bn1)
    # A separate norm: the next convolution pads its input with zeros, so
    # that folding the shift into it would not be exact.
    _add_affine(
        sequence,
        f"{name}c",
        torch.cat([scale, scale.new_ones(inputs)]),
        torch.cat([shift, shift.new_zeros(inputs)]),
    )
    second, bias = _folded(block.conv2, block.bn2)
    matrix, shift = _shortcut(block)
    apart = second.new_zeros(2 * outputs, outputs + inputs, *second.shape[2:])
    apart[:outputs, :outputs] = second
    apart[outputs:, outputs:] = _middle(matrix, second)
    sequence.conv(f"{name}d", apart, torch.cat([bias, shift]))
    down, up = block.se.down, block.se.up
    hidden = down.out_features
    sequence.add(
        f"{name}e",
        SEBlock,
        {
            "fc.0.weight": torch.cat(
                [down.weight, down.weight.new_zeros(hidden, outputs)], dim=1
            ),
            "fc.0.bias": down.bias,
            "fc.2.weight": torch.cat(
                [up.weight, up.weight.new_zeros(outputs, hidden)]
            ),
            "fc.2.bias": torch.cat(
                [up.bias, up.bias.new_full((outputs,), _OPEN)]
            ),
        },
        channels=2 * outputs,
        reduction=2 * outputs // hidden,
    )
    eye = torch.eye(outputs, dtype=torch.float64)
    both = torch.cat([eye, eye], dim=1)[:, :, None, None]
    sequence.conv(f"{name}f", both, eye.new_zeros(outputs))
    sequence.add(f"{name}g", torch.nn.ReLU)


def _add_affine(sequence, name, scale, shift):
    """Add a batch norm with a given scale and shift."""
    eps = 1e-5
    sequence.add(
        name,
        torch.nn.BatchNorm2d,
        {
            "weight": scale,
            "bias": shift,
            "running_var": torch.full_like(scale, 1 - eps),
        },
        num_features=len(scale),
        eps=eps,
    )


def _add_statistics(sequence, encoder):
    """Add mean and deviation pooling: stock pooling with uniform attention."""
    channels = 8 * encoder.conv1.out_channels
    rows = encoder.fc.in_features // (2 * channels)
    # Every channel and row becomes a channel.
    sequence.add(
        "rows",
        torch.nn.Conv2d,
        {"weight": torch.eye(rows).repeat(channels, 1)},
        in_channels=channels,
        out_channels=channels * rows,
        kernel_size=[1, rows],
        groups=channels,
        bias=False,
    )
    sequence.add("frames", torch.nn.Flatten, start_dim=2)
    size = channels * rows
    sequence.add(
        "pooling",
        AttentiveStatisticsPooling,
        {"conv.conv.weight": torch.zeros(size)},
        channels=size,
        attention_channels=1,
        global_context=False,
    )
    return encoder.fc.weight


def _add_attentive(sequence, encoder):
    """Add self-attentive pooling, expressed by that of ECAPA.

    ECAPA's has a ReLU before its tanh, so both signs get a channel; and it has
    weights for every channel of the input, which are all set to the same.
    """
    sequence.add("mean", torch.nn.AdaptiveAvgPool2d, output_size=[None, 1])
    sequence.add("frames", torch.nn.Flatten, start_dim=2)
    hidden, vector = encoder.attention_hidden, encoder.attention.weight
    channels = hidden.in_features
    both = torch.cat([vector, -vector], dim=1)
    sequence.add(
        "pooling",
        AttentiveStatisticsPooling,
        {
            "tdnn.conv.conv.weight": torch.cat([hidden.weight, -hidden.weight]),
            "tdnn.conv.conv.bias": torch.cat([hidden.bias, -hidden.bias]),
            "tdnn.norm.norm.running_var": torch.full((2 * channels,), 1 - 1e-5),
            "conv.conv.weight": both.expand(channels, -1),
            "conv.conv.bias": torch.zeros(channels),
        },
        channels=channels,
        attention_channels=2 * channels,
        global_context=False,
    )
    weight = encoder.fc.weight
    if encoder.pooling == "sap":
        # Of mean and deviation only the mean is used.
        weight = torch.cat([weight, torch.zeros_like(weight)], dim=1)
    return weight


@torch.no_grad()
def _sequence(encoder):
    """Build stock layers from a ResNet of this library."""
    # A copy, so that the given encoder stays on its device.
    encoder = fold_embedding_norm(copy.deepcopy(encoder).cpu())
    fast = isinstance(encoder, FastResNet34)
    sequence = _Sequence()
    sequence.add("image", torch.nn.Unflatten, dim=1, unflattened_size=(1, -1))
    stem = _folded(encoder.conv1, encoder.bn1)
    sequence.conv("stem", *stem, encoder.conv1.stride)
    sequence.add("stem_relu", torch.nn.ReLU)
    add = _add_gated if fast else _add_basic
    for number, stage in enumerate(encoder.stages, start=1):
        for letter, block in enumerate(stage, start=1):
            add(sequence, f"block{number}_{letter}", block)
    pool = _add_attentive if fast else _add_statistics
    weight = pool(sequence, encoder)
    sequence.add("flat", torch.nn.Flatten)
    sequence.add(
        "fc",
        torch.nn.Linear,
        {"weight": weight, "bias": encoder.fc.bias},
        in_features=weight.shape[1],
        out_features=weight.shape[0],
    )
    sequence.add(
        "embedding",
        torch.nn.Unflatten,
        dim=1,
        unflattened_size=(1, weight.shape[0]),
    )
    return sequence
