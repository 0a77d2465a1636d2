"""Positives from other recordings of clusters that a file names."""

import numpy as np
import pytest

from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.positives.given_clusters import GivenClusters

IDS = [f"s/v{video}/{utt}" for video in range(8) for utt in range(3)]
KEYS = np.random.default_rng(5).integers(2**63, size=24).astype(np.uint64)


def made(clusters, ids=IDS, **options):
    rule = GivenClusters("clusters.csv", **options)
    rule.set_up(np.array(clusters), ids, seed=3)
    return rule


def drawn(rule, epoch, crops=4):
    return np.stack(
        [
            rule.pseudo_positives(epoch, i, KEYS[i], crops, 2)
            for i in range(len(IDS))
        ]
    )


def test_other_recordings_of_the_cluster():
    """Videos 0 to 2 are of one cluster, 3 and 4 of another, 5 is alone."""
    clusters = np.repeat([0, 0, 0, 1, 1, 2, -1, -1], 3)
    videos = np.arange(24) // 3
    rule, seen = made(clusters), [set() for _ in range(24)]
    for epoch in range(1, 60):
        found = drawn(rule, epoch)
        assert (found[:, 0] == np.arange(24)).all()
        for i, others in enumerate(found[:, 1:]):
            seen[i] |= set(others.tolist())
    for i in range(24):
        wanted = {
            j
            for j in range(24)
            if clusters[j] == clusters[i] >= 0 and videos[j] != videos[i]
        }
        assert seen[i] == (wanted or {i})


def test_members_are_drawn_evenly():
    rule = made(np.zeros(24, int))
    found = [drawn(rule, epoch)[4, 1:] for epoch in range(1, 1000)]
    counts = np.bincount(np.concatenate(found), minlength=24)
    assert (counts[3:6] == 0).all()
    others = np.delete(counts, slice(3, 6))
    assert abs(others / others.mean() - 1).max() < 0.3


def test_epochs_before_the_first():
    rule = made(np.zeros(24, int), start_epoch=3)
    own = np.repeat(np.arange(24)[:, None], 4, axis=1)
    assert (drawn(rule, 2) == own).all()
    assert not (drawn(rule, 3) == own).all()


def test_ids_without_a_folder_are_recordings_of_their_own():
    rule = made([0, 0], ["a", "b"])
    assert rule.pseudo_positives(1, 0, KEYS[0], 2, 2).tolist() == [0, 1]


def test_a_checkpoint_keeps_the_clusters():
    before, after = made(np.repeat([0, 1], 12)), made(np.zeros(24, int))
    wanted = drawn(before, 1)
    assert not (drawn(after, 1) == wanted).all()
    after.load_state_dict(before.state_dict())
    assert (drawn(after, 1) == wanted).all()


@pytest.mark.parametrize("clusters", [np.arange(8).repeat(3), [-1] * 24])
def test_no_cluster_with_two_recordings(clusters):
    with pytest.raises(ConfigError, match="clusters.csv: no cluster.*fewer"):
        made(clusters)


def test_no_file_is_refused():
    with pytest.raises(ConfigError, match="set `clusters_csv`"):
        GivenClusters(None)
