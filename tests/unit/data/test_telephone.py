"""The telephone: its band, its codecs, and which crops pass it."""

import numpy as np
import pytest
import soundfile
import torch

from speechbrain_ssl.data.augmentation import Augmentation
from speechbrain_ssl.data.telephone import CODECS, Telephone
from speechbrain_ssl.errors import ConfigError

KEYS = np.random.default_rng(9).integers(0, 2**64, 300, dtype=np.uint64)


def noise(count, samples, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 0.1 * torch.randn(count, samples, generator=generator)


def through_a_file(wave, path, subtype):
    """What libsndfile makes of a waveform at 8 kHz."""
    soundfile.write(path, wave, 8000, subtype=subtype)
    return soundfile.read(path, dtype="float32")[0][: len(wave)]


@pytest.mark.parametrize(
    ("codec", "subtype"),
    [("mu_law", "ULAW"), ("a_law", "ALAW"), ("gsm", "GSM610")],
)
def test_a_codec_is_that_of_the_library(tmp_path, codec, subtype):
    """At 8 kHz nothing but band, level and codec is left of the channel."""
    telephone = Telephone(1.0, [codec], sample_rate=8000)
    # In the band, at the level of the codec.
    time = torch.arange(8000) / 8000
    tones = [
        a * torch.sin(6.2832 * f * time) for a, f in ((1, 440), (0.3, 1999))
    ]
    wave = sum(tones)[None]
    wave = wave / wave.square().mean().sqrt() * 10 ** (-26 / 20)
    found = telephone(wave, np.zeros(1))[0]
    wanted = through_a_file(wave[0].numpy(), tmp_path / "x.wav", subtype)
    # The filter rings at the ends, and GSM remembers it for a while.
    cosine = torch.cosine_similarity(
        found[800:-800], torch.from_numpy(wanted)[800:-800], dim=0
    )
    assert float(cosine) > (0.98 if codec == "gsm" else 0.999)
    plain = torch.cosine_similarity(found[800:-800], wave[0, 800:-800], dim=0)
    # Not left out.
    assert float(plain) < float(cosine)


@pytest.mark.parametrize("codec", ["mu_law", "a_law"])
def test_g711_is_exact(tmp_path, codec):
    """Every level that 16 bits have becomes what libsndfile makes of it."""
    values = np.arange(-32768, 32768) / 32768
    telephone = Telephone(1.0, [codec])
    found = telephone._round_trip(torch.from_numpy(values).float()[None], codec)
    subtype = codec.replace("_", "").upper().replace("MULAW", "ULAW")
    wanted = through_a_file(values, tmp_path / "x.wav", subtype)
    # Near the limit between two levels either may be taken: libsndfile drops
    # the lowest bits before it decides.
    differing = found[0].numpy() != wanted
    step = np.abs(found[0].numpy() - wanted)[differing]
    assert differing.mean() < 0.05
    assert (step <= np.abs(values)[differing] / 8 + 1e-3).all()


@pytest.mark.parametrize("codec", CODECS)
def test_only_the_band_is_left(codec):
    """White noise in, 300 to 3400 Hz out, at the power that it had."""
    x = noise(8, 32000)
    y = Telephone(1.0, [codec])(x, np.zeros(8))
    assert y.shape == x.shape
    torch.testing.assert_close(
        y.square().mean(1), x.square().mean(1), rtol=1e-4, atol=0
    )
    power = torch.fft.rfft(y).abs().square().mean(0)
    hertz = torch.fft.rfftfreq(32000, 1 / 16000)

    def level(low, high):
        return 10 * power[(hertz >= low) & (hertz < high)].mean().log10()

    inside = level(400, 3300)
    # GSM makes some noise of its own where nothing is left.
    assert level(0, 150) < inside - 10
    assert level(4200, 8000) < inside - 20
    assert abs(level(400, 1000) - level(2300, 3300)) < 6


def test_a_faint_crop_is_not_coarser():
    """At its own level it would drown in the steps of the codec."""
    x = noise(4, 16000)
    telephone = Telephone(1.0, ["mu_law"])
    loud, faint = telephone(x, np.zeros(4)), telephone(x * 1e-3, np.zeros(4))
    torch.testing.assert_close(faint * 1e3, loud, rtol=0, atol=1e-4)


@pytest.mark.parametrize("codec", CODECS)
def test_a_crop_with_next_to_nothing_in_the_band(codec):
    """A tone of 6 kHz would become clicks at its ends, 16 times as high."""
    time = torch.arange(48000) / 16000
    high = 0.1 * torch.sin(6.283185 * 6000 * time)
    weak = 0.001 * torch.sin(6.283185 * 1000 * time)
    loud, mixed = Telephone(1.0, [codec])(
        torch.stack([high, high + weak]), np.zeros(2)
    )
    assert 0 < float(loud.abs().max()) < 0.1
    # What is in the band comes 20 dB louder.
    gain = mixed.square().mean() / weak.square().mean()
    assert float(10 * gain.log10()) == pytest.approx(20, abs=0.5)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("samples", [1, 163, 8001])
def test_silence_and_any_length(codec, samples):
    telephone = Telephone(1.0, [codec])
    for x in (torch.zeros(2, samples), noise(2, samples)):
        y = telephone(x, np.zeros(2))
        assert y.shape == x.shape and y.isfinite().all()
    assert (telephone(torch.zeros(2, samples), np.zeros(2)) == 0).all()


def augmentation(**options):
    return Augmentation({"clean": 1.0}, telephone=Telephone(**options))


def test_its_share_of_the_crops():
    """Drawn for every crop by itself; the others are untouched, bit by bit."""
    x = noise(len(KEYS) * 3, 400).view(-1, 3, 400)
    y = augmentation(probability=0.3)(x, (1, 1, KEYS))
    passed = (y != x).any(2)
    # Four standard deviations of 900 tosses.
    assert float(passed.float().mean()) == pytest.approx(0.3, abs=0.061)
    together = (passed[:, 0] & passed[:, 1]).float().mean()
    assert float(together) == pytest.approx(0.09, abs=0.066)
    assert torch.equal(augmentation()(x, (1, 1, KEYS)), x)
    again = augmentation(probability=0.3)(x, (1, 2, KEYS))
    assert ((again != x).any(2) != passed).any()


def test_shares_of_the_codecs():
    """The levels of a crop tell its law."""
    telephone = Telephone(1.0, ["mu_law", "a_law"])
    x = noise(400, 400)
    draws = np.random.default_rng(0).random(400)
    y = telephone(x, draws)
    for number, codec in enumerate(telephone.codecs):
        rows = torch.from_numpy((draws * 2).astype(int) == number)
        alone = Telephone(1.0, [codec])(x[rows], np.zeros(int(rows.sum())))
        torch.testing.assert_close(y[rows], alone)


def test_first_crops_that_are_not_augmented_do_not_telephone():
    x = noise(20, 400).view(10, 2, 400)
    channel = Telephone(probability=1.0)
    y = Augmentation({"clean": 1.0}, clean_first_crops=1, telephone=channel)(
        x, (1, 1, KEYS[:10])
    )
    assert torch.equal(y[:, 0], x[:, 0])
    assert (y[:, 1] != x[:, 1]).any(1).all()


def test_a_crop_does_not_depend_on_its_batch():
    x = noise(60, 400).view(20, 3, 400)
    channel = augmentation(probability=0.5, codecs=list(CODECS))
    together = channel(x, (1, 2, KEYS[:20]))
    halves = [channel(x[r::2], (1, 2, KEYS[:20][r::2])) for r in range(2)]
    for r in range(2):
        torch.testing.assert_close(halves[r], together[r::2])
    alone = channel(x[:, 2:], (1, 2, KEYS[:20]), first_crop=2)
    torch.testing.assert_close(alone[:, 0], together[:, 2])


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"probability": 1.5}, "probability"),
        ({"codecs": ["amr"]}, "mu_law, a_law, gsm, opus"),
        ({"codecs": []}, "codecs"),
        ({"sample_rate": 11025}, "multiple of 8000"),
    ],
)
def test_a_telephone_that_cannot_be(wrong, word):
    with pytest.raises(ConfigError, match=word):
        Telephone(**wrong)
