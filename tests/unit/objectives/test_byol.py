"""BYOL against its equation."""

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml

from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.objectives.base import Branch
from speechbrain_ssl.objectives.byol import BYOL
from speechbrain_ssl.objectives.teacher import MomentumTeacher

SIZES = {"hidden": 16, "output_size": 6, "predictor_hidden": 12}


def make():
    torch.manual_seed(0)
    return BYOL(8, **SIZES)


def forward(byol, first, second):
    return byol(
        Branch(first, first, byol.head), Branch(second, second, byol.head)
    )


def vectors(seed, crops=2, batch=5):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, crops, 6, generator=generator)


def by_the_equation(predicted, target):
    """Squared distances of unit vectors, pair by pair."""
    losses = []
    for q, t in zip(predicted.double(), target.double(), strict=True):
        for v in range(len(q)):
            for w in range(len(t)):
                if v != w:
                    gap = q[v] / q[v].norm() - t[w] / t[w].norm()
                    losses.append(gap.square().sum())
    return torch.stack(losses).mean()


@pytest.mark.parametrize("crops, globals_", [(2, 2), (4, 4), (5, 2), (3, 1)])
def test_equals_the_equation(crops, globals_):
    """Loss and gradient, with local crops and with one global crop too."""
    byol = make()
    first = vectors(1, crops).requires_grad_()
    second = vectors(2, globals_)
    loss, scalars = forward(byol, first, second)
    predicted = byol.predictor(first.flatten(0, 1)).view(5, crops, 6)
    wanted = by_the_equation(predicted, second)
    torch.testing.assert_close(loss, wanted.float())
    torch.testing.assert_close(
        scalars["positive_cosine"], 1 - wanted.detach().float() / 2
    )
    (mine,) = torch.autograd.grad(loss, first)
    (other,) = torch.autograd.grad(wanted, first)
    assert mine.abs().max() > 1e-4
    torch.testing.assert_close(mine, other, atol=1e-6, rtol=1e-4)


def test_a_right_prediction_has_no_loss():
    """With a predictor that does nothing, and its opposite has the most."""
    byol = make()
    byol.predictor = torch.nn.Identity()
    same = vectors(1)[:, :1].repeat(1, 2, 1)
    assert float(forward(byol, same, same * 3)[0]) == pytest.approx(0, abs=1e-6)
    assert float(forward(byol, same, -same)[0]) == pytest.approx(4, rel=1e-6)


def test_order_and_scale_of_the_teacher_do_not_count():
    byol = make()
    first, second = vectors(1, 4), vectors(2)
    loss, _ = forward(byol, first, second)
    order = [3, 1, 4, 0, 2]
    for a, b in (
        (first[order], second[order]),
        (first[:, [1, 0, 3, 2]], second.flip(1)),
        (first, second * torch.rand(5, 2, 1).add(0.5)),
    ):
        torch.testing.assert_close(forward(byol, a, b)[0], loss)
    # But a local crop in the place of a global one does.
    other = forward(byol, first[:, [0, 2, 1, 3]], second)[0]
    assert abs(float((other - loss).detach())) > 1e-3


def test_no_gradient_goes_to_the_teacher():
    byol = make()
    first, second = vectors(1).requires_grad_(), vectors(2).requires_grad_()
    forward(byol, first, second)[0].backward()
    assert first.grad.any() and second.grad is None


def test_the_predictor_is_the_students_alone():
    """A teacher copies the head, which ends before it."""
    byol = make()
    teacher = MomentumTeacher(torch.nn.Linear(3, 8), byol.head)
    head = sum(p.numel() for p in byol.head.parameters())
    predictor = sum(p.numel() for p in byol.predictor.parameters())
    assert sum(p.numel() for p in teacher.head.parameters()) == head
    assert sum(p.numel() for p in byol.parameters()) == head + predictor
    assert byol.momentum and byol.head(torch.randn(4, 8)).shape == (4, 6)


def test_collapsed_and_zero_vectors():
    """Finite, and the spread tells."""
    byol = make()
    scattered = forward(byol, vectors(1), vectors(2))[1]
    assert 0.8 < float(scattered["spread"]) <= 1.0
    for value in (0.0, 1.0):
        first = torch.full((5, 2, 6), value, requires_grad=True)
        loss, scalars = forward(byol, first, torch.full((5, 2, 6), value))
        loss.backward()
        assert torch.isfinite(loss) and torch.isfinite(first.grad).all()
        assert float(scalars["spread"]) == pytest.approx(0, abs=1e-6)


def test_one_utterance_and_nan():
    byol = make()
    loss, _ = forward(byol, vectors(1, batch=1), vectors(2, batch=1))
    assert torch.isfinite(loss)
    assert torch.isnan(forward(byol, vectors(1) * float("nan"), vectors(2))[0])


def test_no_pair_is_an_error():
    with pytest.raises(ConfigError, match="two global crops or some local"):
        forward(make(), vectors(1, 1), vectors(2, 1))
    with pytest.raises(ConfigError, match="must be a whole number from 1"):
        BYOL(8, **{**SIZES, "predictor_hidden": 0})


def test_configuration(repository):
    """The block of the configurations makes objective and schedule."""
    with open(repository / "hparams/objectives/byol.yaml") as stream:
        block = load_hyperpyyaml(stream, {"hidden": 32, "layers": 2})
    byol = block["objective"]
    layers = [m for m in byol.modules() if isinstance(m, torch.nn.Linear)]
    assert [layer.out_features for layer in layers] == [32, 512, 4096, 512]
    values = block["momentum_schedule"](epochs=2, steps_per_epoch=3)
    assert (values[0], values[-1]) == (0.996, 1.0)
