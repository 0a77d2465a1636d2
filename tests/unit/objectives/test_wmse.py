"""W-MSE against its equation, and where there is nothing to whiten."""

import numpy as np
import pytest
import torch

from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.objectives.base import Branch
from speechbrain_ssl.objectives.wmse import WMSE

D, PART = 3, 6


def make(**options):
    options = {
        "hidden": 8,
        "output_size": D,
        "whitening_size": PART,
        **options,
    }
    return WMSE(4, **options)


def loss_of(views, **options):
    objective = make(**options)
    branch = Branch(None, views, objective.head)
    return objective(branch, branch)


def by_the_equation(views, epsilon):
    """Sub-batch by sub-batch, with an inverse in place of a solver."""
    sides = []
    for crop in views.double().numpy().swapaxes(0, 1):
        white = []
        for begin in range(0, len(crop), PART):
            part = crop[begin : begin + PART]
            table = (1 - epsilon) * np.cov(part.T) + epsilon * np.eye(D)
            factor = np.linalg.inv(np.linalg.cholesky(table))
            white += [factor @ (v - part.mean(0)) for v in part]
        sides.append([z / np.linalg.norm(z) for z in white])
    return np.mean([np.sum((a - b) ** 2) for a, b in zip(*sides, strict=True)])


def views_of(parts, seed=0):
    torch.manual_seed(seed)
    views = torch.randn(parts * PART, 1, D) @ torch.randn(D, D)
    return views + 0.3 * torch.randn(parts * PART, 2, D) + 4


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("epsilon", [0.0, 0.2])
def test_equals_the_equation(epsilon, parts):
    views = views_of(parts)
    loss, scalars = loss_of(views, epsilon=epsilon)
    wanted = by_the_equation(views, epsilon)
    assert float(loss) == pytest.approx(wanted, rel=1e-5)
    cosines = torch.cosine_similarity(views[:, 0], views[:, 1]).mean()
    torch.testing.assert_close(scalars["positive_cosine"], cosines)


def test_vectors_are_white():
    objective = make()
    white = objective._white(views_of(2)[:, 0])
    for part in white.split(PART):
        torch.testing.assert_close(
            torch.cov(part.T), torch.eye(D), rtol=1e-4, atol=1e-4
        )
        torch.testing.assert_close(
            part.mean(0), torch.zeros(D), rtol=0, atol=1e-5
        )


def test_a_linear_map_does_not_count_and_order_does_only_between_parts():
    """Whitening undoes scale and place (and, up to a turn, any map)."""
    views = views_of(2)
    loss, _ = loss_of(views)
    order = torch.cat([torch.randperm(PART), PART + torch.randperm(PART)])
    scales = torch.tensor([2.0, 0.1, 7.0])
    for other in (views[order], views * scales + 3, views.flip(1), 5 * views):
        torch.testing.assert_close(
            loss_of(other)[0], loss, rtol=1e-4, atol=1e-6
        )
    mixed = views[torch.arange(2 * PART).view(2, PART).T.flatten()]
    assert abs(float(loss_of(mixed)[0] - loss)) > 1e-4


def test_equal_crops_cost_nothing():
    views = views_of(1)[:, :1].repeat(1, 2, 1)
    loss, _ = loss_of(views)
    assert abs(float(loss)) < 1e-5


def test_gradient():
    views = views_of(1).requires_grad_()
    loss, _ = loss_of(views)
    (grad,) = torch.autograd.grad(loss, views)
    step = torch.randn_like(views)
    with torch.no_grad():
        up, down = (loss_of(views + s * step)[0] for s in (1e-3, -1e-3))
    assert float((grad * step).sum()) == pytest.approx(
        float(up - down) / 2e-3, rel=2e-2
    )


def test_near_collinear_vectors_can_be_whitened():
    """As those of an untrained encoder are; not in float32."""
    torch.manual_seed(0)
    line = torch.randn(PART, 1, 1) * torch.ones(D)
    views = line + 1e-4 * torch.randn(PART, 2, D)
    views.requires_grad_()
    loss, _ = loss_of(views)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(views.grad).all()


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_collapse_is_not_a_number_and_no_crash(value):
    """The Brain skips such a step; a share of the identity mends it."""
    views = torch.full((PART, 2, D), value, requires_grad=True)
    assert torch.isnan(loss_of(views)[0])
    loss, _ = loss_of(views, epsilon=0.1)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(views.grad).all()
    views = views_of(1)
    views[0, 0, 0] = float("nan")
    assert torch.isnan(loss_of(views)[0])


def test_bad_input():
    with pytest.raises(ConfigError, match="W-MSE compares two crops"):
        loss_of(torch.randn(PART, 3, D))
    with pytest.raises(ConfigError, match="a batch has 7"):
        loss_of(torch.randn(7, 2, D))
    with pytest.raises(ConfigError, match="a batch has 1;"):
        loss_of(torch.randn(1, 2, D))
    with pytest.raises(ConfigError, match="above output_size"):
        make(whitening_size=D)
    with pytest.raises(ConfigError, match="epsilon"):
        make(epsilon=1.0)
