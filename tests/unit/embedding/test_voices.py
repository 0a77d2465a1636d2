"""Recordings with more than one voice are told from those with one."""

import numpy as np
import pytest
import soundfile
import torch

from speechbrain_ssl.embedding.voices import (
    LEAST_SECONDS,
    SAME_VOICE,
    group_cosine,
    voice_agreement,
)
from speechbrain_ssl.encoders.features import LogMel

RATE = 16000


def brute_force(rows):
    """The best division into two groups of at least two, over all of them."""
    best = (-1.0, None)
    for mask in range(2 ** len(rows)):
        chosen = np.array([mask >> i & 1 for i in range(len(rows))], bool)
        if 2 <= chosen.sum() <= len(rows) - 2:
            a, b = rows[chosen].sum(0), rows[~chosen].sum(0)
            fit = np.linalg.norm(a) + np.linalg.norm(b)
            cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
            best = max(best, (fit, cosine))
    return best[1]


def test_the_division_is_that_of_two_means():
    """Where there are two groups, none of all divisions is better."""
    rng = np.random.default_rng(0)
    for sizes in ((4, 4), (2, 6), (7, 2)):
        centers = np.repeat(rng.normal(size=(2, 6)), sizes, axis=0)
        rows = centers + 0.2 * rng.normal(size=centers.shape)
        rows = rng.permutation(rows / np.linalg.norm(rows, axis=1)[:, None])
        assert group_cosine(rows) == pytest.approx(brute_force(rows))


def test_a_single_odd_probe_is_no_voice():
    rows = np.eye(3)[[0, 0, 0, 0, 0, 1]]
    assert group_cosine(rows) > SAME_VOICE
    assert group_cosine(np.eye(3)[[0, 0, 0, 0, 1, 1]]) == 0


class Pitch(torch.nn.Module):
    """Embeds by the energies of the mel bands."""

    def forward(self, x, lengths=None):
        return (x.mean(1, keepdim=True) / 10).softmax(2)


def tone(hertz, seconds):
    time = np.arange(round(seconds * RATE)) / RATE
    rng = np.random.default_rng(round(hertz))
    return (
        0.1 * np.sin(2 * np.pi * hertz * time) * rng.uniform(0.9, 1, len(time))
    )


@pytest.fixture
def recordings(tmp_path):
    """One tone; two; one beside silence; two, but too short; none at all."""
    half = LEAST_SECONDS / 2
    waves = {
        "one": tone(300, 2 * half),
        "two": np.append(tone(300, half), tone(2000, half)),
        "silence": np.append(tone(300, half + 6), np.zeros(round(half * RATE))),
        "short": np.append(tone(300, half - 1), tone(2000, half - 1)),
        "little": np.append(tone(300, 20), np.zeros(round(2 * half * RATE))),
    }
    paths = []
    for name, wave in waves.items():
        paths.append(str(tmp_path / f"{name}.wav"))
        soundfile.write(paths[-1], wave, RATE)
    return paths, [len(wave) / RATE for wave in waves.values()]


def test_two_voices_are_found(recordings, tmp_path):
    paths, seconds = recordings
    missing = str(tmp_path / "missing.wav")
    found = voice_agreement(
        Pitch(),
        LogMel(normalize="none"),
        [*paths, missing],
        [*seconds, 100.0],
        progress=False,
    )
    assert found[0] > 0.99
    assert found[1] < SAME_VOICE
    # Silent probes are no second voice, and few probes are no evidence.
    assert found[2] > 0.9
    assert np.isnan(found[3:]).all()
