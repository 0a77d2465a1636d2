"""Joint label correction against its equation."""

import math

import pytest
import torch

from speechbrain_ssl.objectives.margin import AAMSoftmax
from speechbrain_ssl.pseudo_labels.joint_correction import JointLabelCorrection
from speechbrain_ssl.pseudo_labels.label_correction import LabelCorrection

N, CLASSES = 14, 5
SIZES = {"audio": 8, "face": 6}


def batch():
    torch.manual_seed(4)
    classifiers, cosines, clean = {}, {}, {}
    for modality, size in SIZES.items():
        aam = AAMSoftmax(size, CLASSES, scale=8.0)
        augmented = torch.randn(N, size, requires_grad=True)
        classifiers[modality] = aam
        cosines[modality] = aam.cosines(augmented)
        clean[modality] = aam.logits(augmented.detach() + 0.3).detach()
    keep = {m: torch.arange(N) % 3 == i for i, m in enumerate(SIZES)}
    there = {
        "audio": torch.ones(N, dtype=torch.bool),
        "face": torch.arange(N) % 4 != 1,
    }
    # What a missing face's place holds must not matter.
    clean["face"][~there["face"]] = float("nan")
    return classifiers, cosines, clean, keep, there


def sharpened(logits, temperature):
    powers = [math.exp(z / temperature) for z in logits]
    return [p / sum(powers) for p in powers]


@pytest.mark.parametrize("temperature", [0.5, 1.0])
@pytest.mark.parametrize("target", ["soft", "hard"])
def test_equals_its_equation(temperature, target):
    classifiers, cosines, clean, keep, there = batch()
    correct = JointLabelCorrection(temperature, 0.5, target)
    found = correct(classifiers, cosines, clean, keep, there, 0.2)
    accepted = {m: [] for m in SIZES}
    for i in range(N):
        seen = [m for m in SIZES if there[m][i]]
        each = [sharpened(clean[m][i].tolist(), temperature) for m in seen]
        p_hat = [sum(p) / len(seen) for p in zip(*each, strict=True)]
        best = p_hat.index(max(p_hat))
        for m in SIZES:
            dropped = bool(there[m][i]) and not keep[m][i]
            accepted[m].append(dropped and p_hat[best] > 0.5)
            assert int(found[m].labels[i]) == best
            angles = [math.acos(c) for c in cosines[m][i].tolist()]
            angles[best] += 0.2
            z = [8.0 * math.cos(a) for a in angles]
            total = math.log(sum(math.exp(v) for v in z))
            loss = total - z[best]
            if target == "soft":
                loss = sum(
                    p * (total - v) for p, v in zip(p_hat, z, strict=True)
                )
            assert float(found[m].losses[i].detach()) == pytest.approx(
                loss, rel=1e-4
            )
    for m in SIZES:
        assert found[m].accepted.tolist() == accepted[m]
        assert 0 < sum(accepted[m]) < N
    assert accepted["audio"] != accepted["face"]


def test_without_a_face_it_is_the_correction_of_the_voice():
    classifiers, cosines, clean, keep, there = batch()
    there["face"][:] = False
    joint = JointLabelCorrection()(
        classifiers, cosines, clean, keep, there, 0.2
    )
    alone = LabelCorrection()(
        classifiers["audio"],
        cosines["audio"],
        clean["audio"],
        keep["audio"],
        0.2,
    )
    assert torch.equal(joint["audio"].losses, alone.losses)
    assert torch.equal(joint["audio"].accepted, alone.accepted)
    assert not joint["face"].accepted.any()


def test_two_that_disagree_are_not_confident():
    """Each is sure of another class, so that neither has more than a half."""
    logits = {
        "audio": torch.tensor([[50.0, 0.0]]),
        "face": torch.tensor([[0.0, 50.0]]),
    }
    there = dict.fromkeys(logits, torch.tensor([True]))
    found = JointLabelCorrection().predict(logits, there)
    torch.testing.assert_close(found, torch.tensor([[0.5, 0.5]]))


def test_the_target_has_no_gradient():
    classifiers, cosines, clean, keep, there = batch()
    for values in clean.values():
        values.requires_grad_()
    found = JointLabelCorrection()(
        classifiers, cosines, clean, keep, there, 0.2
    )
    found["audio"].losses.sum().backward()
    assert all(values.grad is None for values in clean.values())
