"""Schedules: compute one value per optimiser step from the length of a run.

A schedule is called once, before training, with the number of epochs and of
optimiser steps per epoch. It returns an array that is indexed by the optimiser
step and plotted in the report. A schedule has no state to save in a checkpoint.
"""

import dataclasses
import logging

import numpy as np

from speechbrain_ssl.checks import check_int, check_number
from speechbrain_ssl.errors import ConfigError

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Constant:
    """Keeps one value for the whole run.

    Arguments
    ---------
    value : float
        The value.

    Example
    -------
    >>> Constant(3.0)(epochs=1, steps_per_epoch=2).tolist()
    [3.0, 3.0]
    """

    value: float

    def __call__(self, epochs, steps_per_epoch):
        """Return values ``[epochs * steps_per_epoch]``, float64."""
        return np.full(epochs * steps_per_epoch, float(self.value))


@dataclasses.dataclass(frozen=True)
class Linear:
    """Moves linearly from ``start`` to ``end``, then stays there.

    Arguments
    ---------
    start, end : float
        First value, and the value after the ramp.
    ramp_epochs : float
        Length of the ramp in epochs; with 0 the value is always ``end``.
    by_epoch : bool
        Whether the value changes between epochs only, and the last epoch of
        the ramp has ``end`` (the only epoch of a ramp of one has ``start``).
        This is how DINO's code and its descendants compute the teacher's
        temperature; ``ramp_epochs`` is then a whole number.

    Raises
    ------
    ConfigError
        If ``ramp_epochs`` is not a whole number although it has to be one.

    Example
    -------
    >>> Linear(0.0, 1.0, ramp_epochs=1)(epochs=2, steps_per_epoch=2).tolist()
    [0.0, 0.5, 1.0, 1.0]
    >>> Linear(0.0, 1.0, 2, by_epoch=True)(epochs=3, steps_per_epoch=1).tolist()
    [0.0, 1.0, 1.0]
    """

    start: float
    end: float
    ramp_epochs: float
    by_epoch: bool = False

    def __post_init__(self):
        if self.by_epoch:
            check_int("Linear", "ramp_epochs", self.ramp_epochs, least=0)

    def __call__(self, epochs, steps_per_epoch):
        """Return values ``[epochs * steps_per_epoch]``, float64."""
        if self.by_epoch:
            values = np.full(epochs, float(self.end))
            ramp = np.linspace(self.start, self.end, self.ramp_epochs)[:epochs]
            values[: len(ramp)] = ramp
            return np.repeat(values, steps_per_epoch)
        steps = np.arange(epochs * steps_per_epoch)
        ramp = self.ramp_epochs * steps_per_epoch
        part = np.minimum(steps / ramp, 1.0) if ramp > 0 else 1.0
        return self.start + (self.end - self.start) * part * np.ones(len(steps))


@dataclasses.dataclass(frozen=True)
class StepDecay:
    """Starts at ``start``; multiplies by ``factor`` every ``every_epochs``.

    Arguments
    ---------
    start : float
        Value of the first ``every_epochs`` epochs.
    factor : float
        Above 0, at most 1.
    every_epochs : int
        Number of epochs that a value is kept for.

    Raises
    ------
    ConfigError
        If ``factor`` or ``every_epochs`` is out of range.

    Example
    -------
    >>> StepDecay(1.0, 0.5, every_epochs=2)(5, steps_per_epoch=1).tolist()
    [1.0, 1.0, 0.5, 0.5, 0.25]
    """

    start: float
    factor: float
    every_epochs: int

    def __post_init__(self):
        check_number("StepDecay", "factor", self.factor, above=0, most=1)
        check_int("StepDecay", "every_epochs", self.every_epochs, least=1)

    def __call__(self, epochs, steps_per_epoch):
        """Return values ``[epochs * steps_per_epoch]``, float64."""
        held = np.arange(epochs) // self.every_epochs
        return np.repeat(self.start * self.factor**held, steps_per_epoch)


@dataclasses.dataclass(frozen=True)
class WarmupExponential:
    """Warms up linearly, holds ``peak``, then falls exponentially.

    This is ``ExponentialLR`` of hyperion, in epochs instead of steps.

    Arguments
    ---------
    peak : float
        Value at the end of the warm-up, held until ``hold_epochs``.
    factor : float
        Above 0, at most 1.
    every_epochs : float
        Number of epochs in which the value falls to ``factor`` times itself.
    hold_epochs : float
        Epochs before the fall, warm-up included.
    warmup_epochs : float
        Length of the warm-up from 0 in epochs; half of a run that is no longer.

    Raises
    ------
    ConfigError
        If ``factor`` or ``every_epochs`` is out of range.

    Example
    -------
    >>> WarmupExponential(1.0, 0.25, 2, hold_epochs=2, warmup_epochs=1)(
    ...     epochs=3, steps_per_epoch=2
    ... ).tolist()
    [0.0, 0.5, 1.0, 1.0, 1.0, 0.7071067811865476]
    """

    peak: float
    factor: float
    every_epochs: float
    hold_epochs: float = 0.0
    warmup_epochs: float = 0.0

    def __post_init__(self):
        owner = "WarmupExponential"
        check_number(owner, "factor", self.factor, above=0, most=1)
        check_number(owner, "every_epochs", self.every_epochs, above=0)

    def __call__(self, epochs, steps_per_epoch):
        """Return values ``[epochs * steps_per_epoch]``, float64."""
        steps = np.arange(epochs * steps_per_epoch)
        warm = _warm_steps(self.warmup_epochs, epochs, steps_per_epoch)
        hold = max(warm, round(self.hold_epochs * steps_per_epoch))
        falls = (steps - hold) / (self.every_epochs * steps_per_epoch)
        fall = self.factor ** np.maximum(falls, 0.0)
        ramp = np.minimum(steps / warm, 1.0) if warm > 0 else 1.0
        return self.peak * ramp * fall


@dataclasses.dataclass(frozen=True)
class TwoSteps:
    """Follows one schedule for some epochs, and then another.

    Arguments
    ---------
    first, second : callable
        Schedules. The second one begins anew.
    epochs : int
        Number of epochs of the first one.

    Raises
    ------
    ConfigError
        If ``epochs`` is not a whole number from 0.

    Example
    -------
    >>> TwoSteps(Constant(3.0), Constant(1.0), 1)(3, steps_per_epoch=1).tolist()
    [3.0, 1.0, 1.0]
    """

    first: object
    second: object
    epochs: int

    def __post_init__(self):
        check_int("TwoSteps", "epochs", self.epochs, least=0)

    def __call__(self, epochs, steps_per_epoch):
        """Return values ``[epochs * steps_per_epoch]``, float64."""
        border = min(self.epochs, epochs)
        parts = (self.first, border), (self.second, epochs - border)
        return np.concatenate(
            [part(length, steps_per_epoch) for part, length in parts if length]
        )


@dataclasses.dataclass(frozen=True)
class WarmupCosine:
    """Warms up linearly to ``peak``, then follows a cosine to ``end``.

    The last step has exactly ``end``. With ``warmup_epochs=0`` this is the
    cosine from ``peak`` to ``end`` that DINO's teacher momentum follows.

    Arguments
    ---------
    peak : float
        Value at the end of the warm-up.
    end : float
        Value of the last step.
    warmup_epochs : float
        Length of the warm-up in epochs; half of a run that is no longer.
    start : float
        Value of the first step, if there is a warm-up.
    total_epochs : int, optional
        Length of warm-up and cosine together, for a run that stops before the
        schedule reaches ``end``. By default it is the length of the run.

    Raises
    ------
    ConfigError
        When called, if the run is longer than the schedule.

    Example
    -------
    >>> WarmupCosine(1.0, 0.0)(epochs=1, steps_per_epoch=3).round(3).tolist()
    [1.0, 0.5, 0.0]
    >>> WarmupCosine(1.0, 0.0, total_epochs=3)(2, 1).round(3).tolist()
    [1.0, 0.5]
    """

    peak: float
    end: float
    warmup_epochs: float = 0.0
    start: float = 0.0
    total_epochs: int | None = None

    def __call__(self, epochs, steps_per_epoch):
        """Return values ``[epochs * steps_per_epoch]``, float64."""
        whole = epochs if self.total_epochs is None else self.total_epochs
        if whole < epochs:
            raise ConfigError(
                f"a schedule of {whole} epochs (`total_epochs`; `lr_epochs` in "
                f"the recipes) ends before a run of {epochs}: raise it, or lower "
                "`number_of_epochs`"
            )
        total = whole * steps_per_epoch
        warm = _warm_steps(self.warmup_epochs, whole, steps_per_epoch)
        ramp = self.start + (self.peak - self.start) * np.arange(warm) / max(
            warm, 1
        )
        # Reversed, so that a fall of a single step has the value ``end``.
        part = np.linspace(1.0, 0.0, total - warm)[::-1]
        fall = (
            self.end + (self.peak - self.end) * (1 + np.cos(np.pi * part)) / 2
        )
        return np.concatenate([ramp, fall])[: epochs * steps_per_epoch]


def _warm_steps(warmup_epochs, epochs, steps_per_epoch):
    """Return the number of steps of a warm-up; it leaves some for the rest."""
    check_number("a schedule", "warmup_epochs", warmup_epochs)
    warm = round(warmup_epochs * steps_per_epoch)
    total = epochs * steps_per_epoch
    if warm < total:
        return warm
    logger.warning(
        "a warm-up of %g epochs would take all of a run of %g: it is shortened "
        "to half of the run",
        warmup_epochs,
        epochs,
    )
    return total // 2
