"""Clustering as a configuration declares it."""

import json

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from speechbrain_ssl.clustering import methods
from speechbrain_ssl.clustering.agglomerative import kmeans_then_merge
from speechbrain_ssl.clustering.kmeans import spherical_kmeans
from speechbrain_ssl.clustering.methods import KMeansClusters, MergedClusters
from speechbrain_ssl.clustering.rows import ClusteringError


@pytest.fixture(scope="module")
def rows():
    """Six bells of 20 rows on the sphere, and the bell of each."""
    draws = np.random.default_rng(0)
    centers = draws.normal(size=(6, 16))
    truth = np.repeat(np.arange(6), 20)
    return centers[truth] + 0.2 * draws.normal(size=(120, 16)), truth


def test_kmeans_is_spherical_kmeans(rows):
    labels, figures = KMeansClusters(6, iterations=9)(rows[0], seed=4)
    found = spherical_kmeans(
        rows[0], 6, 9, seed=4, init="k-means++", empty="reseed"
    )
    assert labels.dtype == np.int64
    assert np.array_equal(labels, found.assignments.numpy())
    assert figures == {"inertia": found.inertia[-1]}


def test_merged_is_kmeans_then_merge(rows):
    method = MergedClusters(30, 6, linkage="average", iterations=9)
    labels, figures = method(rows[0], seed=4)
    found = kmeans_then_merge(
        rows[0],
        30,
        6,
        "average",
        iterations=9,
        seed=4,
        init="k-means++",
        empty="reseed",
    )
    assert np.array_equal(labels, found.assignments.numpy())
    assert figures["inertia"] == found.kmeans.inertia[-1]


@pytest.mark.parametrize(
    "method", [KMeansClusters(6), KMeansClusters([3, 6, 12])]
)
def test_clear_clusters_are_found(rows, method):
    labels, _ = method(rows[0], seed=1)
    assert adjusted_rand_score(labels, rows[1]) == 1.0


def test_lengths_and_order_do_not_matter(rows):
    """Directions alone are clustered."""
    draws = np.random.default_rng(1)
    order = draws.permutation(120)
    scaled = (rows[0] * draws.uniform(0.1, 9, (120, 1)))[order]
    for method in (KMeansClusters(6), MergedClusters(20, 6)):
        first, _ = method(rows[0], seed=1)
        second, _ = method(scaled, seed=1)
        assert adjusted_rand_score(first[order], second) == 1.0


def test_a_chosen_number_leaves_its_table(rows):
    """Whole numbers and figures that JSON can hold."""
    _, figures = KMeansClusters([3, 6, 12])(rows[0], seed=1)
    assert [row["clusters"] for row in figures["candidates"]] == [3, 6, 12]
    best = max(figures["candidates"], key=lambda row: row["silhouette"])
    assert best["clusters"] == 6
    json.dumps(figures, allow_nan=False)


def test_the_number_is_chosen_in_one_process(rows, monkeypatch):
    monkeypatch.setattr(methods.distributed, "is_distributed", lambda: True)
    with pytest.raises(ClusteringError, match="without torchrun"):
        KMeansClusters([3, 6])(rows[0], seed=1)
    with pytest.raises(ClusteringError, match="--stop_after=embed"):
        KMeansClusters([3, 6]).check_alone()
    KMeansClusters(3).check_alone()
    MergedClusters(9, 3).check_alone()


@pytest.mark.parametrize(
    "method, message",
    [
        (KMeansClusters(121), "121 clusters cannot be made of 120"),
        (KMeansClusters([6, 500]), "500 clusters cannot be made of 120"),
        (KMeansClusters(0), "at least 1; it is 0"),
        (KMeansClusters([6, 120]), "below the 120 utterances; got 120"),
        (KMeansClusters([1, 6]), "above 1.*got 1"),
        (MergedClusters(121, 6), "121 clusters cannot be made of 120"),
        (MergedClusters(20, 30), "20 .*30 clusters|30 clusters.* of 20"),
        (MergedClusters(100, 6, limit_gib=1e-6), "GiB"),
    ],
)
def test_impossible_numbers_are_refused_without_rows(method, message):
    """Before hours of embedding; and again with the rows."""
    with pytest.raises(ClusteringError, match=message):
        method.check(120)


@pytest.mark.parametrize(
    "method, possible",
    [
        (KMeansClusters(120), [120]),
        (KMeansClusters([2, 119]), [2, 119]),
        (MergedClusters(120, 6), [6]),
    ],
)
def test_possible_numbers_pass(rows, method, possible):
    """And what has passed is what is made of the rows."""
    method.check(120)
    labels, _ = method(rows[0], seed=1)
    assert len(set(labels.tolist())) in possible


@pytest.mark.parametrize("fault", [np.nan, 0.0])
@pytest.mark.parametrize("method", [KMeansClusters(6), MergedClusters(20, 6)])
def test_a_row_without_direction_is_named(rows, method, fault):
    broken = rows[0].copy()
    broken[17] = fault
    names = [f"u{i}" for i in range(120)]
    with pytest.raises(ClusteringError, match=r"u17 \(row 17\)"):
        method(broken, seed=1, names=names)


def test_no_label_is_seen():
    assert KMeansClusters.labels_seen == MergedClusters.labels_seen == "none"
