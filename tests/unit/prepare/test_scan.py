"""Scanning: every file ends in one of two tables, whatever it is."""

import os
import signal

import numpy as np
import pandas as pd
import pytest
from audio_files import tone, write

from speechbrain_ssl.data.manifest import Manifest, write_manifest
from speechbrain_ssl.errors import ManifestError, UserError
from speechbrain_ssl.prepare import scan as scan_module
from speechbrain_ssl.prepare.rejected import write_rejected
from speechbrain_ssl.prepare.scan import ScanCache, scan


@pytest.fixture
def corpus(tmp_path):
    """One file of every kind."""
    root = tmp_path / "corpus"
    write(root / "s1/good.wav")
    stereo = np.stack([tone(2, 44100)] * 2, 1)
    write(root / "s1/stereo.FLAC", stereo, 44100)
    write(root / "s2/good.ogg")
    write(root / "s2/short.wav", tone(0.5))
    write(root / "s2/rate8k.wav", tone(2, 8000), 8000)
    write(root / "s3/silent.wav", np.zeros(32000))
    bad = tone()
    bad[8000:8003] = [np.nan, np.inf, -np.inf]
    write(root / "s3/nan.wav", bad, subtype="FLOAT")
    (root / "s3/corrupt.wav").write_bytes(b"this is no audio" * 50)
    (root / "s3/empty.wav").touch()
    write(root / "s3/no_samples.wav", np.zeros(0))
    whole = write(root / "s3/cut.wav").read_bytes()
    (root / "s3/cut.wav").write_bytes(whole[: len(whole) // 2])
    os.symlink(root / "absent.wav", root / "s3/link.wav")
    return root


def run(root, **kwargs):
    """A scan without bars; reasons by file name."""
    kwargs.setdefault("num_workers", 0)
    found = scan(root, progress=False, **kwargs)
    names = found.rejected["wav"].str.replace("$data_root/", "", regex=False)
    return found, dict(zip(names, found.rejected["reason"], strict=True))


def test_header_check(corpus):
    found, rejected = run(corpus, min_duration=1.0, sample_rate=16000)
    assert rejected == {
        "s1/stereo.FLAC": "wrong sample rate",
        "s2/short.wav": "too short",
        "s2/rate8k.wav": "wrong sample rate",
        "s3/corrupt.wav": "unreadable",
        "s3/cut.wav": "truncated",
        "s3/empty.wav": "empty file",
        "s3/link.wav": "missing",
        "s3/no_samples.wav": "zero length",
    }
    assert list(found.usable["ID"]) == [
        "s1/good",
        "s2/good",
        "s3/nan",
        "s3/silent",
    ]
    # What is too short, or of another rate, has a length that is known.
    assert found.unused_seconds == 2 + 0.5 + 2
    usable = found.usable["duration"].sum()
    assert found.totals()["hours_found"] == round((usable + 4.5) / 3600, 4)
    detail = found.rejected.set_index("wav")["detail"]
    assert detail["$data_root/s3/corrupt.wav"] == "Format not recognised."
    assert "8000 Hz" in detail["$data_root/s2/rate8k.wav"]


def test_decode_check_finds_more(corpus):
    found, rejected = run(corpus, check="decode")
    assert rejected["s3/nan.wav"] == "samples out of range"
    assert rejected["s3/silent.wav"] == "silent"
    assert list(found.usable["ID"]) == [
        "s1/good",
        "s1/stereo",
        "s2/good",
        "s2/rate8k",
        "s2/short",
    ]
    row = found.rejected.set_index("wav").loc["$data_root/s3/nan.wav"]
    assert row["detail"] == "NaN, infinite or beyond 1e+06 at 0.500 s"


def test_notes_are_kept_with_the_cache(tmp_path):
    write(tmp_path / "corpus/a.wav")
    write(tmp_path / "corpus/b.wav", tone() / 10000)
    for opened in (2, 0):
        found, rejected = run(
            tmp_path / "corpus", cache=tmp_path / "c", check="decode"
        )
        assert (found.opened, rejected) == (opened, {})
        assert found.notes.to_numpy().tolist() == [
            [
                "$data_root/a.wav",
                "level hardly varies",
                "as that of noise or of a tone, and unlike that of speech",
            ],
            [
                "$data_root/b.wav",
                "hardly any sound",
                "at most 1 steps of 16-bit audio",
            ],
        ]


def test_durations_are_exact(tmp_path):
    write(tmp_path / "a.wav", np.ones(33333) / 2)
    found, _ = run(tmp_path)
    assert found.usable["duration"][0] == 33333 / 16000


def test_thresholds_do_not_rename(tmp_path):
    write(tmp_path / "a.wav", tone(0.5))
    write(tmp_path / "a.flac")
    found, _ = run(tmp_path, min_duration=1.0)
    assert list(found.usable["ID"]) == ["a.flac"]


def test_odd_names_survive(tmp_path):
    root = tmp_path / "corpus"
    write(root / 'with "quotes", commas/ü\n.wav')
    write(root / "ok.wav")
    os.rename(root / "ok.wav", os.fsencode(root) + b"/latin\xe9.wav")
    found, rejected = run(root, cache=tmp_path / "c.jsonl")
    assert list(rejected.values()) == ["name is not UTF-8"]
    write_rejected(tmp_path / "rejected.csv", found.rejected)
    write_manifest(tmp_path / "train.csv", found.manifest())
    manifest = Manifest.read(tmp_path / "train.csv", data_root=root)
    assert os.path.isfile(manifest.path(0))
    assert "latin" in (tmp_path / "rejected.csv").read_text()


def test_missing_and_empty_folders(tmp_path):
    with pytest.raises(ManifestError, match="no folder .*absent"):
        scan(tmp_path / "absent")
    (tmp_path / "a.m4a").touch()
    with pytest.raises(ManifestError, match=r"no audio file .*1 \.m4a"):
        scan(tmp_path, progress=False)
    with pytest.raises(UserError, match="check"):
        scan(tmp_path, check="thorough")


def test_processes_give_the_same(corpus):
    alone, _ = run(corpus, check="decode")
    pool, _ = run(corpus, check="decode", num_workers=2)
    pd.testing.assert_frame_equal(alone.usable, pool.usable)
    pd.testing.assert_frame_equal(alone.rejected, pool.rejected)


def test_file_that_kills_its_reader(tmp_path, monkeypatch):
    for i in range(12):
        write(tmp_path / f"{i:02}.wav")
    real = scan_module.probe

    def deadly(path, check):
        if path.endswith("05.wav"):
            os.kill(os.getpid(), signal.SIGKILL)
        return real(path, check)

    monkeypatch.setattr(scan_module, "probe", deadly)
    monkeypatch.setitem(scan_module.CHUNK_SIZE, "header", 4)
    found, rejected = run(tmp_path, num_workers=2)
    assert rejected == {"05.wav": "unreadable"}
    assert len(found.usable) == 11


def test_cache_opens_only_what_changed(corpus, tmp_path):
    cache = tmp_path / "cache.jsonl"
    first, _ = run(corpus, cache=cache)
    assert first.opened == 12
    again, rejected = run(corpus, cache=cache, min_duration=1.0)
    # A file that is not there has no time to compare.
    assert again.opened == 1
    assert rejected["s2/short.wav"] == "too short"
    write(corpus / "s2/short.wav", tone(3.0))
    write(corpus / "s4/new.wav")
    third, rejected = run(corpus, cache=cache, min_duration=1.0)
    assert third.opened == 3
    assert "s2/short.wav" not in rejected
    # The cache of one check is not that of the other.
    other, _ = run(corpus, cache=cache, check="decode")
    assert other.opened == 13


@pytest.mark.parametrize("change", ["size", "time"])
def test_cache_looks_at_size_and_time(tmp_path, change):
    """A file of another size, or of another time and the same size."""
    cache = tmp_path / "cache.jsonl"
    path = write(tmp_path / "corpus/a.wav")
    os.utime(path, ns=(10**18, 10**18))
    size = path.stat().st_size
    assert run(path.parent, cache=cache)[0].opened == 1
    assert run(path.parent, cache=cache)[0].opened == 0
    if change == "size":
        write(path, tone(3.0))
        os.utime(path, ns=(10**18, 10**18))
    else:
        write(path, tone(4.0, 8000), 8000)
        # A copy or an archive may bring an older time along.
        os.utime(path, ns=(10**18 - 1, 10**18 - 1))
        assert path.stat().st_size == size
    found, _ = run(path.parent, cache=cache)
    assert found.opened == 1
    wanted = (3.0, 16000) if change == "size" else (4.0, 8000)
    row = found.usable.iloc[0]
    assert (row["duration"], row["sample_rate"]) == wanted


def test_torn_line_is_passed_over(corpus, tmp_path):
    cache = tmp_path / "cache.jsonl"
    whole, _ = run(corpus, cache=cache)
    text = cache.read_text()
    cache.write_text(text[: len(text) // 2])
    again, _ = run(corpus, cache=cache)
    assert 0 < again.opened < 12
    pd.testing.assert_frame_equal(whole.usable, again.usable)
    assert run(corpus, cache=cache)[0].opened == 1


@pytest.mark.parametrize("num_workers", [0, 2])
def test_interruption_and_resume(tmp_path, monkeypatch, num_workers):
    root = tmp_path / "corpus"
    for i in range(40):
        write(root / f"{i % 3}/{i}.wav", tone(0.1))
    monkeypatch.setitem(scan_module.CHUNK_SIZE, "header", 4)
    whole, _ = run(root)
    real, calls = ScanCache.add, []

    def interrupted(self, names, outcomes):
        if len(calls) == 3:
            raise KeyboardInterrupt
        calls.append(names)
        real(self, names, outcomes)

    cache = tmp_path / "cache.jsonl"
    with monkeypatch.context() as patch:
        patch.setattr(ScanCache, "add", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(root, cache=cache, num_workers=num_workers)
    resumed, _ = run(root, cache=cache, num_workers=num_workers)
    assert resumed.opened == 40 - 12
    for name, found in (("a.csv", whole), ("b.csv", resumed)):
        write_manifest(tmp_path / name, found.manifest())
    a, b = (tmp_path / n for n in ("a.csv", "b.csv"))
    assert a.read_bytes() == b.read_bytes()
