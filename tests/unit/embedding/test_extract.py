"""Embeddings of whole files do not depend on how they were batched."""

import sys

import numpy as np
import pytest
import soundfile
import torch

from speechbrain_ssl.embedding.extract import _batches, embed_files
from speechbrain_ssl.errors import AudioError

SECONDS = [0.7, 2.0, 0.1, 1.2, 3.1, 0.5, 2.0]


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("audio")
    rng = np.random.default_rng(0)
    paths = []
    for i, seconds in enumerate(SECONDS):
        paths.append(str(folder / f"{i}.wav"))
        wave = rng.normal(0, 0.1, round(seconds * 16000))
        soundfile.write(paths[-1], wave, 16000)
    return paths


def close(a, b):
    return np.abs(a - b).max() < 1e-5 * np.abs(b).max()


@torch.no_grad()
def alone(model, path):
    encoder, features = model
    wave = torch.from_numpy(soundfile.read(path, dtype="float32")[0])
    return encoder(features(wave[None]))[0, 0].numpy()


def test_an_embedding_is_the_files_own(paths, model):
    """Batch size, order, neighbours and workers do not matter."""
    wanted = embed_files(*model, paths, progress=False)
    assert wanted.shape == (7, 24) and wanted.dtype == np.float32
    for i in (1, 3, 4, 5):
        assert close(wanted[i], alone(model, paths[i]))
    for options in (
        {"batch_seconds": 0.1},
        {"batch_seconds": 4.0},
        {"num_workers": 2},
        {"seconds": SECONDS},
    ):
        found = embed_files(*model, paths, progress=False, **options)
        assert close(found, wanted), options
    order = [4, 2, 0, 6, 1, 5, 3]
    shuffled = [paths[i] for i in order]
    found = embed_files(*model, shuffled, progress=False)
    assert close(found, wanted[order])


def test_a_very_short_file_is_repeated(paths, model, tmp_path):
    """0.1 s is less than the encoder's reach: made 0.5 s, not refused."""
    wave, _ = soundfile.read(paths[2])
    path = str(tmp_path / "repeated.wav")
    soundfile.write(path, np.tile(wave, 5), 16000)
    short, repeated = embed_files(*model, [paths[2], path], progress=False)
    assert np.isfinite(short).all() and close(short, repeated)


def test_batches_are_bounded():
    """In padded seconds; a very long file is alone, or memory would burst."""
    rng = np.random.default_rng(0)
    seconds = [*rng.uniform(1, 30, 500), 3600.0]
    batches = _batches(seconds, 200.0)
    assert sorted(i for b in batches for i in b) == list(range(501))
    assert batches[0] == [500]
    for batch in batches[1:]:
        longest = max(seconds[i] for i in batch)
        assert longest * len(batch) <= 200.0
    # And filled: little more batches than the sum needs.
    assert len(batches) < 1.2 * sum(seconds[:-1]) / 200 + 2
    assert _batches([], 200.0) == []


def test_progress_is_for_terminals(paths, model, capsys, monkeypatch):
    """A bar on a terminal, unless switched off; never in a log file."""
    embed_files(*model, paths[:1], progress=True)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    embed_files(*model, paths[:1], progress=True)
    assert "utt" in capsys.readouterr().err
    embed_files(*model, paths[:1], progress=False)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("seconds", [None, [0.7, 1.0]])
def test_an_unreadable_file_is_named(paths, model, tmp_path, seconds):
    bad = tmp_path / "bad.wav"
    bad.write_text("no audio")
    with pytest.raises(AudioError, match=r"bad\.wav"):
        embed_files(*model, [paths[0], str(bad)], seconds, progress=False)


def test_bf16_is_close(paths, model):
    wanted = embed_files(*model, paths, progress=False)
    found = embed_files(*model, paths, precision=torch.bfloat16, progress=False)
    cosine = (wanted * found).sum(1)
    cosine /= np.linalg.norm(wanted, axis=1) * np.linalg.norm(found, axis=1)
    assert cosine.min() > 0.99
