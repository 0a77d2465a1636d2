"""Back-ends as a recipe uses them: training embeddings, then trials."""

import numpy as np
import pytest

from speechbrain_ssl.clustering.rows import ClusteringError
from speechbrain_ssl.embedding.rows import unit_rows
from speechbrain_ssl.errors import ConfigError, EmbeddingError
from speechbrain_ssl.verification.backends import NormalisedCosine, PLDABackend
from speechbrain_ssl.verification.metrics import eer
from speechbrain_ssl.verification.normalisation import (
    cohort_statistics,
    normalise_scores,
)
from speechbrain_ssl.verification.plda import PLDA
from speechbrain_ssl.verification.scoring import cosine_scores
from speechbrain_ssl.verification.trials import Trials


def draw(speakers, per=6, seed=0, size=16):
    """Speakers whose utterances differ more in two directions."""
    rng = np.random.default_rng(seed)
    number = np.repeat(np.arange(speakers), per)
    session = rng.normal(size=(len(number), size)) * 0.4
    session[:, :2] *= 3
    return rng.normal(size=(speakers, size))[number] + session + 1, number


def some_trials(number):
    left, right = np.triu_indices(len(number), 1)
    names = [f"{n}/{i}" for i, n in enumerate(number)]
    return Trials(number[left] == number[right], left, right, names)


def test_as_norm_is_the_sum_of_its_parts():
    rows, _ = draw(40)
    tests, number = draw(10, seed=1)
    trials = some_trials(number)
    backend = NormalisedCosine(top=25).fit(rows.astype(np.float32))
    mean = rows.astype(np.float32).astype(float).mean(axis=0)
    unit, cohort = unit_rows(tests, mean=mean), unit_rows(rows, mean=mean)
    expected = normalise_scores(
        cosine_scores(tests, trials, mean=mean),
        trials,
        *cohort_statistics(unit, cohort, 25),
    )
    np.testing.assert_allclose(
        backend.score(tests, trials), expected, atol=1e-4
    )


def test_names_tell_the_kind():
    names = [
        NormalisedCosine(kind, top).name
        for kind in "zts"
        for top in (None, 300)
    ]
    assert names == [
        "z_norm",
        "az_norm",
        "t_norm",
        "at_norm",
        "s_norm",
        "as_norm",
    ]


def test_pseudo_speakers_as_cohort():
    rows, number = draw(40)
    backend = NormalisedCosine(top=None, centroids=True)
    given = backend.fit(rows, np.where(number < 30, number, -1))
    assert given.cohort.shape == (30, 16)
    made = NormalisedCosine(top=None, centroids=True, clusters=12).fit(rows)
    assert made.cohort.shape[0] <= 12
    np.testing.assert_allclose(
        np.linalg.norm(made.cohort, axis=1), 1, rtol=1e-5
    )
    with pytest.raises(ConfigError, match="this back-end needs clusters"):
        NormalisedCosine(centroids=True).fit(rows)


def test_plda_on_clusters_that_nobody_labelled():
    rows, _ = draw(100, per=12)
    tests, number = draw(20, seed=1)
    trials = some_trials(number)
    found = PLDABackend(lda=14, clusters=100, seed=1).fit(rows)
    plda = eer(found.score(tests, trials), trials.labels)[0]
    mean = rows.mean(axis=0)
    cosine = eer(cosine_scores(tests, trials, mean=mean), trials.labels)[0]
    assert plda < 0.7 * cosine
    again = PLDABackend(lda=14, clusters=100, seed=1).fit(rows)
    np.testing.assert_array_equal(
        again.score(tests, trials), found.score(tests, trials)
    )


def test_clusters_of_the_wrong_size_are_left_out():
    rows, number = draw(30)
    # Speaker 0 becomes a cluster of 18, speakers 1 and 2 go; 3 to chips.
    clusters = number.copy()
    clusters[number < 3] = 0
    clusters[number == 3] = 100 + np.arange(6)
    kept = np.where(number > 3, number, -1)
    tests, of = draw(5, seed=1)
    trials = some_trials(of)
    ours = PLDABackend(lda=8, least=2, most=10).fit(rows, clusters)
    np.testing.assert_allclose(
        ours.score(tests, trials), PLDA(8).fit(rows, kept).score(tests, trials)
    )
    with pytest.raises(ConfigError, match="none of 33 clusters has from 50"):
        PLDABackend(least=50, most=60).fit(rows, clusters)


def test_degenerate_training_sets():
    rows, _ = draw(5)
    with pytest.raises(ConfigError, match="cohort of 1 has no"):
        NormalisedCosine(top=None, centroids=True).fit(rows, [0] * len(rows))
    with pytest.raises(ConfigError, match="top is 300: .* cohort, 30;"):
        NormalisedCosine().fit(rows)
    with pytest.raises(EmbeddingError, match="equals the mean"):
        NormalisedCosine(top=2).fit(np.ones((4, 3)))
    with pytest.raises(EmbeddingError, match="row 2 is not finite"):
        bad = rows.copy()
        bad[2] = np.nan
        PLDABackend(clusters=5).fit(bad)
    with pytest.raises(ConfigError, match="needs clusters"):
        PLDABackend().fit(rows)
    with pytest.raises(ClusteringError):
        PLDABackend(clusters=31).fit(rows)
    with pytest.raises(ConfigError, match="no score normalisation 'as'"):
        NormalisedCosine("as")
