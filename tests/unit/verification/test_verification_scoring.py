"""Cosine scores against a loop, and embeddings that have no direction."""

import math

import numpy as np
import pytest
import torch

from speechbrain_ssl.errors import EmbeddingError, UserError
from speechbrain_ssl.verification.metrics import eer
from speechbrain_ssl.verification.scoring import cosine_scores
from speechbrain_ssl.verification.trials import Trials, read_trials


def some_trials(utterances=30, count=200, seed=0):
    rng = np.random.default_rng(seed)
    names = [f"s{u % 5}/{u}.wav" for u in range(utterances)]
    left, right = rng.integers(utterances, size=(2, count))
    return Trials(left % 5 == right % 5, left, right, names)


def loop(embeddings, trials, mean):
    scores = []
    for a, b in zip(trials.left, trials.right, strict=True):
        x = [
            float(v) - float(m)
            for v, m in zip(embeddings[a], mean, strict=True)
        ]
        y = [
            float(v) - float(m)
            for v, m in zip(embeddings[b], mean, strict=True)
        ]
        dot = math.fsum(p * q for p, q in zip(x, y, strict=True))
        scores.append(dot / (math.hypot(*x) * math.hypot(*y)))
    return scores


@pytest.mark.parametrize("chunk", [1, 7, 200, 65536])
@pytest.mark.parametrize("centered", [False, True])
def test_against_a_loop(chunk, centered):
    trials = some_trials()
    rng = np.random.default_rng(1)
    embeddings = rng.normal(size=(30, 16)).astype(np.float32) + 1
    mean = embeddings.mean(axis=0) if centered else None
    scores = cosine_scores(embeddings, trials, mean=mean, chunk=chunk)
    assert scores.dtype == np.float32 and scores.shape == (200,)
    expected = loop(embeddings, trials, mean if centered else np.zeros(16))
    np.testing.assert_allclose(scores, expected, atol=1e-6)


def test_the_sides_and_the_lengths_do_not_matter():
    trials = some_trials()
    rng = np.random.default_rng(1)
    embeddings = rng.normal(size=(30, 16))
    scores = cosine_scores(embeddings, trials)
    swapped = Trials(trials.labels, trials.right, trials.left, trials.names)
    assert (cosine_scores(embeddings, swapped) == scores).all()
    longer = embeddings * rng.uniform(1e-4, 1e4, size=(30, 1))
    np.testing.assert_allclose(cosine_scores(longer, trials), scores, atol=1e-6)


def test_an_utterance_with_itself_scores_one():
    trials = Trials([1, 1], [0, 1], [0, 1], ["a", "b"])
    embeddings = np.random.default_rng(0).normal(size=(2, 192))
    np.testing.assert_allclose(cosine_scores(embeddings, trials), 1, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tensors(dtype):
    trials = some_trials()
    embeddings = torch.randn(30, 16).to(dtype).requires_grad_()
    mean = torch.randn(1, 16).to(dtype)
    scores = cosine_scores(embeddings, trials, mean)
    arrays = (x.detach().double().numpy() for x in (embeddings, mean))
    np.testing.assert_array_equal(
        scores, cosine_scores(next(arrays), trials, next(arrays)[0])
    )


@pytest.mark.parametrize(
    "value, message",
    [
        (0.0, "is zero"),
        (np.nan, "is not finite"),
        (np.inf, "is not finite"),
    ],
)
def test_embeddings_without_direction_are_named(value, message):
    trials = some_trials()
    embeddings = np.random.default_rng(0).normal(size=(30, 16))
    embeddings[[4, 17]] = value
    with pytest.raises(EmbeddingError, match=f"'s4/4.wav' {message}.*2 of 30"):
        cosine_scores(embeddings, trials)
    assert issubclass(EmbeddingError, UserError)


def test_a_collapsed_encoder_is_no_ranking_of_rounding_errors():
    trials = some_trials()
    rng = np.random.default_rng(0)
    embeddings = np.ones((30, 16)) + 1e-9 * rng.normal(size=(30, 16))
    with pytest.raises(EmbeddingError, match="equals the mean"):
        cosine_scores(embeddings, trials, mean=embeddings.mean(axis=0))


def test_shapes_that_do_not_fit():
    trials = some_trials()
    with pytest.raises(EmbeddingError, match=r"30 rows; got shape \(29, 4\)"):
        cosine_scores(np.ones((29, 4)), trials)
    with pytest.raises(EmbeddingError, match="30 rows"):
        cosine_scores(np.ones((30, 1, 4)), trials)
    for mean in (np.ones(3), np.full(4, np.nan)):
        with pytest.raises(EmbeddingError, match="4 finite numbers"):
            cosine_scores(np.ones((30, 4)), trials, mean=mean)


def test_the_original_vox1_list_from_names_to_error_rate(shared_data):
    trials = read_trials(shared_data / "voxceleb_meta" / "veri_test.txt")
    speaker = trials.speaker_indices()
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(40, 64))
    noise = rng.normal(size=(len(speaker), 64))
    bias = 5 * np.ones(64)
    rates = [
        eer(cosine_scores(embeddings, trials, mean), trials.labels)[0]
        for embeddings, mean in (
            (centers[speaker], None),
            (centers[speaker] + 1.5 * noise, None),
            (centers[speaker] + 1.5 * noise + bias, None),
            (centers[speaker] + 1.5 * noise + bias, bias),
            (noise, None),
        )
    ]
    perfect, noisy, biased, centered, chance = rates
    assert perfect == 0
    assert 0.005 < noisy < 0.15
    assert biased > noisy
    assert centered == pytest.approx(noisy, abs=1e-4)
    assert chance == pytest.approx(0.5, abs=0.02)
