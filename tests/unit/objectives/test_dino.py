"""DINO against a plain statement of its equations."""

import math

import pytest
import torch
import torch.nn.functional as F

from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.objectives.base import Branch
from speechbrain_ssl.objectives.dino import DINO
from speechbrain_ssl.objectives.dino_head import DINOHead
from speechbrain_ssl.objectives.views import pair_cross_entropy

BATCH, GLOBALS, LOCALS, SIZE, K = 3, 2, 3, 12, 20
SCHEDULED = {"teacher_temperature": 0.05, "cosine_weight": 0.0}


def make(seed=0, batch_norm=True, **kwargs):
    """A small DINO in double precision would hide fp32 paths: fp32 it is."""
    torch.manual_seed(seed)
    head = DINOHead(SIZE, K, hidden=16, bottleneck=6, batch_norm=batch_norm)
    dino = DINO(head, **kwargs)
    # As if trained: spread prototypes and a centre that is not zero.
    torch.nn.init.normal_(dino.head.prototypes)
    dino.center.copy_(0.2 * torch.randn(K))
    return dino


def branches(dino, seed=1, crops=GLOBALS + LOCALS):
    """A student and a teacher branch with gradient where there is any."""
    torch.manual_seed(seed)
    embeddings = torch.randn(BATCH, crops, SIZE, requires_grad=True)
    vectors = torch.randn(BATCH, crops, 6)
    vectors = F.normalize(vectors, dim=-1).requires_grad_()
    online = Branch(embeddings, vectors, dino.head)
    teacher = make(seed=5).head.requires_grad_(False)
    torch.manual_seed(seed + 100)
    target = Branch(
        torch.randn(BATCH, GLOBALS, SIZE),
        F.normalize(torch.randn(BATCH, GLOBALS, 6), dim=-1),
        teacher,
    )
    return online, target


def plain_loss(dino, online, target, tau_t, weight, global_pairs=True):
    """The equations of the paper, a loop over utterances and pairs."""
    weight_s = online.head.prototypes / online.head.prototypes.norm(
        dim=1, keepdim=True
    )
    weight_t = target.head.prototypes / target.head.prototypes.norm(
        dim=1, keepdim=True
    )
    entropies, cosines, pairs = [], [], 0
    for b in range(len(online.projections)):
        for q in range(target.projections.shape[1]):
            t = weight_t @ target.projections[b, q]
            p = torch.softmax((t - dino.center) / tau_t, dim=0)
            for v in range(online.projections.shape[1]):
                # Without them the online branch has the local crops alone.
                if v == q and global_pairs:
                    continue
                s = weight_s @ online.projections[b, v]
                log_q = torch.log_softmax(s / dino.student_temperature, dim=0)
                entropies.append(-(p * log_q).sum())
                e_t, e_s = (
                    target.embeddings[b, q],
                    online.embeddings[b, v],
                )
                cosines.append(1 - e_t @ e_s / (e_t.norm() * e_s.norm()))
                pairs += 1
    total = torch.stack(entropies).mean()
    return total + weight * torch.stack(cosines).mean(), pairs // len(
        online.projections
    )


@pytest.mark.parametrize("global_pairs", [True, False])
@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_loss_and_gradient_are_the_equation(global_pairs, weight):
    """Loss and all gradients equal those of a loop over q and v."""
    dino = make(global_pairs=global_pairs)
    online, target = branches(dino, crops=LOCALS + GLOBALS * global_pairs)
    inputs = [online.embeddings, online.projections, dino.head.prototypes]
    loss, scalars = dino(
        online, target, teacher_temperature=0.05, cosine_weight=weight
    )
    wanted, pairs = plain_loss(dino, online, target, 0.05, weight, global_pairs)
    assert pairs == (8 if global_pairs else 6)
    torch.testing.assert_close(loss, wanted, atol=1e-5, rtol=1e-5)
    assert ("cosine_loss" in scalars) == (weight > 0)
    ours = torch.autograd.grad(loss, inputs, allow_unused=True)
    theirs = torch.autograd.grad(wanted, inputs, allow_unused=True)
    for mine, other in zip(ours, theirs, strict=True):
        if mine is None:
            assert weight == 0 and not other.any()
            continue
        assert mine.abs().max() > 1e-4
        torch.testing.assert_close(mine, other, atol=1e-6, rtol=1e-4)


def test_paper_has_ten_pairs():
    """Two global and four local crops make the ten pairs of the paper."""
    dino = make()
    online, target = branches(dino, crops=6)
    loss, _ = dino(online, target, **SCHEDULED)
    wanted, pairs = plain_loss(dino, online, target, 0.05, 0.0)
    assert pairs == 10
    torch.testing.assert_close(loss, wanted, atol=1e-5, rtol=1e-5)


def test_memory_light_path_is_log_softmax():
    """logsumexp - P.s is -P.log_softmax(s), also for large logits."""
    torch.manual_seed(0)
    student = 10 * torch.randn(4, 5, K)
    teacher = torch.softmax(8 * torch.randn(4, 2, K), -1)
    log_q = F.log_softmax(student, dim=-1)
    every = -torch.einsum("bqk,bvk->bqv", teacher, log_q)
    pairs = ~torch.eye(5, dtype=torch.bool)[:2]
    wanted = every[:, pairs].mean()
    found = pair_cross_entropy(student, teacher, skip_same=True)
    assert abs(float(found - wanted)) < 1e-5


def test_teacher_has_no_gradient():
    """Nothing of the teacher's branch is differentiated."""
    dino = make()
    online, target = branches(dino)
    target.head.requires_grad_(True)
    target.projections.requires_grad_(True)
    loss, _ = dino(online, target, **SCHEDULED)
    loss.backward()
    assert target.projections.grad is None
    assert all(p.grad is None for p in target.head.parameters())


def test_temperatures():
    """Each temperature acts where it belongs; a lower one sharpens."""
    dino = make(student_temperature=0.4)
    online, target = branches(dino)
    loss, scalars = dino(online, target, **SCHEDULED)
    wanted, _ = plain_loss(dino, online, target, 0.05, 0.0)
    torch.testing.assert_close(loss, wanted, atol=1e-5, rtol=1e-5)
    softer = dino(online, target, teacher_temperature=0.5, cosine_weight=0.0)
    assert softer[1]["teacher_entropy"] > scalars["teacher_entropy"] + 0.5
    torch.testing.assert_close(
        scalars["kl"], loss.detach() - scalars["teacher_entropy"]
    )
    assert scalars["kl"] > 0


def test_center_follows_the_step():
    """The centre moves at the step, by the mean of all micro-batches."""
    dino = make(center_momentum=0.8)
    old = dino.center.clone()
    means = []
    for seed in (1, 2, 3):
        online, target = branches(dino, seed)
        dino(online, target, **SCHEDULED)
        rows = F.normalize(target.head.prototypes, dim=1)
        logits = [rows @ vector for vector in target.projections.flatten(0, 1)]
        means.append(torch.stack(logits).mean(0))
        assert torch.equal(dino.center, old)
    dino.after_step()
    wanted = 0.8 * old + 0.2 * torch.stack(means).mean(0)
    torch.testing.assert_close(dino.center, wanted)
    # The next step knows nothing of this one.
    online, target = branches(dino, 4)
    old = dino.center.clone()
    dino(online, target, **SCHEDULED)
    dino.after_step()
    logits = target.head.logits(target.projections).mean((0, 1))
    torch.testing.assert_close(dino.center, 0.8 * old + 0.2 * logits)


def test_skipped_step_leaves_the_center():
    """A skipped step leaves no trace, not even in the step after it."""
    dino, twin = make(), make()
    online, target = branches(dino, 1)
    target.projections.mul_(float("nan"))
    dino(online, target, **SCHEDULED)
    dino.skip_step()
    assert torch.equal(dino.center, twin.center)
    for each in (dino, twin):
        each(*branches(each, 2), **SCHEDULED)
        each.after_step()
    assert torch.equal(dino.center, twin.center)


def test_order_of_local_crops_and_of_the_batch():
    """Neither matters; that of the global crops does not matter jointly."""
    dino = make()
    online, target = branches(dino)

    def loss(rows, crops, globals_):
        left = Branch(
            online.embeddings[rows][:, crops],
            online.projections[rows][:, crops],
            online.head,
        )
        right = Branch(
            target.embeddings[rows][:, globals_],
            target.projections[rows][:, globals_],
            target.head,
        )
        return dino(left, right, teacher_temperature=0.05, cosine_weight=0.2)[0]

    plain = loss([0, 1, 2], [0, 1, 2, 3, 4], [0, 1])
    for rows, crops, globals_ in (
        ([2, 0, 1], [0, 1, 2, 3, 4], [0, 1]),
        ([0, 1, 2], [0, 1, 4, 2, 3], [0, 1]),
        ([0, 1, 2], [1, 0, 2, 3, 4], [1, 0]),
    ):
        torch.testing.assert_close(loss(rows, crops, globals_), plain)
    # But a local crop in a global's place is another loss.
    other = loss([0, 1, 2], [0, 2, 1, 3, 4], [0, 1])
    assert abs(float((other - plain).detach())) > 1e-3


def test_scalars():
    """Entropies equal a plain computation; ln K is their upper limit."""
    dino = make()
    online, target = branches(dino)
    _, scalars = dino(online, target, **SCHEDULED)
    logits = target.head.logits(target.projections)
    teacher = torch.softmax((logits - dino.center) / 0.05, -1).reshape(-1, K)
    rows = [-sum(p * math.log(p) for p in r.tolist() if p > 0) for r in teacher]
    mean = teacher.mean(0)
    usage = -sum(p * math.log(p) for p in mean.tolist() if p > 0)
    assert abs(scalars["teacher_entropy"] - sum(rows) / len(rows)) < 1e-5
    assert abs(scalars["usage_entropy"] - usage) < 1e-5
    assert scalars["log_prototypes"] == math.log(K)
    assert scalars["teacher_entropy"] < scalars["usage_entropy"] < math.log(K)


def test_uniform_teacher():
    """Where the teacher says nothing both entropies are ln K."""
    dino = make()
    online, target = branches(dino)
    target.projections.zero_()
    dino.center.zero_()
    loss, scalars = dino(online, target, **SCHEDULED)
    for name in ("teacher_entropy", "usage_entropy"):
        assert abs(float(scalars[name]) - math.log(K)) < 1e-5
    assert loss >= math.log(K) - 1e-4


def test_constant_embeddings():
    """A collapsed encoder gives finite figures, and equal entropies."""
    dino = make()
    embeddings = torch.ones(BATCH, 5, SIZE)
    vectors = dino.head.eval()(embeddings.flatten(0, 1)).view(BATCH, 5, 6)
    target = Branch(embeddings[:, :2], vectors[:, :2].detach(), dino.head)
    loss, scalars = dino(
        Branch(embeddings, vectors, dino.head),
        target,
        teacher_temperature=0.04,
        cosine_weight=0.1,
    )
    loss.backward()
    assert torch.isfinite(loss)
    torch.testing.assert_close(
        scalars["teacher_entropy"], scalars["usage_entropy"]
    )
    assert abs(float(scalars["cosine_loss"])) < 1e-6


def test_zero_vectors_are_finite():
    """Zero embeddings have no direction, but a loss and a gradient."""
    dino = make()
    online = Branch(
        torch.zeros(BATCH, 5, SIZE, requires_grad=True),
        torch.zeros(BATCH, 5, 6, requires_grad=True),
        dino.head,
    )
    target = Branch(
        torch.zeros(BATCH, 2, SIZE), torch.zeros(BATCH, 2, 6), dino.head
    )
    loss, _ = dino(online, target, teacher_temperature=0.04, cosine_weight=0.1)
    loss.backward()
    for tensor in (online.embeddings, online.projections, dino.head.prototypes):
        assert torch.isfinite(tensor.grad).all()
    assert torch.isfinite(loss)


def test_no_pair_is_an_error():
    """One global crop, or globals alone where their pairs are left out."""
    for dino, crops, globals_ in (
        (make(), 1, 1),
        (make(global_pairs=False), 0, 2),
    ):
        online, target = branches(dino, crops=crops)
        target.projections = target.projections[:, :globals_]
        with pytest.raises(ConfigError, match="no pair"):
            dino(online, target, **SCHEDULED)


@pytest.mark.parametrize(
    "key, value",
    [
        ("prototypes", 1),
        ("prototypes", 8192.5),
        ("hidden", 0),
        ("bottleneck", 0),
        ("student_temperature", 0.0),
        ("student_temperature", -0.1),
        ("student_temperature", math.nan),
        ("center_momentum", 1.0),
        ("center_momentum", -0.1),
    ],
)
def test_values_that_cannot_be_are_refused(key, value):
    """By the key that has them, not hours later by a loss of nan."""
    sizes = {"prototypes": K, "hidden": 16, "bottleneck": 6}
    own = {} if key in sizes else {key: value}
    if key in sizes:
        sizes[key] = value
    with pytest.raises(ConfigError, match=f"{key} must be .* got {value}"):
        DINO(DINOHead(SIZE, **sizes), **own)


def test_head_geometry():
    """Vectors and prototypes have norm 1; the gain is no parameter."""
    dino = make()
    vectors = dino.head(torch.randn(50, SIZE))
    torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(50))
    # A vector on a prototype has cosine 1 with it, however long that is.
    rows = F.normalize(dino.head.prototypes.detach(), dim=1)
    torch.testing.assert_close(dino.head.logits(rows).diagonal(), torch.ones(K))
    with torch.no_grad():
        before = dino.head.logits(vectors)
        dino.head.prototypes.mul_(7.0)
        torch.testing.assert_close(dino.head.logits(vectors), before)
    names = [name for name, _ in dino.named_parameters()]
    assert names.count("head.prototypes") == 1
    assert all(name.startswith(("head.layers", "head.proto")) for name in names)
    assert dino.prototype_parameters() == [dino.head.prototypes]
    assert not any(
        isinstance(m, torch.nn.BatchNorm1d)
        for m in make(batch_norm=False).modules()
    )


def published_head(size, prototypes, bottleneck):
    """DINO's last layer: a linear layer behind torch's weight norm, gain 1."""
    layer = torch.nn.utils.parametrizations.weight_norm(
        torch.nn.Linear(bottleneck, prototypes, bias=False)
    )
    torch.nn.init.ones_(layer.parametrizations.weight.original0)
    return layer


def test_initial_values_are_those_of_the_public_code():
    """Uniform prototypes of norm 0.577; 0.02 in the projector only."""
    torch.manual_seed(0)
    head = DINOHead(192, prototypes=2000, hidden=512)
    rows = head.prototypes.detach()
    assert float(rows.abs().max()) <= 1 / 16 + 1e-6
    assert rows.norm(dim=1) == pytest.approx(1 / 3**0.5, rel=0.15)
    assert float(rows.norm(dim=1).mean()) == pytest.approx(0.577, abs=0.002)
    theirs = published_head(192, 2000, 256).parametrizations.weight.original1
    assert float(theirs.detach().norm(dim=1).mean()) == pytest.approx(
        0.577, abs=0.002
    )
    linear = [m for m in head.layers if isinstance(m, torch.nn.Linear)]
    for layer in linear:
        assert float(layer.weight.std()) == pytest.approx(0.02, rel=0.02)
        assert not layer.bias.any()
    short = DINOHead(192, prototypes=2000, hidden=8, prototype_std=0.02)
    norms = short.prototypes.detach().norm(dim=1)
    assert float(norms.mean()) == pytest.approx(0.32, abs=0.002)
    with pytest.raises(ConfigError, match="prototype_std must be .*above 0"):
        DINOHead(192, prototype_std=0.0)


def test_first_angular_step_is_that_of_weight_norm():
    """One step of SGD turns a prototype by lr |tangent| / |row|^2."""
    torch.manual_seed(0)
    head = DINOHead(8, prototypes=9, hidden=4, bottleneck=16)
    theirs = published_head(8, 9, 16)
    with torch.no_grad():
        theirs.parametrizations.weight.original1.copy_(head.prototypes)
    vectors = F.normalize(torch.randn(5, 16), dim=-1)
    weights = torch.randn(5, 9)
    direction = theirs.parametrizations.weight.original1
    turned = []
    for logits, rows in (
        (head.logits(vectors), head.prototypes),
        (theirs(vectors), direction),
    ):
        before = F.normalize(rows.detach(), dim=1)
        (weights * logits).sum().backward()
        with torch.no_grad():
            after = F.normalize(rows - 0.01 * rows.grad, dim=1)
        turned.append(torch.acos((before * after).sum(1)))
    torch.testing.assert_close(*turned, rtol=1e-3, atol=1e-5)
    # By hand: the part of the gradient that is tangent to the sphere.
    unit = F.normalize(head.prototypes.detach(), dim=1)
    pull = weights.T @ vectors
    tangent = pull - (pull * unit).sum(1, keepdim=True) * unit
    norm = head.prototypes.detach().norm(dim=1)
    wanted = torch.atan(0.01 * tangent.norm(dim=1) / norm**2)
    torch.testing.assert_close(turned[0], wanted, rtol=1e-3, atol=1e-5)
    # Rows of the former deviation turned 3.3 times further.
    assert (0.577 / 0.32) ** 2 == pytest.approx(3.3, abs=0.1)


def test_logits_stay_fp32_under_autocast():
    """bf16 would round a cosine by 2^-9, divided by 0.04 a tenth of a nat."""
    dino = make()
    online, target = branches(dino)
    wanted, _ = dino(online, target, **SCHEDULED)
    logits = dino.head.logits(online.projections)
    with torch.autocast("cpu", torch.bfloat16):
        vectors = dino.head(torch.randn(4, SIZE))
        inside = dino.head.logits(online.projections)
        loss, _ = dino(online, target, **SCHEDULED)
        # What the guard is for:
        rounded = F.linear(
            online.projections, F.normalize(dino.head.prototypes)
        )
    assert vectors.dtype == inside.dtype == loss.dtype == torch.float32
    assert torch.equal(inside, logits)
    torch.testing.assert_close(loss, wanted)
    assert (rounded - logits).abs().max() > 1e-3


def test_center_is_state():
    """A checkpoint carries the centre; what is half gathered is none."""
    dino = make()
    assert "center" in dino.state_dict()
    other = DINO(DINOHead(SIZE, prototypes=K, hidden=16, bottleneck=6))
    other.load_state_dict(dino.state_dict())
    assert torch.equal(other.center, dino.center)
