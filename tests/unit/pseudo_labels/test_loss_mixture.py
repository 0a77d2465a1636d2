"""The gate's threshold against numerical roots, and its ways out."""

import itertools
import math

import numpy as np
import pytest
import torch
from loss_bells import two_bells
from scipy.optimize import brentq
from scipy.stats import norm

from speechbrain_ssl.pseudo_labels import loss_mixture
from speechbrain_ssl.pseudo_labels.loss_mixture import crossing, fit_threshold

# -- crossing ------------------------------------------------------------------


def log_ratio(weights, means, variances):
    """log w1 N1(x) - log w2 N2(x), by scipy."""

    def f(x):
        first, second = (
            math.log(w) + norm.logpdf(x, m, math.sqrt(v))
            for w, m, v in zip(weights, means, variances, strict=True)
        )
        return first - second

    return f


GRID = list(
    itertools.product(
        [0.01, 0.2, 0.5, 0.7, 0.99],
        [-5.0, 0.0, 100.0],
        [1e-3, 0.3, 1.0, 2.0, 5.0, 20.0],
        [0.01, 0.5, 1.0, 4.0],
        [0.01, 0.5, 1.0, 1.0 + 1e-9, 4.0],
    )
)


def test_crossing_is_the_numerical_root():
    """Or there is none, where both densities say so."""
    found = 0
    for w, m, d, v1, v2 in GRID:
        mixture = (w, 1 - w), (m, m + d), (v1, v2)
        f = log_ratio(*mixture)
        x = crossing(*mixture)
        if f(m) > 0 > f(m + d):
            found += 1
            root = brentq(f, m, m + d, xtol=1e-13, rtol=1e-14)
            assert x == pytest.approx(root, rel=1e-8, abs=1e-8)
            assert m < x < m + d
        else:
            assert x is None
    assert len(GRID) / 4 < found < len(GRID)


def test_crossing_is_a_root_of_the_papers_quadratic():
    """a x^2 + b x + d, in the form the paper's followers write it."""
    for w, m, apart, v1, v2 in GRID:
        if m > 5:
            # There the plain form loses its digits.
            continue
        n = m + apart
        x = crossing((w, 1 - w), (m, n), (v1, v2))
        if x is None:
            continue
        a = 1 / (2 * v2) - 1 / (2 * v1)
        b = m / v1 - n / v2
        d = n**2 / (2 * v2) - m**2 / (2 * v1)
        d += math.log(w / (1 - w)) + math.log(v2 / v1) / 2
        size = abs(a * x * x) + abs(b * x) + abs(d) + 1
        assert abs(a * x * x + b * x + d) < 1e-11 * size


def test_there_is_never_a_second_crossing_between_the_means():
    for w, m, d, v1, v2 in GRID:
        f = log_ratio((w, 1 - w), (m, m + d), (v1, v2))
        signs = f(np.linspace(m, m + d, 100)) > 0
        changes = sum(a != b for a, b in itertools.pairwise(signs))
        assert changes == (signs[0] and not signs[-1])


@pytest.mark.parametrize(
    "mixture",
    [
        ((0.5, 0.5), (1.0, 1.0), (1.0, 2.0)),
        ((1.0, 0.0), (0.0, 1.0), (1.0, 1.0)),
        ((0.5, 0.5), (0.0, 1.0), (0.0, 1.0)),
        ((math.nan,) * 2, (math.nan,) * 2, (math.nan,) * 2),
    ],
)
def test_degenerate_mixtures_do_not_cross(mixture):
    assert crossing(*mixture) is None


# -- fit -----------------------------------------------------------------------


def test_fit_finds_what_was_drawn():
    fit = fit_threshold(two_bells(6000, 4000))
    assert fit.fallback is None and fit.points == 10000
    assert fit.weights == pytest.approx((0.6, 0.4), abs=0.02)
    assert fit.means == pytest.approx((-3.0, 2.0), abs=0.05)
    assert fit.variances == pytest.approx((1.0, 1.0), abs=0.08)
    # Equal variances: (mu_1 + mu_2) / 2 + v log(w_1 / w_2) / (mu_2 - mu_1).
    wanted = -0.5 + math.log(0.6 / 0.4) / 5
    assert fit.threshold == pytest.approx(wanted, abs=0.06)
    f = log_ratio(fit.weights, fit.means, fit.variances)
    root = brentq(f, *fit.means)
    assert fit.threshold == pytest.approx(root, abs=1e-8)


def test_fit_depends_on_neither_order_nor_unseen():
    losses = two_bells()
    fit = fit_threshold(losses)
    mixed = np.random.default_rng(1).permutation(
        np.concatenate([losses, [math.nan, math.inf, 0.0, -1.0]])
    )
    assert fit_threshold(mixed) == fit
    tensor = torch.tensor(mixed, requires_grad=True)
    assert fit_threshold(tensor) == fit


def test_fit_shifts_with_the_unit_of_the_losses():
    losses = two_bells()
    fit, larger = fit_threshold(losses), fit_threshold(10 * losses)
    assert larger.threshold == pytest.approx(
        fit.threshold + math.log(10), abs=1e-3
    )


def test_quantiles_stand_for_many_losses(monkeypatch):
    losses = two_bells(30000, 20000)
    whole = fit_threshold(losses)
    monkeypatch.setattr(loss_mixture, "MAX_POINTS", 2000)
    some = fit_threshold(losses)
    assert (whole.points, some.points) == (50000, 2000)
    assert some.threshold == pytest.approx(whole.threshold, abs=0.05)


def test_densities_are_those_of_scipy():
    fit = fit_threshold(two_bells())
    x = np.linspace(-15, 15, 3001)
    found = fit.densities(x)
    for k in (0, 1):
        wanted = fit.weights[k] * norm.pdf(
            x, fit.means[k], math.sqrt(fit.variances[k])
        )
        np.testing.assert_allclose(found[k], wanted, rtol=1e-9, atol=1e-300)
    assert found.sum() * (x[1] - x[0]) == pytest.approx(1.0, abs=1e-6)
    at = fit.densities([fit.threshold])[:, 0]
    assert at[0] == pytest.approx(at[1], rel=1e-9)


@pytest.mark.parametrize(
    "losses, words",
    [
        ([], "0 of 0 losses"),
        ([1.0, 2.0], "2 of 2 losses"),
        ([math.nan] * 100, "0 of 100 losses"),
        ([0.0] * 100, "0 of 100 losses"),
        ([math.inf, -1.0] * 50, "0 of 100 losses"),
        ([3.0] * 100, "equal"),
        ([3.0, 3.0 + 1e-7] * 50, "equal"),
    ],
)
def test_degenerate_losses_keep_everything(losses, words):
    fit = fit_threshold(losses)
    assert words in fit.fallback
    assert fit.threshold == math.inf
    assert np.isnan(fit.weights + fit.means + fit.variances).all()


@pytest.mark.parametrize("count", [100, 1000, 10000])
def test_half_a_bell_is_not_distrusted(count):
    """The mixture of one Gaussian crosses in its middle; it is refused."""
    bell = np.random.default_rng(5).normal(size=count)
    fit = fit_threshold(np.exp(bell))
    assert "one Gaussian" in fit.fallback
    assert fit.threshold == math.inf


def test_one_bell_inside_another_does_not_cross():
    draws = np.random.default_rng(0)
    narrow, wide = draws.normal(0, 0.3, 3000), draws.normal(0.1, 3, 1000)
    fit = fit_threshold(np.exp(np.concatenate([narrow, wide])))
    assert "do not cross" in fit.fallback and fit.threshold == math.inf


def test_two_values_are_two_components():
    """Components of no width; scikit-learn gives them some."""
    fit = fit_threshold([0.1] * 50 + [5.0] * 50)
    assert fit.fallback is None
    assert math.log(0.1) < fit.threshold < math.log(5.0)
