"""The fast ECAPA is SpeechBrain's ECAPA: parameters, outputs, gradients."""

import copy
import time

import pytest
import torch
from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN

from speechbrain_ssl.encoders.ecapa import FastECAPA
from speechbrain_ssl.errors import ConfigError

SMALL = {"channels": [32, 32, 32, 32, 96], "lin_neurons": 24}
CONFIGS = {
    "small": SMALL,
    "no context": {**SMALL, "global_context": False},
    "shortcuts": {**SMALL, "channels": [16, 32, 32, 32, 64]},
    "groups": {**SMALL, "groups": [2, 2, 1, 4, 2]},
    "others": {
        **SMALL,
        "activation": torch.nn.LeakyReLU,
        "kernel_sizes": [3, 5, 3, 3, 3],
        "dilations": [1, 1, 2, 3, 2],
        "attention_channels": 16,
        "res2net_scale": 4,
        "se_channels": 8,
    },
    "dropout": {**SMALL, "dropout": 0.3},
    "deeper": {
        "channels": [32, 32, 32, 32, 32, 64],
        "kernel_sizes": [5, 3, 3, 3, 3, 1],
        "dilations": [1, 2, 3, 4, 5, 1],
        "groups": [1] * 6,
        "lin_neurons": 8,
    },
}


def pair(config, seed=0, dead=False):
    """A stock model that is no fresh one, and ours with its parameters."""
    torch.manual_seed(seed)
    stock = ECAPA_TDNN(20, **config)
    for module in stock.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0, 0.3)
            torch.nn.init.normal_(module.running_mean, 0, 0.3)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
    if dead:
        # Units that never fire: constant in time, as training leaves some.
        torch.nn.init.constant_(stock.mfa.conv.conv.bias[:16].detach(), -50)
        stock.asp_bn.norm.running_var[96:112] = 1e-12
        stock.asp_bn.norm.running_mean[96:112] = 1e-6
    ours = FastECAPA(20, **config)
    ours.load_state_dict(stock.state_dict())
    return stock, ours


def relative(found, wanted):
    error = (found - wanted).detach().norm()
    return float(error / wanted.detach().norm().clamp(min=1e-12))


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_same_state_dict(config):
    """Checkpoints go both ways, names and shapes."""
    stock, ours = ECAPA_TDNN(20, **config), FastECAPA(20, **config)
    a, b = stock.state_dict(), ours.state_dict()
    assert {k: v.shape for k, v in a.items()} == {
        k: v.shape for k, v in b.items()
    }
    stock.load_state_dict(b)


def passed(model, seed):
    """Outputs, input gradient, gradients and running statistics of a pass."""
    torch.manual_seed(seed)
    x = torch.randn(6, 70, 20, requires_grad=True)
    torch.manual_seed(6)  # dropout
    y = model(x)
    weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    (y * weight).sum().backward()
    grads = {k: p.grad for k, p in model.named_parameters()}
    state = {k: v for k, v in model.state_dict().items() if "running" in k}
    return y.detach(), x.grad, grads, state


def gradients_agree(left, right):
    """Whether the gradients of two passes are equal but for rounding."""
    (_, dx, grads, _), (_, dx2, grads2, _) = left, right
    scale = max(float(g.norm()) for g in grads.values())
    # A bias before a batch norm has no gradient but rounding.
    return relative(dx2, dx) < 1e-4 and all(
        float((grads2[name] - grad).norm())
        < 1e-4 * float(grad.norm()) + 1e-5 * scale
        for name, grad in grads.items()
    )


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_same_outputs_and_gradients(config, mode):
    """Also the running statistics of the batch norms, and the input's gradient.

    A ReLU has no gradient at zero. Where rounding puts one input of thousands on
    its other side, which depends on the processor, gradients differ by some
    thousandths; it does not happen with two inputs of three.
    """
    agreed = []
    for seed in (5, 8, 9):
        models = pair(config)
        for model in models:
            getattr(model, mode)()
        stock, ours = (passed(model, seed) for model in models)
        assert ours[0].shape == (6, 1, config["lin_neurons"])
        assert relative(ours[0], stock[0]) < 1e-5
        for name, value in stock[3].items():
            assert relative(ours[3][name], value) < 1e-5, name
        agreed.append(gradients_agree(stock, ours))
    assert sum(agreed) >= 2


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_units_that_never_fire(mode):
    """Their variance is nought: E[x^2] - E[x]^2 would be rounding instead.

    Batch norm then divides by the root of a tiny variance, and the rounding is
    what the embedding shows.
    """
    stock, ours = pair(SMALL, dead=True)
    getattr(stock, mode)(), getattr(ours, mode)()
    x = torch.randn(6, 70, 20)
    assert relative(ours(x), stock(x)) < 1e-5


def padded(sizes):
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(len(sizes), max(sizes), 20, generator=generator)
    for row, size in zip(x, sizes, strict=True):
        row[size:] = 0
    return x, torch.tensor(sizes) / max(sizes)


def worst(model, x, lengths, sizes):
    together = model(x, lengths)[:, 0]
    return max(
        relative(together[i], model(x[i : i + 1, :size])[0, 0])
        for i, size in enumerate(sizes)
    )


@torch.no_grad()
@pytest.mark.parametrize(
    "config", [CONFIGS["small"], CONFIGS["no context"], CONFIGS["others"]]
)
def test_an_embedding_does_not_depend_on_its_neighbours(config):
    """In a padded batch it is that of the utterance alone.

    The stock forward is here as the trap: its convolutions look into the
    padding, so that a score depends on what else was in the batch.
    """
    stock, ours = pair(config)
    stock.eval(), ours.eval()
    sizes = [300, 299, 123, 50, 21]
    x, lengths = padded(sizes)
    assert worst(ours, x, lengths, sizes) < 1e-5
    assert worst(stock, x, lengths, sizes) > 1e-3
    # Without padding, lengths change nothing.
    ones = torch.ones(2)
    whole = torch.randn(2, 80, 20)
    assert relative(ours(whole, ones), ours(whole)) < 1e-6
    assert relative(ours(whole, ones), stock(whole, ones)) < 1e-5
    # Nor does what stands in the padding.
    rubbish = x.clone()
    for row, size in zip(rubbish, sizes, strict=True):
        row[size:] = 100.0
    assert relative(ours(rubbish, lengths), ours(x, lengths)) < 1e-6


def test_lengths_have_gradients():
    """Training on padded batches: padding gets none, the rest that of alone."""
    _, ours = pair(SMALL)
    ours.eval()
    sizes = [60, 33]
    x, lengths = padded(sizes)
    x.requires_grad_()
    ours(x, lengths).square().sum().backward()
    assert (x.grad[1, 33:] == 0).all()
    for i, size in enumerate(sizes):
        alone = x[i : i + 1, :size].detach().requires_grad_()
        ours(alone).square().sum().backward()
        assert relative(x.grad[i, :size], alone.grad[0]) < 1e-4


@torch.no_grad()
def test_bf16_is_close():
    stock, ours = pair(SMALL)
    stock.eval(), ours.eval()
    x, lengths = padded([200, 150, 90])
    for arguments in ((x,), (x, lengths)):
        wanted = ours(*arguments)[:, 0]
        with torch.autocast("cpu", torch.bfloat16):
            found = ours(*arguments)[:, 0].float()
        assert torch.cosine_similarity(found, wanted).min() > 0.999


@torch.no_grad()
def test_from_stock_is_in_place():
    stock, _ = pair(CONFIGS["shortcuts"])
    stock.eval()
    x = torch.randn(3, 60, 20)
    wanted, weights = stock(x), [id(p) for p in stock.parameters()]
    ours = FastECAPA.from_stock(stock)
    assert ours is stock and isinstance(ours, FastECAPA)
    assert [id(p) for p in ours.parameters()] == weights
    assert relative(ours(x), wanted) < 1e-5


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_its_arguments_make_it_again(config):
    """An export names them; also those of a model that was loaded."""
    for model in (
        FastECAPA(20, **config),
        FastECAPA.from_stock(ECAPA_TDNN(20, **config)),
    ):
        arguments = model.arguments
        assert arguments["input_size"] == 20
        assert {k: arguments[k] for k in config} == config
        again = ECAPA_TDNN(**arguments)
        again.load_state_dict(model.state_dict())
        assert str(again) == str(ECAPA_TDNN(20, **config))
        assert copy.deepcopy(model).arguments == arguments


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_frames_are_those_that_are_pooled(config):
    """What the stock pooling and its batch norm make of them is the embedding.

    And the embedding, its gradients and its running statistics are those of
    ``forward``.
    """
    stock, ours = pair({**config, "dropout": 0.0})
    twin = copy.deepcopy(ours)
    x = torch.randn(6, 70, 20)
    embeddings, frames = ours.with_frames(x)
    wanted = twin(x)
    assert torch.equal(embeddings, wanted)
    assert frames.shape == (6, 70, config["channels"][-1])
    seen = []
    stock.mfa.register_forward_hook(lambda *args: seen.append(args[2]))
    stock(x)
    assert relative(frames.transpose(1, 2), seen[0]) < 1e-5
    pooled = stock.asp_bn(stock.asp(frames.transpose(1, 2).detach()))
    assert relative(embeddings, stock.fc(pooled).transpose(1, 2)) < 1e-4
    embeddings.square().sum().backward()
    wanted.square().sum().backward()
    for mine, other in zip(ours.parameters(), twin.parameters(), strict=True):
        assert torch.equal(mine.grad, other.grad)
    for mine, other in zip(ours.buffers(), twin.buffers(), strict=True):
        assert torch.equal(mine, other)


def test_frames_have_gradients_of_their_own():
    """A loss on frames trains all below the pooling, and only that."""
    _, ours = pair(SMALL)
    ours.with_frames(torch.randn(3, 70, 20))[1].square().mean().backward()
    for name, parameter in ours.named_parameters():
        pooling = name.startswith(("asp", "fc"))
        assert (parameter.grad is None) == pooling, name


@pytest.mark.slow
@pytest.mark.parametrize("precision", [None, torch.bfloat16])
def test_is_not_slower_than_stock(precision):
    """Forward and backward, the two in turns; 1.4 and 2 times faster alone."""
    torch.manual_seed(0)
    config = {"channels": [256] * 4 + [768]}
    stock, ours = ECAPA_TDNN(80, **config), FastECAPA(80, **config)
    x = torch.randn(8, 200, 80)
    best = {}
    for _ in range(4):
        for name, model in (("stock", stock), ("ours", ours)):
            start = time.process_time()
            with torch.autocast(
                "cpu", precision, enabled=precision is not None
            ):
                loss = model(x).square().sum()
            loss.backward()
            spent = time.process_time() - start
            best[name] = min(spent, best.get(name, spent))
    assert best["ours"] < best["stock"]


def test_channels_that_do_not_divide():
    """The stock module's bare assertion names no key."""
    with pytest.raises(ConfigError, match="`channels` must be multiples.*20"):
        FastECAPA(20, channels=[20, 20, 20, 20, 60], lin_neurons=8)
