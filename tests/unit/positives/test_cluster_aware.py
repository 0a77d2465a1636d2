"""Where the crops of a sample come from, by the clusters."""

import math
import pickle

import numpy as np
import pytest
import torch

from speechbrain_ssl.clustering.rows import ClusteringError
from speechbrain_ssl.data.draws import uniform
from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.positives.cluster_aware import ClusterAware

KEYS = np.random.default_rng(5).integers(2**63, size=60).astype(np.uint64)


def made(rows, clusters=6, start_epoch=2, local_crops=4, **options):
    sampling = ClusterAware(clusters, start_epoch, **options)
    sampling.set_up(len(rows), local_crops, seed=3)
    return sampling


def all_pseudo_positives(sampling, epoch, count, crops=6, global_crops=2):
    return np.stack(
        [
            sampling.pseudo_positives(epoch, i, KEYS[i], crops, global_crops)
            for i in range(count)
        ]
    )


@pytest.mark.parametrize("rule", ["all", "locals"])
def test_crops_come_from_the_cluster(voices, rule):
    """The rules of the head of the file, in plain loops."""
    rows, speaker = voices(spread=0.05)
    sampling = made(rows, rule=rule)
    sampling.recluster(2, rows)
    label = sampling.assignments.tolist()
    for epoch in (2, 3):
        found = all_pseudo_positives(sampling, epoch, 60)
        assert found.dtype == np.int64
        for i in range(60):
            members = [j for j in range(60) if label[j] == label[i]]
            draws = uniform(3, epoch, KEYS[i], "partner", size=6)
            wanted = [members[int(d * len(members))] for d in draws]
            if rule == "locals":
                wanted[:2] = [i, i]
            assert found[i].tolist() == wanted
        # Clear voices: all clusters are of one speaker.
        assert (speaker[found] == speaker[:, None]).all()
    assert not np.array_equal(found, all_pseudo_positives(sampling, 2, 60))


def test_members_are_drawn_evenly(voices):
    rows, _ = voices(spread=0.05)
    sampling = made(rows)
    sampling.recluster(2, rows)
    members = (sampling.assignments == sampling.assignments[4]).nonzero()
    drawn = [
        sampling.pseudo_positives(e, 4, KEYS[4], 6, 2) for e in range(2, 402)
    ]
    counts = np.bincount(np.concatenate(drawn), minlength=60)
    assert set(np.flatnonzero(counts)) == set(members.flatten().tolist())
    expected = 2400 / len(members)
    spread = abs(counts[members.flatten()] - expected).max()
    assert spread < 5 * math.sqrt(expected)


def test_singletons_and_the_unembedded_keep_their_crops():
    """Whoever has no cluster is no pseudo-positive, either."""
    rows = torch.eye(8)[torch.tensor([0, 0, 1, 2, 2, 3, 3, 4])]
    rows[1], rows[5, 0] = 0, float("nan")
    sampling = made(rows, clusters=4)
    sampling.recluster(2, 5 * rows)
    found = all_pseudo_positives(sampling, 2, 8)
    for i in (0, 1, 2, 5, 6, 7):
        label = sampling.assignments
        if i in (1, 5) or (label == label[i]).sum() == 1:
            assert (found[i] == i).all()
    assert sampling.assignments[[1, 5]].tolist() == [-1, -1]
    assert not np.isin(np.delete(found, [1, 5], axis=0), [1, 5]).any()


def test_schedule_of_clusterings():
    sampling = ClusterAware([30, 15, 7], start_epoch=4, every=3)
    due = [e for e in range(1, 16) if sampling.due(e)]
    assert due == [4, 7, 10, 13]
    assert [sampling.clusters_of(e) for e in due] == [30, 15, 7, 7]
    assert [e for e in range(1, 6) if sampling.active(e)] == [4, 5]
    one = ClusterAware(9, start_epoch=2, every=1)
    assert [one.clusters_of(e) for e in (2, 3, 50)] == [9, 9, 9]


def test_progressive_numbers_of_clusters(voices):
    rows, _ = voices(spread=0.3)
    sampling = made(rows, clusters=[20, 5], every=2)
    for epoch, count in ((2, 20), (4, 5), (6, 5)):
        sampling.recluster(epoch, rows)
        assert len(sampling.assignments.unique()) == count


def test_a_merging_that_would_not_fit_is_refused(voices):
    """Before anything else, hours before the first clustering."""
    with pytest.raises(ClusteringError, match="GiB"):
        made(voices()[0], merge_from=10**6)


def test_merged_clusters(voices):
    """As many as asked for, and each of whole small ones."""
    rows, _ = voices(spread=0.4)
    small, merged = made(rows, clusters=20), made(rows, merge_from=20)
    small.recluster(2, rows)
    merged.recluster(2, rows)
    assert len(merged.assignments.unique()) == 6
    for cluster in small.assignments.unique():
        members = merged.assignments[small.assignments == cluster]
        assert len(members.unique()) == 1


def test_only_the_anchor_before_the_start(voices):
    rows, _ = voices()
    sampling = made(rows, start_epoch=5)
    assert sampling.pseudo_positives(4, 7, KEYS[7], 6, 2).tolist() == [7] * 6
    with pytest.raises(ConfigError, match="epoch 5, but nothing has been clu"):
        sampling.pseudo_positives(5, 7, KEYS[7], 6, 2)


def test_a_checkpoint_carries_the_clusters(voices, tmp_path):
    """Also into loader workers, forked or not."""
    rows, _ = voices()
    sampling = made(rows)
    sampling.recluster(2, rows.numpy())
    torch.save(sampling.state_dict(), tmp_path / "aware.ckpt")
    again = made(rows)
    again.load_state_dict(
        torch.load(tmp_path / "aware.ckpt", weights_only=True)
    )
    wanted = all_pseudo_positives(sampling, 3, 60)
    assert np.array_equal(all_pseudo_positives(again, 3, 60), wanted)
    copy = pickle.loads(pickle.dumps(again))
    assert np.array_equal(all_pseudo_positives(copy, 3, 60), wanted)
    # Inside another module, too.
    parent = torch.nn.ModuleDict({"aware": made(rows)})
    parent.load_state_dict({"aware.assignments": sampling.assignments})
    assert np.array_equal(all_pseudo_positives(parent["aware"], 3, 60), wanted)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clusters": []}, "clusters are an empty list; .* from 1"),
        ({"clusters": [10, 0]}, "clusters must .* from 1, got 0; a list"),
        ({"clusters": True}, "clusters must .* from 1, got True"),
        ({"clusters": [5, True]}, "clusters must .* from 1, got True"),
        ({"clusters": 2.5}, "clusters must .* from 1, got 2.5"),
        ({"every": True}, "every must be a whole number from 1, got True"),
        ({"clusters": [61, 5]}, "61 clusters of 60 utterances; lower"),
        ({"merge_from": 6}, "`merge_from`.*above 6, got 6"),
        ({"merge_from": 61}, "61 clusters of 60 utterances; lower"),
        (
            {"start_epoch": 1},
            "start_epoch must be .* from 2, got 1; .*initial_checkpoint",
        ),
        ({"every": 0}, "every must be a whole number from 1, got 0"),
        ({"iterations": 1.5}, "iterations must be a whole number"),
        ({"rule": "globals"}, "one of all, locals; got 'globals'"),
        (
            {"rule": "locals", "local_crops": 0},
            "rule locals.*none; take the rule all, or set `local_crops`",
        ),
    ],
)
def test_refused_settings(voices, options, message):
    with pytest.raises(ConfigError, match=message):
        made(voices()[0], **options)


def test_refused_embeddings(voices):
    rows, _ = voices()
    sampling = made(rows)
    with pytest.raises(ConfigError, match="59 embeddings for a manifest of 60"):
        sampling.recluster(2, rows[:59])
    rows[4:] = float("nan")
    with pytest.raises(
        ConfigError, match="6 clusters in epoch 2: only 4 of 60"
    ):
        sampling.recluster(2, rows)
