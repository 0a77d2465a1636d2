"""SwAV against its equations, its queue, and what it must not depend on."""

import math

import pytest
import torch
import torch.nn.functional as F

from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.objectives.base import Branch
from speechbrain_ssl.objectives.swav import SwAV

SIZE, D, K = 12, 6, 10


def make(seed=0, **options):
    torch.manual_seed(seed)
    swav = SwAV(SIZE, prototypes=K, hidden=16, output_size=D, **options)
    # Rows of unequal length: only their directions may count.
    torch.nn.init.normal_(swav.head.prototypes)
    return swav


def branches(swav, seed=1, batch=7, crops=4):
    torch.manual_seed(seed)
    vectors = F.normalize(torch.randn(batch, crops, D), dim=-1)
    vectors.requires_grad_()
    online = Branch(None, vectors, swav.head)
    return online, Branch(None, vectors[:, :2], swav.head)


def codes_by_the_matrix(scores):
    """Three rounds over rows and columns, in double precision."""
    q = (scores.double() / 0.05).exp()
    for _ in range(3):
        q = q / q.sum(0, keepdim=True)
        q = q / q.sum(1, keepdim=True)
    return q.float()


def plain_loss(swav, vectors_of_crops, queue=None, globals_=2):
    """Utterance by utterance, pair by pair; all crops code or predict."""
    rows = swav.head.prototypes / swav.head.prototypes.norm(dim=1, keepdim=True)
    losses = []
    for q in range(globals_):
        vectors = vectors_of_crops[:, q].detach()
        if queue is not None:
            vectors = torch.cat([vectors, queue[q]])
        codes = codes_by_the_matrix(vectors @ rows.detach().T)
        for v in range(vectors_of_crops.shape[1]):
            if v == q:
                continue
            for b in range(len(vectors_of_crops)):
                s = rows @ vectors_of_crops[b, v] / swav.temperature
                losses.append(-(codes[b] * torch.log_softmax(s, 0)).sum())
    return torch.stack(losses).mean()


@pytest.mark.parametrize("crops", [2, 5])
def test_loss_and_gradient_are_the_equation(crops):
    swav = make()
    online, target = branches(swav, crops=crops)
    loss, _ = swav(online, target)
    wanted = plain_loss(swav, online.projections)
    torch.testing.assert_close(loss, wanted, rtol=1e-5, atol=1e-5)
    inputs = [online.projections, swav.head.prototypes]
    ours = torch.autograd.grad(loss, inputs)
    theirs = torch.autograd.grad(wanted, inputs)
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.abs().max() > 1e-4
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("crops", [2, 4])
def test_the_last_global_crop_alone_is_replaced(crops):
    """In its code and in its prediction, as in sslsv's SwAV-SSPS.

    With two crops: z_1 predicts the code of z'_2, and z'_2 that of z_1.
    """
    swav = make()
    online, target = branches(swav, crops=crops)
    plain, _ = swav(online, target)
    new = F.normalize(torch.randn(4, 2, D), dim=-1)
    replaced = torch.cat([new, target.projections[4:]])
    loss, _ = swav(online, Branch(None, replaced, swav.head))
    used = online.projections.clone()
    used[:4, 1] = new[:, 1]
    wanted = plain_loss(swav, used)
    torch.testing.assert_close(loss, wanted, rtol=1e-5, atol=1e-5)
    assert abs(float((loss - plain).detach())) > 1e-3
    inputs = [online.projections, swav.head.prototypes]
    ours = torch.autograd.grad(loss, inputs)
    theirs = torch.autograd.grad(wanted, inputs)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-6)
    # The crop that is replaced learns nothing; the others do.
    assert not ours[0][:4, 1].any()
    assert ours[0][:4, 0].any() and ours[0][4:, 1].any()


def test_with_one_global_crop_that_is_replaced():
    swav = make(global_crops=1)
    online, _ = branches(swav, crops=3)
    new = F.normalize(torch.randn(7, 1, D), dim=-1)
    loss, _ = swav(online, Branch(None, new, swav.head))
    used = torch.cat([new, online.projections[:, 1:]], dim=1)
    wanted = plain_loss(swav, used, globals_=1)
    torch.testing.assert_close(loss, wanted, rtol=1e-5, atol=1e-5)


def test_queue_joins_when_full_and_when_its_epoch_has_come():
    swav = make(queue=10, queue_start_epoch=2)
    kept = []
    for step in range(2):
        online, target = branches(swav, seed=step)
        loss, _ = swav(online, target)
        torch.testing.assert_close(loss, plain_loss(swav, online.projections))
        assert int(swav.queued) == 7 * step
        swav.after_step()
        kept.insert(0, online.projections[:, :2].detach())
    # The newest first, cut off at ten.
    wanted = torch.cat(kept)[:10].transpose(0, 1)
    torch.testing.assert_close(swav.queue, wanted)
    online, target = branches(swav, seed=5)
    plain = plain_loss(swav, online.projections)
    # Full, but the epoch has not come.
    torch.testing.assert_close(swav(online, target)[0], plain)
    swav.skip_step()
    swav.before_epoch(2)
    queued = plain_loss(swav, online.projections, swav.queue)
    torch.testing.assert_close(swav(online, target)[0], queued)
    assert abs(float((queued - plain).detach())) > 1e-3


def test_queue_keeps_own_vectors_of_all_micro_batches():
    """Not replaced ones; and nothing of a skipped step."""
    swav = make(queue=14)
    kept = []
    for seed in (1, 2):
        online, target = branches(swav, seed=seed)
        target.projections = torch.zeros_like(target.projections)
        swav(online, target)
        kept.insert(0, online.projections[:, :2].detach())
    swav.skip_step()
    swav.after_step()
    assert int(swav.queued) == 0 and not swav.queue.any()
    for seed in (1, 2):
        swav(*branches(swav, seed=seed))
    swav.after_step()
    assert torch.equal(swav.queue, torch.cat(kept).transpose(0, 1))


def test_queue_and_epoch_are_state():
    swav, other = make(queue=7, queue_start_epoch=1), make(3, queue=7)
    swav(*branches(swav))
    swav.after_step()
    swav.before_epoch(20)
    other.load_state_dict(swav.state_dict())
    assert other._uses_queue()
    one, two = (m(*branches(m, seed=9))[0] for m in (swav, other))
    assert torch.equal(one, two)


def test_order_of_the_batch_and_of_local_crops():
    swav = make()
    online, target = branches(swav, crops=5)
    loss, _ = swav(online, target)
    rows, crops = torch.randperm(7), [0, 1, 4, 2, 3]
    other, _ = swav(
        Branch(None, online.projections[rows][:, crops], swav.head),
        Branch(None, target.projections[rows], swav.head),
    )
    torch.testing.assert_close(other, loss)


def test_scalars():
    swav = make()
    online, target = branches(swav)
    loss, scalars = swav(online, target)
    rows = F.normalize(swav.head.prototypes, dim=1).detach()
    codes = torch.cat(
        [codes_by_the_matrix(target.projections[:, q] @ rows.T) for q in (0, 1)]
    ).detach()
    wanted = -(codes * codes.log()).sum(1).mean()
    torch.testing.assert_close(scalars["code_entropy"], wanted)
    torch.testing.assert_close(scalars["kl"], loss.detach() - wanted)
    use = (online.projections.detach() @ rows.T / 0.1).softmax(-1).mean((0, 1))
    torch.testing.assert_close(
        scalars["usage_entropy"], -(use * use.log()).sum()
    )
    assert scalars["log_prototypes"] == math.log(K)


@pytest.mark.parametrize("kind", ["equal", "zero", "one utterance"])
def test_degenerate_vectors_are_finite(kind):
    swav = make(queue=4)
    batch = 1 if kind == "one utterance" else 5
    vectors = torch.full((batch, 3, D), float(kind != "zero") / D**0.5)
    vectors.requires_grad_()
    online = Branch(None, vectors, swav.head)
    loss, scalars = swav(online, Branch(None, vectors[:, :2], swav.head))
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(vectors.grad).all()
    # Who cannot be told apart is spread over all prototypes.
    assert float(scalars["code_entropy"]) == pytest.approx(math.log(K), 1e-4)


def test_nan_shows():
    swav = make()
    online, target = branches(swav)
    with torch.no_grad():
        online.projections[0] = float("nan")
    assert torch.isnan(swav(online, target)[0])


def test_head_and_last_layer():
    swav = make()
    vectors = swav.head(torch.randn(9, SIZE))
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(9))
    assert swav.prototype_parameters() == [swav.head.prototypes]
    logits = swav.head.logits(vectors)
    with torch.no_grad():
        swav.head.prototypes.mul_(3)
    torch.testing.assert_close(swav.head.logits(vectors), logits)
    with torch.autocast("cpu", torch.bfloat16):
        assert swav.head.logits(vectors).dtype == torch.float32
        torch.testing.assert_close(swav.head.logits(vectors), logits)


@pytest.mark.parametrize(
    "key, value",
    [
        ("prototypes", 1),
        ("temperature", 0.0),
        ("epsilon", -1.0),
        ("iterations", 0),
        ("global_crops", 0),
        ("queue", -1),
        ("queue_start_epoch", 0),
    ],
)
def test_values_that_cannot_be(key, value):
    options = {"prototypes": K, "hidden": 8, "output_size": D, key: value}
    with pytest.raises(ConfigError, match=f"SwAV's {key} must be .*{value}"):
        SwAV(SIZE, **options)


def test_crop_plan_must_fit():
    swav = make(global_crops=3)
    with pytest.raises(ConfigError, match="made for 3 global crops and got 2"):
        swav(*branches(swav))
    swav = make(global_crops=1)
    online, target = branches(swav, crops=1)
    target.projections = target.projections[:, :1]
    with pytest.raises(ConfigError, match="no pair"):
        swav(online, target)
