"""Silence, by the energy of frames."""

import numpy as np
import pytest

from speechbrain_ssl.data.silence import (
    frame_energies,
    speech_share,
    trim_silence,
)

RATE = 16000


def noise(seconds, level=0.1, seed=0):
    samples = round(seconds * RATE)
    return np.random.default_rng(seed).normal(0, level, samples)


def share(wave):
    return speech_share(frame_energies(wave, RATE))


def test_share_counts_what_is_far_below_the_loudest():
    """30 dB below the loudest is the border; the constant part counts not."""
    voice, pause = noise(1), noise(3, seed=1)
    for level, wanted in ((10**-1.7, 0.25), (10**-1.3, 1.0)):
        for scale, offset in ((1, 0), (1e-2, 0), (1, 0.5)):
            wave = np.append(voice, pause * level) * scale + offset
            assert share(wave) == pytest.approx(wanted, abs=0.01)
    assert share(np.zeros(RATE)) == 0
    assert share(np.zeros(0)) == 0
    # One step of 16-bit audio up and down is no speech, but louder is.
    step = 2.0**-15 * np.where(noise(1) > 0, 0.5, -0.5)
    assert share(step) == 0
    assert share(4 * step) == 1


def test_a_click_does_not_silence_the_rest():
    wave = noise(2, 0.01)
    wave[5000:5100] += 1
    assert share(wave) == 1


def test_energies_of_all_samples():
    """The frames of 20 ms, and a shorter one at the end."""
    wave = noise(0.05)
    found = frame_energies(wave, RATE)
    wanted = [wave[:320].var(), wave[320:640].var(), wave[640:].var()]
    assert found == pytest.approx(wanted, rel=1e-6)
    assert len(frame_energies(wave[:5], 8)) == 5


def test_ends_and_long_pauses_are_cut():
    """The positions of what is kept, from samples that are all different."""
    parts = [
        ("silence", 1.0),
        ("voice", 1.0),
        ("silence", 0.4),  # a short pause stays
        ("voice", 1.0),
        ("silence", 2.0),
        ("voice", 0.5),
        ("silence", 0.3),
    ]
    wave = np.concatenate(
        [
            noise(seconds, 0.1 if kind == "voice" else 1e-5, seed)
            for seed, (kind, seconds) in enumerate(parts)
        ]
    )
    found = trim_silence(wave, RATE, longest_pause=0.5, margin=0.1)
    wanted = [wave[int(0.9 * RATE) : int(3.5 * RATE)]]
    wanted += [wave[int(5.3 * RATE) : int(6.0 * RATE)]]
    assert np.array_equal(found, np.concatenate(wanted))
    longer = trim_silence(wave, RATE, longest_pause=3.0, margin=0.1)
    assert np.array_equal(longer, wave[int(0.9 * RATE) : int(6.0 * RATE)])
    # What was trimmed once stays as it is.
    assert np.array_equal(trim_silence(found, RATE), found)


def test_nothing_to_cut():
    for wave in (noise(1), np.zeros(RATE), np.zeros(0), noise(0.01)):
        assert np.array_equal(trim_silence(wave, RATE), wave)
