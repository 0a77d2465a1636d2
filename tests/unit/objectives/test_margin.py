"""AAM-softmax against its equation, in angles, and at its edges."""

import math

import pytest
import torch
import torch.nn.functional as F
from speechbrain.nnet.losses import AdditiveAngularMargin

from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.objectives.margin import AAMSoftmax


def batch(n=6, size=8, classes=5, **options):
    torch.manual_seed(0)
    aam = AAMSoftmax(size, classes, **options)
    return aam, torch.randn(n, size), torch.randint(classes, (n,))


def by_the_equation(aam, embeddings, labels, margin):
    """Sample by sample, with angles, in double precision."""
    centers = aam.weight.detach().double()
    centers = centers.view(aam.classes, aam.sub_centers, -1)
    losses = []
    for e, y in zip(embeddings.double(), labels.tolist(), strict=True):
        z = []
        for j in range(aam.classes):
            cosine = max(float(e @ w / e.norm() / w.norm()) for w in centers[j])
            if j == y:
                angle = math.acos(max(-1.0, min(1.0, cosine)))
                if angle + margin >= math.pi:
                    cosine = cosine - margin * math.sin(margin)
                else:
                    cosine = math.cos(angle + margin)
            z.append(aam.scale * cosine)
        losses.append(math.log(sum(math.exp(v - z[y]) for v in z)))
    return torch.tensor(losses)


@pytest.mark.parametrize("sub_centers", [1, 3])
@pytest.mark.parametrize("margin", [0.0, 0.2, 0.5])
@pytest.mark.parametrize("scale", [1.0, 32.0])
def test_equals_the_equation(scale, margin, sub_centers):
    aam, embeddings, labels = batch(
        16, scale=scale, margin=margin, sub_centers=sub_centers
    )
    found = aam(embeddings, labels)
    wanted = by_the_equation(aam, embeddings, labels, margin)
    torch.testing.assert_close(found, wanted.float(), rtol=1e-4, atol=1e-5)
    # A margin at the call has precedence.
    other = AAMSoftmax(8, 5, scale, margin=0.1, sub_centers=sub_centers)
    other.load_state_dict(aam.state_dict())
    torch.testing.assert_close(other(embeddings, labels, margin=margin), found)


@pytest.mark.parametrize("margin", [0.0, 0.2, 0.5])
def test_logits_equal_speechbrains(margin):
    """Beyond theta + m = pi too; at cosine 1 theirs rounds sin(theta) up."""
    aam, _, _ = batch(margin=margin, scale=30.0)
    cosines = torch.linspace(-1, 1, 201)[:-1, None].repeat(1, 5)
    labels = torch.arange(200) % 5
    theirs = AdditiveAngularMargin(margin=margin, scale=30.0)(
        cosines, F.one_hot(labels, 5)
    )
    torch.testing.assert_close(
        aam.logits_with_margin(cosines, labels), theirs, rtol=1e-4, atol=2e-4
    )


def test_beyond_pi_the_public_codes_part():
    """ArcFace and LGL leave a gap at theta + m = pi, WeSpeaker does not.

    Up to there all are cos(theta + m); beyond, all have the slope of cos(theta).
    """
    margin = 0.2
    theta = torch.linspace(0.01, math.pi - 0.01, 400)
    aam, _, _ = batch(margin=margin, scale=1.0)
    labels = torch.zeros(400, dtype=torch.long)
    found = aam.logits_with_margin(torch.cos(theta)[:, None], labels)[:, 0]
    inside = theta + margin < math.pi
    torch.testing.assert_close(
        found[inside], torch.cos(theta + margin)[inside], rtol=0, atol=1e-4
    )
    beyond = torch.cos(theta)[~inside]
    arcface = beyond - math.sin(math.pi - margin) * margin
    wespeaker = beyond - (1 + math.cos(math.pi - margin))
    torch.testing.assert_close(found[~inside], arcface)
    assert float(found[~inside][0]) == pytest.approx(-1.02, abs=0.01)
    assert float(wespeaker[0]) == pytest.approx(-1.0, abs=0.01)
    gap = wespeaker - found[~inside]
    torch.testing.assert_close(gap, gap[:1].expand_as(gap), rtol=0, atol=1e-5)


@pytest.mark.parametrize("sub_centers", [1, 3])
def test_initial_centers_are_xaviers(sub_centers):
    """Uniform in +- sqrt(6 / (rows + columns)), as in WeSpeaker."""
    torch.manual_seed(0)
    weight = AAMSoftmax(192, 1000, sub_centers=sub_centers).weight.detach()
    bound = math.sqrt(6 / (192 + 1000 * sub_centers))
    assert 0.999 * bound < float(weight.abs().max()) <= bound
    assert float(weight.std()) == pytest.approx(bound / 3**0.5, rel=0.01)
    norms = weight.norm(dim=1)
    assert norms == pytest.approx((64 * bound**2) ** 0.5, rel=0.2)


@pytest.mark.parametrize("margin", [0.0, 0.2, 0.5, 1.5])
def test_target_logit_falls_with_the_angle_everywhere(margin):
    aam, _, _ = batch(margin=margin)
    cosines = torch.cos(torch.linspace(0, math.pi, 500))[:, None]
    labels = torch.zeros(500, dtype=torch.long)
    logits = aam.logits_with_margin(cosines, labels)[:, 0]
    # Near 0 and pi neighbours differ by less than the rounding.
    assert (logits.diff() <= 1e-5).all()
    assert (logits.diff()[5:-5] < 0).all()
    assert (logits <= aam.scale * cosines[:, 0] + 1e-5).all()


@pytest.mark.parametrize("sub_centers", [1, 2])
def test_gradients(sub_centers):
    """Against finite differences, in double precision."""
    aam, embeddings, labels = batch(scale=4.0, sub_centers=sub_centers)
    cosines = aam.cosines(embeddings).detach().double().requires_grad_()
    # One sample beyond theta + m = pi.
    with torch.no_grad():
        cosines[0, labels[0]] = -0.995
    assert torch.autograd.gradcheck(
        lambda c: aam.losses(c, labels, margin=0.3), (cosines,)
    )
    aam(embeddings, labels).sum().backward()
    assert aam.weight.grad.abs().sum() > 0


# -- the inter-top-k penalty ----------------------------------------------------


def with_penalty(cosines, label, margin, k, penalty, scale):
    """The loss of one sample by its angles, in plain Python."""
    angles = [math.acos(c) for c in cosines]
    others = sorted(
        (j for j in range(len(angles)) if j != label), key=lambda j: angles[j]
    )
    z = [math.cos(angle) for angle in angles]
    z[label] = math.cos(angles[label] + margin)
    for j in others[:k]:
        z[j] = max(z[j], math.cos(angles[j] - penalty))
    return -scale * z[label] + math.log(sum(math.exp(scale * v) for v in z))


@pytest.mark.parametrize("sub_centers", [1, 2])
@pytest.mark.parametrize("k", [1, 3, 5, 99])
def test_intertop_equals_the_equation(k, sub_centers):
    """With the full margin, and with half of it: the penalty is halved, too."""
    aam, embeddings, labels = batch(
        12,
        classes=9,
        scale=8.0,
        margin=0.2,
        sub_centers=sub_centers,
        intertop_k=k,
        intertop_margin=0.1,
    )
    cosines = aam.cosines(embeddings).detach()
    # A class so near that cos(theta - m') is the smaller of the two.
    cosines[0, (labels[0] + 1) % 9] = 0.9999
    for margin, penalty in ((0.2, 0.1), (0.1, 0.05), (0.0, 0.0)):
        wanted = [
            with_penalty(row, label, margin, k, penalty, 8.0)
            for row, label in zip(
                cosines.double().tolist(), labels.tolist(), strict=True
            )
        ]
        found = aam.losses(cosines, labels, margin)
        torch.testing.assert_close(
            found, torch.tensor(wanted).float(), rtol=1e-4, atol=1e-4
        )
    assert (aam.logits(embeddings) == 8.0 * aam.cosines(embeddings)).all()


def test_intertop_without_a_margin():
    """Nothing grows that it could follow: the penalty is the full one."""
    aam, embeddings, labels = batch(
        classes=9, scale=8.0, margin=0.0, intertop_k=3, intertop_margin=0.1
    )
    cosines = aam.cosines(embeddings).detach()
    wanted = [
        with_penalty(row, label, 0.0, 3, 0.1, 8.0)
        for row, label in zip(
            cosines.double().tolist(), labels.tolist(), strict=True
        )
    ]
    torch.testing.assert_close(
        aam.losses(cosines, labels).double(),
        torch.tensor(wanted).double(),
        rtol=1e-4,
        atol=1e-4,
    )


def test_intertop_is_off_by_default():
    aam, embeddings, labels = batch(classes=9)
    other = AAMSoftmax(8, 9, intertop_margin=0.1)
    other.load_state_dict(aam.state_dict())
    assert (other(embeddings, labels) > aam(embeddings, labels)).all()
    assert aam.intertop_margin == 0.0


def test_intertop_gradient():
    aam, embeddings, labels = batch(
        4, scale=4.0, intertop_k=2, intertop_margin=0.1
    )
    cosines = aam.cosines(embeddings).detach().double().requires_grad_()
    assert torch.autograd.gradcheck(lambda c: aam.losses(c, labels), (cosines,))


def test_only_the_nearest_sub_center_learns():
    aam, embeddings, labels = batch(1, classes=1, sub_centers=3)
    nearest = F.cosine_similarity(aam.weight, embeddings).argmax()
    aam.cosines(embeddings).sum().backward()
    moved = aam.weight.grad.abs().sum(1) > 0
    assert moved.nonzero().flatten().tolist() == [int(nearest)]


def test_scale_of_embeddings_and_centers_does_not_count():
    aam, embeddings, labels = batch()
    losses = aam(embeddings, labels)
    scaled = aam(embeddings * torch.rand(6, 1).add(0.5) * 10, labels)
    torch.testing.assert_close(scaled, losses, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        aam.weight *= torch.rand(5, 1).add(0.5)
    torch.testing.assert_close(
        aam(embeddings, labels), losses, rtol=1e-4, atol=1e-5
    )


def test_order_of_samples_does_not_count():
    aam, embeddings, labels = batch()
    order = torch.randperm(6)
    torch.testing.assert_close(
        aam(embeddings[order], labels[order]), aam(embeddings, labels)[order]
    )


def test_small_losses_keep_their_digits():
    """Where a cross entropy in fp32 is exactly 0."""
    aam, _, _ = batch(classes=2, scale=32.0, margin=0.0)
    label = torch.tensor([0])
    cosines = torch.tensor([[1.0, -1.0]], requires_grad=True)
    loss = aam.losses(cosines, label)
    wanted = pytest.approx(math.exp(-64), rel=1e-4, abs=0)
    assert float(loss.detach()) == wanted
    logits = aam.logits_with_margin(cosines, label)
    assert float(F.cross_entropy(logits.detach(), label)) == 0.0
    loss.sum().backward()
    assert torch.isfinite(cosines.grad).all()


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_on_the_center_and_opposite_to_it_gradients_are_finite(sign):
    aam, _, _ = batch(margin=0.3)
    embeddings = (sign * aam.weight[:2].detach()).requires_grad_()
    loss = aam(embeddings, torch.tensor([0, 1]))
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert torch.isfinite(embeddings.grad).all()
    assert torch.isfinite(aam.weight.grad).all()
    exact = torch.full((1, 5), sign, requires_grad=True)
    aam.losses(exact, torch.tensor([0])).sum().backward()
    assert torch.isfinite(exact.grad).all()


def test_zero_embeddings_one_class_and_one_sample():
    aam, embeddings, labels = batch()
    zero = torch.zeros(2, 8, requires_grad=True)
    loss = aam(zero, labels[:2])
    loss.sum().backward()
    assert torch.isfinite(loss).all() and torch.isfinite(zero.grad).all()
    assert aam(embeddings[:1], labels[:1]).shape == (1,)
    one = AAMSoftmax(8, classes=1)
    losses = one(embeddings, torch.zeros(6, dtype=torch.long))
    assert losses.tolist() == [0.0] * 6
    losses.sum().backward()
    assert one.weight.grad.abs().sum() == 0


def test_cosines_are_fp32_under_autocast():
    aam, embeddings, labels = batch(size=64)
    plain = aam(embeddings, labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cosines = aam.cosines(embeddings)
        losses = aam(embeddings, labels)
    assert cosines.dtype == losses.dtype == torch.float32
    torch.testing.assert_close(losses, plain)
    assert aam.cosines(embeddings.bfloat16()).dtype == torch.float32


def test_logits_are_without_margin():
    aam, embeddings, labels = batch()
    torch.testing.assert_close(
        aam.logits(embeddings),
        aam.logits_with_margin(aam.cosines(embeddings), labels, margin=0.0),
    )


@pytest.mark.parametrize(
    "options, words",
    [
        ({"classes": 0}, "classes must be a whole number from 1, got 0"),
        ({"sub_centers": 0}, "sub_centers must be a whole number from 1"),
        ({"scale": 0.0}, "scale must be a number above 0"),
        ({"margin": -0.1}, "radians"),
        ({"margin": 20.0}, "radians"),
        ({"intertop_k": 0}, "intertop_k must be a whole number from 1"),
        ({"intertop_margin": 2.0}, "intertop_margin must be .*radians"),
    ],
)
def test_refuses_what_has_no_meaning(options, words):
    with pytest.raises(ConfigError, match=words):
        AAMSoftmax(**{"embedding_size": 8, "classes": 5, **options})
    if "margin" in options:
        aam, embeddings, labels = batch()
        with pytest.raises(ConfigError, match=words):
            aam(embeddings, labels, **options)
