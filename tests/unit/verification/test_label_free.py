"""Label-free figures against their definitions and at the extremes."""

import math

import numpy as np
import pytest
import scipy.linalg

from speechbrain_ssl.verification.label_free import (
    label_free_scores,
    lidar,
    pseudo_eer,
    rank_me,
)


def crops(utterances=60, count=4, size=12, spread=0.5, seed=0):
    """Crops that scatter around a point for each utterance."""
    rng = np.random.default_rng(seed)
    center = rng.normal(size=(utterances, 1, size)) * np.logspace(0, -1, size)
    noise = rng.normal(size=(utterances, count, size))
    return (center + spread * noise + 0.3).astype(np.float32)


def entropy_rank(values):
    total = sum(values)
    shares = [v / total for v in values if v > 0]
    return math.exp(-sum(p * math.log(p) for p in shares))


def test_rank_me_as_defined():
    """Garrido et al., equation 1."""
    rows = crops().reshape(-1, 12).astype(np.float64)
    singular = np.sqrt(np.linalg.eigvalsh(rows.T @ rows))
    assert rank_me(rows) == pytest.approx(entropy_rank(singular), rel=1e-6)
    # Three equal singular values, whatever the other dimensions.
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(20, 20)))[0]
    assert rank_me(basis[:, :3] @ basis[:3]) == pytest.approx(3)


def test_lidar_as_defined():
    """Thilak et al.: each scatter matrix summed up one outer product at a time.

    The eigenvalues of S_w^(-1/2) S_b S_w^(-1/2) are those of the generalised
    problem S_b v = lambda S_w v, which scipy solves.
    """
    rows = crops().astype(np.float64)
    n, m, size = rows.shape
    grand = np.mean([np.mean(u, 0) for u in rows], 0)
    between, within = np.zeros((size, size)), np.zeros((size, size))
    for utterance in rows:
        mean = np.mean(utterance, 0)
        between += np.outer(mean - grand, mean - grand) / (n - 1)
        for crop in utterance:
            within += np.outer(crop - mean, crop - mean) / (n * (m - 1))
    within += 1e-4 * np.trace(within) / size * np.eye(size)
    values = scipy.linalg.eigh(between, within, eigvals_only=True)
    assert lidar(rows) == pytest.approx(entropy_rank(values), rel=1e-6)


def test_lidar_counts_what_tells_utterances_apart():
    """Dimensions that move with the augmentation alone do not count."""
    rng = np.random.default_rng(0)
    center = np.zeros((400, 1, 20))
    center[..., :5] = rng.normal(size=(400, 1, 5))
    noise = np.concatenate(
        [
            0.01 * rng.normal(size=(400, 4, 5)),
            3 * rng.normal(size=(400, 4, 15)),
        ],
        axis=2,
    )
    assert lidar(center + noise) == pytest.approx(5, abs=0.6)
    assert rank_me((center + noise).reshape(-1, 20)) > 14


def test_pseudo_eer_as_defined():
    """Every pair scored on its own, every threshold tried."""
    both = crops(25, 2, spread=1.0)
    mean = both.reshape(-1, 12).mean(0)
    targets, others = [], []
    for i, (left, _) in enumerate(both):
        for j, (_, right) in enumerate(both):
            a, b = left - mean, right - mean
            score = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
            (targets if i == j else others).append(score)
    gaps = []
    for threshold in np.sort(targets + others):
        miss = np.mean(np.array(targets) < threshold)
        alarm = np.mean(np.array(others) >= threshold)
        gaps.append((abs(miss - alarm), (miss + alarm) / 2))
    found = pseudo_eer(both[:, 0], both[:, 1])
    # Interpolated, it lies within a step of the nearest point.
    assert found == pytest.approx(100 * min(gaps)[1], abs=100 / 25)
    assert 5 < found < 45


def test_perfect_embeddings():
    """Utterances on axes of their own: no error, full rank."""
    rows = np.repeat(np.eye(16)[:, None], 4, 1)
    scores = label_free_scores(rows)
    assert scores["pseudo_eer"] == 0
    assert scores["rankme"] == pytest.approx(16)
    assert scores["mean_cosine"] == pytest.approx(0, abs=1e-9)
    # Centred, sixteen points span fifteen dimensions.
    assert scores["lidar"] == pytest.approx(15, rel=0.01)


@pytest.mark.parametrize("count", [2, 4, 6])
@pytest.mark.parametrize("value", [1.0, 0.1, 1e-6, 0.0])
def test_collapsed_embeddings(value, count):
    """All the same: every figure has to say so, none may be NaN."""
    row = value * np.random.default_rng(0).normal(size=32)
    rows = np.tile(row.astype(np.float32), (50, count, 1))
    scores = label_free_scores(rows)
    assert scores["lidar"] == pytest.approx(1, abs=0.5)
    assert scores["rankme"] == pytest.approx(1, abs=0.01)
    assert scores["mean_cosine"] == pytest.approx(float(value > 0), abs=1e-4)
    assert scores["pseudo_eer"] >= 40


def test_random_embeddings():
    """Crops that have nothing to do with one another: chance, high rank."""
    rows = np.random.default_rng(0).normal(size=(200, 4, 32))
    scores = label_free_scores(rows)
    assert scores["pseudo_eer"] == pytest.approx(50, abs=8)
    assert scores["mean_cosine"] == pytest.approx(0, abs=0.02)
    assert scores["rankme"] > 28
    # Thus a high rank proves nothing; only the pseudo EER saw it.
    assert scores["lidar"] > 20


def test_halves_are_compared_with_halves():
    """The first crop of each half: two of one half would share its content."""
    rows = np.random.default_rng(0).normal(size=(50, 4, 16))
    rows[:, 2] = rows[:, 0]
    assert label_free_scores(rows)["pseudo_eer"] == 0
    rows = np.random.default_rng(0).normal(size=(50, 4, 16))
    rows[:, 1] = rows[:, 0]
    assert label_free_scores(rows)["pseudo_eer"] > 30


def test_better_embeddings_have_better_figures():
    """The order they give is the order of the truth."""
    figures = [
        label_free_scores(crops(200, 4, spread=s)) for s in (0.1, 0.5, 2.0)
    ]
    errors = [f["pseudo_eer"] for f in figures]
    assert errors[0] < errors[1] < errors[2]
