"""Packed audio: the same crops as from files, and a packing that goes on."""

import os
import pathlib

import numpy as np
import pandas as pd
import pytest
import soundfile

from speechbrain_ssl.data.audio import AudioFile
from speechbrain_ssl.data.crops import CropPlan
from speechbrain_ssl.data.dataset import CropDataset
from speechbrain_ssl.data.manifest import Manifest, write_manifest
from speechbrain_ssl.data.packed import packed_path
from speechbrain_ssl.errors import AudioError, UserError
from speechbrain_ssl.prepare import pack as module
from speechbrain_ssl.prepare.pack import pack

PLAN = CropPlan(2, 0.3, 2, 0.2, chunk_seconds=0.8)
COUNT = 9


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    """Utterances of 0.1 to 0.9 s, and a shard for about one second of them."""
    monkeypatch.setattr(module, "_SHARD_SECONDS", 1.0)
    monkeypatch.setattr(module, "_BLOCK", 5000)
    rng = np.random.default_rng(0)
    rows = []
    for i in range(COUNT):
        seconds = 0.1 + 0.1 * i
        name = f"u{i}.{('wav', 'flac')[i % 2]}"
        wave = rng.integers(-32768, 32768, round(16000 * seconds))
        soundfile.write(tmp_path / name, wave.astype(np.int16), 16000)
        rows.append({"ID": f"u{i}", "duration": seconds, "wav": name})
    table = pd.DataFrame(rows)
    table["wav"] = f"{tmp_path}/" + table["wav"]
    return tmp_path, table


def packed(corpus, folders="packed", **options):
    folder, table = corpus
    folders = [str(folder / name) for name in np.atleast_1d(folders)]
    return pack(table, folders, num_workers=0, progress=False, **options)


def manifest_of(folder, table, name):
    write_manifest(folder / name, table)
    return Manifest.read(folder / name)


def shards(folder):
    return sorted(folder.glob("packed*/*.pcm16"))


def test_crops_are_those_of_the_files(corpus):
    """Bit for bit, with parts of long utterances and with several sources."""
    folder, table = corpus
    wavs, rejected = packed(corpus, ["packed0", "packed1"])
    assert rejected == []
    names = {pathlib.Path(wav).parent.name for wav in wavs}
    assert names == {"packed0", "packed1"} and len(shards(folder)) > 3
    sets = [
        CropDataset(manifest_of(folder, rows, name), PLAN, 3, 0.35)
        for name, rows in (
            ("files.csv", table),
            ("packed.csv", table.assign(wav=wavs)),
        )
    ]
    for i in range(COUNT):
        for sources in ((), (np.array([i, 0, 8, 5]),)):
            mine, other = (
                data.collate([data[(2, i, *sources)]]) for data in sets
            )
            assert mine.keys == other.keys and mine.bad == other.bad == []
            for a, b in zip(
                [*mine.crops, mine.reference],
                [*other.crops, other.reference],
                strict=True,
            ):
                assert a.dtype == b.dtype and (a == b).all()


def test_other_audio_is_converted(tmp_path):
    """Channels are mixed, rates converted; 16 bits are all that is left."""
    wave = np.random.default_rng(1).normal(0, 0.1, (8000, 2))
    soundfile.write(tmp_path / "a.wav", wave, 8000, subtype="FLOAT")
    table = pd.DataFrame([{"ID": "a", "duration": 1.0, "wav": "a.wav"}])
    table["wav"] = str(tmp_path / "a.wav")
    (path,), _ = packed((tmp_path, table))
    with AudioFile(str(tmp_path / "a.wav")) as file, AudioFile(path) as ours:
        assert ours.num_samples == file.num_samples == 16000
        error = np.abs(ours.read() - file.read()).max()
        assert 0 < error <= 0.5 / 32768


def test_it_goes_on_and_packs_again_what_has_changed(corpus, monkeypatch):
    folder, table = corpus
    read, opened = module._append, []

    def append(stream, path, seconds):
        opened.append(os.path.basename(path))
        if len(opened) == 6:
            raise KeyboardInterrupt
        return read(stream, path, seconds)

    monkeypatch.setattr(module, "_append", append)
    with pytest.raises(KeyboardInterrupt):
        packed(corpus)
    # Nothing half-written stays.
    whole = shards(folder)
    assert whole and len(list((folder / "packed").iterdir())) == 2 * len(whole)
    before = {path: path.stat().st_mtime_ns for path in whole}
    opened.append("")
    wavs, _ = packed(corpus)
    assert (
        before.items()
        <= {path: path.stat().st_mtime_ns for path in shards(folder)}.items()
    )
    opened.clear()
    assert packed(corpus)[0] == wavs and opened == []
    # A source that has changed, and a shard that has been damaged.
    path = folder / "u1.flac"
    wave, _ = soundfile.read(path)
    soundfile.write(path, wave[::-1], 16000)
    again, _ = packed(corpus)
    assert "u1.flac" in opened and len(opened) < COUNT
    with AudioFile(again[1]) as audio:
        assert np.array_equal(audio.read(), soundfile.read(path, dtype="f4")[0])
    opened.clear()
    damaged = pathlib.Path(again[8].split(":")[0])
    data = bytearray(damaged.read_bytes())
    data[-1] ^= 1
    damaged.write_bytes(data)
    assert packed(corpus)[0] == again and opened == []
    assert packed(corpus, verify=True)[0] == again and "u8.wav" in opened
    damaged.write_bytes(data[:-1])
    opened.clear()
    packed(corpus)
    assert "u8.wav" in opened


def test_what_cannot_be_read_is_rejected_each_time(corpus):
    folder, table = corpus
    (folder / "u4.wav").write_bytes(b"no audio")
    for _ in range(2):
        wavs, rejected = packed(corpus)
        assert [wav is None for wav in wavs] == [i == 4 for i in range(COUNT)]
        [(wav, reason, detail)] = rejected
        assert wav == str(folder / "u4.wav") and reason == "unreadable"
        assert detail
    # Its neighbours are where they should be.
    for i in (3, 5):
        with AudioFile(wavs[i]) as audio:
            wave = soundfile.read(table["wav"][i], dtype="float32")[0]
            assert np.array_equal(audio.read(), wave)


@pytest.mark.skipif(os.name == "nt", reason="names there are Unicode")
def test_a_name_that_is_not_utf_8(tmp_path):
    """As in a folder of old recordings, in Latin-1."""
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav")
    with open(path, "wb") as stream:
        soundfile.write(stream, np.ones(16000) / 2, 16000, format="WAV")
    table = pd.DataFrame([{"ID": "a", "duration": 1.0, "wav": path}])
    (wav,), rejected = packed((tmp_path, table))
    assert wav and rejected == []


def test_bad_shards_are_named(corpus):
    folder, _ = corpus
    missing = packed_path(folder / "gone.pcm16", 0, 10)
    with pytest.raises(AudioError, match=r"gone\.pcm16.*missing.*pack"):
        AudioFile(missing)
    path = packed(corpus)[0][-1]
    shard, first, count = path.split(":")
    with pytest.raises(AudioError, match="truncated"):
        AudioFile(packed_path(shard, int(first) + 1, count))


def test_too_small_a_disk(corpus, monkeypatch):
    """Refused before anything is written; what is there already counts."""
    folder, _ = corpus
    usage = module.shutil.disk_usage(folder)
    packed(corpus)
    monkeypatch.setattr(
        module.shutil, "disk_usage", lambda _: usage._replace(free=1000)
    )
    packed(corpus)
    with pytest.raises(UserError, match="elsewhere.*0.0 GB left.*`pack`"):
        packed(corpus, "elsewhere")
    assert not list((folder / "elsewhere").iterdir())
