"""Grouping by speaker, the number known or not."""

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score

from speechbrain_ssl.clustering import speakers
from speechbrain_ssl.clustering.speakers import (
    candidates,
    find_speakers,
    half_whiten,
    unclustered,
)
from speechbrain_ssl.errors import ConfigError


def mixture(number, seed=0):
    """Rows of ``number`` voices, 3 to 20 of each; and their voices."""
    draw = np.random.default_rng(seed)
    truth = np.repeat(np.arange(number), draw.integers(3, 21, number))
    centres = draw.normal(size=(number, 64))
    return centres[truth] + 0.5 * draw.normal(size=(len(truth), 64)), truth


@pytest.mark.parametrize("number", [5, 20, 60])
def test_the_number_is_found(number):
    rows, truth = mixture(number)
    labels = find_speakers(rows)
    assert abs(labels.max() + 1 - number) <= 0.1 * number
    assert adjusted_rand_score(truth, labels) > 0.9
    given = find_speakers(rows, number)
    assert adjusted_rand_score(truth, given) > 0.99
    assert sorted(set(given)) == list(range(number))


def test_one_dominant_direction_does_not_hide_the_speakers():
    """As that of the sex of a voice: cosines alone say two speakers."""
    rows, truth = mixture(12)
    rows[:, 0] += np.where(truth % 2, 12.0, -12.0)
    labels = find_speakers(rows)
    assert abs(labels.max() + 1 - 12) <= 2
    assert adjusted_rand_score(truth, labels) > 0.9


def test_a_silhouette_that_chance_explains_does_not_count(monkeypatch):
    """It is high for too many groups of few directions."""
    rng = np.random.default_rng(1)
    truth = np.repeat(np.arange(24), rng.integers(3, 13, 24))
    centres = rng.normal(size=(24, 16))
    centres[:, 0] += np.where(np.arange(24) % 2, 2.5, -2.5)
    rows = centres[truth] + 0.7 * rng.normal(size=(len(truth), 16))
    assert abs(find_speakers(rows).max() + 1 - 24) <= 2
    monkeypatch.setattr(speakers, "_CHANCE", 0)
    assert find_speakers(rows).max() + 1 > 30


def test_rows_without_clusters_vary_as_others():
    rows, _ = mixture(40)
    points = half_whiten(torch.from_numpy(rows).float())
    chance = unclustered(points)
    assert torch.allclose(
        chance.square().mean(dim=0), points.square().mean(dim=0), rtol=0.5
    )
    # A direction has no sign.
    assert torch.equal(unclustered(-points), chance)
    found = chance @ chance.T - torch.eye(len(chance))
    assert (
        found.max() < 0.6 < (points @ points.T - torch.eye(len(points))).max()
    )


def test_half_whitening_equals_its_equation():
    rows, _ = mixture(6)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    left, scales, axes = np.linalg.svd(rows - rows.mean(axis=0))
    number = len(scales)
    last = min(len(rows) // 2, number) - 1
    roots = np.sqrt(np.maximum(scales, scales[last]))
    expected = left[:, :number] * (scales / roots)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    found = half_whiten(torch.from_numpy(rows)).numpy()
    assert np.allclose(found @ found.T, expected @ expected.T)
    # A rotation of the space changes nothing.
    turn = np.linalg.qr(np.random.default_rng(2).normal(size=(64, 64)))[0]
    turned = half_whiten(torch.from_numpy(rows @ turn)).numpy()
    assert np.allclose(turned @ turned.T, found @ found.T)


def test_the_order_of_files_does_not_matter():
    rows, _ = mixture(8)
    order = np.random.default_rng(1).permutation(len(rows))
    there = find_speakers(rows[order])
    assert adjusted_rand_score(find_speakers(rows)[order], there) == 1


def test_many_files_go_through_kmeans(monkeypatch):
    monkeypatch.setattr(speakers, "_ALL_PAIRS", 80)
    monkeypatch.setattr(speakers, "_CENTROIDS", 60)
    rows, truth = mixture(10, 3)
    assert len(rows) > 80
    for number in (None, 10):
        labels = find_speakers(rows, number)
        assert len(labels) == len(rows)
        assert adjusted_rand_score(truth, labels) > 0.9


def test_identical_files_are_one_speaker():
    assert find_speakers(np.ones((6, 4))).tolist() == [0] * 6


def test_few_files():
    assert find_speakers(np.eye(3), 1).tolist() == [0, 0, 0]
    assert sorted(find_speakers(np.eye(3), 3)) == [0, 1, 2]
    with pytest.raises(ConfigError, match="cannot tell the number"):
        find_speakers(np.eye(3))
    with pytest.raises(ConfigError, match="number of usable files is 3"):
        find_speakers(np.eye(3), 4)


def test_candidates_end_at_half_of_the_files():
    for count in (4, 5, 10, 1000):
        found = candidates(count)
        assert found == sorted(set(found)) and found[0] == 2
        assert found[-1] <= count // 2
        assert count // 2 - found[-1] <= 0.1 * count
