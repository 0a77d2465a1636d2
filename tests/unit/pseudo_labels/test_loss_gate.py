"""The gate's threshold against numerical roots, and its ways out."""

import itertools
import logging
import math

import numpy as np
import pytest
import torch
import torch.distributed as dist
from scipy.optimize import brentq
from scipy.stats import norm

from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.pseudo_labels.loss_gate import (
    LGL_THRESHOLDS,
    REDUCTIONS,
    DynamicLossGate,
    FixedLossGate,
    GateFit,
    LossStore,
    NoGate,
    crossing,
    fit_threshold,
    masked_loss,
)


def two_bells(right=600, wrong=400, apart=5.0, seed=0):
    """Losses of right and of wrong labels, ``[right + wrong]``."""
    draws = np.random.default_rng(seed)
    return np.exp(
        np.concatenate(
            [draws.normal(-3, 1, right), draws.normal(apart - 3, 1, wrong)]
        )
    )


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


def test_quantiles_stand_for_many_losses():
    losses = two_bells(30000, 20000)
    whole = fit_threshold(losses)
    some = fit_threshold(losses, max_points=2000)
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


def test_separation_can_be_asked_for():
    losses = two_bells(6000, 4000, apart=2.0)
    assert fit_threshold(losses).fallback is None
    fit = fit_threshold(losses, min_separation=3.0)
    assert "apart; min_separation is 3.0" in fit.fallback
    assert fit.threshold == math.inf
    well = two_bells(6000, 4000, apart=5.0)
    assert fit_threshold(well, min_separation=3.0).fallback is None


def test_two_values_are_two_components():
    """Components of no width; scikit-learn gives them some."""
    fit = fit_threshold([0.1] * 50 + [5.0] * 50)
    assert fit.fallback is None
    assert math.log(0.1) < fit.threshold < math.log(5.0)


# -- gates ---------------------------------------------------------------------


def test_no_gate_keeps_everything():
    gate = NoGate()
    assert gate.prepare_epoch(1, two_bells()) is None
    assert gate.threshold == math.inf
    assert gate(torch.tensor([1e-9, 1.0, 1e9])).all()
    assert gate.report(two_bells()) == {"gate_kept": 1.0}


def test_fixed_gate_from_its_epoch_on():
    losses = torch.tensor([0.5, 2.9999, 3.0, 7.0])
    gate = FixedLossGate(3.0, start_epoch=3)
    for epoch in (1, 2):
        gate.prepare_epoch(epoch)
        assert gate(losses).all()
        assert "gate_threshold" not in gate.report(losses)
    gate.prepare_epoch(3)
    # Strictly below, as the equation has it.
    assert gate(losses).tolist() == [True, True, False, False]
    assert gate.threshold == pytest.approx(math.log(3))
    assert len(LGL_THRESHOLDS) == 5


def test_dynamic_gate_follows_the_epoch_before():
    gate = DynamicLossGate(start_epoch=3)
    losses = two_bells()
    assert gate.prepare_epoch(2, losses) is None
    assert gate.threshold == math.inf
    fit = gate.prepare_epoch(3, losses)
    assert gate.threshold == pytest.approx(fit.threshold, abs=1e-6)
    log_losses = torch.tensor([fit.threshold - 1e-3, fit.threshold + 1e-3])
    assert gate(log_losses.exp()).tolist() == [True, False]
    # Asked again, as after a restart, it says the same.
    assert gate.prepare_epoch(3, losses) == fit
    other = gate.prepare_epoch(4, 10 * losses)
    assert other.threshold > fit.threshold + 2
    assert gate.threshold == pytest.approx(other.threshold, abs=1e-6)


def test_dynamic_gate_without_a_new_threshold(caplog):
    """Everything, and later the last threshold; one warning an epoch."""
    gate = DynamicLossGate(start_epoch=2)
    with caplog.at_level(logging.WARNING):
        assert gate.prepare_epoch(2).threshold == math.inf
    assert gate(torch.tensor([1e9])).all()
    assert "everything is kept" in caplog.text
    gate.prepare_epoch(3, two_bells())
    before = gate.threshold
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        fit = gate.prepare_epoch(4, [1.0] * 100)
    assert fit.fallback == "all losses are equal"
    assert gate.threshold == before
    assert len(caplog.records) == 1
    assert "the last one stays" in caplog.text


def test_limit_survives_a_checkpoint():
    gate = DynamicLossGate(start_epoch=2)
    gate.prepare_epoch(2, two_bells())
    other = DynamicLossGate(start_epoch=2)
    other.load_state_dict(gate.state_dict())
    assert other.threshold == gate.threshold
    losses = torch.tensor(two_bells(seed=1))
    assert torch.equal(other(losses), gate(losses))


def test_mask_has_no_gradient_and_drops_what_is_no_number():
    gate = FixedLossGate(3.0)
    gate.prepare_epoch(1)
    losses = torch.tensor([1.0, math.nan, math.inf], requires_grad=True)
    keep = gate(losses)
    assert keep.tolist() == [True, False, False]
    assert keep.dtype == torch.bool and not keep.requires_grad


def test_an_empty_batch_is_warned_of_once_an_epoch(caplog):
    gate = FixedLossGate(3.0)
    for epoch in (1, 2):
        gate.prepare_epoch(epoch)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            for _ in range(3):
                assert not gate(torch.tensor([5.0, 6.0])).any()
        assert len(caplog.records) == 1
        assert f"epoch {epoch}" in caplog.text


@pytest.mark.parametrize("losses, word", [([1.0, 2.0], "all"), ([5.0], "none")])
def test_report_warns_of_a_gate_that_does_not_part(caplog, losses, word):
    gate = FixedLossGate(3.0)
    gate.prepare_epoch(7)
    with caplog.at_level(logging.WARNING):
        found = gate.report(losses, correct=[True] * len(losses))
    assert f"epoch 7: the gate has kept {word} of" in caplog.text
    assert all(math.isfinite(value) for value in found.values())


def test_report_counts():
    gate = FixedLossGate(3.0)
    gate.prepare_epoch(1)
    losses = [1.0, 1.0, 1.0, 9.0, 9.0, math.nan]
    correct = [True, True, False, True, False, True]
    assert gate.report(losses, correct) == pytest.approx(
        {
            "gate_threshold": math.log(3),
            "gate_kept": 3 / 5,
            "gate_precision": 2 / 3,
            "gate_recall": 2 / 3,
            "gate_noise_precision": 1 / 2,
            "gate_noise_recall": 1 / 2,
        }
    )
    with pytest.raises(ValueError, match="shape"):
        gate.report(losses, correct[:2])


def test_report_of_nothing_seen():
    gate = FixedLossGate(3.0)
    gate.prepare_epoch(1)
    found = gate.report([math.nan] * 3, [True] * 3)
    assert found.keys() == {"gate_threshold"}


def test_the_gate_finds_wrong_labels():
    losses = two_bells(600, 400)
    gate = DynamicLossGate(start_epoch=2)
    gate.prepare_epoch(2, losses)
    found = gate.report(losses, np.arange(1000) < 600)
    assert found["gate_kept"] == pytest.approx(0.6, abs=0.02)
    for name in ("precision", "recall", "noise_precision", "noise_recall"):
        assert found[f"gate_{name}"] > 0.97


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: DynamicLossGate(start_epoch=1), "at least 2"),
        (lambda: FixedLossGate(0.0), "above 0"),
        (lambda: FixedLossGate(1.0, start_epoch=0), "counted from 1"),
        (lambda: LossStore(0), "holds nothing"),
        (
            lambda: masked_loss(torch.ones(1), torch.ones(1) > 0, "max"),
            "one of",
        ),
    ],
)
def test_refuses_what_has_no_meaning(make, words):
    with pytest.raises(ConfigError, match=words):
        make()


# -- loss ----------------------------------------------------------------------


def test_masked_loss_equals_a_loop():
    losses = torch.tensor([1.0, 2.0, 4.0, 8.0], requires_grad=True)
    keep = torch.tensor([True, False, True, False])
    total = 0.0
    for loss, kept in zip(losses.tolist(), keep.tolist(), strict=True):
        total += loss if kept else 0.0
    for reduction, parts in (("sum", 1), ("mean", 4), ("kept", 2)):
        losses.grad = None
        loss = masked_loss(losses, keep, reduction)
        loss.backward()
        assert float(loss.detach()) == total / parts
        assert losses.grad.tolist() == [1 / parts, 0.0, 1 / parts, 0.0]


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_all_gated_out_is_zero_with_zero_gradient(reduction):
    """Even if what is gated out is infinite."""
    losses = torch.tensor([5.0, math.inf, math.nan], requires_grad=True)
    loss = masked_loss(losses, torch.zeros(3, dtype=torch.bool), reduction)
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert losses.grad.tolist() == [0.0, 0.0, 0.0]
    empty = torch.zeros(0)
    assert float(masked_loss(empty, empty > 0, reduction)) == 0.0


# -- store ---------------------------------------------------------------------


def test_store_keeps_losses_by_utterance():
    store = LossStore(5)
    losses = torch.tensor([1.0, 2.0], requires_grad=True)
    store.record(torch.tensor([3, 0]), losses)
    store.record(torch.tensor([4, 3]), torch.tensor([4.0, 5.0]).bfloat16())
    store.synchronise()
    whole = store.finish_epoch()
    expected = torch.tensor([2.0, math.nan, math.nan, 5.0, 4.0])
    torch.testing.assert_close(whole, expected, equal_nan=True)
    assert whole.dtype == torch.float32 and not whole.requires_grad
    assert store.losses.isnan().all()
    assert store.finish_epoch().isnan().all()


def test_store_survives_a_checkpoint():
    store, other = LossStore(3), LossStore(3)
    store.record(torch.tensor([0]), torch.tensor([1.0]))
    store.finish_epoch()
    store.record(torch.tensor([2]), torch.tensor([7.0]))
    other.load_state_dict(store.state_dict())
    for name in ("losses", "previous"):
        torch.testing.assert_close(
            getattr(other, name), getattr(store, name), equal_nan=True
        )


def work(rank, folder):
    """One of two processes: its half of the utterances, then a fit."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2
    )
    losses = torch.tensor(two_bells()).float()
    store, gate = LossStore(1002), DynamicLossGate(start_epoch=2)
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(0))
    mine = order.chunk(2)[rank]
    for part in mine.split(100):
        store.record(part, losses[part])
        # As before a checkpoint in the middle of the epoch.
        store.synchronise()
    # One utterance that both have seen.
    store.record(torch.tensor([1001]), torch.tensor([1.0 + rank]))
    store.finish_epoch()
    fit = gate.prepare_epoch(2, store.previous)
    torch.save(
        {
            "previous": store.previous,
            "open": store.losses,
            "limit": gate.limit,
            "threshold": fit.threshold,
        },
        f"{folder}/rank{rank}.pt",
    )
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_are_one(tmp_path):
    torch.multiprocessing.spawn(work, args=(tmp_path,), nprocs=2)
    ranks = [
        torch.load(tmp_path / f"rank{r}.pt", weights_only=True) for r in (0, 1)
    ]
    expected = torch.tensor(two_bells()).float()
    expected = torch.cat([expected, torch.tensor([math.nan, 1.5])])
    fit = fit_threshold(expected)
    assert isinstance(fit, GateFit) and fit.fallback is None
    for rank in ranks:
        # To the last bit: each loss is of one process.
        torch.testing.assert_close(
            rank["previous"], expected, rtol=0, atol=0, equal_nan=True
        )
        assert rank["open"].isnan().all()
        assert rank["threshold"] == fit.threshold
        assert float(rank["limit"]) == pytest.approx(math.exp(fit.threshold))
