"""SimSiam against its equation."""

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml

from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.objectives.base import Branch
from speechbrain_ssl.objectives.simsiam import SimSiam

SIZES = {"hidden": 16, "output_size": 6, "predictor_hidden": 3}


def make():
    torch.manual_seed(0)
    return SimSiam(8, **SIZES)


def forward(simsiam, first, second=None):
    second = first if second is None else second
    return simsiam(
        Branch(first, first, simsiam.head), Branch(second, second, simsiam.head)
    )


def vectors(seed, crops=2, batch=5):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, crops, 6, generator=generator)


def by_the_equation(predicted, target):
    """Negative cosines, pair by pair; the target is a constant."""
    losses = []
    for p, z in zip(predicted, target.detach(), strict=True):
        for v in range(len(p)):
            for w in range(len(z)):
                if v != w:
                    losses.append(-p[v] @ z[w] / p[v].norm() / z[w].norm())
    return torch.stack(losses).mean()


@pytest.mark.parametrize("crops, globals_", [(2, 2), (3, 3), (4, 2)])
def test_equals_the_equation(crops, globals_):
    """Loss and gradient: what is predicted is a constant."""
    simsiam = make()
    first = vectors(1, crops).requires_grad_()
    loss, scalars = forward(simsiam, first, first[:, :globals_])
    predicted = simsiam.predictor(first.flatten(0, 1)).view(5, crops, 6)
    wanted = by_the_equation(predicted, first[:, :globals_])
    torch.testing.assert_close(loss, wanted)
    torch.testing.assert_close(scalars["positive_cosine"], -wanted.detach())
    (mine,) = torch.autograd.grad(loss, first)
    (other,) = torch.autograd.grad(wanted, first)
    assert mine.abs().max() > 1e-4
    torch.testing.assert_close(mine, other, atol=1e-6, rtol=1e-4)


def test_the_stop_gradient_stops():
    simsiam = make()
    first, second = vectors(1).requires_grad_(), vectors(2).requires_grad_()
    forward(simsiam, first, second)[0].backward()
    assert first.grad.any() and second.grad is None


def test_order_does_not_count():
    simsiam = make()
    views = vectors(1)
    loss, _ = forward(simsiam, views)
    for other in (views[[3, 1, 4, 0, 2]], views.flip(1)):
        torch.testing.assert_close(forward(simsiam, other)[0], loss)


def test_head_ends_in_a_plain_batch_norm():
    """Whatever the embeddings, their vectors have mean 0 and variance 1."""
    simsiam = make()
    vector = simsiam.head(5 + 3 * torch.randn(64, 8))
    torch.testing.assert_close(
        vector.mean(0), torch.zeros(6), atol=1e-5, rtol=0
    )
    variance = vector.var(0, correction=0)
    torch.testing.assert_close(variance, torch.ones(6), atol=1e-3, rtol=0)
    assert not simsiam.momentum


def test_collapsed_and_zero_vectors():
    """Finite, and the spread tells."""
    simsiam = make()
    assert 0.8 < float(forward(simsiam, vectors(1))[1]["spread"]) <= 1.0
    for value in (0.0, 1.0):
        views = torch.full((5, 2, 6), value, requires_grad=True)
        loss, scalars = forward(simsiam, views)
        loss.backward()
        assert torch.isfinite(loss) and torch.isfinite(views.grad).all()
        assert float(scalars["spread"]) == pytest.approx(0, abs=1e-6)


def test_one_utterance_and_nan():
    simsiam = make()
    assert torch.isfinite(forward(simsiam, vectors(1, batch=1))[0])
    assert torch.isnan(forward(simsiam, vectors(1) * float("nan"))[0])


def test_predictor_keeps_its_learning_rate():
    simsiam = make()
    found = {id(p) for p in simsiam.constant_lr_parameters()}
    assert found == {id(p) for p in simsiam.predictor.parameters()}
    follows = SimSiam(8, **SIZES, constant_predictor_lr=False)
    assert follows.constant_lr_parameters() == []


def test_no_pair_is_an_error():
    with pytest.raises(ConfigError, match="two global crops or some local"):
        forward(make(), vectors(1, 1))
    with pytest.raises(ConfigError, match="must be a whole number from 1"):
        SimSiam(8, **{**SIZES, "hidden": 1.5})


def test_configuration(repository):
    """The block of the configurations makes the objective."""
    with open(repository / "hparams/objectives/simsiam.yaml") as stream:
        block = load_hyperpyyaml(stream, {"hidden": 32})
    modules = block["objective"].modules()
    layers = [m for m in modules if isinstance(m, torch.nn.Linear)]
    sizes = [layer.out_features for layer in layers]
    assert sizes == [32, 32, 512, 512, 512]
