"""Preparation of any folder of audio."""

import importlib.util
import pathlib

import numpy as np
import pandas as pd
import pytest
import soundfile as sf

from speechbrain_ssl.data.manifest import Manifest
from speechbrain_ssl.errors import ManifestError

SCRIPT = (
    pathlib.Path(__file__).parents[3]
    / "recipes/UnlabeledFolder/unlabeled_prepare.py"
)


def load(path):
    """Imports a recipe's script, which is in no package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


prepare = load(SCRIPT)


@pytest.fixture
def data(tmp_path):
    """A tree such as people have."""
    root = tmp_path / "data"
    noise = np.random.default_rng(0).normal(0, 0.1, 48000)
    for name, rate, samples in (
        ("radio/a.wav", 16000, noise),
        ("radio/a.flac", 16000, noise),
        ("radio/B.MP3", 44100, np.stack([noise, noise], 1)),
        ("calls/c.ogg", 8000, noise),
        ("calls/short.wav", 16000, noise[:8000]),
        ("calls/zeros.wav", 16000, 0 * noise),
        (".trash/d.wav", 16000, noise),
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        sf.write(root / name, samples, rate)
    (root / "calls/broken.wav").write_bytes(b"RIFF and nothing more")
    (root / "notes.txt").write_text("x")
    (root / "calls/e.m4a").write_bytes(b"x")
    return root


def run(data, save, **kwargs):
    kwargs.setdefault("num_workers", 0)
    return prepare.prepare_unlabeled(str(data), str(save), **kwargs)


def test_outputs(data, tmp_path):
    summary = run(data, tmp_path / "save")
    table = pd.read_csv(tmp_path / "save/train.csv")
    assert list(table.columns) == ["ID", "duration", "wav"]
    assert list(table["ID"]) == [
        "calls/c",
        "calls/zeros",
        "radio/B",
        "radio/a.flac",
        "radio/a.wav",
    ]
    assert table["wav"][2] == "$data_root/radio/B.MP3"
    assert summary["utterances"] == 5
    assert summary["rejected"] == {"too short": 1, "unreadable": 1}
    assert summary["unknown_extensions"] == {".m4a": 1, ".txt": 1}
    assert summary["sample_rates"] == {"8000": 1, "16000": 3, "44100": 1}
    rejected = pd.read_csv(tmp_path / "save/rejected.csv")
    assert list(rejected.columns) == ["wav", "reason", "detail"]
    assert list(rejected["wav"]) == [
        "$data_root/calls/broken.wav",
        "$data_root/calls/short.wav",
    ]
    manifest = Manifest.read(tmp_path / "save/train.csv", data_root=data)
    assert all(pathlib.Path(manifest.path(i)).is_file() for i in range(5))


def test_decode_and_sample_rate(data, tmp_path):
    summary = run(data, tmp_path / "save", check="decode", sample_rate=16000)
    assert summary["rejected"] == {
        "wrong sample rate": 2,
        "silent": 1,
        "too short": 1,
        "unreadable": 1,
    }


def test_second_call_does_no_work(data, tmp_path, monkeypatch):
    first = run(data, tmp_path / "save")

    def forbidden(*args, **kwargs):
        raise AssertionError("work was done")

    with monkeypatch.context() as patch:
        patch.setattr(prepare, "list_files", forbidden)
        patch.setattr(prepare.Preparation, "scan", forbidden)
        assert run(data, tmp_path / "save") == first
        assert run(data, tmp_path / "other", skip_prep=True) == {}
    # Another configuration is another manifest, without reading any file.
    second = run(data, tmp_path / "save", min_duration=0.1)
    assert second["utterances"] == 6


@pytest.fixture
def background(tmp_path):
    """Two folders of noises and one of room responses."""
    folders = {n: tmp_path / n for n in ("noise", "other", "rirs")}
    noise = np.random.default_rng(1).normal(0, 0.1, 8000)
    for name, folder in folders.items():
        folder.mkdir()
        sf.write(folder / f"{name}.wav", noise, 16000)
    return folders


def test_noise_and_rooms_are_scanned_once(
    data, tmp_path, background, monkeypatch
):
    save = tmp_path / "save"
    folders = {
        "noise_folder": str(background["noise"]),
        "rirs_folder": str(background["rirs"]),
    }
    first = run(data, save, **folders)
    assert list(pd.read_csv(save / "noise.csv")["ID"]) == ["noise"]
    assert list(pd.read_csv(save / "rirs.csv")["ID"]) == ["rirs"]
    for name in ("noise", "rirs"):
        assert (save / f"scan_cache/{name}.jsonl").is_file()

    def forbidden(*args, **kwargs):
        raise AssertionError("work was done")

    with monkeypatch.context() as patch:
        for name in ("list_files", "write_folder_manifest"):
            patch.setattr(prepare, name, forbidden)
        patch.setattr(prepare.Preparation, "scan", forbidden)
        assert run(data, save, **folders) == first
    # A manifest that was lost is written again.
    (save / "rirs.csv").unlink()
    run(data, save, **folders)
    assert (save / "rirs.csv").is_file()


def test_another_noise_folder_is_another_preparation(
    data, tmp_path, background
):
    save = tmp_path / "save"
    run(data, save, noise_folder=str(background["noise"]))
    run(data, save, noise_folder=str(background["other"]))
    table = pd.read_csv(save / "noise.csv")
    assert list(table["wav"]) == [str(background["other"] / "other.wav")]
    # And one that is not asked for any more leaves no list behind.
    run(data, save)
    assert not (save / "noise.csv").exists()
    with pytest.raises(ManifestError, match="no folder"):
        run(data, save, noise_folder=str(tmp_path / "absent"))


def test_bytes_are_the_same_everywhere(data, tmp_path):
    run(data, tmp_path / "a")
    run(data, tmp_path / "b", num_workers=2)
    for name in ("train.csv", "rejected.csv", "prepare.json"):
        a, b = (tmp_path / s / name for s in "ab")
        assert a.read_bytes() == b.read_bytes()


def test_nothing_usable(tmp_path):
    data = tmp_path / "data"
    with pytest.raises(ManifestError, match="no folder"):
        run(data, tmp_path / "save")
    data.mkdir()
    with pytest.raises(ManifestError, match="no audio file"):
        run(data, tmp_path / "save")
    (data / "a.wav").touch()
    with pytest.raises(ManifestError, match=r"rejected\.csv"):
        run(data, tmp_path / "save")
    assert "empty file" in (tmp_path / "save/rejected.csv").read_text()
    assert not (tmp_path / "save/train.csv").exists()


def test_command_line(data, tmp_path, capsys):
    folders = [f"--data_folder={data}", f"--save_folder={tmp_path / 's'}"]
    assert prepare.main([*folders, "--num_workers=0"]) == 0
    assert (tmp_path / "s/train.csv").is_file()
    noise = f"--noise_folder={data / 'radio'}"
    assert prepare.main([*folders, noise, "--num_workers=0"]) == 0
    assert len(pd.read_csv(tmp_path / "s/noise.csv")) == 3
    folders[0] += "_absent"
    assert prepare.main(folders) == 1
    assert "there is no folder" in capsys.readouterr().err
