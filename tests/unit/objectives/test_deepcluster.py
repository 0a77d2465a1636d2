"""DeepCluster against its equation, its memory, and what a resume needs."""

import math

import pytest
import torch
import torch.nn.functional as F

from speechbrain_ssl.clustering.rows import ClusteringError
from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.objectives.base import Branch
from speechbrain_ssl.objectives.deepcluster import DeepCluster

SIZE, D, N = 8, 5, 12


def make(prototypes=(3, 4), utterances=N, seed=7, **options):
    torch.manual_seed(0)
    objective = DeepCluster(
        SIZE, prototypes=prototypes, hidden=8, output_size=D, **options
    )
    objective.set_up(utterances, seed)
    return objective


def branches(objective, index, seed=1, crops=3):
    """Vectors in three bundles, by index, so that clusters are clear."""
    torch.manual_seed(seed)
    centers = torch.eye(D)[torch.tensor(index) % 3]
    vectors = centers[:, None] + 0.2 * torch.randn(len(index), crops, D)
    vectors = F.normalize(vectors, dim=-1).requires_grad_()
    place = torch.tensor(index)
    online = Branch(None, vectors, objective.head, place)
    return online, Branch(None, vectors[:, :2], objective.head, place)


def filled(**options):
    """After an epoch in which the utterances 10 and 11 were not seen."""
    objective = make(**options)
    objective.before_epoch(1)
    for index in ([3, 9, 0, 4, 6], [1, 2, 5, 8, 7]):
        objective(*branches(objective, index))
        objective.after_step()
    objective.before_epoch(2)
    return objective


def test_loss_and_gradient_are_the_equation():
    objective = filled()
    online, target = branches(objective, [0, 1, 2, 5], seed=3)
    loss, scalars = objective(online, target)
    losses, right = [], []
    for i in range(2):
        centers = objective.prototype(i)
        for b, n in enumerate([0, 1, 2, 5]):
            y = int(objective.assignments[i, n])
            for v in range(3):
                s = centers @ online.projections[b, v] / 0.1
                losses.append(-(s[y] - s.exp().sum().log()))
                right.append(float(int(s.argmax()) == y))
    wanted = torch.stack(losses).mean()
    torch.testing.assert_close(loss, wanted, rtol=1e-5, atol=1e-5)
    assert float(scalars["assigned"]) == 1.0
    found = float(scalars["accuracy"])
    assert found == pytest.approx(sum(right) / len(right))
    ours, theirs = (
        torch.autograd.grad(each, online.projections)[0]
        for each in (loss, wanted)
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_clusters_are_those_of_the_memory():
    """Each utterance has the nearest centroid, each centroid its members."""
    objective = filled()
    assert objective.in_memory.tolist() == [True] * 10 + [False] * 2
    memory = objective.memory[:10]
    for i, k in enumerate((3, 4)):
        labels = objective.assignments[i, :10]
        centers = objective.prototype(i)
        assert torch.equal(labels, (memory @ centers.T).argmax(1))
        for c in range(k):
            members = memory[labels == c]
            if len(members):
                mean = F.normalize(members.sum(0), dim=0)
                torch.testing.assert_close(centers[c], mean)
    assert (objective.assignments[:, 10:] == -1).all()
    # Three bundles are found by three clusters, whatever their numbers.
    labels = objective.assignments[0, :10]
    same = labels[:, None] == labels
    bundle = torch.arange(10) % 3
    assert torch.equal(same, bundle[:, None] == bundle)


def test_clusterings_differ_by_their_first_centroids():
    objective = filled(prototypes=(4, 4, 4), iterations=1)
    labels = objective.assignments[:, :10]
    assert (
        not (labels[0] == labels[1]).all() or not (labels[0] == labels[2]).all()
    )


def test_memory_keeps_the_first_crop_seen_last():
    objective = make()
    online, target = branches(objective, [4, 2])
    objective(online, target)
    assert not objective.in_memory.any()
    objective.after_step()
    assert torch.equal(
        objective.memory[[4, 2]], online.projections[:, 0].detach()
    )
    again, target = branches(objective, [2], seed=8)
    objective(again, target)
    objective.skip_step()
    objective.after_step()
    assert torch.equal(
        objective.memory[[4, 2]], online.projections[:, 0].detach()
    )
    objective(again, target)
    objective.after_step()
    assert torch.equal(objective.memory[2], again.projections[0, 0].detach())
    assert objective.in_memory.sum() == 2


def test_memory_takes_all_accumulated_batches():
    objective = make()
    seen = [branches(objective, index) for index in ([4, 2], [0, 7], [5])]
    for online, target in seen:
        objective(online, target)
    objective.after_step()
    for online, _ in seen:
        found = objective.memory[online.index]
        assert torch.equal(found, online.projections[:, 0].detach())
    assert objective.in_memory.sum() == 5


def test_who_has_no_cluster_has_no_loss():
    objective = filled()
    online, target = branches(objective, [0, 10, 1, 11], seed=3)
    loss, scalars = objective(online, target)
    some = Branch(None, online.projections[[0, 2]], None, online.index[[0, 2]])
    wanted, of_some = objective(some, target)
    torch.testing.assert_close(loss, wanted)
    assert float(scalars["assigned"]) == 0.5
    torch.testing.assert_close(scalars["accuracy"], of_some["accuracy"])
    loss.backward()
    assert not online.projections.grad[[1, 3]].any()
    online, target = branches(objective, [10, 11])
    loss, scalars = objective(online, target)
    loss.backward()
    assert float(loss.detach()) == 0 and not online.projections.grad.any()
    assert torch.isfinite(scalars["accuracy"])


def test_first_epoch_swaps_predictions_of_random_prototypes():
    objective = make()
    objective.before_epoch(1)
    online, target = branches(objective, [0, 1, 2, 3, 4])
    loss, scalars = objective(online, target)
    losses = []
    for i in range(2):
        rows = objective.prototype(i)
        torch.testing.assert_close(rows.norm(dim=1), torch.ones(len(rows)))
        for q in (0, 1):
            codes = (target.projections[:, q].detach() @ rows.T / 0.05).exp()
            for _ in range(3):
                codes = codes / codes.sum(0, keepdim=True)
                codes = codes / codes.sum(1, keepdim=True)
            for v in range(3):
                if v != q:
                    logits = online.projections[:, v] @ rows.T / 0.1
                    log = torch.log_softmax(logits, 1)
                    losses.append(-(codes * log).sum(1).mean())
    torch.testing.assert_close(
        loss, torch.stack(losses).mean(), rtol=1e-5, atol=1e-5
    )
    assert float(scalars["assigned"]) == 0
    loss.backward()
    assert online.projections.grad.abs().max() > 1e-4


def test_everything_of_a_resume_is_in_buffers():
    """In the middle of an epoch, without another ``before_epoch``."""
    objective, other = filled(), make()
    assert not torch.equal(objective.prototype(0), other.prototype(0))
    other.load_state_dict(objective.state_dict())
    for each in (objective, other):
        each(*branches(each, [10, 3]))
        each.after_step()
    assert torch.equal(objective.memory, other.memory)
    one, two = (m(*branches(m, [0, 5], seed=4))[0] for m in (objective, other))
    assert torch.equal(one, two) and float(one.detach()) > 0
    for each in (objective, other):
        each.before_epoch(3)
    assert torch.equal(objective.assignments, other.assignments)
    assert (objective.assignments[:, 10] >= 0).all()


def test_prototypes_do_not_learn_and_are_drawn_by_the_seed():
    objective = make()
    assert all(
        name.startswith("head.") for name, _ in objective.named_parameters()
    )
    assert not objective.supports_positive_sampling
    assert torch.equal(objective.prototype(1), make().prototype(1))
    assert not torch.equal(objective.prototype(1), make(seed=8).prototype(1))


def test_order_of_the_batch_does_not_count():
    objective = filled()
    online, target = branches(objective, [0, 1, 2, 10], seed=3)
    loss, _ = objective(online, target)
    order = torch.tensor([2, 3, 0, 1])
    other = Branch(None, online.projections[order], None, online.index[order])
    torch.testing.assert_close(objective(other, target)[0], loss)


def test_degenerate_input():
    objective = filled()
    vectors = torch.zeros(2, 3, D, requires_grad=True)
    branch = Branch(None, vectors, objective.head, torch.tensor([0, 1]))
    loss, _ = objective(branch, branch)
    loss.backward()
    wanted = (math.log(3) + math.log(4)) / 2
    assert float(loss.detach()) == pytest.approx(wanted, rel=1e-5)
    assert torch.isfinite(vectors.grad).all()
    objective.skip_step()
    assert objective(*branches(objective, [3]))[0].isfinite()
    with torch.no_grad():
        vectors[0] = float("nan")
    assert torch.isnan(objective(branch, branch)[0])


def test_collapsed_memory_can_be_clustered():
    """All alike: one cluster has all, and the loss still is a number."""
    objective = make()
    vectors = F.normalize(torch.ones(N, 3, D), dim=-1)
    branch = Branch(None, vectors, objective.head, torch.arange(N))
    objective(branch, branch)
    objective.after_step()
    objective.before_epoch(2)
    assert objective(branch, branch)[0].isfinite()


@pytest.mark.parametrize(
    "key, value",
    [
        ("prototypes", []),
        ("prototypes", [1]),
        ("temperature", 0.0),
        ("iterations", 0),
    ],
)
def test_values_that_cannot_be(key, value):
    with pytest.raises(ConfigError, match=f"DeepCluster's {key} must be"):
        make(**{key: value})


def test_more_clusters_than_utterances():
    with pytest.raises(ConfigError, match="20 clusters of 12 utterances"):
        make(prototypes=[3, 20]).check_epoch(12, 3)
    objective = make(prototypes=[6])
    objective(*branches(objective, [0, 1, 2]))
    objective.after_step()
    with pytest.raises(ClusteringError, match="6 clusters"):
        objective.before_epoch(2)


def test_head_has_unit_vectors():
    objective = make()
    with torch.autocast("cpu", torch.bfloat16):
        vectors = objective.head(torch.randn(6, SIZE))
    assert vectors.dtype == torch.float32
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(6))
