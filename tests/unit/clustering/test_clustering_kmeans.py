"""Spherical k-means against a plain statement of it, and at the extremes."""

import json
import pathlib
import subprocess
import sys

import kmeans_ranks
import numpy as np
import pytest
import tiny
import torch
from sklearn.metrics import adjusted_rand_score
from torch.utils._python_dispatch import TorchDispatchMode

from speechbrain_ssl.clustering.kmeans import (
    centroids_of,
    nearest,
    spherical_kmeans,
)
from speechbrain_ssl.clustering.rows import (
    ClusteringError,
    Shards,
    unit_rows,
)


def plain(rows, centroids, iterations):
    """Lloyd's algorithm on the sphere, in float64, a row at a time."""
    rows = [r / np.sqrt((r**2).sum()) for r in rows.astype(np.float64)]
    centroids = [c / np.sqrt((c**2).sum()) for c in centroids.astype(float)]
    inertia = []

    def assign():
        labels, total = [], 0.0
        for row in rows:
            distances = [((row - c) ** 2).sum() for c in centroids]
            labels.append(int(np.argmin(distances)))
            total += min(distances)
        inertia.append(total)
        return labels

    labels = assign()
    for _ in range(iterations):
        for c in range(len(centroids)):
            members = [
                r for r, own in zip(rows, labels, strict=True) if own == c
            ]
            if members:
                mean = np.mean(members, axis=0)
                centroids[c] = mean / np.sqrt((mean**2).sum())
        labels = assign()
    return np.array(labels), np.array(centroids), inertia


@pytest.mark.parametrize("iterations", [0, 1, 3, 10])
def test_kmeans_is_the_plain_one(blobs, iterations):
    """Same beginning, same labels, centroids and inertia."""
    rows, _ = blobs(groups=6, spread=0.4)
    begin = rows[:9]
    found = spherical_kmeans(rows, 9, iterations, init=begin)
    labels, centroids, inertia = plain(rows, begin, iterations)
    assert found.assignments.dtype == torch.int64
    np.testing.assert_array_equal(found.assignments, labels)
    np.testing.assert_allclose(found.centroids, centroids, atol=1e-6)
    # Ours stops where nothing changes any more.
    assert len(found.inertia) <= iterations + 1
    padded = found.inertia + [found.inertia[-1]] * iterations
    np.testing.assert_allclose(padded[: iterations + 1], inertia, rtol=1e-5)
    np.testing.assert_array_equal(found.sizes, np.bincount(labels, minlength=9))


def test_kmeans_keeps_an_empty_centroid_as_the_plain_one():
    """The third centroid is nobody's nearest, and stays what it was."""
    rows = np.array([[1, 0, 0], [1, 0.1, 0], [0, 1, 0], [0.1, 1, 0]])
    begin = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 5.0]])
    found = spherical_kmeans(rows, 3, init=begin)
    labels, centroids, _ = plain(rows, begin, 10)
    np.testing.assert_array_equal(found.assignments, labels)
    np.testing.assert_allclose(found.centroids, centroids, atol=1e-6)
    assert found.sizes.tolist() == [2, 2, 0]
    assert found.centroids[2].tolist() == [0, 0, 1]


def test_kmeans_reseeds_an_empty_cluster_from_the_worst_row():
    """The outlier, third nearest to everything, gets the free centroid."""
    rows = np.array(
        [[1, 0, 0], [1, 0.1, 0], [0, 1, 0], [0.1, 1, 0], [0.5, 0, 0.8]]
    )
    begin = np.array([[1, 0, 0], [0, 1, 0], [0, 0, -1.0]])
    found = spherical_kmeans(rows, 3, init=begin, empty="reseed")
    assert found.assignments.tolist() == [0, 0, 1, 1, 2]
    kept = spherical_kmeans(rows, 3, init=begin)
    assert kept.sizes.tolist() == [3, 2, 0]
    assert found.inertia[-1] < kept.inertia[-1]


def test_kmeans_reseeds_until_a_free_centroid_is_of_use():
    """Also where the first row that was tried has not moved a label.

    The worst row at first is one of a pair whose own centroid is moved onto
    it by the same update: the pair stays, and the free centroid is free still.
    Of the other rows one is far from its centroid, then as before.
    """
    rows = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0.8, 0.6]])
    begin = np.array([[0.6, 0, -0.8], [0, 1, 0.1], [-1, -1, 0]])
    found = spherical_kmeans(rows, 3, init=begin, empty="reseed")
    assert sorted(found.sizes.tolist()) == [1, 2, 2]
    assert found.inertia[-1] < 1e-5


@pytest.mark.parametrize("init", ["random", "k-means++"])
@pytest.mark.parametrize("empty", ["keep", "reseed"])
def test_kmeans_inertia_never_rises(blobs, init, empty):
    """Whatever the beginning, and with far more clusters than groups."""
    for seed in range(5):
        rows, _ = blobs(spread=0.3, seed=seed)
        found = spherical_kmeans(rows, 60, 15, seed, init, empty)
        steps = np.diff(found.inertia)
        assert (steps <= 1e-6 * len(rows)).all()
        assert found.inertia[-1] < found.inertia[0]
        assert int(found.sizes.sum()) == len(rows)


def test_kmeans_finds_clear_groups(blobs):
    """k-means++ draws from every group; the rest is easy."""
    rows, truth = blobs(spread=0.05)
    found = spherical_kmeans(rows, 8, init="k-means++", empty="reseed")
    assert adjusted_rand_score(truth, found.assignments) == 1


def test_kmeans_ignores_lengths(blobs):
    """Directions are all that counts; up to a float's range."""
    rows, _ = blobs()
    scales = np.random.default_rng(1).choice([1e-30, 0.25, 1e30], len(rows))
    plain_rows = spherical_kmeans(rows, 8)
    scaled = spherical_kmeans(rows * scales[:, None].astype(np.float32), 8)
    assert torch.equal(plain_rows.assignments, scaled.assignments)
    torch.testing.assert_close(plain_rows.centroids, scaled.centroids)


def test_kmeans_permuted_rows_permute_the_assignments(blobs):
    """From the same centroids; the sums do not depend on the order."""
    rows, _ = blobs(spread=0.3)
    order = np.random.default_rng(1).permutation(len(rows))
    begin = rows[:20]
    first = spherical_kmeans(rows, 20, init=begin)
    second = spherical_kmeans(rows[order], 20, init=begin)
    assert torch.equal(first.assignments[order], second.assignments)
    assert torch.equal(first.centroids, second.centroids)


@pytest.mark.parametrize("block", [1, 80, 1000, 10**8])
def test_kmeans_block_size_does_not_matter(blobs, block):
    """Down to one row at a time."""
    rows, _ = blobs(spread=0.3)
    found = spherical_kmeans(rows, 20, block=block)
    whole = spherical_kmeans(rows, 20)
    assert torch.equal(found.assignments, whole.assignments)
    assert torch.equal(found.centroids, whole.centroids)


@pytest.mark.parametrize("init", ["random", "k-means++"])
def test_kmeans_seeds(blobs, init):
    """The same seed gives the same bits; another one another result."""
    rows, _ = blobs(spread=0.4)
    one, two, other = (
        spherical_kmeans(rows, 30, seed=s, init=init) for s in (3, 3, 4)
    )
    assert torch.equal(one.centroids, two.centroids)
    assert torch.equal(one.assignments, two.assignments)
    assert one.inertia == two.inertia
    assert not torch.equal(one.assignments, other.assignments)


def test_kmeans_more_iterations_are_a_continuation(blobs):
    """Stopping early is what a fixed number of updates would have given."""
    rows, _ = blobs(spread=0.3)
    few = spherical_kmeans(rows, 8, 200)
    many = spherical_kmeans(rows, 8, 400)
    assert len(few.inertia) < 200
    assert few.inertia == many.inertia
    assert torch.equal(few.centroids, many.centroids)


def test_kmeans_takes_types_and_does_not_change_its_input(blobs, tmp_path):
    """A tensor, an array, a read-only memory map, doubles and halves."""
    rows, _ = blobs(spread=0.05)
    np.save(tmp_path / "rows.npy", rows)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    tensor = torch.from_numpy(rows.copy()).requires_grad_()
    expected = spherical_kmeans(rows, 8)
    for other in (mapped, tensor, rows.astype(np.float64)):
        found = spherical_kmeans(other, 8)
        assert torch.equal(found.assignments, expected.assignments)
        assert not found.centroids.requires_grad
    half = spherical_kmeans(tensor.detach().half(), 8)
    assert half.centroids.dtype == torch.float32
    np.testing.assert_array_equal(tensor.detach(), rows)


def test_kmeans_as_many_clusters_as_rows(blobs):
    """Each row by itself, at no distance."""
    rows, _ = blobs(points=50)
    for init in ("random", "k-means++"):
        found = spherical_kmeans(rows, 50, init=init)
        assert sorted(found.assignments.tolist()) == list(range(50))
        assert found.inertia[-1] < 1e-5


def test_kmeans_one_cluster(blobs):
    """The centroid is the direction of the mean of the unit rows."""
    rows, _ = blobs()
    found = spherical_kmeans(rows, 1)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    mean = unit.mean(0)
    np.testing.assert_allclose(
        found.centroids[0], mean / np.linalg.norm(mean), atol=1e-6
    )
    assert found.sizes.tolist() == [len(rows)]


@pytest.mark.parametrize("init", ["random", "k-means++"])
@pytest.mark.parametrize("empty", ["keep", "reseed"])
def test_kmeans_duplicates(init, empty):
    """Three distinct rows cannot fill seven clusters; nothing breaks."""
    rows = np.repeat(np.eye(3), 20, axis=0)
    found = spherical_kmeans(rows, 7, init=init, empty=empty)
    assert found.centroids.isfinite().all()
    assert 1 <= int((found.sizes > 0).sum()) <= 3
    if init == "k-means++":
        assert int((found.sizes > 0).sum()) == 3
        assert found.inertia[-1] == 0


def test_kmeans_members_that_cancel_each_other():
    """A sum of zero has no direction: the centroid stays."""
    rows = np.array([[1.0, 0.0], [-1.0, 0.0]])
    found = spherical_kmeans(rows, 1, init=np.array([[0.0, 1.0]]))
    assert found.centroids.tolist() == [[0.0, 1.0]]
    assert found.inertia[-1] == pytest.approx(4)


def test_kmeans_refuses_what_it_cannot_cluster(blobs):
    """Each message says what is wrong, and where."""
    rows, _ = blobs(points=20)
    with pytest.raises(ClusteringError, match="21 clusters .* 20 utterances"):
        spherical_kmeans(rows, 21)
    with pytest.raises(ClusteringError, match="at least 1"):
        spherical_kmeans(rows, 0)
    with pytest.raises(ClusteringError, match=r"shape \(20,\)"):
        spherical_kmeans(rows[:, 0], 2)
    with pytest.raises(ClusteringError, match=r"\(2, 16\).*need \(3, 16\)"):
        spherical_kmeans(rows, 3, init=rows[:2])
    names = [f"a/{i}" for i in range(20)]
    with pytest.raises(ClusteringError, match="19 names"):
        spherical_kmeans(rows, 2, names=names[:19])
    for value, reason in ((0, "zero"), (np.nan, "NaN"), (np.inf, "infinity")):
        bad = rows.copy()
        bad[7] = value
        with pytest.raises(ClusteringError, match=f"row 7 is .*{reason}"):
            spherical_kmeans(bad, 2)
        with pytest.raises(ClusteringError, match=r"a/7 \(row 7\)"):
            spherical_kmeans(torch.from_numpy(bad), 2, names=names)
    for option in ({"init": "first"}, {"empty": "drop"}, {"iterations": -1}):
        with pytest.raises(ValueError, match=next(iter(option))):
            spherical_kmeans(rows, 2, **option)


def test_kmeans_helpers(blobs):
    """New rows against old centroids; centroids of given clusters."""
    rows, _ = blobs()
    found = spherical_kmeans(rows, 8, 200)
    unit = unit_rows(rows)
    labels, cosines = nearest(unit, found.centroids)
    assert torch.equal(labels, found.assignments)
    assert 2 * float((1 - cosines).sum()) == pytest.approx(found.inertia[-1])
    again = centroids_of(unit, labels, 8)
    torch.testing.assert_close(again, found.centroids)
    shards = Shards(unit)
    assert (shards.total, shards.first) == (400, 0)


@pytest.mark.slow
def test_kmeans_two_processes_are_one(tmp_path):
    """Shards of uneven size; the same bits in sums, sizes and centroids."""
    status, stderr = tiny.torchrun(kmeans_ranks.__file__, tmp_path)
    assert status == 0, stderr
    ranks = [torch.load(tmp_path / f"rank{r}.pt") for r in (0, 1)]
    rows = kmeans_ranks.rows()
    for name, options in kmeans_ranks.CASES.items():
        one = kmeans_ranks.cluster(rows, options)
        labels = torch.cat([found[name]["assignments"] for found in ranks])
        assert torch.equal(labels, one["assignments"]), name
        for found in ranks:
            two = found[name]
            assert torch.equal(two["sizes"], one["sizes"]), name
            assert torch.equal(two["centroids"], one["centroids"]), name
            if one["inertia"]:
                assert two["inertia"] == pytest.approx(one["inertia"])
    # A bad row of the second process stops both; only one knows which.
    assert "row 3 is not finite" in ranks[1]["refused"]
    assert "another process" in ranks[0]["refused"]
    assert "of different models" in ranks[0]["sizes"]
    assert ranks[0]["many"] == ranks[1]["many"]
    assert "301 clusters cannot be made of 300" in ranks[0]["many"]


@pytest.mark.slow
def test_kmeans_benchmark_runs():
    """The comparison with scikit-learn, at a toy size."""
    root = pathlib.Path(__file__).resolve().parents[3]
    script = root / "tests" / "benchmarks" / "kmeans_against_sklearn.py"
    command = [sys.executable, str(script), "--points=3000", "--clusters=30"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=True
    )
    (run,) = json.loads(done.stdout)["runs"]
    assert run["inertia_over_sklearn"] < 1.02


@pytest.fixture
def tf32():
    """Switch TF32 on, as SpeechBrain does."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    yield
    torch.backends.cuda.matmul.allow_tf32 = before


def test_products_are_exact_where_tf32_is_on(tf32):
    """Every product, of seeding and of distances; the setting stays."""
    seen = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if function._schema.name in ("aten::mm", "aten::mv"):
                seen.append(torch.backends.cuda.matmul.allow_tf32)
            return function(*args, **(kwargs or {}))

    with Watch():
        spherical_kmeans(torch.randn(60, 5), 6, init="k-means++")
    assert len(seen) > 6 and not any(seen)
    assert torch.backends.cuda.matmul.allow_tf32
