"""SSPS against the paper's steps in plain loops, and its traps."""

import copy
import math
import pathlib

import numpy as np
import positives_ranks
import pytest
import scipy.cluster.hierarchy
import tiny
import torch

from speechbrain_ssl.clustering.kmeans import spherical_kmeans
from speechbrain_ssl.clustering.rows import ClusteringError
from speechbrain_ssl.data.draws import uniform
from speechbrain_ssl.errors import ConfigError, UserError
from speechbrain_ssl.objectives.base import Branch
from speechbrain_ssl.objectives.dino import DINO
from speechbrain_ssl.objectives.dino_head import DINOHead
from speechbrain_ssl.objectives.simclr import SimCLR
from speechbrain_ssl.positives.monitor import PositiveMonitor
from speechbrain_ssl.positives.neighbours import nearest_clusters
from speechbrain_ssl.positives.pseudo_positives import put_vectors
from speechbrain_ssl.positives.ssps import SSPS

KEYS = np.random.default_rng(5).integers(2**63, size=60).astype(np.uint64)


def state_of(ssps):
    return copy.deepcopy(ssps.state_dict())


def same_state(left, right):
    def same(a, b):
        return torch.equal(a, b) if torch.is_tensor(a) else a == b

    return left.keys() == right.keys() and all(
        same(left[key], right[key]) for key in left
    )


def branch_of(index, crops=2, size=5, seed=3):
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(len(index), crops, size, generator=generator)
    vectors.requires_grad_()
    return Branch(vectors, vectors, torch.nn.Identity(), index)


def newest_slots(queue):
    """Utterance -> slot, read in the order the rows came in."""
    order = [(int(queue.place) + i) % queue.size for i in range(queue.size)]
    return {int(queue.ids[s]): s for s in order if queue.ids[s] >= 0}


def by_the_paper(ssps, index, epoch):
    """Steps 2 and 3 of the algorithm, sample by sample."""
    found, slots = [], newest_slots(ssps.queue)
    similar = ssps.centroids @ ssps.centroids.T
    sizes = torch.bincount(
        ssps.assignments[ssps.assignments >= 0], minlength=ssps.clusters
    )
    for i in index.tolist():
        which, member = uniform(11, epoch, KEYS[i], "ssps", size=2)
        cluster = int(ssps.assignments[i])
        if cluster < 0:
            found.append(-1)
            continue
        if ssps.neighbours:
            others = [
                c for c in range(ssps.clusters) if c != cluster and sizes[c] > 0
            ]
            others.sort(key=lambda c: -float(similar[cluster, c]))
            limit, rank = 0.0, -1
            while limit <= which:
                rank += 1
                limit += 1 / ssps.neighbours
            cluster = others[rank]
        members = [
            u
            for u in sorted(slots)
            if int(ssps.assignments[u]) == cluster and u != i
        ]
        found.append(members[int(member * len(members))] if members else -1)
    return found


@pytest.mark.parametrize("queue", [8, 30, 200])
@pytest.mark.parametrize("neighbours", [0, 1, 3])
def test_pseudo_positives_as_the_paper_draws_them(
    voices, make, neighbours, queue
):
    rows, _ = voices()
    ssps = make(rows, neighbours=neighbours, queue=queue)
    ssps.before_epoch(2)
    index = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    for epoch in (2, 3, 4):
        pseudo_positives = ssps.draw(index, epoch, KEYS[index.numpy()])
        wanted = by_the_paper(ssps, index, epoch)
        assert pseudo_positives.utterances.tolist() == wanted
        assert not (pseudo_positives.utterances == index).any()
        slots = newest_slots(ssps.queue)
        for u, s, c in zip(
            wanted,
            pseudo_positives.slots.tolist(),
            pseudo_positives.clusters,
            strict=True,
        ):
            assert s == slots.get(u, -1)
            assert int(c) == (int(ssps.assignments[u]) if u >= 0 else -1)
    if queue == 200:
        # All are in the queue, of clusters of several members each.
        assert -1 not in wanted


@pytest.mark.parametrize("neighbours", [0, 1, 3])
@pytest.mark.parametrize("queue", [8, 20, 64])
def test_expected_coverage_is_that_of_many_draws(
    voices, make, neighbours, queue
):
    options = {"clusters": 12, "queue": queue, "neighbours": neighbours}
    ssps = make(voices()[0], range(56), **options)
    ssps.before_epoch(2)
    index, found = torch.arange(60), []
    for epoch in range(200):
        drawn = ssps.draw(index, epoch, KEYS)
        found.append(float((drawn.slots >= 0).float().mean()))
    expected = ssps.expected_coverage()
    assert expected == pytest.approx(sum(found) / len(found), abs=0.01)
    # Four utterances were never seen.
    assert expected <= 56 / 60 + 1e-6


def test_draws_are_even_and_change_with_the_epoch(voices, make):
    rows, _ = voices(spread=0.02)
    ssps = make(rows, clusters=2, neighbours=0, queue=60)
    ssps.before_epoch(2)
    index = torch.tensor([7])
    drawn = [
        int(ssps.draw(index, epoch, KEYS[index.numpy()]).utterances)
        for epoch in range(2, 2002)
    ]
    members = ssps.assignments == ssps.assignments[7]
    members[7] = False
    members = members.nonzero().flatten().tolist()
    counts = np.bincount(drawn, minlength=60)
    assert set(np.flatnonzero(counts)) == set(members)
    expected = 2000 / len(members)
    assert abs(counts[members] - expected).max() < 5 * math.sqrt(expected)


def test_clusters_are_those_of_the_memory(voices, make):
    """Unit centroids, the nearest one, and other first ones each epoch."""
    rows, _ = voices(spread=0.4)
    ssps = make(rows, iterations=200)
    ssps.before_epoch(2)
    unit = torch.nn.functional.normalize(rows, dim=1)
    torch.testing.assert_close(ssps.memory, unit)
    torch.testing.assert_close(
        ssps.centroids.norm(dim=1), torch.ones(ssps.clusters)
    )
    assert torch.equal(ssps.assignments, (unit @ ssps.centroids.T).argmax(1))
    online = ssps.assignments.clone()
    ssps.before_epoch(3)
    assert not torch.equal(online, ssps.assignments)


def test_a_merging_that_would_not_fit_is_refused(voices, make):
    """Before anything else, hours before the first clustering."""
    with pytest.raises(ClusteringError, match="GiB"):
        make(voices()[0], merge_from=10**6)


def test_merged_clusters_are_those_of_small_ones(voices, make):
    """Ward's merging by SciPy; centroids are the means of the members."""
    rows, _ = voices(spread=0.4)
    ssps = make(rows, merge_from=20, neighbours=0)
    ssps.before_epoch(2)
    unit = torch.nn.functional.normalize(rows, dim=1)
    small = spherical_kmeans(
        unit,
        20,
        iterations=10,
        seed=int(uniform(11, 2, "ssps-clusters") * 2**53),
        init="k-means++",
        empty="reseed",
    )
    tree = scipy.cluster.hierarchy.linkage(small.centroids.numpy(), "ward")
    parents = scipy.cluster.hierarchy.fcluster(tree, 6, "maxclust")
    wanted = torch.from_numpy(parents)[small.assignments]
    # The same partition, whatever the numbers.
    together = ssps.assignments[:, None] == ssps.assignments
    assert torch.equal(together, wanted[:, None] == wanted)
    for c in range(6):
        mean = unit[ssps.assignments == c].sum(0)
        torch.testing.assert_close(ssps.centroids[c], mean / mean.norm())
    index = torch.arange(60)
    pseudo_positives = ssps.draw(index, 2, KEYS).utterances
    there = pseudo_positives >= 0
    assert torch.equal(
        ssps.assignments[pseudo_positives[there]], ssps.assignments[there]
    )


def test_nearest_clusters_leave_out_empty_ones():
    torch.manual_seed(0)
    centroids = torch.nn.functional.normalize(torch.randn(5, 3), dim=1)
    # A twin without members, as k-means leaves of equal rows.
    centroids[4] = centroids[0]
    sizes = torch.tensor([3, 2, 1, 4, 0])
    near = nearest_clusters(centroids, sizes, 2)
    for c in range(5):
        others = [o for o in range(4) if o != c]
        others.sort(key=lambda o, c=c: -float(centroids[c] @ centroids[o]))
        assert near[c].tolist() == others[:2]
    assert nearest_clusters(centroids, sizes, 4)[0, 3] == -1


@pytest.mark.parametrize("neighbours", [0, 1])
def test_vectors_are_replaced_and_gradients_stop(voices, make, neighbours):
    rows, _ = voices()
    # Every third utterance has no reference: dropped at the epoch's end.
    seen = [i for i in range(60) if i % 3]
    ssps = make(rows, seen, neighbours=neighbours, queue=30)
    ssps.before_epoch(2)
    index = torch.arange(60)
    target = branch_of(index)
    changed, scalars = ssps.substitute(target, 2, KEYS[index.numpy()])
    pseudo_positives = ssps.draw(index, 2, KEYS[index.numpy()])
    replaced = pseudo_positives.slots >= 0
    assert not replaced[::3].any() and replaced.any()
    assert set(pseudo_positives.utterances[replaced].tolist()) <= set(seen)
    assert (ssps.assignments[::3] == -1).all()
    assert float(scalars["coverage"]) == pytest.approx(
        replaced.float().mean().item()
    )
    for i in range(60):
        row = target.projections[i]
        if replaced[i]:
            row = ssps.queue.vectors[pseudo_positives.slots[i]]
        assert torch.equal(changed.projections[i], row)
    assert changed.embeddings is target.embeddings
    assert changed.index is target.index
    changed.projections.sum().backward()
    touched = target.projections.grad.abs().sum(dim=(1, 2)) > 0
    assert torch.equal(touched, ~replaced)


def test_nothing_happens_before_the_start(voices, make):
    rows, _ = voices()
    ssps = make(rows, start_epoch=4)
    assert [e for e in range(1, 7) if ssps.filling(e)] == [3]
    assert [e for e in range(1, 7) if ssps.active(e)] == [4, 5, 6]
    before = state_of(ssps)
    ssps.before_epoch(3)
    target = branch_of(torch.arange(4))
    assert ssps.substitute(target, 3, KEYS[:4]) == (target, {})
    assert same_state(before, state_of(ssps))


# -- the traps -----------------------------------------------------------------


def test_unfilled_slots_are_not_the_last_utterance(voices, make):
    """-1 as an index would mean it silently."""
    rows = torch.ones(60, 12)
    ssps = make(rows, range(60), queue=70, neighbours=0)
    # The same with the last utterance never in the queue.
    other = make(rows, [*range(59)], queue=70, neighbours=0)
    other.memory[59], other.known[59] = other.memory[0], True
    for one, wanted in ((ssps, True), (other, False)):
        one.before_epoch(2)
        index = torch.arange(59)
        drawn = [
            one.draw(index, epoch, KEYS[:59]).utterances
            for epoch in range(2, 40)
        ]
        assert bool((torch.stack(drawn) == 59).any()) is wanted
        assert (torch.stack(drawn) >= 0).all()


def test_an_utterance_that_is_twice_in_the_queue(voices, make):
    """Its newest vector counts, and it is not drawn twice as often."""
    rows, _ = voices(utterances=3, speakers=1)
    ssps = make(rows, [0, 1, 2], batch=3, clusters=1, neighbours=0, queue=9)
    for value in (1.0, 2.0):
        vectors = torch.full((1, 2, 5), value)
        ssps.observe(torch.tensor([1]), rows[1:2], vectors)
        ssps.after_step()
    assert (ssps.queue.ids == 1).sum() == 3
    ssps.before_epoch(2)
    ones = 0
    for epoch in range(2, 402):
        target, _ = ssps.substitute(
            branch_of(torch.tensor([0])), epoch, KEYS[:1]
        )
        is_one = bool((target.projections == 2.0).all())
        assert is_one or torch.equal(
            target.projections[0],
            ssps.queue.vectors[int((ssps.queue.ids == 2).nonzero())],
        )
        ones += is_one
    assert 150 < ones < 250


def test_never_its_own_utterance(voices, make):
    """Also where nothing else of its cluster is in the queue."""
    rows = torch.eye(4)[torch.arange(8) % 4]
    ssps = make(rows, range(8), clusters=4, queue=8, neighbours=0)
    # k-means may well leave one of four distinct rows without a centroid.
    ssps.assignments.copy_(torch.arange(8) % 4)
    index = torch.arange(8)
    pairs = ssps.draw(index, 2, KEYS[:8]).utterances
    assert pairs.tolist() == [4, 5, 6, 7, 0, 1, 2, 3]
    ssps.queue.push(torch.full((4,), -1), torch.zeros(4, 2, 5))
    alone = ssps.draw(index, 2, KEYS[:8]).utterances
    # The oldest four have left; the younger ones have nobody but themselves.
    assert alone.tolist() == [4, 5, 6, 7, -1, -1, -1, -1]


def test_the_same_utterance_twice_in_a_batch(voices, make):
    """It stands in for one that cannot be read."""
    rows, _ = voices()
    ssps = make(rows, range(20))
    index = torch.tensor([3, 40, 3])
    references = torch.stack([rows[5], rows[40], rows[6]])
    ssps.observe(index, references, torch.arange(30.0).view(3, 2, 5))
    ssps.after_step()
    unit = torch.nn.functional.normalize(references, dim=1)
    torch.testing.assert_close(ssps.memory[3], unit[2])
    torch.testing.assert_close(ssps.memory[40], unit[1])
    assert newest_slots(ssps.queue)[3] == (int(ssps.queue.place) - 1) % 30


def test_a_skipped_step_leaves_no_trace(voices, make):
    rows, _ = voices()
    ssps = make(rows)
    ssps.before_epoch(2)
    before = state_of(ssps)
    index = torch.arange(8)
    for _ in range(2):
        ssps.substitute(branch_of(index), 2, KEYS[:8])
        ssps.observe(index, -rows[:8], torch.ones(8, 2, 5))
        assert same_state(before, state_of(ssps))
    ssps.skip_step()
    ssps.after_step()
    assert same_state(before, state_of(ssps))


def test_goes_on_from_a_checkpoint_as_if_nothing_was(voices, make, tmp_path):
    rows, _ = voices()
    ssps = make(rows, neighbours=2)
    ssps.before_epoch(2)
    torch.save(ssps.state_dict(), tmp_path / "ssps.ckpt")
    again = make(rows, [], neighbours=2)
    again.load_state_dict(torch.load(tmp_path / "ssps.ckpt", weights_only=True))
    generator = torch.Generator().manual_seed(9)
    for index in torch.arange(60).split(8):
        vectors = torch.randn(len(index), 2, 5, generator=generator)
        seen = []
        for one in (ssps, again):
            target, scalars = one.substitute(
                branch_of(index), 2, KEYS[index.numpy()]
            )
            seen.append((target.projections, scalars["coverage"]))
            one.observe(index, rows[index] + 1, vectors)
            one.after_step()
        assert torch.equal(seen[0][0], seen[1][0])
        assert seen[0][1] == seen[1][1]
    for one in (ssps, again):
        one.before_epoch(3)
    assert same_state(state_of(ssps), state_of(again))


# -- degenerate input ----------------------------------------------------------


def test_references_without_direction_are_not_taken_up(voices, make):
    rows, _ = voices()
    ssps = make(rows, range(16))
    before = ssps.memory.clone()
    bad = rows[[2, 3, 50, 51]].clone()
    bad[0], bad[1, 4], bad[3] = 0, float("nan"), float("inf")
    vectors = torch.ones(4, 2, 5)
    vectors[2, 1, 0] = float("nan")
    ssps.observe(torch.tensor([2, 3, 50, 51]), bad, vectors)
    ssps.after_step()
    assert torch.equal(ssps.memory[:4], before[:4])
    assert ssps.known[50] and not ssps.known[51]
    # None of the four rows can be a positive; their slots stay unfilled.
    assert not torch.isin(ssps.queue.ids, torch.tensor([50, 51])).any()
    ssps.before_epoch(2)
    pseudo_positives = ssps.draw(torch.arange(60), 2, KEYS)
    target = branch_of(torch.arange(60))
    drawn = put_vectors(target, ssps.queue, pseudo_positives).projections
    assert drawn.isfinite().all()


def test_equal_rows_and_a_batch_of_one(make):
    ssps = make(torch.ones(60, 5), batch=1, clusters=4, neighbours=1)
    ssps.before_epoch(2)
    target, _ = ssps.substitute(branch_of(torch.tensor([3])), 2, KEYS[3:4])
    assert target.projections.isfinite().all()


# -- objectives ----------------------------------------------------------------


def test_dino_with_vectors_is_dino_with_logits(voices, make):
    """At a last layer that does not move; the queue is 256 times smaller."""
    torch.manual_seed(0)
    rows, _ = voices()
    ssps = make(rows, range(60), vector_size=8, queue=60)
    dino = DINO(DINOHead(12, prototypes=64, hidden=16, bottleneck=8))
    head = dino.head.eval()
    with torch.no_grad():
        stored = head(torch.randn(120, 12)).view(60, 2, 8)
    ssps.observe(torch.arange(60), rows, stored)
    ssps.after_step()
    ssps.before_epoch(2)
    logits = head.logits(ssps.queue.vectors).detach()
    index = torch.arange(10)
    views = torch.randn(10, 4, 12)
    vectors = head(views.flatten(0, 1)).view(10, 4, 8)
    online = Branch(views, vectors, head, index)
    target = Branch(views[:, :2], vectors[:, :2].detach(), head, index)
    changed, scalars = ssps.substitute(target, 2, KEYS[:10])
    assert 0 < float(scalars["coverage"])
    pseudo_positives = ssps.draw(index, 2, KEYS[:10])
    wanted = head.logits(target.projections).detach()
    for i, slot in enumerate(pseudo_positives.slots.tolist()):
        if slot >= 0:
            wanted[i] = logits[slot]
    loss, _ = dino(online, changed, teacher_temperature=0.04, cosine_weight=0)

    class Stored(torch.nn.Module):
        """A head that hands out logits which were stored."""

        def logits(self, vectors):
            return vectors

    other, _ = dino(
        online,
        Branch(views, wanted, Stored(), index),
        teacher_temperature=0.04,
        cosine_weight=0,
    )
    torch.testing.assert_close(loss, other)
    plain, _ = dino(online, target, teacher_temperature=0.04, cosine_weight=0)
    assert not torch.isclose(loss, plain)


def test_dinos_center_moves_with_the_replaced_vectors(voices, make):
    """What the teacher's softmax sees is what its centre is the mean of."""
    torch.manual_seed(0)
    rows, _ = voices()
    ssps = make(rows, range(60), vector_size=8, queue=60)
    dino = DINO(DINOHead(12, prototypes=64, hidden=16, bottleneck=8))
    ssps.observe(torch.arange(60), rows, torch.randn(60, 2, 8))
    ssps.after_step()
    ssps.before_epoch(2)
    index, vectors = torch.arange(10), torch.randn(10, 4, 8)
    online = Branch(torch.randn(10, 4, 12), vectors, dino.head, index)
    target = Branch(online.embeddings[:, :2], vectors[:, :2], dino.head, index)
    changed, _ = ssps.substitute(target, 2, KEYS[:10])
    dino(online, changed, teacher_temperature=0.04, cosine_weight=0)
    dino.after_step()
    replaced, plain = (
        dino.head.logits(branch.projections).flatten(0, 1).mean(0).detach()
        for branch in (changed, target)
    )
    # From a centre of zeros, with a momentum of 0.9.
    torch.testing.assert_close(dino.center, 0.1 * replaced)
    assert not torch.allclose(replaced, plain, atol=1e-3)


def test_simclr_learns_from_pseudo_positives(voices, make):
    """A positive of another utterance pulls towards that utterance."""
    rows, _ = voices(spread=0.05)
    ssps = make(rows, vector_size=12, queue=60, neighbours=0)
    ssps.observe(
        torch.arange(60), rows, rows[:, None].expand(60, 2, 12).clone()
    )
    ssps.after_step()
    ssps.before_epoch(2)
    index = torch.arange(8)
    views = rows[:8, None].repeat(1, 2, 1).requires_grad_()
    branch = Branch(views, views, torch.nn.Identity(), index)
    changed, _ = ssps.substitute(branch, 2, KEYS[:8])
    pseudo_positives = ssps.draw(index, 2, KEYS[:8]).utterances
    assert (pseudo_positives >= 0).all()
    own = torch.nn.functional.normalize(rows[:8], dim=1)
    towards = torch.nn.functional.normalize(rows[pseudo_positives], dim=1)
    towards -= (towards * own).sum(1, keepdim=True) * own

    def pull(target):
        """How far a step of descent turns each first crop to the partner."""
        loss, _ = SimCLR(temperature=0.5)(branch, target)
        [gradient] = torch.autograd.grad(loss, views)
        return -(gradient[:, 0] * towards).sum(1)

    # Alone there is only what others push, this way or that.
    pulled, alone = pull(changed), pull(branch)
    assert (pulled > 0).all() and (alone < 0).any()
    assert (pulled > alone + 0.002).all()


def test_accuracy_is_for_monitoring(voices, make):
    rows, speaker = voices()
    ssps = make(rows, queue=60, neighbours=0, clusters=12)
    ssps.before_epoch(2)
    index = torch.arange(60)
    pseudo_positives = ssps.draw(index, 2, KEYS).utterances
    right = [
        j >= 0 and speaker[j] == speaker[i]
        for i, j in enumerate(pseudo_positives)
    ]
    monitor = PositiveMonitor({"voice": speaker, "unknown": [-1] * 60})
    found = monitor(pseudo_positives, index)
    assert float(found["same_voice"]) == pytest.approx(np.mean(right))
    assert found["same_voice"] > 0.9 and found["same_unknown"] == 0
    assert found["known_voice"] == (pseudo_positives >= 0).float().mean()
    assert found["known_unknown"] == 0
    nobody = torch.full_like(index, -1)
    assert monitor(nobody, index)["same_voice"] == 0
    # It changes nothing.
    target = branch_of(index)
    plain, scalars = ssps.substitute(target, 2, KEYS)
    watched, more = ssps.substitute(target, 2, KEYS, monitor)
    assert torch.equal(plain.projections, watched.projections)
    assert more == {**scalars, **found}


# -- refusals ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clusters": 0}, "clusters must be a whole number from 1, got 0"),
        ({"clusters": 2.5}, "clusters must be a whole number"),
        (
            {"clusters": True, "neighbours": 0},
            "clusters must be a whole number from 1, got True",
        ),
        ({"neighbours": True}, "neighbours must be a whole number"),
        ({"neighbours": -1}, "neighbours must be a whole number from 0"),
        ({"neighbours": 6}, "6 neighbours.*6 clusters in all; lower"),
        (
            {"start_epoch": 1},
            "start_epoch must be .* from 2, got 1; .*initial_checkpoint",
        ),
        ({"reference_seconds": 0}, "reference_seconds must be a number above"),
        ({"reference_seconds": "4"}, "must be a number above 0, got '4'"),
        ({"reference_seconds": True}, "must be a number above 0, got True"),
        ({"reference_seconds": float("nan")}, "must be a number above 0"),
        *[
            (
                {"speaker_count": wrong},
                "speaker_count must be.*from 2, .*; null",
            )
            for wrong in (0, 1, -5, True, 12.0, "12")
        ],
        ({"choose_clusters": True}, "give a `speaker_count`"),
        (
            {"choose_clusters": 1, "speaker_count": 6},
            "choose_clusters must be True or False, got 1",
        ),
        (
            {"batch": 31},
            "queue of 30 cannot hold a batch of 31.*`positive_queue`",
        ),
        # With a batch of 8 an epoch sees 56 of the 60 utterances.
        ({"clusters": 57}, "57 clusters of 56 utterances.*of 60 .*see; lower"),
        ({"merge_from": 6}, "merge_from is.*above 6, got 6"),
        (
            {"merge_from": 57},
            "57 clusters of 56 utterances.*lower `merge_from`",
        ),
    ],
)
def test_refused_at_the_start(voices, make, options, message):
    with pytest.raises(ConfigError, match=message):
        make(voices()[0], **options)


def test_as_many_clusters_as_an_epoch_fills(voices, make):
    """What is not refused at the start does not fail an epoch later."""
    rows, _ = voices()
    for options, clusters in (({"clusters": 56}, 56), ({"merge_from": 56}, 6)):
        ssps = make(rows, range(56), **options)
        ssps.before_epoch(2)
        seen, unseen = ssps.assignments.split([56, 4])
        assert set(seen.tolist()) == set(range(clusters))
        assert (unseen == -1).all()


def test_objectives_that_do_not_fit_are_refused():
    sizes = {
        "utterances": 60,
        "reference_size": 12,
        "crops": 2,
        "vector_size": 4,
        "batch": 8,
        "seed": 0,
    }
    lonely = SimCLR()
    lonely.supports_positive_sampling = False
    ssps = SSPS(clusters=6, queue=30, start_epoch=2)
    with pytest.raises(ConfigError, match="SimCLR does not have; take another"):
        ssps.set_up(lonely, **sizes)


def test_clusters_before_any_reference_are_refused(voices, make):
    rows, _ = voices()
    with pytest.raises(UserError, match="epoch 2.*of 0 utterances.*before"):
        make(rows, []).before_epoch(2)
    with pytest.raises(
        ConfigError, match="of 5 utterances, and needs at least 6"
    ):
        make(rows, range(5)).before_epoch(2)
    with pytest.raises(
        ConfigError, match="of 9 utterances, and needs at least 10"
    ):
        make(rows, range(9), merge_from=10).before_epoch(2)


# -- several processes ---------------------------------------------------------


@pytest.mark.slow
def test_two_processes_are_one(tmp_path):
    """Memory, queue, clusters and pseudo_positives; batches of uneven size, too."""
    status, stderr = tiny.torchrun(positives_ranks.__file__, tmp_path)
    assert status == 0, stderr
    ranks = [
        torch.load(pathlib.Path(tmp_path) / f"rank{r}.pt", weights_only=True)
        for r in (0, 1)
    ]
    one = positives_ranks.run(0, 1)
    for key in one["state"]:
        for found in ranks:
            torch.testing.assert_close(
                found["state"][key], one["state"][key], rtol=0, atol=1e-6
            )
    for step, whole in enumerate(one["pseudo_positives"]):
        both = torch.cat([found["pseudo_positives"][step] for found in ranks])
        assert torch.equal(both, whole)
    assert (torch.cat(one["pseudo_positives"]) >= 0).any()
    for found in ranks:
        assert torch.equal(found["aware"], one["aware"])


def test_a_postponed_start_survives_a_checkpoint():
    """What the start rule has put off, a resumed run does not begin."""
    ssps = SSPS(clusters=2, queue=4, start_epoch=3)
    assert ssps.filling(2) and ssps.active(3)
    ssps.postpone()
    assert not ssps.filling(2) and not ssps.active(3)
    assert ssps.filling(3) and ssps.active(4)
    again = SSPS(clusters=2, queue=4, start_epoch=3)
    again.load_state_dict(ssps.state_dict())
    assert again.filling(3) and not again.active(3)
