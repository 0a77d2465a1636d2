"""Long files are read and embedded in windows of bounded length."""

import re

import numpy as np
import pytest
import soundfile
import torch

from speechbrain_ssl.data.audio import AudioFile
from speechbrain_ssl.embedding.cache import embed_cached
from speechbrain_ssl.embedding.crops import CropGrid, embed_crops
from speechbrain_ssl.embedding.extract import (
    MOST_SECONDS,
    embed_files,
    embed_windows,
)
from speechbrain_ssl.errors import AudioError, ConfigError
from speechbrain_ssl.verification import protocol
from speechbrain_ssl.verification.trials import Trials

RATE = 16000


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """Files of 7.3, 1.0, 5.0, 2.0 and 7.3 s."""
    folder = tmp_path_factory.mktemp("long")
    rng = np.random.default_rng(0)
    paths = []
    for i, seconds in enumerate((7.3, 1.0, 5.0, 2.0, 7.3)):
        paths.append(str(folder / f"{i}.wav"))
        # The level changes, so that windows differ.
        wave = rng.normal(0, 0.1, round(seconds * RATE))
        wave *= np.linspace(0.1, 1, len(wave)) ** (i + 1)
        soundfile.write(paths[-1], wave, RATE)
    return paths


@pytest.fixture
def reads(monkeypatch):
    """The samples of every read, and how often files were opened."""
    found = {"samples": [], "opened": []}
    read, opened = AudioFile.read, AudioFile.__init__

    def counting(self, *args, **kwargs):
        wave = read(self, *args, **kwargs)
        found["samples"].append(len(wave))
        return wave

    def opening(self, path, *args, **kwargs):
        found["opened"].append(path)
        opened(self, path, *args, **kwargs)

    monkeypatch.setattr(AudioFile, "read", counting)
    monkeypatch.setattr(AudioFile, "__init__", opening)
    return found


@torch.no_grad()
def alone(model, wave):
    """Embed a waveform by itself."""
    wave = torch.from_numpy(np.asarray(wave, dtype=np.float32))
    return model[0](model[1](wave[None]))[0, 0].numpy()


def close(a, b):
    return np.abs(a - b).max() < 1e-5 * np.abs(b).max()


def mean_of_pieces(model, path, pieces):
    """The mean of unit embeddings, computed one piece after the other."""
    wave = soundfile.read(path, dtype="float32")[0]
    edges = np.linspace(0, len(wave), pieces + 1).astype(int)
    rows = [
        alone(model, wave[a:b])
        for a, b in zip(edges[:-1], edges[1:], strict=True)
    ]
    return np.mean([row / np.linalg.norm(row) for row in rows], axis=0)


def test_the_mean_of_windows(model, paths):
    """Of equal length: 7.3 s in windows of at most 2 s are four of 1.825 s."""
    found = embed_files(*model, paths, most_seconds=2.0, progress=False)
    for i, pieces in ((0, 4), (2, 3), (4, 4)):
        assert close(found[i], mean_of_pieces(model, paths[i], pieces))
    for i in (1, 3):
        wave = soundfile.read(paths[i])[0]
        assert close(found[i], alone(model, wave))
    assert np.linalg.norm(found[0]) < 1 - 1e-4


def test_batches_and_order_change_nothing(model, paths):
    wanted = embed_files(*model, paths, most_seconds=2.0, progress=False)
    for options in (
        {"batch_seconds": 0.1},
        {"batch_seconds": 5.0},
        {"num_workers": 2},
    ):
        found = embed_files(
            *model, paths, most_seconds=2.0, progress=False, **options
        )
        assert close(found, wanted), options
    order = [3, 0, 4, 2, 1]
    found = embed_files(
        *model, [paths[i] for i in order], most_seconds=2.0, progress=False
    )
    assert close(found, wanted[order])


def test_windows_and_their_times(model, paths):
    found = embed_windows(*model, paths, 2.0, progress=False)
    assert found.files.tolist() == [0] * 4 + [1] + [2] * 3 + [3] + [4] * 4
    first = found.files == 0
    assert found.starts[first] == pytest.approx([0, 1.825, 3.65, 5.475])
    assert found.ends[first] == pytest.approx([1.825, 3.65, 5.475, 7.3])
    wave = soundfile.read(paths[2])[0]
    rows = found.embeddings[found.files == 2]
    assert close(rows[1], alone(model, wave[80000 // 3 : 160000 // 3]))


def test_nothing_longer_than_a_window_is_read(model, tmp_path, reads):
    """And a file is opened once, not for each of its windows."""
    path = str(tmp_path / "long.flac")
    noise = np.random.default_rng(0).normal(0, 0.1, 60 * RATE)
    soundfile.write(path, np.tile(noise, 10), RATE)
    found = embed_files(*model, [path], progress=False)
    assert np.isfinite(found).all()
    assert sum(reads["samples"]) == 600 * RATE
    assert max(reads["samples"]) <= MOST_SECONDS * RATE
    # Once for its duration, once to read it.
    assert reads["opened"] == [path, path]
    reads["samples"].clear()
    embed_crops(*model, [path], CropGrid(3, 4.0), progress=False)
    assert reads["samples"] == [4 * RATE] * 3


@pytest.mark.parametrize("excess, windows", [(-1, 1), (0, 1), (1, 2)])
def test_around_the_bound(model, tmp_path, reads, excess, windows):
    path = str(tmp_path / "file.wav")
    samples = 2 * RATE + excess
    soundfile.write(
        path, np.random.default_rng(0).normal(0, 0.1, samples), RATE
    )
    found = embed_files(*model, [path], most_seconds=2.0, progress=False)
    assert len(reads["samples"]) == windows
    assert close(
        found[0],
        alone(model, soundfile.read(path)[0])
        if windows == 1
        else mean_of_pieces(model, path, 2),
    )


def test_unreadable_in_the_middle(model, paths, tmp_path):
    """A part of a file is not passed off as the whole of it."""
    wave = soundfile.read(paths[0])[0]
    wave[len(wave) // 2] = np.nan
    broken = str(tmp_path / "broken.wav")
    soundfile.write(broken, wave, RATE, subtype="FLOAT")
    files = [paths[0], broken, paths[1]]
    with pytest.raises(AudioError, match=r"broken\.wav"):
        embed_files(*model, files, most_seconds=2.0, progress=False)
    bad = []
    found = embed_windows(*model, files, 2.0, bad=bad, progress=False)
    assert [i for i, _ in bad] == [1] and "broken.wav" in bad[0][1]
    assert set(found.files) == {0, 2}
    bad = []
    rows = embed_files(*model, files, most_seconds=2.0, bad=bad, progress=False)
    assert np.isfinite(rows).all(axis=1).tolist() == [True, False, True]
    assert close(rows[0], mean_of_pieces(model, paths[0], 4))


def test_a_file_much_longer_than_its_manifest_says(model, paths):
    """It would be read at once; there is an error instead."""
    with pytest.raises(AudioError, match=r"7\.30 s, and not the 1\.00 s"):
        embed_files(*model, paths[:1], [1.0], most_seconds=2.0, progress=False)


@pytest.mark.parametrize("most", [None, 0, 0.1, float("inf")])
def test_a_bound_that_is_none(model, paths, most):
    with pytest.raises(ConfigError, match="at least 0.5.*embed_most_seconds"):
        embed_files(*model, paths, most_seconds=most, progress=False)


def test_trimming_silence(model, tmp_path):
    """A tenth of a second stays; windows without speech have no part."""
    rng = np.random.default_rng(0)
    speech = rng.normal(0, 0.1, 3 * RATE)
    # White noise 60 dB below the speech, which is all that some windows have.
    wave = np.concatenate([speech, rng.normal(0, 1e-4, 8 * RATE)])
    path = str(tmp_path / "a.wav")
    soundfile.write(path, wave, RATE, subtype="FLOAT")
    options = {"trim": True, "progress": False}
    whole = embed_files(*model, [path], **options)
    assert close(whole[0], alone(model, wave[: round(3.1 * RATE)]))
    # Six windows of 11 / 6 s, of which two have speech.
    found = embed_windows(*model, [path], 2.0, **options)
    assert found.ends == pytest.approx([11 / 6, 22 / 6], abs=1e-4)
    edge = 11 * RATE // 6
    pieces = wave[:edge], wave[edge : edge + 320 * 59 + 1600]
    assert len(pieces[1]) == pytest.approx(1.27 * RATE, abs=320)
    assert close(found.embeddings[0], alone(model, pieces[0]))
    assert close(found.embeddings[1], alone(model, pieces[1]))
    mean = embed_files(*model, [path], most_seconds=2.0, **options)
    units = found.embeddings
    units = units / np.linalg.norm(units, axis=1, keepdims=True)
    assert close(mean[0], units.mean(axis=0))
    plain = embed_windows(*model, [path], 2.0, progress=False)
    assert len(plain.files) == 6


def test_silence_throughout_is_named(model, tmp_path):
    path = str(tmp_path / "zeros.wav")
    soundfile.write(path, np.zeros(5 * RATE), RATE)
    with pytest.raises(AudioError, match=r"zeros\.wav holds no speech"):
        embed_files(*model, [path], most_seconds=2.0, trim=True, progress=False)


def test_the_cache_knows_the_bound(model, paths, tmp_path):
    """Rows embedded with another bound are not used again."""
    cache = tmp_path / "cache.npz"
    whole, made = embed_cached(cache, *model, paths, progress=False)
    assert made == 5
    short, made = embed_cached(
        cache, *model, paths, most_seconds=2.0, progress=False
    )
    assert made == 5 and not close(short[0], whole[0])
    assert close(short[1], whole[1])


def test_voxceleb_is_evaluated_whole(monkeypatch, repository):
    """Its longest utterance has 220.2 s (Nagrani et al., 2020)."""
    seen = {}

    def embed(encoder, features, paths, **options):
        seen.update(options)
        return np.eye(2)

    monkeypatch.setattr(protocol, "embed_files", embed)
    trials = Trials([True], [0], [1], ["a.wav", "b.wav"])
    protocol.score_trials(None, None, trials, "folder")
    assert seen["most_seconds"] > 220.2
    folder = repository / "recipes/VoxCeleb/Verification/hparams"
    for path in folder.glob("*.yaml"):
        found = re.search(r"^embed_most_seconds: (\d+)", path.read_text(), re.M)
        assert float(found[1]) == seen["most_seconds"]
