"""Preparation of any folder of audio."""

import importlib.util
import pathlib
import shutil

import numpy as np
import pandas as pd
import pytest
import soundfile as sf

from speechbrain_ssl.data.audio import AudioFile
from speechbrain_ssl.data.manifest import Manifest
from speechbrain_ssl.errors import ManifestError
from speechbrain_ssl.prepare import formats as scan_formats

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
    assert summary["unknown_extensions"] == {".txt": 1}
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


def test_synthetic_sounds_serve_where_there_is_no_folder(
    data, tmp_path, background, monkeypatch, caplog
):
    write = prepare.write_background
    monkeypatch.setattr(
        prepare, "write_background", lambda f: write(f, {"noise": 2}, rooms=1)
    )
    save = tmp_path / "save"
    csvs = {f"{n}_csv": f"{save}/{n}.csv" for n in ("noise", "rirs")}
    with caplog.at_level("INFO"):
        run(data, save, **csvs)
    assert list(pd.read_csv(save / "noise.csv")["ID"]) == [
        "noise000",
        "noise001",
    ]
    assert list(pd.read_csv(save / "rirs.csv")["ID"]) == ["room000"]
    assert "synthetic sounds serve" in caplog.text
    assert "by --noise_folder and --rirs_folder" in caplog.text
    # Of two, only the one without a folder is synthetic.
    given = {"noise_folder": str(background["noise"])}
    run(data, save, **csvs, **given)
    assert list(pd.read_csv(save / "noise.csv")["ID"]) == ["noise"]
    # A manifest of one's own is not touched, and none means none.
    other = tmp_path / "other"
    run(data, other, noise_csv=str(tmp_path / "mine.csv"), rirs_csv=None)
    assert (
        not list(other.glob("*/noise/*")) and not (other / "noise.csv").exists()
    )


def test_noises_that_are_left_out_are_counted(
    data, tmp_path, background, caplog
):
    """Nothing of a noise folder vanishes without a word."""
    (background["noise"] / "broken.wav").write_bytes(b"no audio")
    (background["noise"] / "song.m4a").touch()
    run(data, tmp_path / "save", noise_folder=str(background["noise"]))
    (line,) = (r for r in caplog.messages if "left out:" in r and "noise" in r)
    assert line.endswith(
        "1 files are used; left out: 1 unreadable, 1 not read here (.m4a)"
    )


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


# ------------------------------------------------------------- other formats


@pytest.fixture
def formats(data):
    """Files that PyAV has to decode among the others."""
    av_files = pytest.importorskip("av_files")
    av_files.encode(data / "calls/d.m4a", "aac", 44100, 2)
    av_files.encode(data / "calls/short.webm", "libopus", 48000, seconds=0.5)
    wave = av_files.voice(16000)
    opposite = np.stack([wave, -wave])
    av_files.encode(data / "radio/d.AAC", "aac", 16000, 2, opposite)
    av_files.encode(data / "radio/a.m4a", "aac", 16000)
    (data / "radio/broken.wma").write_bytes(b"no audio")
    return data


def test_other_formats(formats, tmp_path):
    save = tmp_path / "save"
    summary = run(formats, save)
    table = pd.read_csv(save / "train.csv")
    assert dict(zip(table["ID"], table["wav"], strict=True)) == {
        "calls/c": "$data_root/calls/c.ogg",
        "calls/d": "decoded/train/calls/d.m4a.flac",
        "calls/zeros": "$data_root/calls/zeros.wav",
        "radio/B": "$data_root/radio/B.MP3",
        "radio/a.flac": "$data_root/radio/a.flac",
        "radio/a.wav": "$data_root/radio/a.wav",
        "radio/d": "decoded/train/radio/d.AAC.flac",
    }
    assert list(table["ID"]) == sorted(table["ID"])
    assert table["duration"][1] == pytest.approx(3, abs=0.1)
    rejected = pd.read_csv(save / "rejected.csv").set_index("wav")["reason"]
    assert rejected.to_dict() == {
        "$data_root/calls/broken.wav": "unreadable",
        "$data_root/calls/short.wav": "too short",
        # Short by name, and converted from it as it seems.
        "$data_root/calls/short.webm": "beside a converted file",
        "$data_root/radio/a.m4a": "beside a converted file",
        "$data_root/radio/broken.wma": "unreadable",
    }
    assert summary["utterances"] == 7
    notes = pd.read_csv(save / "notes.csv").set_index("wav")["note"]
    assert notes.to_dict() == {
        "$data_root/radio/d.AAC": "channels cancel each other"
    }
    assert sum(summary["rejected"].values()) == 5
    # The manifest leads to the files wherever the folder is moved.
    (tmp_path / "moved").mkdir()
    save.rename(tmp_path / "moved/save")
    csv = tmp_path / "moved/save/train.csv"
    manifest = Manifest.read(csv, data_root=formats)
    for i in range(len(manifest)):
        sf.info(manifest.path(i))


def test_beside_a_broken_file(formats, tmp_path):
    """The twin of a file that cannot be used is no copy of it."""
    av_files = pytest.importorskip("av_files")
    av_files.encode(formats / "calls/broken.m4a", "aac", 16000)
    av_files.encode(formats / "radio/empty.m4a", "aac", 16000)
    (formats / "radio/empty.wav").touch()
    (formats / "radio/both.wav").touch()
    (formats / "radio/both.m4a").touch()
    save = tmp_path / "save"
    summary = run(formats, save)
    table = pd.read_csv(save / "train.csv")
    assert (
        dict(zip(table["ID"], table["wav"], strict=True)).items()
        >= {
            "calls/broken.m4a": "decoded/train/calls/broken.m4a.flac",
            "radio/empty.m4a": "decoded/train/radio/empty.m4a.flac",
        }.items()
    )
    assert list(table["ID"]) == sorted(table["ID"])
    assert len(table) == summary["utterances"] == 9
    rejected = pd.read_csv(save / "rejected.csv").set_index("wav")["reason"]
    assert rejected.index.is_unique
    assert rejected["$data_root/radio/both.m4a"] == "empty file"
    assert rejected["$data_root/radio/a.m4a"] == "beside a converted file"
    assert sum(summary["rejected"].values()) == len(rejected) == 8


def test_rejected_after_decoding_by_the_name_of_the_source(tmp_path):
    av_files = pytest.importorskip("av_files")
    data, save = tmp_path / "data", tmp_path / "save"
    data.mkdir()
    wave = av_files.voice(16000)
    av_files.encode(data / "a.m4a", "aac", 16000)
    av_files.encode(data / "zeros.m4a", "aac", 16000, 1, 0 * wave)
    wave[4000:] = 0
    av_files.encode(data / "click.m4a", "aac", 16000, 1, wave)
    run(data, save, check="decode")
    rejected = pd.read_csv(save / "rejected.csv")
    assert list(rejected["wav"]) == ["$data_root/zeros.m4a"]
    notes = pd.read_csv(save / "notes.csv")
    assert list(notes["wav"]) == ["$data_root/click.m4a"]


def test_other_formats_are_decoded_once(formats, tmp_path, monkeypatch):
    first = run(formats, tmp_path / "save")
    flac = tmp_path / "save/decoded/train/calls/d.m4a.flac"
    before = flac.stat().st_mtime_ns
    (tmp_path / "save/prepare.json").unlink()
    assert run(formats, tmp_path / "save") == first
    assert run(formats, tmp_path / "save", min_duration=2)["utterances"] == 6
    assert flac.stat().st_mtime_ns == before


def test_a_deleted_folder_of_decoded_files_is_made_again(formats, tmp_path):
    first = run(formats, tmp_path / "save")
    shutil.rmtree(tmp_path / "save/decoded/train")
    assert run(formats, tmp_path / "save") == first
    assert (tmp_path / "save/decoded/train/calls/d.m4a.flac").is_file()


def test_without_pyav(formats, tmp_path, monkeypatch, caplog):
    save = tmp_path / "save"
    with monkeypatch.context() as patch:
        patch.setattr(prepare, "has_pyav", lambda: False)
        patch.setattr(scan_formats, "has_pyav", lambda: False)
        summary = run(formats, save)
        assert summary["utterances"] == 5
        assert summary["rejected"]["needs PyAV"] == 3
        assert (
            'left out: 1 .aac, 1 .m4a, 1 .wma, which need PyAV: pip install "'
            'speechbrain_ssl[formats]"'
        ) in caplog.text
        assert run(formats, save) == summary
    # Once it is installed the rest is prepared, with the same arguments.
    assert run(formats, save)["utterances"] == 7


def test_only_other_formats(tmp_path, monkeypatch):
    av_files = pytest.importorskip("av_files")
    (tmp_path / "data").mkdir()
    av_files.encode(tmp_path / "data/a.m4a", "aac", 16000)
    assert run(tmp_path / "data", tmp_path / "save")["utterances"] == 1
    monkeypatch.setattr(scan_formats, "has_pyav", lambda: False)
    with pytest.raises(ManifestError, match=r"none of the 1 .*rejected\.csv"):
        run(tmp_path / "data", tmp_path / "other")
    assert "pip install" in (tmp_path / "other/rejected.csv").read_text()


def test_trimmed_copies(tmp_path):
    """Of all files; the whole ones come back without the option."""
    data, save = tmp_path / "data", tmp_path / "save"
    data.mkdir()
    noise = np.random.default_rng(0).normal(0, 0.1, 32000)
    quiet = np.zeros(32000)
    sf.write(data / "a.wav", np.concatenate([quiet, noise, quiet]), 16000)
    sf.write(data / "silent.wav", quiet, 16000)
    sf.write(data / "short.wav", noise[:7200], 16000)
    summary = run(data, save, trim_silence=True)
    table = pd.read_csv(save / "train.csv")
    assert table["wav"].to_list() == ["trimmed/train/a.wav.flac"]
    assert table["ID"].to_list() == ["a"]
    # A tenth of a second is left on both sides.
    assert table["duration"].to_list() == [2.2]
    assert summary["rejected"] == {"silent": 1, "too short": 1}
    # Copies are shorter than what was found.
    assert "hours_found" not in summary
    (data / "short.wav").unlink()
    run(data, save)
    table = pd.read_csv(save / "train.csv")
    assert table["wav"].to_list() == [
        "$data_root/a.wav",
        "$data_root/silent.wav",
    ]


@pytest.mark.parametrize("trim", [False, True])
def test_packed(tmp_path, trim):
    """IDs stay; what only decoding finds damaged is rejected."""
    data, save = tmp_path / "data", tmp_path / "save"
    data.mkdir()
    wave = np.random.default_rng(0).integers(-9999, 9999, 32000)
    sf.write(data / "a.wav", wave.astype(np.int16), 16000)
    sf.write(data / "nan.wav", np.full(32000, np.nan), 16000, subtype="FLOAT")
    summary = run(data, save, trim_silence=trim, pack=str(tmp_path / "disk"))
    assert sum(summary["rejected"].values()) == summary["utterances"] == 1
    manifest = Manifest.read(save / "train.csv", data_root=str(data))
    assert manifest.ids[0] == "a" and manifest.durations.tolist() == [2.0]
    assert manifest.path(0).startswith(str(tmp_path / "disk"))
    with AudioFile(manifest.path(0)) as audio:
        assert np.array_equal(audio.read() * 32768, wave)


# --------------------------------------------------------------------- a list


def test_a_list(data, tmp_path):
    (tmp_path / "lists").mkdir()
    scp = tmp_path / "lists/wav.scp"
    scp.write_text(
        f"first {data}/radio/a.wav\nsecond ../data/calls/c.ogg\n"
        f"third {data}/calls/absent.wav\n"
    )
    summary = run(scp, tmp_path / "save")
    table = pd.read_csv(tmp_path / "save/train.csv")
    assert dict(zip(table["ID"], table["wav"], strict=True)) == {
        "first": f"{data}/radio/a.wav",
        "second": f"{data}/calls/c.ogg",
    }
    assert summary["rejected"] == {"missing": 1}
    manifest = Manifest.read(tmp_path / "save/train.csv", data_root=scp)
    assert pathlib.Path(manifest.path(0)).is_file()
    # A list that has changed is read again.
    with open(scp, "a") as stream:
        stream.write("fourth ../data/radio/B.MP3\n")
    assert run(scp, tmp_path / "save")["utterances"] == 3


def test_a_list_without_ids_and_of_all_formats(data, tmp_path):
    av_files = pytest.importorskip("av_files")
    av_files.encode(data / "radio/a.m4a", "aac", 16000)
    paths = tmp_path / "paths.txt"
    # What is listed is meant, also beside another file of its name.
    paths.write_text("data/radio/a.m4a\ndata/radio/a.wav\n")
    run(paths, tmp_path / "save")
    table = pd.read_csv(tmp_path / "save/train.csv")
    assert dict(zip(table["ID"], table["wav"], strict=True)) == {
        "a.m4a": "decoded/train/a.m4a.flac",
        "a.wav": f"{data}/radio/a.wav",
    }


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
