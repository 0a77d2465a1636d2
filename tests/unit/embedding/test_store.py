"""Embeddings in shards: whole or absent, of one model and one manifest."""

import json
import logging
import os
import signal

import numpy as np
import pytest
import soundfile
import torch

from speechbrain_ssl.data.manifest import Manifest, StringColumn
from speechbrain_ssl.embedding import store as module
from speechbrain_ssl.embedding.extract import embed_files
from speechbrain_ssl.embedding.store import EmbeddingStore
from speechbrain_ssl.encoders.ecapa import FastECAPA
from speechbrain_ssl.encoders.features import LogMel
from speechbrain_ssl.errors import AudioError, CheckpointError

SECONDS = [0.6, 1.0, 0.8, 0.5, 0.9, 0.7, 1.1, 0.6, 0.5, 0.8]


def write(path, seconds, seed):
    """Noise of some length."""
    wave = np.random.default_rng(seed).normal(0, 0.1, round(seconds * 16000))
    soundfile.write(path, wave, 16000)


def manifest_of(paths, seconds, prefix="u"):
    """A manifest of some files."""
    names = [f"{prefix}{i}" for i in range(len(paths))]
    return Manifest(
        StringColumn.from_strings(names),
        StringColumn.from_strings(map(str, paths)),
        np.array(seconds),
    )


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """Ten short files: three shards of four."""
    folder = tmp_path_factory.mktemp("audio")
    paths = [folder / f"{i}.wav" for i in range(len(SECONDS))]
    for i, path in enumerate(paths):
        write(path, SECONDS[i], i)
    return manifest_of(paths, SECONDS)


def make_model(seed=0):
    """A tiny encoder with statistics as after some training."""
    torch.manual_seed(seed)
    encoder = FastECAPA(80, channels=[16, 16, 16, 16, 48], lin_neurons=24)
    for _ in range(3):
        encoder(torch.randn(8, 60, 80) * 5)
    return encoder.eval(), LogMel()


@pytest.fixture(scope="module")
def model():
    return make_model()


def made(folder, manifest, model, size=4, **options):
    """A store that has been filled."""
    store = EmbeddingStore(folder, manifest, size)
    store.make(*model, progress=False, **options)
    return store


@pytest.fixture(scope="module")
def whole(manifest, model, tmp_path_factory):
    """An uninterrupted one."""
    return made(tmp_path_factory.mktemp("whole") / "s", manifest, model)


def shard_bytes(store):
    """Name -> contents of all shards."""
    return {p.name: p.read_bytes() for p in store.folder.glob("shard_*.npz")}


@pytest.fixture
def count_shards(monkeypatch):
    """Numbers of the shards that are made."""
    numbers, original = [], EmbeddingStore._make_shard

    def counted(self, number, *args, **options):
        numbers.append(number)
        return original(self, number, *args, **options)

    monkeypatch.setattr(EmbeddingStore, "_make_shard", counted)
    return numbers


def test_shards_in_the_order_of_the_manifest(whole, manifest, model):
    """Together they are what one pass over all files gives."""
    assert whole.shards == [(0, 4), (4, 8), (8, 10)]
    assert sorted(shard_bytes(whole)) == [
        f"shard_0000{i}.npz" for i in range(3)
    ]
    rows, places = whole.read()
    assert rows.dtype == np.float32 and places.tolist() == list(range(10))
    paths = [manifest.path(i) for i in range(10)]
    wanted = embed_files(*model, paths, progress=False)
    assert np.abs(rows - wanted).max() < 1e-5 * np.abs(wanted).max()
    assert whole.bad() == []


@pytest.mark.parametrize("first, last", [(0, 3), (2, 9), (4, 8), (9, 10)])
def test_a_stretch(whole, first, last):
    """Across the borders of shards, as processes read their parts."""
    every, _ = whole.read()
    rows, places = whole.read(first, last)
    assert places.tolist() == list(range(first, last))
    assert np.array_equal(rows, every[first:last])


def test_made_again(whole, manifest, model, count_shards):
    """What is there is not made anew."""
    before = shard_bytes(whole)
    made(whole.folder, manifest, model)
    assert count_shards == [] and shard_bytes(whole) == before


def killed(function):
    """Runs something in a process of its own that is killed in it."""
    child = os.fork()
    if child == 0:
        try:
            function()
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


@pytest.mark.parametrize("where", ["between", "within"])
def test_killed_and_gone_on(
    where, manifest, model, whole, tmp_path, monkeypatch, count_shards
):
    """After the first shard, or with half of the second one written."""
    original, calls = np.savez, []

    def fatal(stream, **arrays):
        calls.append(None)
        if len(calls) == 1:
            return original(stream, **arrays)
        if where == "within":
            stream.write(b"PK\x03\x04 half a shard")
            stream.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", fatal)
        killed(lambda: made(tmp_path, manifest, model))
    left = EmbeddingStore(tmp_path, manifest, 4)
    assert list(shard_bytes(left)) == ["shard_00000.npz"]
    with pytest.raises(CheckpointError, match="shard_00001.npz is missing"):
        left.read()
    store = made(tmp_path, manifest, model)
    assert count_shards == [1, 2]
    assert shard_bytes(store) == shard_bytes(whole)


@pytest.mark.parametrize("damage", ["absent", "cut", "text", "short", "empty"])
def test_a_damaged_shard(
    damage, manifest, model, whole, tmp_path, count_shards, caplog
):
    """Reading refuses it by name; making makes that one again."""
    store = made(tmp_path, manifest, model)
    path = tmp_path / "shard_00001.npz"
    if damage == "absent":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:200])
    elif damage == "text":
        path.write_text("no shard")
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        other = EmbeddingStore(tmp_path, manifest, 4)._load(0)[0][:3]
        np.savez(path, embeddings=other, bad=np.frombuffer(b"[]", np.uint8))
    with pytest.raises(CheckpointError, match=r"shard_00001\.npz.*damaged"):
        store.read()
    # The others can be read.
    assert store.read(8, 10)[1].tolist() == [8, 9]
    del count_shards[:]
    store.make(*model, progress=False)
    assert count_shards == [1]
    assert shard_bytes(store) == shard_bytes(whole)
    if damage in ("cut", "text", "empty"):
        assert "shard_00001.npz cannot be read and is recreated" in caplog.text


def test_another_model_is_refused(whole, manifest, model):
    """Other weights, other features, another precision, other pieces."""
    before = shard_bytes(whole)
    encoder, features = model
    for other in (make_model(seed=1), (encoder, LogMel(normalize="none"))):
        with pytest.raises(CheckpointError, match="of another model"):
            made(whole.folder, manifest, other)
    with pytest.raises(CheckpointError, match="of another model.*precision"):
        made(whole.folder, manifest, model, precision=torch.bfloat16)
    with pytest.raises(CheckpointError, match=r"most_seconds.*60.*9.*delete"):
        made(whole.folder, manifest, model, most_seconds=9)
    assert shard_bytes(whole) == before


def test_another_manifest_is_refused(whole, manifest, model):
    """Other utterances, another order, fewer; also when it is only read."""
    paths = [manifest.path(i) for i in range(10)]
    for other in (
        manifest_of(paths, SECONDS, prefix="v"),
        manifest.select(np.arange(10)[::-1]),
        manifest.select(np.arange(9)),
    ):
        with pytest.raises(CheckpointError, match="of another manifest"):
            made(whole.folder, other, model)
        with pytest.raises(CheckpointError, match="of another manifest"):
            EmbeddingStore(whole.folder, other, 4).read()


def test_another_size_of_shards_is_refused(whole, manifest, model):
    with pytest.raises(CheckpointError, match=r"shard_utterances.*4.*5"):
        made(whole.folder, manifest, model, size=5)


def test_nothing_there(manifest, tmp_path):
    with pytest.raises(CheckpointError, match="no embeddings in .*none"):
        EmbeddingStore(tmp_path / "none", manifest, 4).read()


def with_bad(manifest, folder, which):
    """A copy of the manifest some of whose files are text."""
    paths = [manifest.path(i) for i in range(len(manifest))]
    for i in which:
        paths[i] = folder / f"bad{i}.wav"
        paths[i].write_text("no audio")
    return manifest_of(paths, manifest.durations)


def test_bad_files_are_named_and_left_out(manifest, model, tmp_path, caplog):
    """Also all of one shard, and where the audio lies elsewhere by then."""
    broken = with_bad(manifest, tmp_path, [1, 8, 9])
    with caplog.at_level(logging.WARNING):
        store = made(tmp_path / "s", broken, model)
    assert "3 of 10 files cannot be read" in caplog.text
    assert "bad1.wav" in caplog.text and "bad9.wav" in caplog.text
    assert [i for i, _ in store.bad()] == [1, 8, 9]
    assert all("bad" in why for _, why in store.bad())
    moved = manifest_of([f"/moved/{i}.wav" for i in range(10)], SECONDS)
    for each in (store, EmbeddingStore(tmp_path / "s", moved, 4)):
        rows, places = each.read()
        assert places.tolist() == [0, 2, 3, 4, 5, 6, 7]
        assert rows.shape == (7, 24) and np.isfinite(rows).all()
    assert store.read(0, 2)[1].tolist() == [0]
    with pytest.raises(
        CheckpointError, match="none of the utterances 8 to 10 has an embedding"
    ):
        store.read(8, 10)


def test_too_many_bad_files_are_refused(manifest, model, tmp_path):
    """All of a small corpus; in a larger one, more than two percent."""
    broken = with_bad(manifest, tmp_path, range(10))
    with pytest.raises(AudioError, match=r"10 of 10.*bad0\.wav.*--check"):
        made(tmp_path / "s", broken, model, size=20)
    paths = [manifest.path(0)] * 4 + [tmp_path / "bad0.wav"] * 11
    many = manifest_of(paths, [0.6] * 15)
    with pytest.raises(AudioError, match="11 of 15"):
        made(tmp_path / "t", many, model, size=20)
    # Over several shards none of which has too many by itself.
    with pytest.raises(AudioError, match="11 of 15"):
        made(tmp_path / "u", many, model, size=5)
    allowed = manifest_of(paths[:14], [0.6] * 14)
    store = made(tmp_path / "v", allowed, model, size=5)
    assert store.read()[1].tolist() == [0, 1, 2, 3]


def test_a_corpus_elsewhere_is_noticed_in_the_first_shard(
    model, tmp_path, count_shards
):
    """And not after a million attempts."""
    gone = manifest_of([f"/gone/{i}.wav" for i in range(60)], [1.0] * 60)
    with pytest.raises(AudioError, match="where the manifest says"):
        made(tmp_path, gone, model, size=20)
    assert count_shards == [0]


class Watched(torch.nn.Module):
    """An encoder that notes how much it was given at a time."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder
        self.seen = []

    def forward(self, features, lengths):
        self.seen.append(tuple(features.shape[:2]))
        return self.encoder(features, lengths)


def test_a_long_file_is_embedded_in_pieces(manifest, model, tmp_path):
    """No piece is longer than asked; the mean of unit vectors is kept."""
    encoder, features = model
    path = tmp_path / "long.wav"
    write(path, 9.3, 99)
    paths = [manifest.path(0), path, manifest.path(1)]
    few = manifest_of(paths, [0.6, 9.3, 1.0])
    watched = Watched(encoder)
    store = made(
        tmp_path / "s",
        few,
        (watched, features),
        most_seconds=2.0,
        batch_seconds=4.0,
    )
    most = int(features.num_frames(torch.tensor(2 * 16000)))
    assert max(frames for _, frames in watched.seen) <= most
    assert max(n * frames for n, frames in watched.seen) <= 2 * most + 2
    rows, _ = store.read()
    wave = soundfile.read(path, dtype="float32")[0]
    edges = [len(wave) * i // 5 for i in range(6)]
    units = []
    for begin, end in zip(edges[:-1], edges[1:], strict=True):
        assert end - begin <= 2 * 16000
        piece = torch.from_numpy(wave[begin:end].copy())[None]
        with torch.no_grad():
            vector = encoder(features(piece))[0, 0].numpy()
        units.append(vector / np.linalg.norm(vector))
    assert np.abs(rows[1] - np.mean(units, axis=0)).max() < 1e-5
    # Short ones are whole, and not of length one.
    plain = embed_files(encoder, features, paths[:1], progress=False)
    assert np.abs(rows[0] - plain[0]).max() < 1e-5 * np.abs(plain).max()


def test_two_processes_share_the_shards(
    manifest, model, whole, tmp_path, monkeypatch, count_shards
):
    """Each makes others; together they are those of one process."""
    monkeypatch.setattr(module, "ddp_barrier", lambda: None)
    monkeypatch.setattr(module.distributed, "world_size", lambda: 2)
    for rank, shards in ((1, [1]), (0, [0, 2])):
        monkeypatch.setattr(module.distributed, "rank", lambda r=rank: r)
        with monkeypatch.context() as patch:
            if rank == 1:
                # It would wait for the other one at the barrier.
                patch.setattr(EmbeddingStore, "_check_bad", lambda self: None)
            made(tmp_path, manifest, model)
        assert count_shards == shards
        del count_shards[:]
    assert shard_bytes(EmbeddingStore(tmp_path, manifest, 4)) == shard_bytes(
        whole
    )


def test_the_index_says_what_they_are_of(whole, manifest):
    found = json.loads((whole.folder / "index.json").read_text())
    assert found["utterances"] == 10 and found["shard_utterances"] == 4
    assert len(found["model"]) == len(found["manifest"]) == 64
