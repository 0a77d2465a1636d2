"""Barlow Twins against its equation, in loops and double precision."""

import pytest
import torch

from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.objectives.barlow import BarlowTwins
from speechbrain_ssl.objectives.base import Branch

D = 4


def loss_of(views, **options):
    objective = BarlowTwins(3, hidden=8, output_size=views.shape[-1], **options)
    branch = Branch(None, views, objective.head)
    return objective(branch, branch)


def by_the_equation(views, weight):
    left, right = views.double().unbind(1)
    total, on, off = 0.0, [], []
    for i in range(D):
        for j in range(D):
            a, b = left[:, i], right[:, j]
            a, b = a - a.mean(), b - b.mean()
            c = float((a * b).sum() / (a.norm() * b.norm()))
            total += (1 - c) ** 2 if i == j else weight * c**2
            (on if i == j else off).append(c)
    return total, sum(on) / D, sum(c**2 for c in off) / len(off)


@pytest.mark.parametrize("weight, scale", [(0.005, 0.025), (0.5, 1.0)])
def test_equals_the_equation(weight, scale):
    torch.manual_seed(0)
    views = torch.randn(7, 2, D) + torch.randn(7, 1, D)
    loss, scalars = loss_of(views, off_diagonal_weight=weight, scale=scale)
    total, on, off = by_the_equation(views, weight)
    assert float(loss) == pytest.approx(scale * total, rel=1e-3)
    assert float(scalars["diagonal"]) == pytest.approx(on, rel=1e-3)
    assert float(scalars["off_diagonal"]) == pytest.approx(off, rel=1e-3)


def test_order_place_and_scale_do_not_count():
    torch.manual_seed(0)
    views = torch.randn(7, 2, D)
    loss, _ = loss_of(views)
    scales = torch.tensor([2.0, 3.0, 5.0, 9.0])
    for other in (
        views[torch.randperm(7)],
        views.flip(1),
        views.flip(2),
        views * scales - 3,
    ):
        torch.testing.assert_close(loss_of(other)[0], loss, rtol=1e-4, atol=0)


def test_perfect_views_cost_nothing():
    """Equal crops whose dimensions are uncorrelated."""
    views = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
    loss, scalars = loss_of(views[:, None].repeat(1, 2, 1))
    assert float(loss) < 1e-9
    assert float(scalars["diagonal"]) == pytest.approx(1, abs=1e-4)


def test_gradient():
    torch.manual_seed(0)
    views = torch.randn(5, 2, D, requires_grad=True)
    loss, _ = loss_of(views, scale=1.0)
    (grad,) = torch.autograd.grad(loss, views)
    step = torch.randn_like(views)
    with torch.no_grad():
        up, down = (
            loss_of(views + s * step, scale=1.0)[0] for s in (1e-2, -1e-2)
        )
    assert float((grad * step).sum()) == pytest.approx(
        float(up - down) / 2e-2, rel=2e-2
    )


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_collapse_costs_the_whole_diagonal(value, batch):
    views = torch.full((batch, 2, D), value, requires_grad=True)
    loss, scalars = loss_of(views, scale=1.0)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(D)
    assert float(scalars["diagonal"]) == 0
    assert torch.isfinite(views.grad).all()


def test_full_precision_under_autocast():
    torch.manual_seed(0)
    views = torch.randn(7, 2, D)
    plain, _ = loss_of(views)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(loss_of(views)[0], plain)


def test_bad_input():
    with pytest.raises(ConfigError, match="Barlow Twins compares two crops"):
        loss_of(torch.randn(4, 3, D))
    with pytest.raises(
        ConfigError, match="off_diagonal_weight must be .* at least 0"
    ):
        BarlowTwins(3, off_diagonal_weight=-1.0)
    with pytest.raises(ConfigError, match="scale must be a number above 0"):
        BarlowTwins(3, scale=0.0)
    views = torch.randn(4, 2, D)
    views[0, 0, 0] = float("nan")
    assert torch.isnan(loss_of(views)[0])
