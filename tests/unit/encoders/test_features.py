"""Log-mel features equal SpeechBrain's, and leave no trace in checkpoints."""

import pytest
import torch
from speechbrain.lobes.features import Fbank
from speechbrain.processing.features import InputNormalization

from speechbrain_ssl.encoders.features import LogMel


def waves(batch, samples, seed=0):
    generator = torch.Generator().manual_seed(seed)
    wave = torch.randn(batch, samples, generator=generator) * 0.1
    # Loud and faint stretches, so that the floor of 80 dB is at work.
    return wave * torch.logspace(0, -6, samples)


@pytest.mark.parametrize(
    ("n_mels", "rate", "samples"),
    [(80, 16000, 32000), (80, 16000, 32123), (40, 8000, 9000)],
)
def test_equals_stock(n_mels, rate, samples):
    """An exported model gets the stock modules: they must agree."""
    x = waves(3, samples)
    stock = Fbank(n_mels=n_mels, sample_rate=rate)(x)
    normal = InputNormalization(norm_type="sentence", std_norm=False)
    ours = LogMel(n_mels, rate, mean_norm=False)(x)
    torch.testing.assert_close(ours, stock, rtol=0, atol=1e-4)
    # The floor was really reached.
    assert (stock == stock.amin(dim=(1, 2), keepdim=True)).sum() > 1000
    ours = LogMel(n_mels, rate)(x)
    wanted = normal(stock, torch.ones(3))
    torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-4)


def test_a_padded_batch_equals_stock_and_the_utterance_alone():
    """Padding must not move the mean of a short utterance."""
    sizes = torch.tensor([32000, 20000, 8123])
    x = waves(3, 32000)
    for row, size in zip(x, sizes, strict=True):
        row[size:] = 0
    features = LogMel()
    ours = features(x, sizes)
    stock = Fbank(n_mels=80)(x)
    frames = features.num_frames(sizes)
    normal = InputNormalization(norm_type="sentence", std_norm=False)
    stock = normal(stock, frames / stock.shape[1])
    for i, (size, count) in enumerate(zip(sizes, frames, strict=True)):
        alone = features(x[i : i + 1, :size])[0]
        assert alone.shape[0] == count
        torch.testing.assert_close(ours[i, :count], alone, rtol=0, atol=2e-4)
        torch.testing.assert_close(
            ours[i, :count], stock[i, :count], rtol=0, atol=2e-4
        )
        assert (ours[i, count:] == 0).all()
        assert ours[i, :count].mean(0).abs().max() < 1e-3


def test_is_no_state():
    """Constants in a checkpoint would tie it to one version."""
    features = LogMel()
    assert features.state_dict() == {}
    assert list(features.parameters()) == []
    # But they move with the module.
    assert features.to(torch.float64).filters.dtype == torch.float64


def test_runs_in_fp32_under_autocast():
    """In bf16 a power spectrum has three digits, its log none to spare."""
    x = waves(2, 16000)
    wanted = LogMel()(x)
    with torch.autocast("cpu", torch.bfloat16):
        found = LogMel()(x)
    assert found.dtype == torch.float32
    assert torch.equal(found, wanted)


def test_silence_is_finite():
    assert (LogMel()(torch.zeros(1, 16000)) == 0).all()
