"""PLDA against the joint Gaussian of all utterances, and other estimators."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from speechbrain.processing.PLDA_LDA import (
    Ndx,
    StatObject_SB,
    fast_PLDA_scoring,
)

from speechbrain_ssl.errors import ConfigError, EmbeddingError
from speechbrain_ssl.verification.metrics import eer
from speechbrain_ssl.verification.plda import (
    PLDA,
    _two_covariances,
    lda_directions,
)
from speechbrain_ssl.verification.scoring import cosine_scores
from speechbrain_ssl.verification.trials import Trials


def draw(clusters, size=5, per_cluster=None, seed=0):
    """Rows of the two-covariance model, with covariances of no simple shape."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 9, size=clusters)
    if per_cluster:
        sizes[:] = per_cluster
    number = np.repeat(np.arange(clusters), sizes)
    a, b = rng.normal(size=(2, size, size))
    y = rng.normal(size=(clusters, size)) @ a + 1
    rows = y[number] + 0.7 * rng.normal(size=(len(number), size)) @ b
    return rows, number, sizes


def some_trials(utterances, count=60, seed=3):
    left, right = np.random.default_rng(seed).integers(
        utterances, size=(2, count)
    )
    names = [f"s/{i}" for i in range(utterances)]
    return Trials(left == right, left, right, names)


def parts(model):
    """``m``, ``B`` and ``W`` in the space of the rows of length one."""
    back = np.linalg.inv(model.basis)
    return model.offset, (back.T * model.between) @ back, back.T @ back


def directions(model, rows):
    rows = (rows - model.mean) @ model.projection
    return rows / np.sqrt((rows**2).sum(axis=1, keepdims=True))


def log_likelihood(rows, number, m, between, within):
    """Every cluster as one long Gaussian vector."""
    total = 0.0
    for cluster in np.unique(number):
        members = rows[number == cluster]
        n = len(members)
        covariance = np.kron(np.ones((n, n)), between)
        covariance += np.kron(np.eye(n), within)
        total += multivariate_normal(np.tile(m, n), covariance).logpdf(
            members.ravel()
        )
    return total


def test_all_pairs_score_as_trials_do():
    rows, number, _ = draw(30)
    model = PLDA(4).fit(rows, number)
    names = [f"s/{i}" for i in range(12)]
    left, right = np.divmod(np.arange(7 * 12), 12)
    trials = Trials(left == right, left, right, names)
    tests = model.transform(rows[:12])
    np.testing.assert_allclose(
        model.llr(tests[:7], tests).ravel(),
        model.score(rows[:12], trials),
        rtol=1e-10,
        atol=1e-10,
    )


@pytest.mark.parametrize("lda", [None, 3])
def test_scores_are_ratios_of_joint_gaussians(lda):
    rows, number, _ = draw(30)
    model = PLDA(lda).fit(rows, number)
    tests = draw(30, seed=1)[0][:20]
    trials = some_trials(20)
    m, between, within = parts(model)
    x = directions(model, tests)
    total = between + within
    alone = multivariate_normal(m, total)
    together = multivariate_normal(
        np.tile(m, 2), np.block([[total, between], [between, total]])
    )
    expected = [
        together.logpdf(np.concatenate([x[a], x[b]]))
        - alone.logpdf(x[a])
        - alone.logpdf(x[b])
        for a, b in zip(trials.left, trials.right, strict=True)
    ]
    np.testing.assert_allclose(model.score(tests, trials), expected, atol=1e-8)


def test_em_on_clusters_of_one_size_ends_at_the_closed_form():
    rows, number, sizes = draw(40, per_cluster=6, seed=3)
    means = rows.reshape(40, 6, 5).mean(axis=1)
    residual = rows - means[number]
    within = residual.T @ residual / (240 - 40)
    between = np.cov(means.T, bias=True) - within / 6
    # Else the maximum lies on the border, where no closed form is.
    assert np.linalg.eigvalsh(between).min() > 0.05
    model = PLDA()
    model.offset, model.basis, model.between = _two_covariances(
        rows, number, sizes, 3000
    )
    m, found_between, found_within = parts(model)
    np.testing.assert_allclose(m, means.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(found_within, within, atol=1e-4)
    np.testing.assert_allclose(found_between, between, atol=1e-4)


def test_em_raises_the_likelihood_and_ends_at_its_maximum():
    rows, number, sizes = draw(25)
    found = []
    for iterations in (0, 1, 2, 5, 50, 400):
        model = PLDA()
        model.offset, model.basis, model.between = _two_covariances(
            rows, number, sizes, iterations
        )
        found.append(log_likelihood(rows, number, *parts(model)))
    assert (np.diff(found) > -1e-6).all()
    assert found[2] > found[0] + 0.01
    # Wherever one goes from there it is downhill.
    m, between, within = parts(model)
    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b = np.eye(5) + 0.05 * rng.normal(size=(2, 5, 5))
        moved = (
            m + 0.05 * rng.normal(size=5),
            a @ between @ a.T,
            b @ within @ b.T,
        )
        assert log_likelihood(rows, number, *moved) < found[-1]


def test_lda_is_that_of_scikit_learn():
    rows, number, sizes = draw(30, per_cluster=4)
    ours = lda_directions(rows, number, sizes, 3)
    theirs = LinearDiscriminantAnalysis(solver="eigen", n_components=3)
    theirs = theirs.fit(rows, number).scalings_[:, :3]
    ours, theirs = (v / np.linalg.norm(v, axis=0) for v in (ours, theirs))
    np.testing.assert_allclose(np.abs((ours * theirs).sum(0)), 1, atol=1e-5)


def test_speechbrains_scores_agree_and_come_sorted_by_name():
    # The trap: a row of `scoremat` belongs to the n-th name of the alphabet,
    # not to the n-th embedding.
    rows, number, _ = draw(30)
    model = PLDA().fit(rows, number)
    tests = draw(30, seed=1)[0][:6]
    names = np.array(["c", "a", "f", "b", "e", "d"], dtype=object)
    empty = np.array([None] * 6)
    m, between, within = parts(model)

    def packed():
        return StatObject_SB(
            names,
            names,
            empty,
            empty,
            np.ones((6, 1)),
            directions(model, tests),
        )

    stock = fast_PLDA_scoring(
        packed(),
        packed(),
        Ndx(models=names, testsegs=names),
        m,
        np.linalg.cholesky(between),
        within,
    )
    left, right = (side.ravel() for side in np.indices((6, 6)))
    trials = Trials(left == right, left, right, names)
    ours = model.score(tests, trials).reshape(6, 6)
    order = np.argsort(names)
    assert stock.modelset.tolist() == sorted(names)
    np.testing.assert_allclose(stock.scoremat, ours[order][:, order], atol=1e-6)
    assert np.abs(stock.scoremat - ours).max() > 1


def test_an_affine_map_of_all_embeddings_changes_nothing():
    rows, number, _ = draw(30)
    tests, trials = draw(30, seed=1)[0][:20], some_trials(20)
    rng = np.random.default_rng(7)
    bend, shift = np.eye(5) + 0.3 * rng.normal(size=(5, 5)), rng.normal(size=5)
    for lda in (None, 3):
        plain = PLDA(lda).fit(rows, number).score(tests, trials)
        model = PLDA(lda).fit(rows @ bend + shift, number)
        bent = model.score(tests @ bend + shift, trials)
        np.testing.assert_allclose(bent, plain, atol=1e-3)


def test_sides_order_and_names_of_clusters_do_not_matter():
    rows, number, _ = draw(30)
    tests, trials = draw(30, seed=1)[0][:20], some_trials(20)
    scores = PLDA(3).fit(rows, number).score(tests, trials)
    swapped = Trials(trials.labels, trials.right, trials.left, trials.names)
    model = PLDA(3).fit(rows, number)
    np.testing.assert_allclose(model.score(tests, swapped), scores)
    order = np.random.default_rng(0).permutation(len(rows))
    model = PLDA(3).fit(rows[order], 7 * number[order] + 2)
    np.testing.assert_allclose(model.score(tests, trials), scores, atol=1e-6)


def test_utterances_without_a_cluster_are_left_out():
    rows, number, _ = draw(30)
    tests, trials = draw(30, seed=1)[0][:20], some_trials(20)
    scores = PLDA().fit(rows, number).score(tests, trials)
    more = np.concatenate([rows, 100 + rows[:5]])
    model = PLDA().fit(more, np.concatenate([number, [-1] * 5]))
    np.testing.assert_allclose(model.score(tests, trials), scores)


def test_it_beats_the_cosine_where_sessions_differ_in_few_directions():
    rng = np.random.default_rng(0)

    def speakers(count, per):
        number = np.repeat(np.arange(count), per)
        y = rng.normal(size=(count, 20))
        session = rng.normal(size=(len(number), 20)) * 0.3
        session[:, :5] *= 12
        return y[number] + session, number

    model = PLDA(15).fit(*speakers(200, 8))
    rows, number = speakers(30, 4)
    left, right = np.triu_indices(len(rows), 1)
    names = [str(i) for i in range(len(rows))]
    trials = Trials(number[left] == number[right], left, right, names)
    cosine = eer(cosine_scores(rows, trials), trials.labels)[0]
    plda = eer(model.score(rows, trials), trials.labels)[0]
    assert plda < 0.02 < 0.2 < cosine


def test_clusters_that_teach_nothing():
    rows = draw(30)[0][:8]
    with pytest.raises(ConfigError, match="was given 1 clusters"):
        PLDA().fit(rows, [0] * 8)
    with pytest.raises(ConfigError, match="8 clusters, the largest of 1 utt"):
        PLDA().fit(rows, range(8))
    with pytest.raises(ConfigError, match="no utterance has a cluster"):
        PLDA().fit(rows, [-1] * 8)
    with pytest.raises(ConfigError, match="8 embeddings but clusters of shape"):
        PLDA().fit(rows, [0, 1])
    with pytest.raises(ConfigError, match="lda is 2: .* 2 clusters leave.* 1;"):
        PLDA(2).fit(rows, [0, 0, 0, 0, 1, 1, 1, 1])
    with pytest.raises(EmbeddingError, match="all the same"):
        PLDA(1).fit(np.repeat(rows[:2], 4, axis=0), np.repeat([0, 1], 4))


def test_fewer_utterances_than_dimensions():
    rng = np.random.default_rng(0)
    rows, number = rng.normal(size=(12, 40)), np.repeat(np.arange(4), 3)
    model = PLDA().fit(rows, number)
    assert np.isfinite(model.score(rows, some_trials(12))).all()


def test_bad_embeddings_are_named():
    rows, number, _ = draw(30)
    bad = rows.copy()
    bad[3, 1] = np.nan
    with pytest.raises(EmbeddingError, match="row 3 is not finite; 1 of"):
        PLDA().fit(bad, number)
    model = PLDA().fit(rows, number)
    trials = Trials([1], [0], [1], ["a/1", "a/2"])
    with pytest.raises(EmbeddingError, match="'a/2' is not finite"):
        model.score(np.array([[1.0] * 5, [np.inf] * 5]), trials)
    with pytest.raises(EmbeddingError, match="'a/1' equals the mean"):
        model.score(np.stack([model.mean, rows[0]]), trials)
    with pytest.raises(EmbeddingError, match="of 5 dimensions; these have 4"):
        model.score(rows[:2, :4], trials)
    with pytest.raises(EmbeddingError, match="table of 2 rows"):
        model.score(rows[:3], trials)
