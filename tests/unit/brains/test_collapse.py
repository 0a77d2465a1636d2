"""The collapse alarm: each sign, its patience, and no false alarms."""

import math

import pytest

from speechbrain_ssl.brains.collapse import CollapseAlarm
from speechbrain_ssl.errors import CollapseError, UserError

LOG_K = math.log(1024)

HEALTHY = {
    "log_prototypes": LOG_K,
    "teacher_entropy": 0.4 * LOG_K,
    "usage_entropy": 0.9 * LOG_K,
    "pseudo_eer": 12.0,
}

SIGNS = {
    "uniform": ({"teacher_entropy": 0.9995 * LOG_K}, "teacher_temperature"),
    "single": ({"usage_entropy": 0.01 * LOG_K}, "center_momentum"),
    "constant": ({"pseudo_eer": 48.0}, "learning rate"),
}


@pytest.mark.parametrize("sign", SIGNS)
def test_each_sign_alone(sign):
    """It is raised after three epochs, with a name and what to change."""
    change, key = SIGNS[sign]
    scalars = {**HEALTHY, **change}
    alarm = CollapseAlarm(patience=3, grace_epochs=1)
    assert alarm.signs(scalars) == [sign]
    counts = {}
    for epoch in (2, 3):
        counts = alarm.check(epoch, scalars, counts)
        assert counts == {sign: epoch - 1}
    with pytest.raises(CollapseError, match=key) as caught:
        alarm.check(4, scalars, counts)
    text = str(caught.value)
    assert "collapsed" in text and "epoch 4" in text and "3 epochs" in text
    assert isinstance(caught.value, UserError)
    # The message contains the metric that shows the collapse.
    (value,) = change.values()
    assert f"{value:.4f}" in text or f"{value:.1f}" in text


@pytest.mark.parametrize("sign", SIGNS)
def test_one_good_epoch_starts_the_count_anew(sign):
    """Only consecutive epochs count."""
    bad = {**HEALTHY, **SIGNS[sign][0]}
    alarm, counts = CollapseAlarm(patience=3, grace_epochs=0), {}
    for epoch in range(1, 31):
        scalars = HEALTHY if epoch % 3 == 0 else bad
        counts = alarm.check(epoch, scalars, counts)
    assert counts == {}


def test_the_first_epochs_are_not_looked_at():
    """An untrained network may show any sign."""
    bad = {**HEALTHY, "pseudo_eer": 50.0}
    alarm = CollapseAlarm(patience=1, grace_epochs=2)
    assert alarm.check(1, bad, {}) == alarm.check(2, bad, {}) == {}
    with pytest.raises(CollapseError):
        alarm.check(3, bad, {})


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"teacher_entropy": 0.99 * LOG_K},
        {"teacher_entropy": 0.0},
        {"usage_entropy": 0.05 * LOG_K},
        {"pseudo_eer": 44.0},
        {"pseudo_eer": 0.0},
    ],
)
def test_healthy_figures_raise_no_alarm(change):
    """Sharp or soft teachers and a hard task are not a collapse."""
    alarm, counts = CollapseAlarm(patience=1, grace_epochs=0), {}
    for epoch in range(1, 5):
        counts = alarm.check(epoch, {**HEALTHY, **change}, counts)
    assert counts == {}


def test_objectives_without_prototypes():
    """Only the metrics that exist are checked."""
    alarm = CollapseAlarm(patience=1, grace_epochs=0)
    assert alarm.check(1, {"loss": 3.0, "pseudo_eer": 20.0}, {}) == {}
    assert alarm.check(1, {}, {}) == {}


def test_counts_survive_a_restart():
    """The alarm has no state but the counts of the checkpoint."""
    bad = {**HEALTHY, "pseudo_eer": 50.0}
    counts = CollapseAlarm(2, 0).check(1, bad, {})
    with pytest.raises(CollapseError):
        CollapseAlarm(2, 0).check(2, bad, counts)
