"""Schedules as arrays: their ends, their lengths, what is refused."""

import numpy as np
import pytest

from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.schedules import (
    Constant,
    Linear,
    StepDecay,
    TwoSteps,
    WarmupCosine,
    WarmupExponential,
)


@pytest.mark.parametrize(
    "schedule",
    [
        Constant(0.3),
        Linear(0.0, 1.0, 2.5),
        StepDecay(0.1, 0.9, 2),
        WarmupExponential(0.1, 0.5, 4, 1.5, 0.5),
        TwoSteps(Constant(0.3), WarmupCosine(1.0, 0.1), 2),
        WarmupCosine(1.0, 0.1, 1.5),
        WarmupCosine(1.0, 0.1, 1.5, total_epochs=160),
    ],
)
@pytest.mark.parametrize(("epochs", "steps"), [(2, 7), (150, 33), (3, 1)])
def test_one_value_per_step(schedule, epochs, steps):
    values = schedule(epochs, steps)
    assert values.shape == (epochs * steps,)
    assert values.dtype == np.float64
    assert np.isfinite(values).all()


def test_constant():
    assert set(Constant(2)(3, 5)) == {2.0}


def test_linear_ramps_and_holds():
    values = Linear(0.04, 0.07, 3)(10, 10)
    assert values[0] == pytest.approx(0.04)
    assert values[15] == pytest.approx(0.055)
    assert values[30:] == pytest.approx(0.07)
    assert np.diff(values[:31]) == pytest.approx(0.001)
    # Without a ramp, the end from the beginning; a ramp may outlast the run.
    assert (Linear(0.0, 0.5, 0)(2, 3) == 0.5).all()
    assert Linear(0.0, 1.0, 10)(5, 4)[-1] == pytest.approx(19 / 40)


@pytest.mark.parametrize("ramp", [0, 1, 4, 9])
def test_linear_by_epoch_is_the_array_of_dinos_code(ramp):
    """linspace over the epochs of the ramp, then ones times the end."""
    values = Linear(0.04, 0.07, ramp, by_epoch=True)(7, 5)
    theirs = np.concatenate((np.linspace(0.04, 0.07, ramp), np.ones(10) * 0.07))
    assert np.array_equal(values, np.repeat(theirs[:7], 5))
    with pytest.raises(ConfigError, match="ramp_epochs must be a whole"):
        Linear(0.04, 0.07, 2.5, by_epoch=True)


def test_steps_down():
    """SSPS's SimCLR: 5 % less every 5 epochs; in epoch 101 after 20 steps."""
    values = StepDecay(0.001, 0.95, every_epochs=5)(120, 3)
    expected = 0.001
    for epoch in range(120):
        if epoch and epoch % 5 == 0:
            expected *= 0.95
        assert values[3 * epoch : 3 * epoch + 3] == pytest.approx(expected)
    assert values[300] == pytest.approx(0.000358, abs=1e-6)
    # The run may end before the first step; a factor of 1 is a constant.
    assert set(StepDecay(2.0, 0.5, 9)(4, 2)) == {2.0}
    assert set(StepDecay(2.0, 1.0, 1)(4, 2)) == {2.0}


@pytest.mark.parametrize(
    ("factor", "every", "message"),
    [
        (0.0, 5, "factor must .* above 0 and of at most 1, got 0.0"),
        (-0.9, 5, "factor must .* above 0 and of at most 1, got -0.9"),
        (1.1, 5, "factor must .* above 0 and of at most 1, got 1.1"),
        (0.9, 0, "every_epochs must be a whole number from 1, got 0"),
    ],
)
def test_steps_that_make_no_sense_are_refused(factor, every, message):
    with pytest.raises(ConfigError, match=message):
        StepDecay(1.0, factor, every)


@pytest.mark.parametrize("warmup", [0, 1, 3])
def test_warm_up_then_exponential(warmup):
    """hyperion's ExponentialLR, one step at a time; hold 2 epochs of 5."""
    values = WarmupExponential(0.1, 0.5, 4, 2, warmup)(20, 5)
    hold = max(2, warmup) * 5
    for step in range(100):
        wanted = 0.1 if step < hold else 0.1 * 0.5 ** ((step - hold) / 20)
        if step < warmup * 5:
            wanted *= step / (warmup * 5)
        assert values[step] == pytest.approx(wanted, abs=1e-12)
    shortened = WarmupExponential(0.1, 0.5, 4, 0, 3)(3, 4)
    assert np.array_equal(
        shortened, WarmupExponential(0.1, 0.5, 4, 0, 1.5)(3, 4)
    )


@pytest.mark.parametrize(
    ("factor", "every", "message"),
    [
        (0.0, 5, "factor must .* above 0 and of at most 1, got 0.0"),
        (0.5, 0, "every_epochs must .* above 0, got 0"),
    ],
)
def test_an_exponential_that_makes_no_sense_is_refused(factor, every, message):
    with pytest.raises(ConfigError, match=message):
        WarmupExponential(1.0, factor, every)


def test_two_steps_begin_anew():
    first, second = WarmupCosine(1.0, 0.5, 1), StepDecay(0.1, 0.5, 1)
    both = TwoSteps(first, second, epochs=3)
    assert (both(8, 4)[:12] == first(3, 4)).all()
    assert (both(8, 4)[12:] == second(5, 4)).all()
    # A run may have one of the steps only.
    assert (both(2, 4) == first(2, 4)).all()
    assert (both(3, 4) == first(3, 4)).all()
    assert (TwoSteps(first, second, 0)(5, 4) == second(5, 4)).all()
    with pytest.raises(ConfigError, match="epochs must be a whole number"):
        TwoSteps(first, second, 1.5)


def test_warm_up_then_cosine():
    """Against the formula, written out one step at a time."""
    values = WarmupCosine(0.4, 1e-5, warmup_epochs=2, start=0.1)(10, 5)
    for step in range(50):
        if step < 10:
            wanted = 0.1 + 0.3 * step / 10
        else:
            half = np.cos(np.pi * (step - 10) / 39)
            wanted = 1e-5 + (0.4 - 1e-5) * 0.5 * (1 + half)
        assert values[step] == pytest.approx(wanted, abs=1e-12)
    assert values.argmax() == 10
    assert values[-1] == 1e-5


def test_a_cosine_that_is_stopped():
    """SSPS's DINO: a warm-up and then a cosine over 100 epochs, not over 90."""
    stopped = WarmupCosine(0.2, 1e-5, warmup_epochs=10, total_epochs=110)
    values = stopped(100, 100)
    assert len(values) == 10000
    assert values == pytest.approx(
        WarmupCosine(0.2, 1e-5, 10)(110, 100)[:10000]
    )
    # At the start of SSPS, in epoch 81, and at the end.
    assert values[8000] == pytest.approx(0.0412, abs=1e-4)
    assert values[-1] == pytest.approx(0.0049, abs=1e-4)
    ended = WarmupCosine(0.2, values[-1], warmup_epochs=10)(100, 100)
    assert ended[8000] < 0.03
    assert (stopped(110, 100)[:10000] == values).all()
    with pytest.raises(ConfigError, match="110 epochs.*lr_epochs.*before.*111"):
        stopped(111, 100)


@pytest.mark.parametrize(
    ("epochs", "steps"), [(1, 1), (1, 2), (7, 13), (150, 99)]
)
def test_the_teacher_momentum_ends_at_exactly_one(epochs, steps):
    """1 - 1e-17 would be as good, 1 + 1e-16 would be no average any more."""
    values = WarmupCosine(0.996, 1.0)(epochs, steps)
    assert values[-1] == 1.0
    assert (values <= 1.0).all()
    if len(values) > 1:
        assert values[0] == pytest.approx(0.996, abs=1e-12)
        assert (np.diff(values) >= 0).all()


@pytest.mark.parametrize("warmup", [5, 5.0, 7])
def test_a_warm_up_as_long_as_the_run_is_shortened(warmup, caplog):
    """The learning rate would never come down; and the log says so."""
    schedule = WarmupCosine(1.0, 0.0, warmup_epochs=warmup)
    half = WarmupCosine(1.0, 0.0, warmup_epochs=2.5)
    assert np.array_equal(schedule(5, 10), half(5, 10))
    assert f"a warm-up of {warmup:g} epochs" in caplog.text
    caplog.clear()
    assert len(schedule(8, 10)) == 80 and not caplog.text
