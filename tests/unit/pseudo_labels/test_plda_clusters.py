"""Clusters by PLDA scores against plain loops, and what is refused."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score

from speechbrain_ssl.clustering.kmeans import spherical_kmeans
from speechbrain_ssl.clustering.rows import ClusteringError
from speechbrain_ssl.errors import ConfigError, EmbeddingError
from speechbrain_ssl.pseudo_labels import plda_clusters
from speechbrain_ssl.pseudo_labels.plda_clusters import (
    PLDAClusters,
    own_posteriors,
    principal_components,
)
from speechbrain_ssl.verification.plda import PLDA as TwoCovariances
from speechbrain_ssl.verification.trials import Trials


@pytest.fixture(scope="module")
def speakers():
    """Rows of 8 speakers with 15 utterances each, and their speakers."""
    draws = np.random.default_rng(4)
    truth = np.repeat(np.arange(8), 15)
    rows = draws.normal(size=(8, 12))[truth]
    # Utterances of a speaker differ more in some directions than in others.
    spread = np.linspace(0.1, 0.9, 12)
    rows = rows + spread * draws.normal(size=(120, 12))
    return rows, truth


def method(**options):
    """Return the clustering, with values that suit the fixture."""
    values = {
        "centroids": 30,
        "cosine_threshold": 0.7,
        "plda_threshold": 0.0,
        "least": 3,
        "most": 60,
        "lda": 5,
        **options,
    }
    return PLDAClusters(**values)


def merged(scores, threshold):
    """Group points by average linkage, in a plain loop."""
    groups = [[i] for i in range(len(scores))]
    while len(groups) > 1:
        pairs = [
            (np.mean(scores[np.ix_(groups[a], groups[b])]), a, b)
            for a in range(len(groups))
            for b in range(a)
        ]
        best, a, b = max(pairs)
        if best < threshold:
            break
        groups[b] += groups.pop(a)
    labels = np.empty(len(scores), int)
    for number, group in enumerate(groups):
        labels[group] = number
    return labels


def by_loops(rows, seed, cosine_threshold, plda_threshold):
    """The whole clustering, with every step written out."""
    rows = PCA(0.99).fit_transform(rows)
    cells = (
        spherical_kmeans(
            rows, 30, 30, seed=seed, init="k-means++", empty="reseed"
        )
        .assignments.numpy()
        .astype(int)
    )
    _, cells = np.unique(cells, return_inverse=True)
    count = cells.max() + 1
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    centres = np.stack([unit[cells == c].mean(0) for c in range(count)])
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    first = merged(centres @ centres.T, cosine_threshold)[cells]
    sizes = np.bincount(first)[first]
    inside = np.where((sizes >= 3) & (sizes <= 60), first, -1)
    plda = TwoCovariances(5).fit(rows, inside)
    means = np.stack([rows[cells == c].mean(0) for c in range(count)])
    left, right = np.divmod(np.arange(count**2), count)
    names = [f"s/{i}" for i in range(count)]
    trials = Trials(left == right, left, right, names)
    scores = plda.score(means, trials).reshape(count, count)
    labels = merged(scores, plda_threshold)[cells]
    # Posteriors, one density after the other.
    x = plda.transform(rows)
    joint = np.empty((len(rows), labels.max() + 1))
    for c in range(labels.max() + 1):
        own = x[labels == c]
        variance = np.maximum(own.var(0), 1e-3)
        density = multivariate_normal(own.mean(0), np.diag(variance))
        joint[:, c] = np.log(len(own) / len(x)) + density.logpdf(x)
    posterior = np.exp(joint - joint.max(1, keepdims=True))
    posterior /= posterior.sum(1, keepdims=True)
    return labels, posterior[np.arange(len(x)), labels]


@pytest.mark.parametrize("thresholds", [(0.7, 0.0), (0.6, -3.0), (0.85, 5.0)])
@pytest.mark.parametrize("posterior", [0.0, 0.9])
def test_equals_plain_loops(speakers, thresholds, posterior):
    rows, _ = speakers
    wanted, own = by_loops(rows, 3, *thresholds)
    found, metrics = method(
        cosine_threshold=thresholds[0],
        plda_threshold=thresholds[1],
        posterior=posterior,
    )(rows, seed=3)
    assert 2 < wanted.max() + 1 < 30
    assert metrics["plda_clusters"] == wanted.max() + 1
    kept = own > posterior if posterior else np.ones(len(rows), bool)
    # The posterior does not leave everything out.
    assert kept.mean() > 0.5
    assert np.array_equal(found >= 0, kept)
    assert adjusted_rand_score(found[kept], wanted[kept]) == 1.0
    assert metrics["confident"] == kept.mean()
    if (thresholds, posterior) == ((0.7, 0.0), 0.9):
        assert not kept.all()


@pytest.mark.parametrize("variance", [0.5, 0.9, 0.99, 1.0])
def test_principal_components_are_sklearns(speakers, variance):
    rows = speakers[0] @ np.random.default_rng(0).normal(size=(12, 20))
    wanted = PCA(variance if variance < 1 else None).fit_transform(rows)
    found = principal_components(rows, variance)
    if variance == 1:
        wanted, found = wanted[:, :12], found[:, :12]
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found @ found.T, wanted @ wanted.T, atol=1e-8)


def test_posteriors_in_parts(monkeypatch, speakers):
    rows, truth = speakers
    whole = own_posteriors(rows, truth)
    monkeypatch.setattr(plda_clusters, "_BLOCK", 50)
    np.testing.assert_allclose(own_posteriors(rows, truth), whole, rtol=1e-12)


def test_speakers_are_found_without_their_number(speakers):
    """The threshold 0 needs no number of clusters."""
    rows, truth = speakers
    labels, _ = method()(rows, seed=1)
    kept = labels >= 0
    assert adjusted_rand_score(labels[kept], truth[kept]) > 0.8


def test_a_list_has_a_threshold_for_each_round(speakers):
    """The last one holds for all later rounds."""
    rows, _ = speakers
    counts = []
    for number in (1, 2, 3):
        cluster = method(plda_threshold=[5.0, -8.0], round=number)
        counts.append(cluster(rows, seed=1)[1]["plda_clusters"])
    assert counts[0] > counts[1] == counts[2]


@pytest.mark.parametrize(
    "options, words",
    [
        ({"plda_threshold": -1e6}, "`plda_threshold` of -1e.06 merges all 30"),
        ({"plda_threshold": 1e6}, "`plda_threshold` .* none of 30 .*lower"),
        ({"cosine_threshold": -1.0}, "`cosine_threshold` of -1 merges all"),
        ({"least": 50}, "0 have from 50 to 60.*`cosine_threshold`"),
    ],
)
def test_thresholds_that_tell_nothing_apart(speakers, options, words):
    """The error says which scores there are, so that one can be chosen."""
    rows, _ = speakers
    with pytest.raises(ClusteringError, match=words):
        method(**options)(rows, seed=1)


def test_the_remedy_works(speakers):
    """A threshold between the two scores of the message is accepted."""
    rows, _ = speakers
    with pytest.raises(ClusteringError, match="between the two") as caught:
        method(plda_threshold=-1e6)(rows, seed=1)
    text = str(caught.value)
    low, high = (
        float(text.split(words)[1].split(";")[0].split(", and")[0])
        for words in ("mean score of ", "above ")
    )
    labels, _ = method(plda_threshold=(low + high) / 2)(rows, seed=1)
    assert labels.max() > 0


def test_a_posterior_that_nothing_exceeds(monkeypatch, speakers):
    rows, _ = speakers
    monkeypatch.setattr(
        plda_clusters, "own_posteriors", lambda x, _: np.zeros(len(x))
    )
    with pytest.raises(ClusteringError, match="`posterior` = 0.9: lower it"):
        method()(rows, seed=1)


def test_several_processes_are_refused(monkeypatch, speakers):
    """With the way out; before any embedding, and again with the rows."""
    monkeypatch.setattr(
        plda_clusters.distributed, "is_distributed", lambda: True
    )
    for call in (method().check_alone, lambda: method()(speakers[0], seed=1)):
        with pytest.raises(ClusteringError, match="--stop_after=cluster"):
            call()


def test_impossible_numbers_are_refused_without_rows():
    with pytest.raises(ClusteringError, match="200 clusters .* 120"):
        method(centroids=200).check(120)
    with pytest.raises(ClusteringError, match="GiB"):
        method(limit_gib=1e-6).check(120)
    method().check(120)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"least": 1}, "least must be .* from 2"),
        ({"most": 2}, "most must be .* from 3"),
        ({"posterior": 1.0}, "posterior must be"),
        ({"plda_threshold": [0.0, None]}, "plda_threshold must be a number"),
        ({"cosine_threshold": "high"}, "cosine_threshold must be a number"),
        ({"round": 0}, "round must be"),
    ],
)
def test_refuses_what_has_no_meaning(options, words):
    with pytest.raises(ConfigError, match=words):
        method(**options)


def test_a_row_without_direction_is_named(speakers):
    broken = speakers[0].copy()
    broken[17] = np.nan
    names = [f"u{i}" for i in range(120)]
    with pytest.raises(EmbeddingError, match="u17.* is not finite"):
        method()(broken, seed=1, names=names)


def test_no_label_is_seen():
    assert PLDAClusters.labels_seen == "none"
