"""Label correction against its equation, and where nothing is corrected."""

import math

import numpy as np
import pytest
import tiny
import torch

from speechbrain_ssl.config_base import merge
from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.objectives.margin import AAMSoftmax
from speechbrain_ssl.pseudo_labels.label_correction import (
    Correction,
    LabelCorrection,
    combined_loss,
    correction_report,
)


def batch(n=12, classes=5, size=8, margin=0.2):
    torch.manual_seed(3)
    aam = AAMSoftmax(size, classes, scale=8.0, margin=margin)
    augmented = torch.randn(n, size, requires_grad=True)
    clean = augmented.detach() + 0.3 * torch.randn(n, size)
    labels = torch.randint(classes, (n,))
    return aam, augmented, clean, labels


def step(correct, aam, augmented, clean, labels, tau, **options):
    """As a Brain would do it; keeps the losses below tau."""
    cosines = aam.cosines(augmented)
    losses = aam.losses(cosines, labels)
    keep = losses < tau
    found = correct(aam, cosines, aam.logits(clean), keep, **options)
    return losses, keep, found


def by_the_equation(aam, augmented, clean, labels, tau, correct, margin):
    """The plain sum, sample by sample, in double precision."""

    def angles(e):
        w = aam.weight.detach().double()
        return [math.acos(float(e @ c / e.norm() / c.norm())) for c in w]

    def minus_log_p(theta, marked, margin):
        z = [
            aam.scale * math.cos(t + (margin if k == marked else 0.0))
            for k, t in enumerate(theta)
        ]
        return [math.log(sum(math.exp(v) for v in z)) - v for v in z]

    gated, corrected = 0.0, 0.0
    for e, c, y in zip(
        augmented.detach().double(),
        clean.double(),
        labels.tolist(),
        strict=True,
    ):
        theta = angles(e)
        loss = minus_log_p(theta, y, aam.margin)[y]
        powers = [
            math.exp(aam.scale * math.cos(t) / correct.temperature)
            for t in angles(c)
        ]
        p_hat = [p / sum(powers) for p in powers]
        best = p_hat.index(max(p_hat))
        if loss < tau:
            gated += loss
        elif p_hat[best] > correct.threshold:
            costs = minus_log_p(theta, best, margin)
            if correct.target == "hard":
                corrected += costs[best]
            else:
                corrected += sum(
                    p * h for p, h in zip(p_hat, costs, strict=True)
                )
    return gated, corrected


@pytest.mark.parametrize("target", ["soft", "hard"])
@pytest.mark.parametrize("margin", [0.0, 0.2])
@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_equals_the_equation(temperature, margin, target):
    aam, augmented, clean, labels = batch()
    correct = LabelCorrection(temperature, threshold=0.5, target=target)
    losses, keep, found = step(
        correct, aam, augmented, clean, labels, tau=3.0, margin=margin
    )
    gated, corrected = by_the_equation(
        aam, augmented, clean, labels, 3.0, correct, margin
    )
    assert gated > 0 and corrected > 0
    both = pytest.approx(gated + corrected, rel=1e-4)
    assert float(combined_loss(losses, keep, found, "sum").detach()) == both
    mean = combined_loss(losses, keep, found, "mean").detach()
    assert 12 * float(mean) == both
    kept = gated / int(keep.sum()) + corrected / int(found.accepted.sum())
    by_kept = combined_loss(losses, keep, found, "kept").detach()
    assert float(by_kept) == pytest.approx(kept, rel=1e-4)
    alone = combined_loss(losses, keep, None, "sum").detach()
    assert float(alone) == pytest.approx(gated, rel=1e-4)


def test_the_old_label_has_no_say():
    """Neither the margin nor anything else of it enters the new loss."""
    aam, augmented, clean, labels = batch()
    nothing = torch.zeros(12, dtype=torch.bool)
    correct = LabelCorrection(target="hard")
    cosines = aam.cosines(augmented)
    found = correct(aam, cosines, aam.logits(clean), nothing)
    torch.testing.assert_close(
        found.losses, aam.losses(cosines, found.labels), rtol=1e-5, atol=1e-5
    )
    # What the quirk would give differs wherever the label has changed.
    quirk = torch.nn.functional.cross_entropy(
        aam.logits_with_margin(cosines, labels), found.labels, reduction="none"
    )
    changed = found.labels != labels
    assert changed.any()
    assert ((found.losses - quirk).abs()[changed] > 0.05).all()


def test_soft_becomes_hard_as_it_is_sharpened():
    aam, augmented, clean, labels = batch()
    soft, hard = (
        step(LabelCorrection(1e-4, 0.5, t), aam, augmented, clean, labels, 0.0)
        for t in ("soft", "hard")
    )
    torch.testing.assert_close(
        soft[2].losses, hard[2].losses, rtol=1e-4, atol=1e-4
    )


def test_gradient_goes_to_the_augmented_view_alone():
    aam, augmented, clean, labels = batch()
    clean = clean.requires_grad_()
    losses, keep, found = step(
        LabelCorrection(), aam, augmented, clean, labels, tau=1.5
    )
    combined_loss(losses, keep, found).backward()
    assert clean.grad is None
    moved = augmented.grad.abs().sum(1) > 0
    assert torch.equal(moved, keep | found.accepted)


def test_gradient_against_finite_differences():
    aam, augmented, clean, _ = batch(4)
    cosines = aam.cosines(augmented).detach().double().requires_grad_()
    logits = aam.logits(clean)
    keep = torch.zeros(4, dtype=torch.bool)
    for target in ("soft", "hard"):
        correct = LabelCorrection(1.0, 0.0, target)
        assert torch.autograd.gradcheck(
            lambda c, f=correct: f(aam, c, logits, keep).losses, (cosines,)
        )


def test_neither_order_nor_scale_counts():
    aam, augmented, clean, labels = batch()
    correct = LabelCorrection(temperature=0.5)
    losses, keep, found = step(correct, aam, augmented, clean, labels, 1.5)
    loss = combined_loss(losses, keep, found)
    order = torch.randperm(12)
    for other in (
        (augmented[order], clean[order], labels[order]),
        (augmented * 7, clean * 0.1, labels),
    ):
        again = combined_loss(*step(correct, aam, *other, 1.5))
        torch.testing.assert_close(again, loss, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("target", ["soft", "hard"])
@pytest.mark.parametrize("reduction", ["sum", "mean", "kept"])
def test_nothing_kept_and_nothing_confident(target, reduction):
    """Loss and gradient are 0, not NaN."""
    aam, augmented, clean, labels = batch()
    correct = LabelCorrection(100.0, 0.99, target)
    losses, keep, found = step(correct, aam, augmented, clean, labels, tau=0.0)
    assert not keep.any() and not found.accepted.any()
    loss = combined_loss(losses, keep, found, reduction)
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert augmented.grad.abs().sum() == 0
    assert aam.weight.grad.abs().sum() == 0


def test_everything_kept_leaves_nothing_to_correct():
    aam, augmented, clean, labels = batch()
    losses, keep, found = step(
        LabelCorrection(threshold=0.0), aam, augmented, clean, labels, math.inf
    )
    assert keep.all() and not found.accepted.any()
    torch.testing.assert_close(
        combined_loss(losses, keep, found), losses.mean()
    )


@pytest.mark.parametrize("target", ["soft", "hard"])
def test_one_class_and_one_sample(target):
    aam, augmented, clean, labels = batch(1, classes=1)
    losses, keep, found = step(
        LabelCorrection(target=target), aam, augmented, clean, labels, 0.0
    )
    assert found.accepted.tolist() == [True]
    loss = combined_loss(losses, keep, found)
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert torch.isfinite(augmented.grad).all()


def test_extreme_logits_stay_finite():
    logits = torch.tensor([[32.0, -32.0], [1e4, -1e4]])
    prediction = LabelCorrection(temperature=0.01).predict(logits)
    assert torch.equal(prediction, torch.tensor([[1.0, 0.0], [1.0, 0.0]]))


def test_bf16_logits_are_sharpened_in_fp32():
    logits = torch.tensor([[3.0, 2.5]]).bfloat16()
    prediction = LabelCorrection(temperature=0.1).predict(logits)
    assert prediction.dtype == torch.float32
    assert float(prediction[0, 1]) == pytest.approx(
        1 / (1 + math.exp(5.0)), rel=1e-4
    )


# -- how many random embeddings pass --------------------------------------------


def pass_rate(correct, classes=7500, size=192, count=400):
    """Share of random embeddings whose prediction would be accepted."""
    torch.manual_seed(0)
    aam = AAMSoftmax(size, classes, scale=32.0)
    logits = aam.logits(torch.randn(count, size))
    confidence = correct.predict(logits).max(-1).values
    return float((confidence > correct.threshold).float().mean())


def pass_rate_of_gaussians(temperature, threshold, count=400):
    """The same by numpy: cosines of random directions are nearly Gaussian."""
    draws = np.random.default_rng(1)
    cosines = draws.normal(0, 1 / math.sqrt(192), (count, 7500))
    logits = 32 * cosines / temperature
    largest = logits.max(1, keepdims=True)
    confidence = 1 / np.exp(logits - largest).sum(1)
    return float((confidence > threshold).mean())


@pytest.mark.parametrize(
    "temperature, threshold, low, high",
    [(0.1, 0.5, 0.9, 1.0), (0.5, 0.5, 0.18, 0.35), (1.0, 0.5, 0.0, 0.01)],
)
def test_pass_rate_of_noise(temperature, threshold, low, high):
    """Nearly everything passes at a temperature of 0.1, nearly nothing at 1."""
    rate = pass_rate(LabelCorrection(temperature, threshold))
    assert low <= rate <= high
    wanted = pass_rate_of_gaussians(temperature, threshold)
    # Four standard errors of two samples of 400.
    assert rate == pytest.approx(
        wanted, abs=0.14 if 0.1 < wanted < 0.9 else 0.06
    )


def test_noise_does_not_pass_by_default():
    """Neither here nor in the configuration of the paper's method."""
    plain = merge(
        tiny.ROOT / "recipes/VoxCeleb/PseudoLabels/hparams"
        "/dlg_lc_ecapa_512.yaml"
    ).plain()
    assert pass_rate(LabelCorrection()) == 0.0
    assert (LabelCorrection().temperature, LabelCorrection().threshold) == (
        plain["correction_temperature"],
        plain["correction_threshold"],
    )
    # A right class with a cosine of 0.45 does pass.
    cosines = torch.randn(100, 7500) / math.sqrt(192)
    cosines[:, 0] = 0.45
    confidence = LabelCorrection().predict(32 * cosines).max(-1).values
    assert float((confidence > 0.8).float().mean()) > 0.5


def test_report_counts():
    accepted = [True, True, True, False]
    found = correction_report(accepted, [1, 2, 0, 3], [0, 2, 0, 0])
    assert found == {
        "corrected": 0.75,
        "corrected_changed": pytest.approx(1 / 3),
    }
    found = correction_report(
        accepted, [1, 2, 0, 3], [0, 2, 0, 0], truth=[1, 1, 0, 3]
    )
    assert found["corrected_precision"] == pytest.approx(2 / 3)
    assert found["corrected_precision_before"] == pytest.approx(1 / 3)


def test_report_of_nothing_has_no_nan():
    assert correction_report([False], [0], [0], truth=[0]) == {"corrected": 0.0}
    assert correction_report([], [], [], truth=[]) == {}


def test_report_takes_a_correction():
    aam, augmented, clean, labels = batch()
    _, _, found = step(
        LabelCorrection(), aam, augmented, clean, labels, tau=1.5
    )
    assert isinstance(found, Correction)
    shares = correction_report(found.accepted, found.labels, labels)
    assert shares["corrected"] == pytest.approx(
        float(found.accepted.float().mean())
    )


@pytest.mark.parametrize(
    "options, words",
    [
        ({"temperature": 0.0}, "temperature must be a number above 0"),
        ({"threshold": 1.0}, "a probability"),
        ({"threshold": -0.1}, "a probability"),
        ({"target": "firm"}, "one of soft, hard; got 'firm'"),
    ],
)
def test_refuses_what_has_no_meaning(options, words):
    with pytest.raises(ConfigError, match=words):
        LabelCorrection(**options)
