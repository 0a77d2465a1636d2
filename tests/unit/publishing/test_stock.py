"""A ResNet as stock layers is the same function."""

import re

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml

from speechbrain_ssl.encoders.resnet import FastResNet34, ResNet34
from speechbrain_ssl.publishing.stock import stock_encoder

SHAPES = {
    "resnet": (ResNet34, {"channels": 4}),
    "odd bands": (ResNet34, {"channels": 4, "input_size": 23}),
    "published": (ResNet34, {"input_size": 80, "lin_neurons": 256}),
    "fast": (FastResNet34, {"channels": 8}),
    "fast asp": (FastResNet34, {"channels": 8, "pooling": "asp"}),
    "fast odd": (FastResNet34, {"channels": 12, "input_size": 21}),
    "published fast": (FastResNet34, {"input_size": 80}),
    "normed": (ResNet34, {"channels": 4, "embedding_batch_norm": True}),
}


def make(name):
    """An encoder whose norms, biases and gates all matter."""
    torch.manual_seed(0)
    kind, config = SHAPES[name]
    encoder = kind(**{"input_size": 20, "lin_neurons": 12, **config})
    for module in encoder.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0, 0.3)
            torch.nn.init.normal_(module.running_mean, 0, 0.3)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
    return encoder.eval()


@torch.no_grad()
@pytest.mark.parametrize("name", SHAPES)
def test_it_is_the_same_function(name):
    """Of loud and soft, short and long input."""
    encoder = make(name)
    text, state = stock_encoder(encoder)
    stock = load_hyperpyyaml(text)["embedding_model"]
    assert stock.load_state_dict(state).missing_keys == []
    stock.eval()
    bands = encoder.arguments["input_size"]
    for frames, scale in ((1, 1.0), (37, 0.01), (150, 20.0)):
        x = torch.randn(2, frames, bands) * scale
        wanted, found = encoder(x), stock(x, torch.ones(2))
        assert found.shape == wanted.shape
        # A single frame has no deviation but that of the rounding.
        bound = 1e-5 if frames > 1 else 1e-4
        assert (found - wanted).norm() < bound * wanted.norm()


def test_only_stock_classes_are_named():
    for name in SHAPES:
        text, _ = stock_encoder(make(name))
        named = re.findall(r"!(?:new|name|apply):([\w.]+)", text)
        assert len(named) > 60
        for path in named:
            assert path.startswith(("speechbrain.", "torch.nn."))
