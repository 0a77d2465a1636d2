"""Figures of clusters against scikit-learn and their definitions."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import (
    adjusted_rand_score,
    normalized_mutual_info_score,
    silhouette_samples,
    silhouette_score,
)

from speechbrain_ssl.clustering.choice import choose_k
from speechbrain_ssl.clustering.kmeans import spherical_kmeans
from speechbrain_ssl.clustering.quality import (
    against_speakers,
    agreement,
    cluster_sizes,
    silhouette,
)
from speechbrain_ssl.clustering.rows import ClusteringError
from speechbrain_ssl.data.draws import permutation


@pytest.mark.parametrize("clusters", [2, 8, 150])
@pytest.mark.parametrize("spread", [0.02, 0.5])
def test_silhouette_is_that_of_sklearn(blobs, clusters, spread):
    """Without a sample, though no pair is looked at; singletons included."""
    rows, _ = blobs(spread=spread)
    labels = spherical_kmeans(rows, clusters).assignments.numpy()
    expected = silhouette_score(
        rows.astype(np.float64), labels, metric="cosine"
    )
    for block in (None, 1000):
        found = silhouette(rows, labels, sample=None, block=block)
        assert found == pytest.approx(expected, abs=1e-5)
    # Names of clusters do not matter, nor do gaps between them.
    renamed = silhouette(rows, 1000 - 3 * labels, sample=None)
    assert renamed == pytest.approx(expected, abs=1e-5)


def test_silhouette_of_a_sample(blobs):
    """The rows are sampled, what they are compared with is not."""
    rows, _ = blobs(spread=0.4)
    labels = spherical_kmeans(rows, 30).assignments
    every = silhouette_samples(
        rows.astype(np.float64), labels.numpy(), metric="cosine"
    )
    chosen = permutation(len(rows), 7, "silhouette")[:100]
    found = silhouette(torch.from_numpy(rows), labels, sample=100, seed=7)
    assert found == pytest.approx(every[chosen].mean(), abs=1e-5)
    assert found == silhouette(rows, labels, sample=100, seed=7)
    assert found != silhouette(rows, labels, sample=100, seed=8)


def test_silhouette_where_it_is_not_defined(blobs):
    """One cluster, or as many as rows."""
    rows, _ = blobs(points=20)
    assert math.isnan(silhouette(rows, np.zeros(20, int)))
    assert math.isnan(silhouette(rows, np.arange(20)))
    # Equal rows in two clusters: neither is nearer.
    assert silhouette(np.ones((4, 2)), [0, 0, 1, 1]) == pytest.approx(
        0, abs=1e-3
    )


def test_cluster_sizes():
    """By hand, and equal clusters at the extreme of evenness."""
    found = cluster_sizes(torch.tensor([0] * 6 + [1] * 3 + [3]), clusters=6)
    assert (found["clusters"], found["empty"]) == (3, 3)
    assert found["singletons"] == 1
    assert [found[f"size_{n}"] for n in ("min", "median", "max")] == [1, 3, 6]
    assert found["size_mean"] == pytest.approx(10 / 3)
    entropy = -sum(p * math.log(p) for p in (0.6, 0.3, 0.1))
    assert found["effective"] == pytest.approx(math.exp(entropy))
    even = cluster_sizes(np.arange(40) % 8)
    assert even["effective"] == pytest.approx(8)
    assert even["empty"] == even["singletons"] == 0
    for labels, clusters in (([0, -1], None), ([0, 5], 5)):
        with pytest.raises(ClusteringError, match="numbered from 0"):
            cluster_sizes(labels, clusters)


def test_agreement_is_matched_by_key():
    """Order, names of clusters and strangers do not matter."""
    rng = np.random.default_rng(0)
    first = rng.integers(5, size=200)
    second = np.where(rng.random(200) < 0.7, first, rng.integers(5, size=200))
    keys = np.array([f"u{i}" for i in range(200)])
    order = rng.permutation(200)[:150]
    others = [*keys[order], "stranger"]
    found = agreement(keys, first, others, [*(90 - second[order]), 3])
    kept = np.sort(order)
    assert found == {
        "nmi": pytest.approx(
            normalized_mutual_info_score(first[kept], second[kept])
        ),
        "ari": pytest.approx(adjusted_rand_score(first[kept], second[kept])),
        "utterances": 150,
    }
    assert 0.1 < found["ari"] < 0.9
    with pytest.raises(ClusteringError, match="no utterance in common"):
        agreement(["a"], [0], ["b"], [0])
    with pytest.raises(ClusteringError, match="b has more than one label"):
        agreement(["a", "b", "b"], [0, 1, 1], ["a"], [0])
    with pytest.raises(ClusteringError, match="2 labels for 1 utt"):
        agreement(["a"], [0, 1], ["b"], [0])
    with pytest.raises(ClusteringError, match="whole numbers"):
        agreement(["a"], [0.5], ["b"], [0])


def test_against_speakers_is_marked_as_monitoring():
    """Purity by hand; names and numbers of speakers alike."""
    labels = [0, 0, 0, 1, 1, 2]
    names = ["x", "x", "y", "y", "y", "z"]
    found = against_speakers(labels, names)
    assert all(key.startswith("monitor_") for key in found)
    assert found["monitor_purity"] == pytest.approx(5 / 6)
    assert found["monitor_nmi"] == pytest.approx(
        normalized_mutual_info_score(names, labels)
    )
    assert found["monitor_ari"] == pytest.approx(
        adjusted_rand_score(names, labels)
    )
    numbers = torch.tensor([7, 7, 2, 2, 2, 5])
    assert against_speakers(labels, numbers) == pytest.approx(found)
    with pytest.raises(ClusteringError, match="6 labels for 5"):
        against_speakers(labels, names[:5])


def test_choose_k_finds_clear_groups(blobs):
    """Whatever the order of the candidates."""
    rows, _ = blobs(points=600, spread=0.1)
    found = choose_k(rows, [32, 4, 8, 16])
    assert found.clusters == 8
    assert [row["clusters"] for row in found.table] == [4, 8, 16, 32]
    inertia = [row["inertia"] for row in found.table]
    assert inertia == sorted(inertia, reverse=True)
    assert all(-1 <= row["silhouette"] <= 1 for row in found.table)
    assert found == choose_k(rows, [32, 4, 8, 16])


def test_choose_k_refuses(blobs):
    """Candidates without a figure."""
    rows, _ = blobs(points=30)
    for candidates in ([], [1, 4], [4, 30]):
        with pytest.raises(ClusteringError, match="at least 2 and less"):
            choose_k(rows, candidates)
