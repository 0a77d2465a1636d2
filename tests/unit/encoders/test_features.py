"""Log-mel features: SpeechBrain's values, and those of other front ends."""

import numpy as np
import pytest
import torch
from speechbrain.lobes.features import Fbank
from speechbrain.processing.features import InputNormalization

from speechbrain_ssl.encoders.ecapa import FastECAPA
from speechbrain_ssl.encoders.features import LogMel
from speechbrain_ssl.errors import ConfigError


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
    ours = LogMel(n_mels, rate, normalize="none")(x)
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


#: The front ends of the sources that we follow.
SETTINGS = {
    "speechbrain": {},
    "wespeaker": {"n_fft": 512, "f_min": 20},
    "hyperion": {"n_fft": 512, "f_min": 20, "f_max": 7600},
    "sslsv": {
        "n_mels": 40,
        "normalize": "mean_variance",
        "n_fft": 512,
        "log_floor": 1e-6,
    },
    "rdino": {
        "normalize": "mean_variance",
        "n_fft": 512,
        "window": "hann",
        "log_floor": 9.3e-16,
    },
    "plain": {"normalize": "none", "window": "hann", "log_floor": 1e-6},
}


def stated(wave, n_mels=80, normalize="mean", **others):
    """State the features of one waveform in numpy, frame by frame."""
    n_fft, low = others.get("n_fft", 400), others.get("f_min", 0)
    high, floor = others.get("f_max", 8000), others.get("log_floor")
    # Periodic windows of 25 ms, in the middle of the transform.
    turn = np.cos(2 * np.pi * np.arange(400) / 400)
    window = 0.54 - 0.46 * turn
    if others.get("window") == "hann":
        window = 0.5 - 0.5 * turn
    left = (n_fft - 400) // 2
    padded = np.pad(wave, n_fft // 2)
    # Mel of O'Shaughnessy; each triangle falls as steeply as it rises.
    ends = 2595 * np.log10(1 + np.array([low, high]) / 700)
    hertz = 700 * (10 ** (np.linspace(*ends, n_mels + 2) / 2595) - 1)
    bins = np.linspace(0, 8000, n_fft // 2 + 1)
    bands = []
    for start, middle in zip(hertz[:-2], hertz[1:-1], strict=True):
        away = np.abs(bins - middle) / (middle - start)
        bands.append(np.maximum(0, 1 - away))
    frames = []
    for begin in range(0, len(wave) + 1, 160):
        piece = padded[begin + left : begin + left + 400] * window
        power = np.abs(np.fft.rfft(piece, n_fft)) ** 2
        frames.append(np.array(bands) @ power)
    if floor is not None:
        db = 10 * np.log10(np.array(frames) + floor)
    else:
        db = 10 * np.log10(np.maximum(frames, 1e-10))
        db = np.maximum(db, db.max() - 80)
    if normalize != "none":
        db = db - db.mean(0)
    if normalize == "mean_variance":
        db = db / np.maximum(db.std(0), 0.01)
    return db


@pytest.mark.parametrize("name", SETTINGS)
def test_equals_the_statement(name):
    """Window, transform, bands, floor and normalisation."""
    settings = SETTINGS[name]
    x = waves(2, 16123)
    ours = LogMel(**settings)(x).numpy()
    wanted = np.stack([stated(w, **settings) for w in x.double().numpy()])
    assert ours.shape == wanted.shape
    np.testing.assert_allclose(ours, wanted, rtol=0, atol=2e-3)
    if settings.get("normalize") == "mean_variance":
        assert np.abs(ours.std(1) - 1).max() < 1e-4


@pytest.mark.parametrize("name", SETTINGS)
def test_an_utterance_does_not_depend_on_its_batch(name):
    """Padding enters neither mean nor variance; one frame is enough."""
    sizes = torch.tensor([16000, 9000, 4123, 100])
    x = waves(4, 16000)
    for row, size in zip(x, sizes, strict=True):
        row[size:] = 0
    features = LogMel(**SETTINGS[name])
    together = features(x, sizes)
    for i, size in enumerate(sizes):
        alone = features(x[i : i + 1, :size])[0]
        count = len(alone)
        assert count == features.num_frames(int(size))
        torch.testing.assert_close(
            together[i, :count], alone, rtol=0, atol=2e-3
        )
        assert (together[i, count:] == 0).all()
    assert together.isfinite().all()
    if name != "plain":
        # The mean of one frame is this frame.
        assert (together[3] == 0).all()


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("samples", [100, 16000])
def test_silence_is_finite(name, samples):
    """It has no variance: dividing by it would make noise of rounding."""
    found = LogMel(**SETTINGS[name])(torch.zeros(2, samples))
    assert found.isfinite().all()
    if name != "plain":
        assert found.abs().max() < 1e-2


def test_features_tell_their_settings():
    """The cache of embeddings tells models apart by them."""
    shown = {repr(LogMel(**settings)) for settings in SETTINGS.values()}
    assert len(shown) == len(SETTINGS)


def test_features_without_normalization():
    """All other settings stay; a baseline needs the level."""
    plain = LogMel(**SETTINGS["sslsv"]).without_normalization()
    assert plain.settings == {
        **LogMel(**SETTINGS["sslsv"]).settings,
        "normalize": "none",
    }


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"normalize": "variance"}, "mean_variance"),
        ({"window": "kaiser"}, "hamming, hann"),
        ({"n_fft": 256}, "n_fft"),
        ({"n_mels": 0}, "n_mels"),
        ({"f_max": 9000}, "f_max"),
        ({"f_min": 500, "f_max": 400}, "f_min"),
        ({"log_floor": 0}, "log_floor"),
    ],
)
def test_settings_that_give_no_features(wrong, word):
    with pytest.raises(ConfigError, match=word):
        LogMel(**wrong)


def test_an_encoder_of_other_features():
    LogMel().check_encoder(FastECAPA(80, channels=[8] * 4 + [24]))
    LogMel().check_encoder(torch.nn.Identity())
    with pytest.raises(ConfigError, match="have 40 bands.*takes 80.*n_mels"):
        LogMel(n_mels=40).check_encoder(FastECAPA(80, channels=[8] * 4 + [24]))
