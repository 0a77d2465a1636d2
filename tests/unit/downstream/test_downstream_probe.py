"""The probe: scikit-learn's result, and no look at the test side."""

import types

import numpy as np
import pytest
import soundfile
import torch
from sklearn.linear_model import LogisticRegression
from test_downstream_folds import make_task

from speechbrain_ssl.downstream.folds import SpeakerFolds
from speechbrain_ssl.downstream.probe import Probe, check_finite
from speechbrain_ssl.downstream.task import read_task
from speechbrain_ssl.embedding.baselines import LogMelStatistics
from speechbrain_ssl.encoders.features import LogMel
from speechbrain_ssl.errors import ConfigError

STRENGTHS = [0.001, 0.1, 10.0]


@pytest.fixture
def problem():
    """Two classes along one direction, speakers along all the others."""
    rng = np.random.default_rng(0)
    speakers = np.arange(240) // 12
    labels = np.arange(240) % 2
    embeddings = rng.normal(size=(240, 16))
    embeddings += 2 * rng.normal(size=(20, 16))[speakers]
    embeddings[:, 0] = 3 * labels + rng.normal(size=240)
    scale = 10 ** rng.uniform(-3, 3, 16)
    task = make_task(speakers, labels)
    folds = SpeakerFolds(4, inner_folds=3)(task)
    return task, folds, (embeddings * scale + 100).astype(np.float32)


def test_against_a_regression_by_hand(problem):
    task, folds, embeddings = problem
    fold = folds[0]
    predicted, strength = Probe([0.1]).fold(embeddings, task.labels, fold)
    rows = embeddings.astype(np.float64)
    mean, std = rows[fold.train].mean(0), rows[fold.train].std(0)
    rows = (rows - mean) / std
    by_hand = LogisticRegression(C=0.1, max_iter=1000).fit(
        rows[fold.train], task.labels[fold.train]
    )
    assert strength == 0.1
    np.testing.assert_array_equal(predicted, by_hand.predict(rows[fold.test]))
    assert (predicted == task.labels[fold.test]).mean() > 0.6


def test_choice_is_the_best_of_the_inner_folds(problem):
    task, folds, embeddings = problem
    fold = folds[1]
    hits = []
    for strength in STRENGTHS:
        one = Probe([strength])
        hits.append(0)
        for train, test in fold.inner:
            inner = types.SimpleNamespace(train=train, test=test, inner=[])
            guess, _ = one.fold(embeddings, task.labels, inner)
            hits[-1] += (guess == task.labels[test]).sum()
    _, chosen = Probe(STRENGTHS[::-1]).fold(embeddings, task.labels, fold)
    assert chosen == STRENGTHS[int(np.argmax(hits))]


def test_test_side_has_no_part_in_it(problem):
    task, folds, embeddings = problem
    fold = folds[2]
    probe = Probe(STRENGTHS)
    before, strength = probe.fold(embeddings, task.labels, fold)
    # Other labels there, and one embedding gone wild.
    labels = task.labels.copy()
    labels[fold.test] = 1 - labels[fold.test]
    changed = embeddings.copy()
    changed[fold.test[0]] = 1e6
    after, again = probe.fold(changed, labels, fold)
    assert strength == again
    np.testing.assert_array_equal(before[1:], after[1:])


def test_scale_of_a_dimension_does_not_matter(problem):
    task, folds, embeddings = problem
    scaled = embeddings * 2.0 ** np.arange(16, dtype=np.float32)
    for fold in folds:
        one = Probe(STRENGTHS).fold(embeddings, task.labels, fold)
        two = Probe(STRENGTHS).fold(scaled, task.labels, fold)
        assert (one[0] == two[0]).mean() > 0.99


def test_equal_embeddings_tell_nothing(problem):
    task, folds, embeddings = problem
    same = np.ones_like(embeddings)
    predicted, strength = Probe(STRENGTHS).fold(same, task.labels, folds[0])
    assert len(set(predicted.tolist())) == 1
    assert strength == min(STRENGTHS)  # the most cautious of equals


def test_broken_embeddings_are_refused(problem):
    _, _, embeddings = problem
    ids = [f"u{i}" for i in range(240)]
    check_finite(embeddings, ids)
    embeddings[7, 3] = np.nan
    with pytest.raises(ConfigError, match="of 1 utterances .* that of u7"):
        check_finite(embeddings, ids)


def test_chunks_are_averaged(tmp_path):
    """By hand: four unit embeddings an utterance; the last is repeated."""
    rng = np.random.default_rng(0)
    lines = ["ID,duration,wav,spk_id,emotion"]
    waves = []
    for number, seconds in enumerate([1.5, 2.0, 1.0, 0.2]):
        waves.append(0.1 * rng.normal(size=round(16000 * seconds)))
        soundfile.write(
            tmp_path / f"{number}.wav", waves[-1], 16000, subtype="DOUBLE"
        )
        kind = ("angry", "sad")[number % 2]
        lines.append(f"{number},{seconds},{number}.wav,s{number},{kind}")
    (tmp_path / "labelled.csv").write_text("\n".join(lines) + "\n")
    task = read_task(tmp_path / "labelled.csv", "emotion")
    features = LogMel(normalize="none")
    encoder = LogMelStatistics()
    hparams = {
        "embeddings": tmp_path / "kept.npz",
        "batch_seconds": 10,
        "num_workers": 0,
    }

    def embeddings(**settings):
        probe = Probe([0.1], **settings)
        system = types.SimpleNamespace(encoder=encoder, features=features)
        list(probe(task, [], system, hparams, {"device": "cpu"}))
        return np.load(tmp_path / "kept.npz")["embeddings"]

    whole = embeddings()
    # Those of another length are not taken for them.
    found = embeddings(chunk_seconds=0.5)
    for wave, row, other in zip(waves, found, whole, strict=True):
        if len(wave) < 8000:
            wave = np.tile(wave, 3)[:8000]
        starts = np.linspace(0, len(wave) - 8000, 4).astype(int)
        units = []
        for start in starts:
            piece = torch.from_numpy(wave[start : start + 8000]).float()
            unit = encoder(features(piece[None]))[0, 0]
            units.append(unit / unit.norm())
        expected = torch.stack(units).mean(0).numpy()
        np.testing.assert_allclose(row, expected, atol=1e-4)
        assert np.abs(row - other).max() > 0.01


def test_nothing_to_choose_by(problem):
    task, _, embeddings = problem
    (fold, *_) = SpeakerFolds(4, inner_folds=0)(task)
    assert Probe([0.1]).fold(embeddings, task.labels, fold)[1] == 0.1
    with pytest.raises(ConfigError, match="no inner folds to choose C by"):
        Probe(STRENGTHS).fold(embeddings, task.labels, fold)


@pytest.mark.parametrize("settings", [{"chunk_seconds": 0}, {"chunks": 0}])
def test_chunks_are_checked(settings):
    with pytest.raises(ConfigError, match="CropGrid's (count|seconds) must be"):
        Probe([0.1], **{"chunk_seconds": 1.0, **settings})


@pytest.mark.parametrize("strengths", [[], [0.1, 0], [-1.0]])
def test_candidates_are_checked(strengths):
    with pytest.raises(ConfigError, match="above 0"):
        Probe(strengths)


def test_no_convergence_is_said(problem, caplog):
    task, folds, embeddings = problem
    Probe([10.0], max_iterations=1).fold(embeddings, task.labels, folds[0])
    assert "not converged in 1 iterations" in caplog.text


def test_global_generators_are_left_alone(problem):
    task, folds, embeddings = problem
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    Probe(STRENGTHS).fold(embeddings, task.labels, folds[0])
    assert torch.equal(before[0], torch.get_rng_state())
    np.testing.assert_array_equal(before[1], np.random.get_state()[1])
