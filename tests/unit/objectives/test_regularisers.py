"""The penalties against their equations, in loops and double precision."""

import math

import pytest
import torch
import torch.nn.functional as F

from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.objectives.regularisers import (
    correlation_penalty,
    covariance_penalty,
    koleo,
    variance_hinge,
)


def rows(n=7, d=4):
    torch.manual_seed(0)
    return torch.randn(n, d) * torch.tensor([0.3, 0.8, 1.5, 2.0])[:d] + 3


def moments(x):
    """Means and covariances, element by element."""
    x = x.double().tolist()
    n, d = len(x), len(x[0])
    mean = [sum(r[j] for r in x) / n for j in range(d)]
    cov = [
        [
            sum((r[i] - mean[i]) * (r[j] - mean[j]) for r in x) / (n - 1)
            for j in range(d)
        ]
        for i in range(d)
    ]
    return cov, d


def test_variance_hinge_is_the_equation():
    cov, d = moments(rows())
    wanted = sum(max(0.0, 1 - math.sqrt(cov[j][j] + 1e-4)) for j in range(d))
    assert 0 < wanted
    assert float(variance_hinge(rows())) == pytest.approx(wanted / d, rel=1e-5)


def test_covariance_and_correlation_are_the_equations():
    cov, d = moments(rows())
    others = [(i, j) for i in range(d) for j in range(d) if i != j]
    wanted = sum(cov[i][j] ** 2 for i, j in others) / d
    found = float(covariance_penalty(rows()))
    assert found == pytest.approx(wanted, rel=1e-5)
    wanted = sum(cov[i][j] ** 2 / (cov[i][i] * cov[j][j]) for i, j in others)
    found = float(correlation_penalty(rows()))
    assert found == pytest.approx(wanted / d**2, rel=1e-5)


@pytest.mark.parametrize(
    "penalty", [variance_hinge, covariance_penalty, correlation_penalty]
)
def test_place_and_order_do_not_count(penalty):
    x = rows()
    for other in (x[torch.randperm(7)], x - 10, x.flip(1), -x):
        torch.testing.assert_close(
            penalty(other), penalty(x), rtol=1e-4, atol=1e-5
        )
    small = penalty(x / 10)
    same = torch.isclose(small, penalty(x), rtol=1e-4)
    assert bool(same) == (penalty is correlation_penalty)


def by_the_equation(embeddings):
    """KoLeo with loops over crops and utterances."""
    x = F.normalize(embeddings.double(), dim=-1)
    total = 0.0
    for crop in x.unbind(1):
        for i in range(len(crop)):
            nearest = min(
                float((crop[i] - crop[j]).norm())
                for j in range(len(crop))
                if j != i
            )
            total -= math.log(nearest) / len(crop)
    return total


@pytest.mark.parametrize("crops", [1, 3])
def test_koleo_is_the_equation(crops):
    torch.manual_seed(0)
    embeddings = torch.randn(9, crops, 3)
    found = float(koleo(embeddings))
    assert found == pytest.approx(by_the_equation(embeddings), rel=1e-5)
    lengths = torch.rand(9, crops, 1) + 0.5
    assert float(koleo(embeddings * lengths)) == pytest.approx(found, rel=1e-4)
    other = float(koleo(embeddings[torch.randperm(9)]))
    assert other == pytest.approx(found, rel=1e-5)


def test_koleo_pushes_neighbours_apart():
    x = torch.tensor([[1.0, 0.0], [1.0, 0.1], [-1.0, 0.0]]).unsqueeze(1)
    x.requires_grad_()
    koleo(x).backward()
    moved = x.detach() - 0.01 * x.grad
    before = F.cosine_similarity(x[0], x[1]).item()
    assert F.cosine_similarity(moved[0], moved[1]).item() < before


@pytest.mark.parametrize("kind", ["zeros", "equal", "one apart"])
def test_degenerate_rows_are_finite(kind):
    x = torch.zeros(5, 4) if kind == "zeros" else torch.ones(5, 4)
    if kind == "one apart":
        x[0] = -1
    x.requires_grad_()
    total = (
        variance_hinge(x)
        + covariance_penalty(x)
        + correlation_penalty(x)
        + koleo(x[:, None])
    )
    total.backward()
    assert torch.isfinite(total) and torch.isfinite(x.grad).all()
    if kind != "one apart":
        assert float(variance_hinge(x).detach()) == pytest.approx(
            0.99, abs=1e-6
        )


def test_nan_shows():
    x = rows()
    x[0, 0] = float("nan")
    for penalty in (variance_hinge, covariance_penalty, correlation_penalty):
        assert torch.isnan(penalty(x))
    assert torch.isnan(koleo(x[:, None]))


@pytest.mark.parametrize(
    "penalty", [variance_hinge, covariance_penalty, correlation_penalty]
)
def test_one_utterance_has_no_statistics(penalty):
    with pytest.raises(ConfigError, match="batch_size to 2"):
        penalty(torch.ones(1, 4))
    with pytest.raises(ConfigError, match="batch_size to 2"):
        koleo(torch.ones(1, 2, 4))


def test_full_precision_under_autocast():
    x = rows()
    plain = [covariance_penalty(x), correlation_penalty(x), koleo(x[:, None])]
    with torch.autocast("cpu", torch.bfloat16):
        inside = [
            covariance_penalty(x),
            correlation_penalty(x),
            koleo(x[:, None]),
        ]
    torch.testing.assert_close(inside, plain)
