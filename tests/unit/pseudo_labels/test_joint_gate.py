"""The three readings of the joint gate, sample by sample."""

import math

import numpy as np
import pytest
import torch
from loss_bells import two_bells

from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.pseudo_labels.joint_gate import (
    READINGS,
    JointLossGate,
    product,
)
from speechbrain_ssl.pseudo_labels.loss_gate import (
    DynamicLossGate,
    FixedLossGate,
    NoGate,
)
from speechbrain_ssl.pseudo_labels.loss_mixture import fit_threshold

NAN = float("nan")


def drawn(seed=0, faceless=0.2):
    """Losses of 1 000 utterances, 400 with a wrong label, some without a face."""
    audio = torch.tensor(two_bells(seed=seed), dtype=torch.float32)
    face = torch.tensor(two_bells(apart=4.0, seed=seed + 1)).float()
    draws = np.random.default_rng(seed + 2).random(1000)
    face[torch.from_numpy(draws < faceless)] = NAN
    return {"audio": audio, "face": face}


def by_the_equation(losses, reading):
    """Loop over utterances with the plain logarithms of the docstring."""
    logs = [
        [math.log(v) if v == v else None for v in losses[m].double().tolist()]
        for m in ("audio", "face")
    ]
    tau_a = fit_threshold(losses["audio"]).threshold
    tau_f = fit_threshold(losses["face"]).threshold
    sums = [a + f for a, f in zip(*logs, strict=True) if f is not None]
    tau_s = fit_threshold(np.exp(sums)).threshold
    audio, face = [], []
    for a, f in zip(*logs, strict=True):
        if f is None:
            audio.append(a < tau_a)
            face.append(False)
        elif reading == "each":
            audio.append(a < tau_a)
            face.append(f < tau_f)
        elif reading == "both":
            audio.append(a < tau_a and f < tau_f)
            face.append(audio[-1])
        else:
            audio.append(a + f < tau_s)
            face.append(audio[-1])
    return audio, face


@pytest.mark.parametrize("reading", READINGS)
def test_equals_its_equation(reading):
    losses = drawn()
    gate = JointLossGate(lambda: DynamicLossGate(2), reading)
    gate.prepare_epoch(2, losses)
    masks = gate(losses)
    audio, face = by_the_equation(losses, reading)
    assert masks["audio"].tolist() == audio
    assert masks["face"].tolist() == face
    assert 0.3 < np.mean(audio) < 0.8


def test_the_readings_differ():
    losses = drawn()
    kept = []
    for reading in READINGS:
        gate = JointLossGate(lambda: DynamicLossGate(2), reading)
        gate.prepare_epoch(2, losses)
        kept.append(gate(losses)["audio"].tolist())
    assert kept[0] != kept[1] != kept[2] != kept[0]


@pytest.mark.parametrize("reading", READINGS)
def test_without_any_face_it_is_the_gate_of_the_voice(reading):
    losses = drawn()
    losses["face"] = torch.full((1000,), NAN)
    gate, alone = JointLossGate(lambda: DynamicLossGate(2), reading), None
    gate.prepare_epoch(2, losses)
    alone = DynamicLossGate(2)
    alone.prepare_epoch(2, losses["audio"])
    assert torch.equal(gate(losses)["audio"], alone(losses["audio"]))
    assert not gate(losses)["face"].any()


@pytest.mark.parametrize("reading", READINGS)
def test_no_gate_keeps_what_is_there(reading):
    losses = drawn()
    gate = JointLossGate(NoGate, reading)
    gate.prepare_epoch(1, losses)
    masks = gate(losses)
    assert masks["audio"].all()
    assert torch.equal(masks["face"], ~losses["face"].isnan())


def test_a_resumed_gate_has_the_same_thresholds():
    losses = drawn()
    gate = JointLossGate(lambda: DynamicLossGate(2), "sum")
    gate.prepare_epoch(2, losses)
    other = JointLossGate(lambda: DynamicLossGate(2), "sum")
    other.load_state_dict(gate.state_dict())
    assert torch.equal(other(losses)["audio"], gate(losses)["audio"])


def test_report_counts_by_modality():
    losses = {
        "audio": torch.tensor([1.0, 1.0, 9.0, 9.0, NAN]),
        "face": torch.tensor([1.0, 9.0, 1.0, NAN, NAN]),
    }
    gate = JointLossGate(lambda: FixedLossGate(3.0), "both")
    gate.prepare_epoch(1, losses)
    found = gate.report(losses, [True, True, False, False, True])
    assert found["gate_kept"] == 0.25
    assert found["face_gate_kept"] == pytest.approx(1 / 3)
    assert found["gate_noise_recall"] == 1
    assert found["gate_recall"] == 0.5
    assert found["gate_threshold"] == pytest.approx(math.log(3))


def test_the_sum_reports_its_own_threshold():
    losses = drawn()
    gate = JointLossGate(lambda: DynamicLossGate(2), "sum")
    fits = gate.prepare_epoch(2, losses)
    assert set(fits) == {"audio", "face", "sum"}
    found = gate.report(losses)
    tau = pytest.approx(fits["sum"].threshold, abs=1e-6)
    assert found["gate_threshold"] == tau


def test_product_is_the_sum_of_the_logarithms():
    losses = drawn()
    there = ~losses["face"].isnan()
    sums = losses["audio"].log() + losses["face"].log()
    found = product(losses)
    assert torch.equal(found.isnan(), ~there)
    torch.testing.assert_close(found[there].log(), sums[there])


def test_refuses_an_unknown_reading():
    with pytest.raises(ConfigError, match="each"):
        JointLossGate(NoGate, "either")
