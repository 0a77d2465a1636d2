"""The ResNets: their layers, their sizes, and lengths that are exact."""

import copy

import pytest
import torch
import torch.nn.functional as F
from hyperpyyaml import load_hyperpyyaml

from speechbrain_ssl.encoders.resnet import FastResNet34, ResNet34
from speechbrain_ssl.errors import ConfigError

SMALL = {"input_size": 20, "lin_neurons": 12, "channels": 4}
MODELS = {
    "resnet": (ResNet34, SMALL),
    "odd bands": (ResNet34, {**SMALL, "input_size": 23}),
    "shallow": (ResNet34, {**SMALL, "blocks": [1, 1, 2, 1]}),
    "fast": (FastResNet34, {**SMALL, "channels": 8}),
    "fast asp": (FastResNet34, {**SMALL, "channels": 8, "pooling": "asp"}),
}
MODEL = pytest.mark.parametrize("name", MODELS)


def make(name, seed=0):
    """An encoder that is no fresh one."""
    torch.manual_seed(seed)
    kind, config = MODELS[name]
    encoder = kind(**config)
    for module in encoder.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0, 0.3)
            torch.nn.init.normal_(module.running_mean, 0, 0.3)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
    return encoder


def relative(found, wanted):
    error = (found - wanted).detach().norm()
    return float(error / wanted.detach().norm().clamp(min=1e-12))


def count(encoder):
    return sum(p.numel() for p in encoder.parameters())


def test_published_sizes():
    """6.63 M (WeSpeaker's table), 1.4 M (Chung et al., 2020)."""
    assert round(count(ResNet34(80, 256)) / 1e6, 2) == 6.63
    assert round(count(FastResNet34(40, 512)) / 1e6, 1) == 1.4
    assert count(FastResNet34(80, 512)) == count(FastResNet34(40, 512))


@MODEL
def test_shape_and_gradients(name):
    encoder = make(name)
    bands = encoder.arguments["input_size"]
    for frames in (1, 7, 50):
        x = torch.randn(3, frames, bands, requires_grad=True)
        y = encoder(x)
        assert y.shape == (3, 1, 12)
        y.square().sum().backward()
        assert torch.isfinite(x.grad).all()
    for key, parameter in encoder.named_parameters():
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key


def reference(encoder, x):
    """ResNet-34 written down layer by layer, from the state dictionary."""
    state = encoder.state_dict()

    def norm(x, name):
        keys = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(x, *(state[f"{name}.{k}"] for k in keys))

    def conv(x, name, stride=1):
        weight = state[name + ".weight"]
        return F.conv2d(x, weight, None, stride, weight.shape[-1] // 2)

    fast = isinstance(encoder, FastResNet34)
    x = x.transpose(1, 2)[:, None]
    x = norm(conv(x, "conv1", (2, 1) if fast else 1), "bn1").relu()
    for stage in range(4):
        for i in range(encoder.arguments["blocks"][stage]):
            name = f"stages.{stage}.{i}."
            stride = (
                2 if i == 0 and stage in ((1, 2) if fast else (1, 2, 3)) else 1
            )
            residual = x
            if name + "shortcut.0.weight" in state:
                residual = norm(
                    conv(x, name + "shortcut.0", stride), name + "shortcut.1"
                )
            x = conv(x, name + "conv1", stride)
            if fast:
                x = norm(x.relu(), name + "bn1")
            else:
                x = norm(x, name + "bn1").relu()
            x = norm(conv(x, name + "conv2"), name + "bn2")
            if fast:
                gate = x.mean((2, 3))
                for layer, act in (("down", F.relu), ("up", torch.sigmoid)):
                    w, b = (
                        state[f"{name}se.{layer}.{k}"]
                        for k in ("weight", "bias")
                    )
                    gate = act(gate @ w.T + b)
                x = x * gate[:, :, None, None]
            x = (x + residual).relu()
    if not fast:
        pooled = [x.mean(3), x.std(3, unbiased=False)]
        pooled = torch.cat([p.flatten(1) for p in pooled], 1)
    else:
        x = x.mean(2)
        hidden = torch.einsum(
            "oc,bct->bot", state["attention_hidden.weight"], x
        )
        hidden = (hidden + state["attention_hidden.bias"][:, None]).tanh()
        w = torch.einsum("oc,bct->bot", state["attention.weight"], hidden)
        w = w.softmax(2)
        pooled = mean = (w * x).sum(2)
        if encoder.pooling == "asp":
            std = ((w * x.square()).sum(2) - mean.square()).sqrt()
            pooled = torch.cat([mean, std], 1)
    return pooled @ state["fc.weight"].T + state["fc.bias"]


@torch.no_grad()
@MODEL
def test_against_the_layers_written_down(name):
    encoder = make(name).eval()
    x = torch.randn(3, 60, encoder.arguments["input_size"])
    found = encoder(x)[:, 0]
    wanted = reference(copy.deepcopy(encoder).double(), x.double())
    assert relative(found, wanted) < 1e-5


def padded(sizes, bands):
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(len(sizes), max(sizes), bands, generator=generator)
    for row, size in zip(x, sizes, strict=True):
        row[size:] = 0
    return x, torch.tensor(sizes) / max(sizes)


@torch.no_grad()
@MODEL
def test_an_embedding_does_not_depend_on_its_neighbours(name):
    """In a padded batch it is that of the utterance alone."""
    encoder = make(name).eval()
    bands = encoder.arguments["input_size"]
    sizes = [300, 299, 123, 50, 21, 1]
    x, lengths = padded(sizes, bands)
    together = encoder(x, lengths)
    for i, size in enumerate(sizes):
        alone = encoder(x[i : i + 1, :size])
        assert relative(together[i], alone[0]) < 1e-5, size
    # Nor on what stands in the padding, were it no number.
    rubbish = x.clone()
    for row, size in zip(rubbish, sizes, strict=True):
        row[size:] = float("nan")
    assert torch.equal(encoder(rubbish, lengths), together)
    # Without padding, lengths change nothing.
    whole = torch.randn(2, 80, bands)
    assert relative(encoder(whole, torch.ones(2)), encoder(whole)) < 1e-6


@MODEL
def test_lengths_have_gradients(name):
    """Padding gets none, the rest that of alone."""
    encoder = make(name).eval()
    sizes = [60, 33]
    x, lengths = padded(sizes, encoder.arguments["input_size"])
    x.requires_grad_()
    encoder(x, lengths).square().sum().backward()
    assert (x.grad[1, 33:] == 0).all()
    for i, size in enumerate(sizes):
        alone = x[i : i + 1, :size].detach().requires_grad_()
        encoder(alone).square().sum().backward()
        assert relative(x.grad[i, :size], alone.grad[0]) < 1e-4


@MODEL
def test_what_is_constant_in_time_is_finite(name):
    """Deviations of nought have no infinite gradient."""
    encoder = make(name)
    bands = encoder.arguments["input_size"]
    for x in (torch.zeros(2, 30, bands), torch.ones(2, 1, bands)):
        encoder.zero_grad()
        y = encoder(x)
        y.sum().backward()
        assert torch.isfinite(y).all()
        for parameter in encoder.parameters():
            assert torch.isfinite(parameter.grad).all()


@torch.no_grad()
@MODEL
def test_bf16_is_close(name):
    encoder = make(name).eval()
    x, lengths = padded([200, 150, 90], encoder.arguments["input_size"])
    for arguments in ((x,), (x, lengths)):
        wanted = encoder(*arguments)[:, 0]
        with torch.autocast("cpu", torch.bfloat16):
            found = encoder(*arguments)[:, 0].float()
        assert torch.cosine_similarity(found, wanted).min() > 0.999


@torch.no_grad()
@MODEL
def test_its_arguments_and_state_make_it_again(name):
    encoder = make(name).eval()
    kind, config = MODELS[name]
    arguments = encoder.arguments
    assert {k: arguments[k] for k in config} == config
    again = kind(**arguments)
    again.load_state_dict(encoder.state_dict())
    x = torch.randn(2, 40, config["input_size"])
    assert torch.equal(again.eval()(x), encoder(x))
    assert copy.deepcopy(encoder).arguments == arguments


def test_unknown_pooling_is_refused():
    with pytest.raises(
        ConfigError, match="pooling must be one of sap, asp; got 'mean'"
    ):
        FastResNet34(pooling="mean")


@pytest.mark.parametrize(
    "block, size", [("resnet34", 256), ("fast_resnet34", 512)]
)
def test_the_yaml_blocks(repository, block, size):
    path = repository / "hparams" / "encoders" / f"{block}.yaml"
    with open(path) as stream:
        hparams = load_hyperpyyaml(stream, {"channels": 8})
    encoder = hparams["encoder"]
    assert encoder.arguments["input_size"] == 80
    assert encoder(torch.randn(1, 30, 80)).shape == (1, 1, size)
