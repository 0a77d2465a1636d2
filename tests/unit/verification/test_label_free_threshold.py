"""The threshold without labels against its definition, and its rise."""

import numpy as np
import pytest

from speechbrain_ssl.errors import EmbeddingError
from speechbrain_ssl.verification.label_free_threshold import (
    label_free_threshold,
    raise_for_many,
)


def halves(utterances=60, size=16, spread=0.3, seed=0):
    """Halves that scatter around a point for each utterance."""
    rng = np.random.default_rng(seed)
    center = rng.normal(size=(utterances, 1, size)) + 0.4
    noise = rng.normal(size=(utterances, 2, size))
    return (center + spread * noise).astype(np.float32)


def cosine(a, b):
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


def scores(rows):
    """Scores of one utterance's halves, and of two utterances, one by one."""
    same = [cosine(*pair) for pair in rows]
    files = [sum(half / np.linalg.norm(half) for half in pair) for pair in rows]
    two = [cosine(a, b) for i, a in enumerate(files) for b in files[:i]]
    return same, two


def test_as_defined():
    """The middle between two medians, of raw cosines."""
    rows = halves()
    same, two = scores(rows)
    found = label_free_threshold(rows)
    wanted = (np.median(same) + np.median(two)) / 2
    assert found["label_free_threshold"] == pytest.approx(wanted, abs=1e-6)
    assert found["label_free_median"] == pytest.approx(np.median(two), abs=1e-6)
    above = np.mean(np.array(two) > found["label_free_decile"])
    assert above == pytest.approx(0.1, abs=1e-3)
    assert np.median(two) < found["label_free_threshold"] < np.median(same)
    # Not centred: a shift of all embeddings moves it.
    moved = label_free_threshold(rows + 1)["label_free_threshold"]
    assert moved > found["label_free_threshold"] + 0.1


def test_lengths_halves_and_order_do_not_matter():
    rows = halves()
    wanted = label_free_threshold(rows)["label_free_threshold"]
    scale = np.random.default_rng(1).uniform(0.1, 9, size=(len(rows), 2, 1))
    for other in (rows * scale, rows[:, ::-1], rows[::-1]):
        found = label_free_threshold(other)["label_free_threshold"]
        assert found == pytest.approx(wanted, abs=1e-5)


def test_an_embedding_without_direction():
    rows = halves()
    rows[3, 1] = 0
    with pytest.raises(EmbeddingError, match="row 3 is zero"):
        label_free_threshold(rows)


@pytest.mark.parametrize("center, spread", [(0.0, 0.2), (0.9, 0.5)])
def test_raised_for_many(center, spread):
    """The highest of independent scores exceeds it as often as one score."""
    rng = np.random.default_rng(0)
    drawn = np.tanh(rng.normal(center, spread, size=400_000))
    median, decile, once = np.quantile(drawn, [0.5, 0.9, 0.8])
    for count in (1, 2, 20, 200):
        raised = raise_for_many(once, median, decile, count)
        above = drawn[: 400_000 // count * count].reshape(-1, count) > raised
        rate = above.any(axis=1).mean()
        # Three standard deviations of the share.
        assert rate == pytest.approx(0.2, abs=1.2 * (count / 400_000) ** 0.5)
        assert once <= raised < 1


def test_scores_that_are_all_equal_raise_nothing():
    assert raise_for_many(0.3, 1.0, 1.0, 50) == 0.3
    assert raise_for_many(0.3, 0.5, 0.5, 50) == 0.3
