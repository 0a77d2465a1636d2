"""The collapse alarm: each sign, its patience, and no false alarms."""

import math
import pathlib

import numpy as np
import pytest

from speechbrain_ssl.brains.collapse import CollapseAlarm
from speechbrain_ssl.errors import CollapseError, UserError
from speechbrain_ssl.report.logbook import read_metrics
from speechbrain_ssl.verification.label_free import label_free_scores

RESULTS = pathlib.Path(__file__).resolve().parents[3] / "results"

LOG_K = math.log(1024)

HEALTHY = {
    "log_prototypes": LOG_K,
    "teacher_entropy": 0.4 * LOG_K,
    "usage_entropy": 0.9 * LOG_K,
    "pseudo_eer": 12.0,
    "utterances": 1000,
    "mean_cosine": 0.3,
    "rankme": 40.0,
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
    assert alarm.check(1, {"loss": 3.0}, {}) == {}
    assert alarm.check(1, {}, {}) == {}


def test_counts_survive_a_restart():
    """The alarm has no state but the counts of the checkpoint."""
    bad = {**HEALTHY, "pseudo_eer": 50.0}
    counts = CollapseAlarm(2, 0).check(1, bad, {})
    with pytest.raises(CollapseError):
        CollapseAlarm(2, 0).check(2, bad, counts)


# -- forced collapses, and good runs ------------------------------------------

CROPS, SIZE = 4, 192


def embeddings(kind, utterances):
    """Return embeddings ``[utterances, crops, size]`` of a collapsed encoder."""
    rng = np.random.default_rng(0)
    shape = (utterances, CROPS, SIZE)
    direction, noise = rng.normal(size=SIZE), rng.normal(size=shape)
    if kind == "constant":
        return direction + 1e-3 * noise
    if kind == "one direction":
        # As behind a batch norm, whose output cannot be constant.
        return rng.normal(size=(utterances, CROPS, 1)) * direction
    if kind == "only noise":
        return noise
    return rng.normal(size=(utterances, 1, SIZE)) + noise  # "healthy"


def signs_of(kind, utterances, **others):
    """Return the signs that the alarm sees in embeddings of a kind."""
    found = label_free_scores(embeddings(kind, utterances))
    return CollapseAlarm().signs({**found, **others})


@pytest.mark.parametrize("utterances", [8, 40, 400])
def test_forced_collapses_are_seen_in_samples_of_any_size(utterances):
    for kind in ("constant", "one direction"):
        assert signs_of(kind, utterances) == ["constant"], kind
    teacher = {"log_prototypes": LOG_K, "usage_entropy": 0.9 * LOG_K}
    uniform = {**teacher, "teacher_entropy": LOG_K}
    assert signs_of("healthy", utterances, **uniform) == ["uniform"]
    single = {**teacher, "teacher_entropy": 0.1, "usage_entropy": 0.0}
    assert signs_of("healthy", utterances, **single) == ["single"]
    assert signs_of("healthy", utterances) == []


def test_embeddings_that_know_nothing_of_the_utterance():
    """They take a hundred utterances to be told from a slow beginning."""
    assert signs_of("only noise", 400) == ["constant"]
    assert signs_of("only noise", 40) == []


def test_eight_utterances_and_a_slow_beginning():
    """Figures of a run of the tests' configuration, which learns."""
    alarm, counts = CollapseAlarm(patience=3, grace_epochs=1), {}
    for epoch, eer, rankme, cosine in (
        (2, 50.0, 15.4, 0.62),
        (3, 53.6, 13.9, 0.35),
        (4, 58.9, 15.9, 0.24),
    ):
        scalars = {
            "pseudo_eer": eer,
            "utterances": 8,
            "rankme": rankme,
            "mean_cosine": cosine,
        }
        counts = alarm.check(epoch, scalars, counts)
    assert counts == {}


def test_no_good_run_of_a_study_raises_the_alarm():
    """Their figures are in ``results``; 40 to 200 utterances were held out."""
    paths = sorted(RESULTS.glob("*/runs/*/metrics.jsonl"))
    assert len(paths) > 50
    for path in paths:
        alarm, counts = CollapseAlarm(), {}
        trained = {}
        for line in read_metrics(path):
            if line["stage"] == "train":
                trained = line
            elif line["stage"] == "valid":
                scalars = {**trained, **line, "utterances": 200}
                counts = alarm.check(line["epoch"], scalars, counts)
