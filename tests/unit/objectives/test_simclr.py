"""SimCLR against its equation, and what it must not depend on."""

import math

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml

from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.objectives.base import Branch
from speechbrain_ssl.objectives.simclr import SimCLR


def loss_of(views, temperature=0.1, second=None, **margin):
    objective = SimCLR(temperature, **margin)
    first = Branch(views, views, objective.head)
    if second is not None:
        second = Branch(second, second, objective.head)
    return objective(first, first if second is None else second)


def with_margin(cosine, margin, kind):
    """The positive pair's cosine, by way of the angle."""
    if kind == "cosface":
        return cosine - margin
    angle = math.acos(max(-1.0, min(1.0, cosine)))
    if angle + margin >= math.pi:
        return cosine - margin * math.sin(margin)
    return math.cos(angle + margin)


def by_the_equation(views, temperature, margin=0.0, kind="cosface"):
    """Equation 1, crop by crop, in plain loops."""
    z = [v / v.norm() for pair in views.double() for v in pair]
    total = 0.0
    for i in range(len(z)):
        j = i + 1 if i % 2 == 0 else i - 1
        cosines = [float(z[i] @ z[k]) for k in range(len(z))]
        cosines[j] = with_margin(cosines[j], margin, kind)
        terms = [
            math.exp(cosines[k] / temperature) for k in range(len(z)) if k != i
        ]
        total -= math.log(math.exp(cosines[j] / temperature) / sum(terms))
    return total / len(z)


def by_pairs(first, second, temperature, **margin):
    """Every pair of crops by the equation, one from either branch."""
    crops = first.shape[1]
    losses = [
        by_the_equation(
            torch.stack([first[:, v], second[:, w]], 1), temperature, **margin
        )
        for v in range(crops)
        for w in range(v + 1, crops)
    ]
    return sum(losses) / len(losses)


@pytest.mark.parametrize("temperature", [0.03, 0.07, 1.0])
def test_equals_the_equation(temperature):
    torch.manual_seed(0)
    views = torch.randn(5, 2, 8)
    loss, _ = loss_of(views, temperature)
    assert float(loss) == pytest.approx(
        by_the_equation(views, temperature), rel=1e-5
    )


def test_depends_on_neither_order_nor_scale():
    torch.manual_seed(1)
    views = torch.randn(6, 2, 8)
    loss, scalars = loss_of(views)
    for other in (
        views[torch.randperm(6)],
        views.flip(1),
        views * torch.rand(6, 2, 1).add(0.5),
    ):
        changed, other_scalars = loss_of(other)
        torch.testing.assert_close(changed, loss)
        torch.testing.assert_close(
            other_scalars["positive_cosine"], scalars["positive_cosine"]
        )


def test_collapsed_embeddings_are_at_chance():
    """All crops alike: every other crop is as near as the right one."""
    views = torch.ones(4, 2, 8, requires_grad=True)
    loss, _ = loss_of(views)
    assert float(loss.detach()) == pytest.approx(math.log(7), rel=1e-5)
    loss.backward()
    assert torch.isfinite(views.grad).all()


def test_zero_vectors_stay_finite():
    views = torch.zeros(4, 2, 8, requires_grad=True)
    loss, _ = loss_of(views)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(views.grad).all()


def test_perfect_embeddings():
    views = torch.eye(8)[:, None].repeat(1, 2, 1)
    loss, scalars = loss_of(views, 0.03)
    assert float(loss) < 1e-6
    assert float(scalars["accuracy"]) == 1.0


@pytest.mark.parametrize("kind", ["cosface", "arcface"])
@pytest.mark.parametrize("margin", [0.0, 0.1, 0.5])
def test_margin_is_on_the_positive_pair_alone(margin, kind):
    """Also where the angle and the margin add up to more than pi."""
    torch.manual_seed(2)
    views = torch.randn(5, 2, 8)
    views[0, 1] = -views[0, 0] + 0.01 * torch.randn(8)
    loss, scalars = loss_of(views, margin=margin, margin_kind=kind)
    wanted = by_the_equation(views, 0.1, margin, kind)
    assert float(loss) == pytest.approx(wanted, rel=1e-5)
    plain, others = loss_of(views)
    assert (float(loss) > float(plain) + 0.1) == (margin > 0)
    # The figures to plot are those without margin.
    assert scalars == others


@pytest.mark.parametrize("crops", [2, 3, 4])
def test_all_pairs_of_crops(crops):
    """One crop from either branch: rows of the second may be replaced."""
    torch.manual_seed(3)
    first, second = torch.randn(4, crops, 8), torch.randn(4, crops, 8)
    second[1:] = first[1:]
    margin = {"margin": 0.2, "kind": "arcface"}
    loss, scalars = loss_of(
        first, second=second, margin=0.2, margin_kind="arcface"
    )
    wanted = by_pairs(first, second, 0.1, **margin)
    assert float(loss) == pytest.approx(wanted, rel=1e-5)
    cosines = [
        float(torch.cosine_similarity(a[v], b[w], dim=0))
        for a, b in zip(first, second, strict=True)
        for v in range(crops)
        for w in range(v + 1, crops)
    ]
    mean = sum(cosines) / len(cosines)
    assert float(scalars["positive_cosine"]) == pytest.approx(mean, abs=1e-5)


def test_order_of_many_crops_does_not_count():
    torch.manual_seed(4)
    views = torch.randn(5, 4, 8)
    loss, _ = loss_of(views)
    for order in ([3, 1, 0, 2], [1, 2, 3, 0]):
        torch.testing.assert_close(loss_of(views[:, order])[0], loss)
    # And a third crop that says the same as the first adds no pair but its own.
    twice = torch.cat([views[:, :2], views[:, :1]], 1)
    pairs = [loss_of(twice[:, [v, w]])[0] for v, w in ((0, 1), (0, 2), (1, 2))]
    torch.testing.assert_close(loss_of(twice)[0], torch.stack(pairs).mean())


def test_gradient_goes_to_both_branches():
    """Each crop of a pair is compared with the rest, whatever its branch."""
    torch.manual_seed(5)
    first = torch.randn(4, 2, 8, requires_grad=True)
    second = torch.randn(4, 2, 8, requires_grad=True)
    loss_of(first, second=second)[0].backward()
    assert first.grad[:, 0].abs().min() > 0 and not first.grad[:, 1].any()
    assert second.grad[:, 1].abs().min() > 0 and not second.grad[:, 0].any()


@pytest.mark.parametrize("kind", ["cosface", "arcface"])
def test_equal_and_opposite_crops_have_finite_gradients(kind):
    """The angle has no derivative at 0 and pi."""
    torch.manual_seed(6)
    for sign in (1.0, -1.0):
        left = torch.randn(4, 1, 8)
        views = torch.cat([left, sign * left], 1).requires_grad_()
        loss, _ = loss_of(views, margin=0.2, margin_kind=kind)
        loss.backward()
        assert torch.isfinite(loss) and torch.isfinite(views.grad).all()


def test_a_single_utterance_has_no_negatives():
    """The loss would be 0, and nothing would be learnt from it."""
    with pytest.raises(ConfigError, match="another utterance.*batch_size to 2"):
        loss_of(torch.randn(1, 2, 8))


def test_nan_is_seen():
    """A step that is not finite has to be noticed by who skips it."""
    views = torch.randn(4, 2, 8)
    views[2, 0, 3] = float("nan")
    assert torch.isnan(loss_of(views)[0])


def test_logits_stay_fp32_under_autocast():
    torch.manual_seed(7)
    views = torch.randn(6, 2, 64)
    wanted, _ = loss_of(views, 0.03)
    with torch.autocast("cpu", torch.bfloat16):
        found, _ = loss_of(views, 0.03)
        rounded = views[:, 0] @ views[:, 1].T
    assert rounded.dtype == torch.bfloat16
    assert torch.equal(found, wanted)


def test_wants_two_crops_and_a_temperature():
    with pytest.raises(ConfigError, match="global_crops to 2"):
        loss_of(torch.randn(4, 1, 8))
    with pytest.raises(ConfigError, match="local_crops to 0"):
        loss_of(torch.randn(4, 3, 8), second=torch.randn(4, 2, 8))
    with pytest.raises(ConfigError, match="above 0"):
        SimCLR(0.0)


@pytest.mark.parametrize(
    "margin, kind, words",
    [
        (-0.1, "cosface", "at least 0 and below 1, got -0.1"),
        (1.0, "cosface", "at least 0 and below 1, got 1.0"),
        (1.6, "arcface", "below 1.5708, got 1.6; .*pi/2"),
        (math.nan, "arcface", "got nan"),
        (0.1, "sphereface", "one of .*arcface.*cosface.*got 'sphereface'"),
    ],
)
def test_margins_that_cannot_be_are_refused(margin, kind, words):
    with pytest.raises(ConfigError, match=words):
        SimCLR(0.1, margin, kind)


def test_configuration(repository):
    """The block of the configurations makes the objective, with its settings."""
    with open(repository / "hparams/objectives/simclr.yaml") as stream:
        block = load_hyperpyyaml(
            stream, {"margin": 0.3, "margin_kind": "arcface"}
        )
    simclr = block["objective"]
    assert simclr.temperature == 0.07
    assert (simclr.margin.margin, simclr.margin.kind) == (0.3, "arcface")
