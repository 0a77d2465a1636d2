"""VICReg against its equation, in loops and double precision."""

import math

import pytest
import torch

from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.objectives.base import Branch
from speechbrain_ssl.objectives.vicreg import VICReg

D = 4


def loss_of(views, **weights):
    objective = VICReg(3, hidden=8, output_size=D, **weights)
    branch = Branch(None, views, objective.head)
    return objective(branch, branch)


def by_the_equation(views):
    """The three terms, element by element."""
    left, right = views.double().unbind(1)
    n = len(left)
    invariance = sum(
        float(((a - b) ** 2).sum()) for a, b in zip(left, right, strict=True)
    )
    variance = covariance = 0.0
    for z in (left, right):
        mean = z.sum(0) / n
        for i in range(D):
            for j in range(D):
                c = float(((z[:, i] - mean[i]) * (z[:, j] - mean[j])).sum())
                c /= n - 1
                if i == j:
                    variance += max(0.0, 1 - math.sqrt(c + 1e-4)) / D
                else:
                    covariance += c**2 / D
    return {
        "invariance": invariance / n / D,
        "variance": variance,
        "covariance": covariance,
    }


@pytest.mark.parametrize("weights", [(1.0, 1.0, 0.1), (25.0, 25.0, 1.0)])
def test_equals_the_equation(weights):
    torch.manual_seed(0)
    views = 0.7 * torch.randn(6, 2, D) + 2
    names = ["invariance", "variance", "covariance"]
    options = dict(zip([f"{n}_weight" for n in names], weights, strict=True))
    loss, scalars = loss_of(views, **options)
    wanted = by_the_equation(views)
    assert min(wanted.values()) > 0.01
    for name in names:
        assert float(scalars[name]) == pytest.approx(wanted[name], rel=1e-4)
    total = sum(w * wanted[n] for w, n in zip(weights, names, strict=True))
    assert float(loss) == pytest.approx(total, rel=1e-4)


def test_order_place_and_side_do_not_count():
    torch.manual_seed(0)
    views = torch.randn(6, 2, D)
    loss, _ = loss_of(views)
    for other in (
        views[torch.randperm(6)],
        views.flip(1),
        views.flip(2),
        views + 5,
    ):
        torch.testing.assert_close(loss_of(other)[0], loss)
    assert loss_of(2 * views)[0] > loss


def test_gradient():
    torch.manual_seed(0)
    views = torch.randn(5, 2, D, requires_grad=True)
    loss, _ = loss_of(views)
    (grad,) = torch.autograd.grad(loss, views)
    step = torch.randn_like(views)
    with torch.no_grad():
        up, down = (loss_of(views + s * step)[0] for s in (1e-2, -1e-2))
    assert float((grad * step).sum()) == pytest.approx(
        float(up - down) / 2e-2, rel=1e-2
    )


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_collapse_costs_the_whole_hinge(value):
    views = torch.full((4, 2, D), value, requires_grad=True)
    loss, scalars = loss_of(views)
    loss.backward()
    assert float(scalars["variance"]) == pytest.approx(2 * 0.99)
    assert float(loss.detach()) == pytest.approx(2 * 0.99)
    assert torch.isfinite(views.grad).all()


def test_replaced_rows_are_compared():
    torch.manual_seed(0)
    views, others = torch.randn(5, 2, D), torch.randn(5, 2, D)
    objective = VICReg(3, hidden=8, output_size=D)
    first = Branch(None, views, objective.head)
    loss, _ = objective(first, Branch(None, others, objective.head))
    mixed = torch.stack([views[:, 0], others[:, 1]], 1)
    torch.testing.assert_close(loss, loss_of(mixed)[0])


def test_bad_input():
    with pytest.raises(ConfigError, match="VICReg compares two crops"):
        loss_of(torch.randn(4, 3, D))
    with pytest.raises(ConfigError, match="batch_size to 2"):
        loss_of(torch.randn(1, 2, D))
    for name in ("invariance", "variance", "covariance"):
        with pytest.raises(ConfigError, match=f"VICReg's {name}_weight"):
            VICReg(3, **{f"{name}_weight": -1.0})
    views = torch.randn(4, 2, D)
    views[0, 0, 0] = float("nan")
    assert torch.isnan(loss_of(views)[0])
