"""Baselines against numpy."""

import numpy as np
import torch

from speechbrain_ssl.embedding.baselines import LogMelStatistics
from speechbrain_ssl.encoders.features import LogMel


def stated(features):
    """The definition, for one utterance ``[T, F]``."""
    features = features.numpy().astype(np.float64)
    return np.concatenate([features.mean(0), features.std(0)])


def test_all_frames():
    features = torch.randn(3, 50, 7) * 5 - 40
    output = LogMelStatistics()(features)
    assert output.shape == (3, 1, 14)
    for row, utterance in zip(output[:, 0], features, strict=True):
        np.testing.assert_allclose(row, stated(utterance), rtol=1e-5)


def test_padding_has_no_part():
    features = torch.randn(3, 50, 7) * 5 - 40
    frames = [50, 31, 1]
    features[1, 31:] = features[2, 1:] = 1e4
    output = LogMelStatistics()(features, torch.tensor(frames) / 50)
    for row, utterance, n in zip(output[:, 0], features, frames, strict=True):
        np.testing.assert_allclose(row, stated(utterance[:n]), atol=1e-5)


def test_of_waveforms_in_a_batch():
    """Padded in a batch or alone: the same."""
    logmel = LogMel(normalize="none")
    waves = torch.randn(2, 16000) * torch.tensor([[0.1], [0.5]])
    waves[1, 9000:] = 0
    sizes = torch.tensor([16000, 9000])
    features = logmel(waves, sizes)
    lengths = logmel.num_frames(sizes) / features.shape[1]
    output = LogMelStatistics()(features, lengths)
    alone = LogMelStatistics()(logmel(waves[1:, :9000]))
    torch.testing.assert_close(output[1:], alone, rtol=1e-4, atol=1e-3)
    # Not mean-normalised: a louder recording is elsewhere.
    assert (output[1, 0, :80] - output[0, 0, :80]).mean() > 5


def test_bfloat16_input_and_constant_features():
    features = torch.full((1, 20, 4), -37.0, dtype=torch.bfloat16)
    output = LogMelStatistics()(features)
    assert output.dtype == torch.float32
    assert output[0, 0].tolist() == [-37.0] * 4 + [0.0] * 4
