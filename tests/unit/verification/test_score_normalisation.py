"""Score normalisation against loops over trials and cohort."""

import statistics
import tracemalloc

import numpy as np
import pytest

from speechbrain_ssl.embedding.rows import unit_rows
from speechbrain_ssl.errors import ConfigError, EmbeddingError
from speechbrain_ssl.verification.normalisation import (
    KINDS,
    cohort_centroids,
    cohort_statistics,
    normalise_scores,
)
from speechbrain_ssl.verification.scoring import product_scores
from speechbrain_ssl.verification.trials import Trials


def some_rows(count, size=8, seed=0):
    return unit_rows(np.random.default_rng(seed).normal(size=(count, size)))


def some_trials(utterances=12, count=40, seed=3):
    left, right = np.random.default_rng(seed).integers(
        utterances, size=(2, count)
    )
    names = [f"s{u % 3}/{u}" for u in range(utterances)]
    return Trials(left % 3 == right % 3, left, right, names)


def loop(rows, cohort, trials, kind, top):
    """Trial by trial, cohort member by cohort member."""

    def relative(score, row):
        against = sorted(
            (sum(float(a) * float(b) for a, b in zip(row, c, strict=True)))
            for c in cohort
        )
        if top is not None:
            against = against[-top:]
        return (score - statistics.mean(against)) / statistics.stdev(against)

    found = []
    for a, b in zip(trials.left, trials.right, strict=True):
        score = sum(
            float(x) * float(y) for x, y in zip(rows[a], rows[b], strict=True)
        )
        sides = {
            "z": [relative(score, rows[a])],
            "t": [relative(score, rows[b])],
        }
        sides["s"] = sides["z"] + sides["t"]
        found.append(statistics.mean(sides[kind]))
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("top", [None, 2, 7, 30])
def test_against_loops(kind, top):
    rows, cohort, trials = some_rows(12), some_rows(30, seed=1), some_trials()
    mean, deviation = cohort_statistics(rows, cohort, top)
    scores = product_scores(rows, trials)
    found = normalise_scores(scores, trials, mean, deviation, kind)
    expected = loop(rows, cohort, trials, kind, top)
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("block", [1, 500, 2**20])
def test_blocks_do_not_matter(block):
    rows, cohort = some_rows(25), some_rows(40, seed=1)
    found = cohort_statistics(rows, cohort, 5, block=block)
    whole = cohort_statistics(rows, cohort, 5)
    np.testing.assert_allclose(found, whole, rtol=1e-5)


def test_the_moments_are_those_of_the_scores():
    # Without `top` no score is made; with all of them as `top` - 1 all but one.
    rows, cohort = some_rows(25), some_rows(4000, seed=1)
    moments = cohort_statistics(rows, cohort)
    nearly_all = cohort_statistics(rows, cohort, 3999)
    np.testing.assert_allclose(moments, nearly_all, atol=1e-3)
    scores = rows.astype(np.float64) @ cohort.T.astype(np.float64)
    np.testing.assert_allclose(moments[0], scores.mean(1), atol=1e-9)
    np.testing.assert_allclose(moments[1], scores.std(1, ddof=1), rtol=1e-6)


def test_order_of_the_cohort_and_scale_of_its_scores_do_not_matter():
    rows, cohort, trials = some_rows(12), some_rows(30, seed=1), some_trials()
    order = np.random.default_rng(5).permutation(30)
    for top in (None, 7):
        statistics_ = cohort_statistics(rows, cohort, top)
        scores = normalise_scores(
            product_scores(rows, trials), trials, *statistics_
        )
        other = cohort_statistics(rows, cohort[order], top)
        np.testing.assert_allclose(other, statistics_, rtol=1e-5)
        # Scores of another unit: rows twice as long.
        other = normalise_scores(
            product_scores(2 * rows, trials),
            trials,
            *cohort_statistics(2 * rows, 2 * cohort, top),
        )
        np.testing.assert_allclose(other, scores, rtol=1e-4)


def test_swapped_sides():
    rows, cohort, trials = some_rows(12), some_rows(30, seed=1), some_trials()
    swapped = Trials(trials.labels, trials.right, trials.left, trials.names)
    found = cohort_statistics(rows, cohort, 7)
    scores = product_scores(rows, trials)
    s = normalise_scores(scores, trials, *found)
    np.testing.assert_allclose(normalise_scores(scores, swapped, *found), s)
    z = normalise_scores(scores, trials, *found, "z")
    np.testing.assert_array_equal(
        normalise_scores(scores, swapped, *found, "t"), z
    )


def test_it_repairs_utterances_that_are_alike_to_everybody():
    """What it is for: an offset of the scores of some utterances goes."""
    rng = np.random.default_rng(0)
    rows, cohort = some_rows(60, 16), some_rows(500, 16, seed=1)
    # A direction that all share, in each to another degree.
    shared = np.ones((1, 16)) / 4
    bent = unit_rows(rows + rng.uniform(0, 2, size=(60, 1)) * shared)
    cohort = unit_rows(cohort + shared)
    left, right = np.triu_indices(60, 1)
    trials = Trials(left < 30, left, right, [str(i) for i in range(60)])
    raw = product_scores(bent, trials)
    normed = normalise_scores(raw, trials, *cohort_statistics(bent, cohort))
    plain = product_scores(rows, trials)
    before = np.corrcoef(raw, plain)[0, 1]
    assert np.corrcoef(normed, plain)[0, 1] > before + 0.1


def test_memory_is_bounded_by_the_block():
    rows, cohort = some_rows(2000), some_rows(2000, seed=1)
    tracemalloc.start()
    cohort_statistics(rows, cohort, 50, block=2**20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # All scores at once would take 16 MB.
    assert peak < 3 * 2**20


@pytest.mark.parametrize("size", [0, 1])
def test_a_cohort_of_one(size):
    for top in (None, 2):
        with pytest.raises(ConfigError, match=f"cohort of {size} has no"):
            cohort_statistics(some_rows(3), some_rows(5)[:size], top)


@pytest.mark.parametrize("top", [0, 1, 31])
def test_a_top_that_cannot_be(top):
    with pytest.raises(ConfigError, match=f"top is {top}: .* cohort, 30;"):
        cohort_statistics(some_rows(3), some_rows(30), top)


@pytest.mark.parametrize("top", [None, 5])
def test_an_utterance_without_deviation(top):
    cohort = np.repeat(some_rows(1), 10, axis=0)
    with pytest.raises(EmbeddingError, match="'b/1' has the same score.*1 of"):
        cohort_statistics(np.array([[0.0] * 8]), cohort, top, names=["b/1"])
    with pytest.raises(EmbeddingError, match="row 0 has the same score.*3 of"):
        cohort_statistics(some_rows(3, seed=2), cohort, top)


def test_numbers_that_are_not_finite_and_shapes_that_do_not_fit():
    rows, cohort = some_rows(3), some_rows(30, seed=1)
    for which in range(2):
        tables = [rows.copy(), cohort.copy()]
        tables[which][1, 2] = np.nan
        name = ("utterances", "cohort")[which]
        with pytest.raises(EmbeddingError, match=f"of the {name} hold NaN"):
            cohort_statistics(*tables)
    with pytest.raises(EmbeddingError, match=r"\(3, 8\) and \(30, 4\)"):
        cohort_statistics(rows, cohort[:, :4])


def test_an_unknown_kind():
    with pytest.raises(ConfigError, match="no score normalisation 'as'"):
        normalise_scores([0.0], some_trials(), None, None, "as")


def test_centroids_against_a_loop():
    rows = some_rows(40)
    clusters = np.random.default_rng(2).integers(-1, 6, size=40)
    expected = []
    for cluster in sorted(set(clusters.tolist()) - {-1}):
        total = sum(
            row.astype(float)
            for row, c in zip(rows, clusters, strict=True)
            if c == cluster
        )
        expected.append(total / np.sqrt((total**2).sum()))
    found = cohort_centroids(rows, clusters)
    assert found.dtype == rows.dtype
    np.testing.assert_allclose(found, expected, atol=1e-6)
    # How clusters are numbered and utterances ordered does not matter.
    order = np.random.default_rng(3).permutation(40)
    other = cohort_centroids(rows[order], 10 * clusters[order] + 9)
    np.testing.assert_allclose(other, found, atol=1e-6)


def test_centroids_that_do_not_exist():
    rows = some_rows(4)
    with pytest.raises(
        ConfigError, match=r"4 embeddings but clusters of shape \(3,"
    ):
        cohort_centroids(rows, [0, 1, 2])
    with pytest.raises(ConfigError, match="no utterance has a cluster"):
        cohort_centroids(rows, [-1] * 4)
    with pytest.raises(EmbeddingError, match="opposite directions"):
        cohort_centroids(np.array([[1.0, 0], [-1, 0]]), [0, 0])
