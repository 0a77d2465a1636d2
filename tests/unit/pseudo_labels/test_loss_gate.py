"""The gates, what they report, and the losses they read."""

import json
import logging
import math
import re

import numpy as np
import pytest
import tiny
import torch
import torch.distributed as dist
from loss_bells import two_bells
from scipy import stats

from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.pseudo_labels.loss_gate import (
    REDUCTIONS,
    DynamicLossGate,
    FixedLossGate,
    NoGate,
    masked_loss,
)
from speechbrain_ssl.pseudo_labels.loss_mixture import GateFit, fit_threshold
from speechbrain_ssl.pseudo_labels.loss_store import LossStore

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


@pytest.mark.parametrize(
    "losses, word",
    [
        ([1.0, 2.0], "all of 2 .*below 1.099\\)$"),
        ([5.0], "0 % of 1 .*later epoch.*`thresholds`"),
        ([1.0, *[5.0] * 4], "20 % of 5 .*`gate_epoch`"),
    ],
)
def test_report_warns_of_a_gate_that_does_not_part(caplog, losses, word):
    gate = FixedLossGate(3.0)
    gate.prepare_epoch(7)
    with caplog.at_level(logging.WARNING):
        found = gate.report(losses, correct=[True] * len(losses))
    (record,) = caplog.records
    assert re.search(f"epoch 7: the gate has kept {word}", record.getMessage())
    assert all(math.isfinite(value) for value in found.values())


def test_report_is_silent_about_a_gate_that_parts(caplog):
    gate = FixedLossGate(3.0)
    gate.prepare_epoch(1)
    with caplog.at_level(logging.WARNING):
        gate.report([1.0, 1.0, 1.0, *[5.0] * 7])
    assert not caplog.records


# -- the smallest share that is kept --------------------------------------------

#: Single modes with a long tail to the left, as log losses have early on.
SKEWED = {
    "gumbel": lambda draws: -draws.gumbel(size=4000),
    "skew normal": lambda draws: stats.skewnorm.rvs(
        -2, size=4000, random_state=draws
    ),
}


@pytest.mark.parametrize("name", SKEWED)
def test_a_skewed_mode_is_not_dropped(name, caplog):
    """The crossing keeps a fifth to a quarter, the gate never below 30 %."""
    log_losses = SKEWED[name](np.random.default_rng(1))
    losses = np.exp(log_losses)
    tau = fit_threshold(losses).threshold
    share = np.mean(log_losses < tau)
    assert 0.2 < share < 0.3
    plain = DynamicLossGate(2, least_kept=0.0)
    plain.prepare_epoch(2, losses)
    assert plain.threshold == pytest.approx(tau, abs=1e-6)
    assert not caplog.records
    gate = DynamicLossGate(2)
    with caplog.at_level(logging.WARNING):
        gate.prepare_epoch(2, torch.tensor(losses).float())
    kept = gate.mask(torch.tensor(losses).float())
    # The 1200 lowest losses, and no other.
    assert np.array_equal(
        np.flatnonzero(kept), np.sort(np.argsort(losses)[:1200])
    )
    (record,) = caplog.records
    assert f"only {100 * share:.0f} % of" in record.getMessage()
    assert "gate_epoch" in record.getMessage()


def test_two_bells_are_parted_where_they_cross(caplog):
    """The smallest share does not matter, even for one right label in three."""
    losses = two_bells(350, 650)
    gates = [DynamicLossGate(2, least) for least in (0.0, 0.3)]
    for gate in gates:
        gate.prepare_epoch(2, losses)
    assert gates[0].limit == gates[1].limit
    assert not caplog.records


def recorded_epochs():
    """Losses of a run with 40 % wrong labels, and which labels are right.

    The histograms of ``results/known_noise``, one array of each an epoch.
    """
    path = tiny.ROOT / "results/known_noise/runs/dlglc_40_1/gate.json"
    for record in json.loads(path.read_text(encoding="utf-8")):
        edges = np.array(record["edges"])
        right = np.array(record["counts_right"])
        wrong = np.array(record["counts"]) - right
        draws = np.random.default_rng(0)
        logs = [
            np.concatenate(
                [
                    draws.uniform(low, high, count)
                    for low, high, count in zip(
                        edges, edges[1:], counts, strict=False
                    )
                ]
            )
            for counts in (right, wrong)
        ]
        losses = np.exp(np.concatenate(logs))
        yield losses, np.arange(len(losses)) < right.sum()


def test_recorded_losses():
    """Early, the crossing keeps a third of the right labels.

    The share that is then kept is still nearly free of wrong labels, and later
    the crossing itself decides.
    """
    recalls, crossings = [], []
    for losses, correct in recorded_epochs():
        plain, gate = DynamicLossGate(2, 0.0), DynamicLossGate(2)
        for each in (plain, gate):
            each.prepare_epoch(2, losses)
        before, after = (each.report(losses, correct) for each in (plain, gate))
        assert after["gate_kept"] > 0.299
        assert after["gate_precision"] > 0.96
        recalls.append((before["gate_recall"], after["gate_recall"]))
        crossings.append(float(plain.limit) == float(gate.limit))
    assert crossings == [True, False, False, False, True, True, True, True]
    assert recalls[1][0] < 0.25 and recalls[1][1] > 0.48


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
        (lambda: DynamicLossGate(start_epoch=1), "from 2, .*epoch before"),
        (lambda: DynamicLossGate(2, 1.0), "least_kept must be .*below 1"),
        (lambda: FixedLossGate(0.0), "above 0"),
        (
            lambda: FixedLossGate(1.0, start_epoch=0),
            "start_epoch must be .* from 1, got 0",
        ),
        (lambda: LossStore(0), "size must be .* from 1, got 0"),
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
