"""LIM against its equations."""

import math

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml

from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.objectives.base import Branch
from speechbrain_ssl.objectives.lim import LIM

LOSSES = ["bce", "mine", "nce"]
SIZE = 8


def make(loss="bce", discriminator_hidden=16, **options):
    torch.manual_seed(0)
    return LIM(SIZE, loss, discriminator_hidden, **options)


def forward(lim, first, second=None):
    second = first if second is None else second
    return lim(Branch(first, first, lim.head), Branch(second, second, lim.head))


def vectors(seed=1, batch=5, crops=2):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, crops, SIZE, generator=generator)


def scores(lim, first, second):
    """g of positive and negative pairs, one by one."""
    positive, negative = [], []
    for i in range(len(first)):
        other = second[i + 1 if i + 1 < len(first) else 0, 1]
        for right, found in ((second[i, 1], positive), (other, negative)):
            left = first[i, 0]
            if lim.discriminator is None:
                found.append(left @ right / left.norm() / right.norm())
            else:
                one, _, two = lim.discriminator.layers
                hidden = one.weight @ torch.cat([left, right]) + one.bias
                found.append((two.weight @ hidden.relu() + two.bias)[0])
    return torch.stack(positive), torch.stack(negative)


def by_the_equation(loss, positive, negative):
    if loss == "bce":
        right = torch.log(torch.sigmoid(positive)).mean()
        return -right - torch.log(1 - torch.sigmoid(negative)).mean()
    if loss == "mine":
        return -positive.mean() + torch.log(torch.exp(negative).mean())
    total = torch.exp(negative).sum()
    return -(positive - torch.log(torch.exp(positive) + total)).mean()


@pytest.mark.parametrize("hidden", [16, 0])
@pytest.mark.parametrize("loss", LOSSES)
def test_equals_the_equation(loss, hidden):
    """Loss and gradients, with the discriminator and with the cosine."""
    lim = make(loss, hidden)
    first = vectors(1).requires_grad_()
    second = vectors(2).requires_grad_()
    found, scalars = forward(lim, first, second)
    positive, negative = scores(lim, first, second)
    wanted = by_the_equation(loss, positive, negative)
    torch.testing.assert_close(found, wanted)
    inputs = [first, second, *lim.parameters()]
    for mine, other in zip(
        torch.autograd.grad(found, inputs),
        torch.autograd.grad(wanted, inputs, retain_graph=True),
        strict=True,
    ):
        torch.testing.assert_close(mine, other, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(scalars["positive_score"], positive.mean())
    torch.testing.assert_close(scalars["negative_score"], negative.mean())
    share = (positive > negative).float().mean()
    assert float(scalars["accuracy"]) == float(share)


@pytest.mark.parametrize("loss", LOSSES)
def test_nothing_is_known_of_independent_crops(loss):
    """With a discriminator that says nothing, the bounds are at nought."""
    lim = make(loss)
    torch.nn.init.zeros_(lim.discriminator.layers[-1].weight)
    torch.nn.init.zeros_(lim.discriminator.layers[-1].bias)
    wanted = {"bce": 2 * math.log(2), "mine": 0.0, "nce": math.log(6)}[loss]
    found = float(forward(lim, vectors())[0].detach())
    assert found == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_it_learns_to_tell_pairs_apart(loss):
    """From two crops that are nearly the same."""
    lim = make(loss)
    generator = torch.Generator().manual_seed(3)
    optimiser = torch.optim.Adam(lim.parameters(), lr=0.01)
    shares = []
    for _ in range(150):
        left = torch.randn(64, 1, SIZE, generator=generator)
        noise = 0.1 * torch.randn(64, 1, SIZE, generator=generator)
        optimiser.zero_grad()
        found, scalars = forward(lim, torch.cat([left, left + noise], 1))
        found.backward()
        optimiser.step()
        shares.append(float(scalars["accuracy"]))
    assert sum(shares[-10:]) / 10 > sum(shares[:10]) / 10 + 0.2


def test_turning_the_batch_round_does_not_count():
    """Neighbours stay neighbours. (Another order makes other negatives.)"""
    lim = make()
    views = vectors()
    found, _ = forward(lim, views)
    torch.testing.assert_close(forward(lim, views.roll(2, 0))[0], found)
    other = forward(lim, views[[1, 0, 2, 3, 4]])[0]
    assert abs(float((other - found).detach())) > 1e-5


def test_scale_does_not_count_for_the_cosine():
    lim = make("nce", 0)
    views = vectors()
    found, _ = forward(lim, views)
    scaled = views * torch.rand(5, 2, 1).add(0.5)
    torch.testing.assert_close(forward(lim, scaled)[0], found)


@pytest.mark.parametrize("hidden", [16, 0])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_collapsed_and_zero_vectors(value, loss, hidden):
    """Positive and negative pairs are one: chance, and finite gradients."""
    views = torch.full((5, 2, SIZE), value, requires_grad=True)
    found, scalars = forward(make(loss, hidden), views)
    found.backward()
    assert torch.isfinite(found) and torch.isfinite(views.grad).all()
    # Of one number g for all pairs: mine's bound is 0, nce's chance 1 in 6.
    wanted = {"mine": 0.0, "nce": math.log(6)}
    if loss in wanted:
        assert float(found.detach()) == pytest.approx(wanted[loss], abs=1e-5)
    assert float(scalars["accuracy"]) == 0.0


@pytest.mark.parametrize("loss", LOSSES)
def test_large_scores_and_nan(loss):
    """No exponential overflows; and a NaN is seen."""
    lim = make(loss)
    with torch.no_grad():
        lim.discriminator.layers[-1].weight.mul_(1e5)
    views = vectors().requires_grad_()
    found, _ = forward(lim, views)
    found.backward()
    assert torch.isfinite(found) and torch.isfinite(views.grad).all()
    bad = vectors()
    bad[2, 1, 0] = float("nan")
    assert torch.isnan(forward(lim, bad)[0])


def test_head():
    """None as in the paper; or three layers, whose vectors are compared."""
    assert isinstance(make().head, torch.nn.Identity)
    lim = make("nce", 0, hidden=16, output_size=4)
    vector = lim.head(torch.randn(6, SIZE))
    assert vector.shape == (6, 4)
    both = make(hidden=16, output_size=4)
    assert both.discriminator.layers[0].in_features == 8
    assert both.score(vector, vector).shape == (6,)


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ConfigError, match="batch_size to 2"):
        forward(make(), vectors(batch=1))
    with pytest.raises(ConfigError, match="LIM was made with `embedding_size`"):
        forward(make(), vectors()[..., 1:])
    with pytest.raises(ConfigError, match="global_crops to 2"):
        forward(make(), vectors(crops=3))
    with pytest.raises(ConfigError, match="one of .*bce.*got 'l2'"):
        make("l2")
    with pytest.raises(ConfigError, match="hidden must be a whole number"):
        make(discriminator_hidden=-1)


def test_configuration(repository):
    """The block of the configurations makes the objective."""
    with open(repository / "hparams/objectives/lim.yaml") as stream:
        block = load_hyperpyyaml(stream, {"discriminator_hidden": 32})
    lim = block["objective"]
    assert lim.score(torch.randn(3, 192), torch.randn(3, 192)).shape == (3,)
    assert lim.discriminator.layers[0].out_features == 32
