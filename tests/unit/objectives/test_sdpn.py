"""SDPN against its equations, term by term."""

import math

import pytest
import torch
import torch.nn.functional as F

from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.objectives.base import Branch
from speechbrain_ssl.objectives.sdpn import SDPN
from speechbrain_ssl.objectives.teacher import MomentumTeacher

SIZE, D, K, BATCH, LOCALS = 5, 6, 8, 7, 4


def make(seed=0, **options):
    torch.manual_seed(seed)
    sdpn = SDPN(SIZE, prototypes=K, hidden=16, bottleneck=D, **options)
    torch.nn.init.normal_(sdpn.head.prototypes)
    return sdpn


def branches(sdpn, seed=1, globals_=1, batch=BATCH):
    torch.manual_seed(seed)
    embeddings = torch.randn(batch, LOCALS, SIZE, requires_grad=True)
    vectors = F.normalize(torch.randn(batch, LOCALS, D), dim=-1)
    online = Branch(embeddings, vectors.requires_grad_(), sdpn.head)
    # Prototypes of a teacher are another's: none of its business.
    return online, Branch(
        torch.randn(batch, globals_, SIZE),
        F.normalize(torch.randn(batch, globals_, D), dim=-1),
        make(seed=9).head,
    )


def plain_terms(sdpn, online, target):
    """The equations as the paper writes them, in probabilities."""
    rows = sdpn.head.prototypes / sdpn.head.prototypes.norm(dim=1, keepdim=True)
    p = torch.softmax(online.projections @ rows.T / 0.1, -1)
    with torch.no_grad():
        t = torch.softmax(
            target.projections.double() @ rows.double().T / 0.1, -1
        )
        t = t ** (1 / 0.25)
        t = t / t.sum(-1, keepdim=True)
        q = t.flatten(0, 1)
        for _ in range(3):
            q = q / q.sum(0, keepdim=True)
            q = q / q.sum(1, keepdim=True)
        q = q.view_as(t).float()
    losses = [
        -(q[b, g] * p[b, v].log()).sum()
        for b in range(len(p))
        for g in range(q.shape[1])
        for v in range(LOCALS)
    ]
    mean = p.mean((0, 1))
    koleo = 0.0
    for crop in F.normalize(online.embeddings, dim=-1).unbind(1):
        distances = torch.cdist(crop, crop)
        distances = distances + 10 * torch.eye(len(crop))
        koleo = koleo - distances.min(1).values.log().mean()
    correlations = [
        torch.corrcoef(e.T).square() for e in online.embeddings.unbind(1)
    ]
    decorrelation = [(c.sum() - SIZE) / SIZE**2 for c in correlations]
    return {
        "loss": torch.stack(losses).mean(),
        "mean_entropy": math.log(K) + (mean * mean.log()).sum(),
        "koleo": koleo,
        "dimension": torch.stack(decorrelation).mean(),
        "targets": q,
        "sharpened": t.float(),
    }


@pytest.mark.parametrize("globals_", [1, 2])
@pytest.mark.parametrize("weights", [(0.0, 0.0, 0.0), (1.0, 0.1, 0.5)])
def test_loss_and_gradient_are_the_equation(weights, globals_):
    names = ["mean_entropy", "koleo", "dimension"]
    options = {f"{n}_weight": w for n, w in zip(names, weights, strict=True)}
    sdpn = make(**options)
    online, target = branches(sdpn, globals_=globals_)
    loss, scalars = sdpn(online, target)
    terms = plain_terms(sdpn, online, target)
    wanted = terms["loss"]
    for name, weight in zip(names, weights, strict=True):
        wanted = wanted + weight * terms[name]
        assert (name in scalars) == (weight > 0)
        if weight:
            torch.testing.assert_close(
                scalars[name], terms[name].detach(), rtol=1e-4, atol=1e-5
            )
    torch.testing.assert_close(loss, wanted, rtol=1e-4, atol=1e-5)
    inputs = [online.projections, sdpn.head.prototypes, online.embeddings]
    ours = torch.autograd.grad(loss, inputs, allow_unused=True)
    theirs = torch.autograd.grad(wanted, inputs, allow_unused=True)
    for mine, other in zip(ours, theirs, strict=True):
        if mine is None:
            assert weights[1] == 0 and not other.any()
            continue
        assert mine.abs().max() > 1e-4
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-5)


def test_scalars_are_those_before_the_balance():
    sdpn = make()
    online, target = branches(sdpn)
    _, scalars = sdpn(online, target)
    terms = plain_terms(sdpn, online, target)
    sharp, targets = terms["sharpened"], terms["targets"]

    def entropy(p):
        return -(p * p.log()).sum(-1)

    close = {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(
        scalars["teacher_entropy"], entropy(sharp).mean(), **close
    )
    torch.testing.assert_close(
        scalars["usage_entropy"], entropy(sharp.mean((0, 1))), **close
    )
    kl = terms["loss"].detach() - entropy(targets).mean()
    torch.testing.assert_close(scalars["kl"], kl, **close)
    assert scalars["log_prototypes"] == math.log(K)
    held = sdpn.held_out(target)
    assert held == {k: scalars[k] for k in held} and len(held) == 3


def test_mean_entropy_rises_where_it_is_followed():
    sdpn = make(koleo_weight=0.0)
    online, target = branches(sdpn)
    _, scalars = sdpn(online, target)
    terms = plain_terms(sdpn, online, target)
    (grad,) = torch.autograd.grad(terms["mean_entropy"], online.projections)
    with torch.no_grad():
        online.projections -= grad
    _, after = sdpn(online, target)
    assert after["mean_entropy"] < scalars["mean_entropy"]


def test_order_of_batch_and_crops_does_not_count():
    sdpn = make(dimension_weight=0.3)
    online, target = branches(sdpn)
    loss, _ = sdpn(online, target)
    rows, crops = torch.randperm(BATCH), torch.randperm(LOCALS)
    other, _ = sdpn(
        Branch(
            online.embeddings[rows][:, crops],
            online.projections[rows][:, crops],
            sdpn.head,
        ),
        Branch(None, target.projections[rows], target.head),
    )
    torch.testing.assert_close(other, loss)


def test_no_gradient_through_the_teacher():
    sdpn = make()
    online, target = branches(sdpn)
    target.projections.requires_grad_()
    sdpn(online, target)[0].backward()
    assert target.projections.grad is None
    assert all(p.grad is None for p in target.head.parameters())


@pytest.mark.parametrize("kind", ["equal", "zero"])
def test_collapse_is_finite_and_seen(kind):
    sdpn = make(dimension_weight=0.1)
    value = 1.0 if kind == "equal" else 0.0
    e = torch.full((5, LOCALS, SIZE), value, requires_grad=True)
    z = F.normalize(torch.full((5, LOCALS, D), value), dim=-1)
    z = z.requires_grad_()
    online = Branch(e, z, sdpn.head)
    target = Branch(None, z[:, :1].detach(), sdpn.head)
    loss, scalars = sdpn(online, target)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(e.grad).all() and torch.isfinite(z.grad).all()
    # All alike: the mean is as sharp as each of them.
    torch.testing.assert_close(
        scalars["usage_entropy"], scalars["teacher_entropy"]
    )


def test_a_prototype_that_nobody_wants_has_a_finite_gradient():
    """A softmax of 0, whose entropy has an infinite slope."""
    sdpn = make(temperature=0.005)
    with torch.no_grad():
        sdpn.head.prototypes.copy_(-torch.eye(K, D))
        sdpn.head.prototypes[0].neg_()
    vectors = F.normalize(torch.eye(1, D), dim=-1).expand(3, LOCALS, D)
    vectors = vectors.clone().requires_grad_()
    online = Branch(torch.randn(3, LOCALS, SIZE), vectors, sdpn.head)
    target = Branch(None, vectors[:, :1].detach(), sdpn.head)
    sdpn(online, target)[0].backward()
    assert torch.isfinite(vectors.grad).all()
    assert torch.isfinite(sdpn.head.prototypes.grad).all()


def test_nan_shows():
    sdpn = make()
    online, target = branches(sdpn)
    target.projections[0] = float("nan")
    assert torch.isnan(sdpn(online, target)[0])


def test_one_utterance():
    sdpn = make()
    with pytest.raises(ConfigError, match="batch_size to 2"):
        sdpn(*branches(sdpn, batch=1))
    sdpn = make(koleo_weight=0.0)
    assert sdpn(*branches(sdpn, batch=1))[0].isfinite()


def test_a_student_without_local_crops():
    sdpn = make()
    online, target = branches(sdpn)
    online.projections = online.projections[:, :0]
    with pytest.raises(ConfigError, match="no pair"):
        sdpn(online, target)


@pytest.mark.parametrize(
    "key, value",
    [
        ("temperature", 0.0),
        ("sharpening", 0.0),
        ("iterations", 0),
        ("mean_entropy_weight", -1.0),
        ("koleo_weight", -1.0),
        ("dimension_weight", -1.0),
    ],
)
def test_values_that_cannot_be(key, value):
    with pytest.raises(ConfigError, match=f"SDPN's {key} must be .*{value}"):
        make(**{key: value})


def test_teacher_copies_the_head_and_the_prototypes_can_be_frozen():
    sdpn = make()
    teacher = MomentumTeacher(torch.nn.Identity(), sdpn.head)
    x = torch.randn(4, SIZE)
    torch.testing.assert_close(teacher.head(x), sdpn.head(x))
    assert sdpn.prototype_parameters() == [sdpn.head.prototypes]
    # As in the authors' code.
    assert sdpn.no_weight_decay_parameters() == [sdpn.head.prototypes]
    assert sdpn.unclipped_parameters() == [sdpn.head.prototypes]
    # Uniform in +-1/sqrt(bottleneck), as they draw them.
    fresh = SDPN(SIZE, prototypes=500, bottleneck=64).head.prototypes.detach()
    assert float(fresh.abs().max()) <= 1 / 8 + 1e-6
    assert float(fresh.std()) == pytest.approx(1 / 8 / 3**0.5, rel=0.02)
    short = SDPN(SIZE, prototypes=500, bottleneck=64, prototype_std=0.02)
    assert float(short.head.prototypes.std()) == pytest.approx(0.02, rel=0.02)
    assert sdpn.momentum and not sdpn.student_sees_global_crops
