"""VIbCReg: its correlations and its whitening, against plain statements."""

import pytest
import torch

from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.objectives.base import Branch
from speechbrain_ssl.objectives.vibcreg import IterNorm, VIbCReg

D = 4


def loss_of(views, **options):
    options = {"hidden": 8, "output_size": D, "groups": 2, **options}
    objective = VIbCReg(3, **options)
    branch = Branch(None, views, objective.head)
    return objective(branch, branch)


def test_equals_the_equation():
    torch.manual_seed(0)
    views = 0.7 * torch.randn(6, 2, D) + 2
    loss, scalars = loss_of(views)
    wanted = {
        "invariance": float((views[:, 0] - views[:, 1]).square().mean()),
        "variance": 0.0,
        "covariance": 0.0,
    }
    for z in views.double().unbind(1):
        table = torch.corrcoef(z.T)
        wanted["covariance"] += sum(
            float(table[i, j]) ** 2 / D**2
            for i in range(D)
            for j in range(D)
            if i != j
        )
        for j in range(D):
            deviation = (float(z[:, j].var()) + 1e-4) ** 0.5
            wanted["variance"] += max(0.0, 1 - deviation) / D
    for name, value in wanted.items():
        assert value > 0.01
        assert float(scalars[name]) == pytest.approx(value, rel=1e-4)
    total = wanted["invariance"] + wanted["variance"]
    total += 8 * wanted["covariance"]
    assert float(loss) == pytest.approx(total, rel=1e-4)


def test_order_and_side_do_not_count_and_the_correlation_has_no_scale():
    torch.manual_seed(0)
    views = torch.randn(6, 2, D)
    loss, scalars = loss_of(views)
    for other in (views[torch.randperm(6)], views.flip(1), views + 5):
        torch.testing.assert_close(loss_of(other)[0], loss)
    _, scaled = loss_of(10 * views)
    torch.testing.assert_close(scaled["covariance"], scalars["covariance"])


def newton(x, groups, iterations, epsilon=1e-5):
    """Group by group, in double precision."""
    parts = []
    for part in x.double().chunk(groups, 1):
        centered = part - part.mean(0)
        d = part.shape[1]
        s = sum(torch.outer(r, r) for r in centered) / len(part)
        s = s + epsilon * torch.eye(d)
        root = torch.eye(d).double()
        for _ in range(iterations):
            cube = torch.matrix_power(root, 3)
            root = (3 * root - cube @ s / s.trace()) / 2
        parts.append(centered @ root / s.trace().sqrt())
    return torch.cat(parts, 1).float()


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_iterative_normalisation_is_newtons(groups):
    torch.manual_seed(0)
    x = torch.randn(20, D) @ torch.randn(D, D) + 3
    norm = IterNorm(D, groups)
    torch.testing.assert_close(
        norm(x), newton(x, groups, 5), rtol=1e-4, atol=1e-5
    )
    with torch.no_grad():
        norm.weight.copy_(torch.arange(D))
        norm.bias.fill_(2.0)
    wanted = newton(x, groups, 5) * torch.arange(D) + 2
    torch.testing.assert_close(norm(x), wanted, rtol=1e-4, atol=1e-5)


def test_each_iteration_brings_the_covariance_nearer_to_the_identity():
    torch.manual_seed(0)
    x = torch.randn(200, D) @ (torch.eye(D) + 0.3 * torch.randn(D, D))
    errors = []
    for iterations in range(1, 8):
        y = IterNorm(D, 1, iterations, epsilon=0.0)(x)
        table = torch.cov(y.T, correction=0) - torch.eye(D)
        errors.append(float(table.abs().max().detach()))
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 0.5 and errors[-1] < 0.05


def test_normalisation_has_a_gradient_and_full_precision():
    torch.manual_seed(0)
    norm = IterNorm(D, 2)
    x = torch.randn(6, D, requires_grad=True)
    weights = torch.randn(6, D)
    (grad,) = torch.autograd.grad((norm(x) * weights).sum(), x)
    step = torch.randn(6, D)
    with torch.no_grad():
        up, down = ((norm(x + s * step) * weights).sum() for s in (1e-3, -1e-3))
    assert float((grad * step).sum()) == pytest.approx(
        float(up - down) / 2e-3, rel=1e-2
    )
    plain = norm(x)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(norm(x), plain)


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("batch", [1, 4])
def test_equal_rows_stay_finite(batch, value):
    """Through the projector, and in the loss where it has statistics."""
    objective = VIbCReg(3, hidden=8, output_size=D, groups=2)
    rows = torch.full((2 * batch, 3), value, requires_grad=True)
    views = objective.head(rows).view(batch, 2, D)
    assert torch.isfinite(views).all()
    branch = Branch(None, views, objective.head)
    if batch == 1:
        with pytest.raises(ConfigError, match="batch_size to 2"):
            objective(branch, branch)
        return
    loss, scalars = objective(branch, branch)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(rows.grad).all()
    assert float(scalars["variance"]) == pytest.approx(2 * 0.99, rel=1e-3)


def test_bad_input():
    with pytest.raises(ConfigError, match="groups must divide"):
        VIbCReg(3, hidden=8, output_size=10, groups=64)
    with pytest.raises(ConfigError, match="VIbCReg's covariance_weight"):
        VIbCReg(3, covariance_weight=-8.0)
    with pytest.raises(ConfigError, match="VIbCReg compares two crops"):
        loss_of(torch.randn(4, 3, D))
    views = torch.randn(4, 2, D)
    views[0, 0, 0] = float("nan")
    assert torch.isnan(loss_of(views)[0])
