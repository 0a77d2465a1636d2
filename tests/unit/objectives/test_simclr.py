"""SimCLR against its equation, and what it must not depend on."""

import math

import pytest
import torch

from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.objectives.base import Branch
from speechbrain_ssl.objectives.simclr import SimCLR


def loss_of(views, temperature=0.1):
    objective = SimCLR(temperature)
    branch = Branch(views, views, objective.head)
    return objective(branch, branch)


def by_the_equation(views, temperature):
    """Equation 1, crop by crop, in plain loops."""
    z = [v / v.norm() for pair in views.double() for v in pair]
    total = 0.0
    for i in range(len(z)):
        j = i + 1 if i % 2 == 0 else i - 1
        terms = [
            math.exp(float(z[i] @ z[k]) / temperature)
            for k in range(len(z))
            if k != i
        ]
        total -= math.log(
            math.exp(float(z[i] @ z[j]) / temperature) / sum(terms)
        )
    return total / len(z)


@pytest.mark.parametrize("temperature", [0.03, 0.07, 1.0])
def test_equals_the_equation(temperature):
    torch.manual_seed(0)
    views = torch.randn(5, 2, 8)
    loss, _ = loss_of(views, temperature)
    assert float(loss) == pytest.approx(
        by_the_equation(views, temperature), rel=1e-5
    )


def test_depends_on_neither_order_nor_scale():
    torch.manual_seed(1)
    views = torch.randn(6, 2, 8)
    loss, scalars = loss_of(views)
    for other in (
        views[torch.randperm(6)],
        views.flip(1),
        views * torch.rand(6, 2, 1).add(0.5),
    ):
        changed, other_scalars = loss_of(other)
        torch.testing.assert_close(changed, loss)
        torch.testing.assert_close(
            other_scalars["positive_cosine"], scalars["positive_cosine"]
        )


def test_collapsed_embeddings_are_at_chance():
    """All crops alike: every other crop is as near as the right one."""
    views = torch.ones(4, 2, 8, requires_grad=True)
    loss, _ = loss_of(views)
    assert float(loss) == pytest.approx(math.log(7), rel=1e-5)
    loss.backward()
    assert torch.isfinite(views.grad).all()


def test_zero_vectors_stay_finite():
    views = torch.zeros(4, 2, 8, requires_grad=True)
    loss, _ = loss_of(views)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(views.grad).all()


def test_perfect_embeddings():
    views = torch.eye(8)[:, None].repeat(1, 2, 1)
    loss, scalars = loss_of(views, 0.03)
    assert float(loss) < 1e-6
    assert float(scalars["accuracy"]) == 1.0


def test_wants_two_crops_and_a_temperature():
    with pytest.raises(ConfigError, match="global_crops to 2"):
        loss_of(torch.randn(4, 3, 8))
    with pytest.raises(ConfigError, match="above 0"):
        SimCLR(0.0)
