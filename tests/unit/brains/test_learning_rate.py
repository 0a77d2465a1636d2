"""The learning rate at a batch and a number of processes, by the sources."""

import math

import numpy as np
import pytest
import tiny
from build_keys import build_keys

from speechbrain_ssl.brains import optimisation
from speechbrain_ssl.brains.optimisation import scale_learning_rate
from speechbrain_ssl.config_base import merge
from speechbrain_ssl.schedules import WarmupCosine

RECIPES = tiny.ROOT / "recipes"
VOXCELEB = RECIPES / "VoxCeleb" / "PseudoLabels" / "hparams"


def peak(monkeypatch, settings, processes, batch_size=None):
    """Peak learning rate of a run in several processes."""
    monkeypatch.setattr(
        optimisation.distributed, "world_size", lambda: processes
    )
    schedule = WarmupCosine(
        settings["lr"], settings["lr_end"], settings["warmup_epochs"]
    )
    schedules = {"lr": schedule(settings["number_of_epochs"], 100)}
    scale_learning_rate(
        schedules,
        batch_size or settings["batch_size"],
        1,
        settings["lr_reference_batch"],
    )
    return schedules["lr"].max()


def settings_of(path, stage=None):
    """Keys of a configuration, or of its final stage."""
    plain = merge(path).plain()
    return {**plain, **plain["final_stage"]} if stage else plain


@pytest.mark.parametrize("processes, batch_size", [(1, 128), (2, 128), (8, 64)])
def test_wespeaker(monkeypatch, processes, batch_size):
    """Its scale ratio is processes x batch / 64, for the start and the end."""
    for name in ("dlg_lc_ecapa_512", "no_gate_ecapa_512"):
        settings = settings_of(VOXCELEB / f"{name}.yaml")
        found = peak(monkeypatch, settings, processes, batch_size)
        assert found == pytest.approx(0.1 * processes * batch_size / 64)
        assert settings["clip_per_tensor"] == math.inf
        assert settings["decay_vectors"] is True


def test_wespeaker_large_margin(monkeypatch):
    """1e-4 to 2.5e-5 for a batch of 64 in each process; the last epoch."""
    settings = settings_of(VOXCELEB / "dlg_lc_ecapa_512.yaml", "final")
    assert settings["batch_size"] == 64
    for processes in (1, 2):
        found = peak(monkeypatch, settings, processes)
        assert found == pytest.approx(1e-4 * processes)
    assert (settings["lr_end"], settings["average_last"]) == (2.5e-5, 1)


def test_loss_gated_learning(monkeypatch):
    """Adam with 0.001, whatever the batch and the processes, all the time."""
    settings = settings_of(VOXCELEB / "lgl_ecapa_512.yaml")
    for processes, batch_size in ((1, 400), (8, 400), (8, 50)):
        found = peak(monkeypatch, settings, processes, batch_size)
        assert found == pytest.approx(0.001)
    schedule = WarmupCosine(0.001, settings["lr_end"], 0)
    np.testing.assert_allclose(schedule(15, 10), 0.001)
    assert settings["clip_per_tensor"] == math.inf
    assert settings["weight_decay"] == 0.0


@pytest.mark.parametrize("name", ["cho_ecapa_512", "cho_resnet34"])
def test_hyperion(name):
    """Two runs of ExponentialLR for batches of 256, 0.1 and then 0.01.

    Both warm up for 8 000 steps and hold until 16 000; the first one halves
    in 16 000 steps, the second one in 32 000. An epoch of ours has 4 000. The
    margin grows in 10 epochs, in both.
    """
    path = VOXCELEB / f"{name}.yaml"
    settings = settings_of(path)
    assert settings["clip_per_tensor"] == math.inf
    assert settings["average_last"] == 1
    assert settings["lr_reference_batch"] == 256
    border = settings["frozen_encoder_epochs"]
    assert (border, settings["number_of_epochs"]) == (30, 100)
    (found,) = build_keys(path, "schedules")
    values = found["lr"](100, 4000)
    for epoch in range(100):
        begin, lr, half = (0, 0.1, 16e3) if epoch < 30 else (30, 0.01, 32e3)
        step = (epoch - begin) * 4000
        wanted = lr * min(step / 8e3, 0.5 ** max((step - 16e3) / half, 0))
        assert values[epoch * 4000] == pytest.approx(wanted), epoch
    margin = found["margin"](100, 10)
    for begin in (0, 300):
        assert margin[begin] == 0.0
        assert margin[begin + 50] == pytest.approx(0.1)
        assert margin[begin + 100 : begin + 300] == pytest.approx(0.2)


@pytest.mark.parametrize("corpus", ["MiniVox", "UnlabeledFolder"])
def test_the_small_recipes_keep_what_was_measured(monkeypatch, corpus):
    """Whatever the sources of the large ones say."""
    path = RECIPES / corpus / "PseudoLabels/hparams/dlg_lc_ecapa_mini.yaml"
    settings = settings_of(path)
    assert peak(monkeypatch, settings, 1) == pytest.approx(0.001)
    wanted = {
        "clip_per_tensor": 3.0,
        "decay_vectors": False,
        "weight_decay": 0.01,
        "average_last": 3,
        "frozen_encoder_epochs": 0,
        "correction_temperature": 1.0,
        "correction_threshold": 0.8,
        "max_cluster_size": None,
        "final_stage": {},
    }
    assert {key: settings[key] for key in wanted} == wanted
