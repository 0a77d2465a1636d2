"""Embeddings with known clusters."""

import numpy as np
import pytest


def _blobs(points=400, size=16, groups=8, spread=0.15, seed=0):
    rng = np.random.default_rng(seed)
    # Orthogonal directions are as far from each other as can be.
    centers = np.linalg.qr(rng.normal(size=(size, size)))[0][:groups]
    truth = rng.integers(groups, size=points)
    rows = centers[truth] + spread * rng.normal(size=(points, size))
    lengths = rng.uniform(0.1, 30, size=(points, 1))
    return (rows * lengths).astype(np.float32), truth


@pytest.fixture
def blobs():
    """A function for rows ``[points, size]`` of any length, and groups."""
    return _blobs
