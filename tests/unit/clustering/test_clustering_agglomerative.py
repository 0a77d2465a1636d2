"""Merging of centroids against scikit-learn, and views against cosines."""

import numpy as np
import pytest
import torch
from sklearn.cluster import AgglomerativeClustering
from sklearn.metrics import adjusted_rand_score

from speechbrain_ssl.clustering import agglomerative
from speechbrain_ssl.clustering.agglomerative import (
    check_memory,
    kmeans_then_merge,
    merge_by_scores,
    merge_centroids,
    merging_bytes,
)
from speechbrain_ssl.clustering.kmeans import spherical_kmeans
from speechbrain_ssl.clustering.rows import ClusteringError
from speechbrain_ssl.clustering.views import join_views


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


@pytest.mark.parametrize(
    "linkage, metric", [("ward", "euclidean"), ("average", "cosine")]
)
def test_merging_is_that_of_sklearn(blobs, linkage, metric):
    """Run directly, on unit rows."""
    rows, _ = blobs(points=120, spread=0.4)
    direct = AgglomerativeClustering(
        n_clusters=15, linkage=linkage, metric=metric
    ).fit_predict(unit(rows.astype(np.float64)))
    found = merge_centroids(rows, 15, linkage)
    assert found.dtype == torch.int64
    assert sorted(set(found.tolist())) == list(range(15))
    assert adjusted_rand_score(direct, found) == 1


@pytest.mark.parametrize("linkage", ["ward", "average"])
def test_merging_follows_the_parents(blobs, linkage):
    """A row goes where its centroid goes; the groups are found again."""
    rows, truth = blobs(spread=0.1)
    found = kmeans_then_merge(rows, 40, 8, linkage, init="k-means++", seed=2)
    labels, fine = found.assignments, found.kmeans.assignments
    assert torch.equal(labels, found.parents[fine])
    assert torch.equal(found.sizes, torch.bincount(labels, minlength=8))
    assert adjusted_rand_score(truth, labels) == 1
    for c in range(8):
        mean = unit(rows)[labels.numpy() == c].mean(0)
        np.testing.assert_allclose(found.centroids[c], unit(mean), atol=1e-5)


def test_merging_leaves_empty_centroids_out(blobs):
    """An empty one would become a cluster of nobody."""
    rows, _ = blobs(points=60, spread=0.02)
    begin = np.concatenate([rows[:20], -unit(rows.mean(0, keepdims=True))])
    found = kmeans_then_merge(rows, 21, 4, init=begin)
    empty = found.kmeans.sizes == 0
    assert empty[20]
    assert (found.parents[empty] == -1).all()
    assert (found.sizes > 0).all()
    assert (found.assignments >= 0).all()


def test_merging_at_the_extremes(blobs):
    """Nothing to merge, everything to merge, and a single centroid."""
    rows, _ = blobs(points=12)
    assert sorted(merge_centroids(rows, 12).tolist()) == list(range(12))
    assert set(merge_centroids(rows, 1).tolist()) == {0}
    assert merge_centroids(rows[:1], 1).tolist() == [0]


def test_merging_refuses(blobs):
    """Too much memory, too many clusters, a direction that is none."""
    rows, _ = blobs(points=30)
    assert merging_bytes(50_000) == 8 * 50_000 * 49_999
    check_memory(50_000, limit_gib=19)
    with pytest.raises(ClusteringError, match="50000 .* 18.6 GiB.*46[0-9]+"):
        check_memory(50_000, limit_gib=16)
    # Before the k-means, which is the longer part.
    with pytest.raises(ClusteringError, match="limit of 0.001 GiB"):
        kmeans_then_merge(rows, 2000, 10, limit_gib=0.001)
    with pytest.raises(ClusteringError, match="10 centroids .* 20 clusters"):
        kmeans_then_merge(rows, 10, 20)
    with pytest.raises(ClusteringError, match="30 centroids .* 31"):
        merge_centroids(rows, 31)
    with pytest.raises(ValueError, match="linkage"):
        merge_centroids(rows, 3, "single")
    rows[4] = 0
    with pytest.raises(ClusteringError, match="row 4"):
        merge_centroids(rows, 3)
    with pytest.raises(ClusteringError, match="u4"):
        kmeans_then_merge(rows, 9, 3, names=[f"u{i}" for i in range(30)])


# -- merging by scores, down to a threshold --------------------------------------


def average_linkage(scores, threshold):
    """Merge by a plain loop; return the groups and the scores of all merges."""
    groups, merges, cut = [[i] for i in range(len(scores))], [], None
    while len(groups) > 1:
        best, pair = -np.inf, None
        for a in range(len(groups)):
            for b in range(a):
                mean = np.mean(
                    [scores[i, j] for i in groups[a] for j in groups[b]]
                )
                if mean > best:
                    best, pair = mean, (a, b)
        if cut is None and best < threshold:
            cut = [list(group) for group in groups]
        merges.append(best)
        a, b = pair
        groups[b] += groups.pop(a)
    return groups if cut is None else cut, merges


@pytest.mark.parametrize("threshold", [-99.0, -3.0, 0.0, 2.0, 99.0])
@pytest.mark.parametrize("block", [1, 7, 512])
def test_merging_by_scores_is_a_loop(monkeypatch, threshold, block):
    """With scores of either sign, and whatever is computed at a time."""
    monkeypatch.setattr(agglomerative, "_BLOCK", block)
    draws = np.random.default_rng(0)
    rows = draws.normal(size=(18, 3)) * 2
    scores = rows @ rows.T - 1
    wanted, wanted_merges = average_linkage(scores, threshold)
    labels, merges = merge_by_scores(
        lambda first, last: scores[first:last], 18, threshold
    )
    found = {tuple(np.flatnonzero(labels == c)) for c in set(labels.tolist())}
    assert found == {tuple(sorted(group)) for group in wanted}
    assert sorted(set(labels.tolist())) == list(range(len(wanted)))
    np.testing.assert_allclose(merges, wanted_merges, rtol=1e-9, atol=1e-9)


def test_merging_by_scores_of_one_point_and_of_too_many():
    labels, merges = merge_by_scores(None, 1, 0.0)
    assert (labels.tolist(), merges.tolist()) == ([0], [])
    with pytest.raises(ClusteringError, match="limit of 0.001 GiB"):
        merge_by_scores(None, 2000, 0.0, limit_gib=0.001)


def test_joined_views_have_the_mean_of_the_cosines(blobs):
    """Whatever the lengths and the sizes."""
    voice, _ = blobs(points=30, size=16, seed=1)
    face, _ = blobs(points=30, size=9, seed=2)
    joined = join_views({"voice": voice, "face": 100 * face}).double()
    cosines = [unit(v) @ unit(v).T for v in (voice, face)]
    assert joined.shape == (30, 25)
    np.testing.assert_allclose(joined @ joined.T, sum(cosines) / 2, atol=1e-6)


def test_views_together_see_what_neither_sees():
    """Two voices times two faces are four people."""
    rng = np.random.default_rng(0)
    who = rng.integers(4, size=200)
    noise = 0.05 * rng.normal(size=(2, 200, 6))
    voice = np.eye(6)[who // 2] + noise[0]
    face = np.eye(6)[who % 2] + noise[1]
    joined = join_views({"voice": voice, "face": face})
    found = spherical_kmeans(joined, 4, init="k-means++").assignments
    assert adjusted_rand_score(who, found) == 1
    alone = spherical_kmeans(voice, 4, init="k-means++").assignments
    assert adjusted_rand_score(who, alone) < 0.7


def test_views_refuse(blobs):
    """The view and the utterance at fault are named."""
    voice, _ = blobs(points=10)
    face = voice.copy()
    face[3] = 0
    names = [f"a/{i}" for i in range(10)]
    with pytest.raises(ClusteringError, match=r"view 'face'.*a/3 \(row 3\)"):
        join_views({"voice": voice, "face": face}, names=names)
    with pytest.raises(ClusteringError, match="different utterances"):
        join_views({"voice": voice, "face": face[:9]})
    with pytest.raises(ClusteringError, match="no view"):
        join_views({})
