"""Each half is embedded as a recording of its own."""

import numpy as np
import pytest
import soundfile
import torch

from speechbrain_ssl.embedding import halves as module
from speechbrain_ssl.embedding.halves import embed_halves
from speechbrain_ssl.errors import AudioError

SECONDS = [2.0, 0.7, 3.0]


@pytest.fixture
def paths(tmp_path):
    rng = np.random.default_rng(0)
    paths = [str(tmp_path / f"{i}.wav") for i in range(len(SECONDS))]
    for path, seconds in zip(paths, SECONDS, strict=True):
        wave = rng.normal(0, 0.1, round(seconds * 16000))
        soundfile.write(path, wave, 16000)
    return paths


@torch.no_grad()
def alone(model, wave):
    """Embed a waveform by itself, as a unit vector."""
    encoder, features = model
    wave = np.resize(wave, max(len(wave), 8000))
    row = encoder(features(torch.from_numpy(wave)[None]))[0, 0].numpy()
    return row / np.linalg.norm(row)


@pytest.mark.parametrize("longest", [60.0, 0.8])
def test_halves(paths, model, monkeypatch, longest):
    """Those longer than a window are the mean of as many as they need."""
    monkeypatch.setattr(module, "MOST_SECONDS", longest)
    found = embed_halves(*model, paths, SECONDS, progress=False)
    assert found.shape == (3, 2, 24)
    for path, rows in zip(paths, found, strict=True):
        wave, _ = soundfile.read(path, dtype="float32")
        for half, row in zip(np.array_split(wave, 2), rows, strict=True):
            parts = np.array_split(half, -(-len(half) // (longest * 16000)))
            wanted = np.mean([alone(model, part) for part in parts], axis=0)
            cosine = row @ wanted / np.linalg.norm(row) / np.linalg.norm(wanted)
            assert cosine == pytest.approx(1, abs=1e-5)


def test_a_file_that_cannot_be_read(paths, model):
    """It is refused, or its rows are not a number and the reason is given."""
    with open(paths[1], "wb") as stream:
        stream.write(b"RIFF, and no more")
    with pytest.raises(AudioError, match=r"1\.wav"):
        embed_halves(*model, paths, SECONDS, progress=False)
    bad = []
    found = embed_halves(*model, paths, SECONDS, bad, progress=False)
    assert [i for i, _ in bad] == [1]
    assert np.isnan(found).all(axis=(1, 2)).tolist() == [False, True, False]
