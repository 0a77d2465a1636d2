"""Enrol and identify, by command and from Python, and the page about it."""

import re
import subprocess
import sys

import numpy as np
import pytest
import torch

from speechbrain_ssl import load_model
from speechbrain_ssl.embedding.extract import embed_files
from speechbrain_ssl.errors import AudioError, ConfigError
from speechbrain_ssl.publishing.export import export_encoder, load_encoder


@pytest.fixture
def known(command, model, audio, tmp_path):
    """A database of the first two speakers, with three recordings each."""
    folder = tmp_path / "known"
    for speaker in range(2):
        files = [audio / f"s{speaker}/{take}.wav" for take in range(3)]
        code, out, err = command(
            "enrol",
            f"speaker {speaker}",
            *files,
            f"--database={folder}",
            f"--model={model}",
        )
        assert code == 0 and "from 3 recordings" in out, err
    return folder


def test_identify(command, command_json, model, calibrated, audio, known):
    """The right name above the threshold, nobody below; a copy will do."""
    rows = embed_files(
        *load_encoder(model),
        [str(audio / f"s1/{take}.wav") for take in range(4)],
        progress=False,
    )
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    mean = rows[:3].mean(axis=0)
    wanted = rows[3] @ mean / np.linalg.norm(mean)
    argv = ("identify", audio / "s1/3.wav", f"--database={known}")
    for bound, name in ((wanted - 0.01, "speaker 1"), (wanted + 0.01, None)):
        code, found, _ = command_json(
            *argv, f"--model={model}", f"--threshold={bound}"
        )
        assert code == 0
        assert found["name"] == name and found["nearest"] == "speaker 1"
        assert found["score"] == pytest.approx(wanted, abs=1e-5)
        assert list(found["scores"]) == ["speaker 1", "speaker 0"]
        assert found["llr"] is None
    _, found, _ = command_json(*argv, f"--model={calibrated}")
    assert found["llr"] == pytest.approx(20 * found["score"] - 12)
    assert (found["name"] is None) == (found["llr"] <= 0)
    _, out, _ = command(*argv, f"--model={model}")
    assert "nearest               speaker 1 of 2" in out
    assert "none: the model has no threshold" in out
    _, out, _ = command(*argv, f"--model={model}", "--threshold=1.5")
    assert "nobody in the database (threshold 1.5000: given)" in out


def test_each_recording_is_its_speakers(model, audio, known):
    """Also those that were not enrolled; a stranger is nobody."""
    found = load_model(model)
    for speaker in range(2):
        who = found.identify(audio / f"s{speaker}/3.wav", known, threshold=0.9)
        assert who.name == f"speaker {speaker}"
    who = found.identify(audio / "s2/0.wav", known, threshold=0.9)
    assert who.name is None


@pytest.mark.parametrize(
    "name, reason",
    [("silent.wav", "silent"), ("broken.wav", "unreadable"), ("no", "missing")],
)
def test_a_recording_that_cannot_be_used(
    command, model, bad_audio, known, tmp_path, name, reason
):
    """Nothing is written, and nobody is identified."""
    good, bad = bad_audio / "s2/0.wav", bad_audio / name
    before = sorted(known.iterdir())
    options = f"--database={known}", f"--model={model}"
    for argv in (("enrol", "Eve", good, bad), ("identify", bad)):
        code, out, err = command(*argv, *options)
        assert code == 1 and out == "" and err.count("\n") == 1
        assert name in err and reason in err
    assert sorted(known.iterdir()) == before


def test_a_model_without_finite_embeddings(model, audio, tmp_path):
    """Its embeddings are refused before anything is written."""
    found = load_model(model)
    for value in found.encoder.parameters():
        value.data.fill_(float("nan"))
    with pytest.raises(AudioError, match="finite"):
        found.enrol("Anna", [audio / "s0/0.wav"], tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_another_model_is_refused(command, model, audio, known, tmp_path):
    encoder, features = load_encoder(model)
    with torch.no_grad():
        next(encoder.parameters()).mul_(1.001)
    export_encoder(tmp_path / "other", encoder, features)
    for argv in (
        ("identify", audio / "s0/0.wav"),
        ("enrol", "Eve", audio / "s2/0.wav"),
    ):
        code, _, err = command(
            *argv, f"--database={known}", f"--model={tmp_path / 'other'}"
        )
        assert code == 1 and "enrolled with another model" in err


def test_silence_and_names_are_refused_in_time(command, model, audio, known):
    argv = (f"--database={known}", f"--model={model}")
    for extra, match in (((), "--replace"), (("--trim-silence",), "without")):
        code, _, err = command(
            "enrol", "speaker 0", audio / "nowhere.wav", *argv, *extra
        )
        assert code == 1 and match in err
    code, out, _ = command(
        "enrol", "speaker 0", audio / "s1/0.wav", *argv, "--replace"
    )
    assert code == 0 and "is also a recording of speaker 1" in out


def test_a_database_that_cannot_be_written(command, model, audio):
    code, _, err = command(
        "enrol",
        "Anna",
        audio / "s0/0.wav",
        f"--database={audio / 's0/1.wav' / 'new'}",
        f"--model={model}",
    )
    assert code == 1 and "cannot be written" in err and "--database" in err


# ------------------------------------------------------------------ from Python


def test_importing_the_package_imports_no_torch(repository):
    code = "import sys; from speechbrain_ssl import load_model\n"
    code += "print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=repository,
    )
    assert done.stdout == "False\n"


def test_a_single_path_is_a_recording(model, audio, tmp_path):
    found = load_model(model)
    for path in (audio / "s0/0.wav", str(audio / "s0/0.wav")):
        assert found.enrol("Anna", path, tmp_path / "a", replace=True) == []
    who = found.identify(audio / "s0/0.wav", tmp_path / "a", threshold=0.99)
    assert who.name == "Anna" and who.score == pytest.approx(1, abs=1e-4)


def test_what_python_gets_is_what_the_commands_print(
    command_json, calibrated, bad_audio
):
    found = load_model(calibrated)
    files = bad_audio / "s0/0.wav", bad_audio / "s1/0.wav"
    _, printed, _ = command_json("verify", *files, f"--model={calibrated}")
    pair = found.verify(*files)
    assert pair.score == pytest.approx(printed["score"], abs=1e-6)
    assert pair.same is printed["same"]
    assert pair.threshold == printed["threshold"] == 0.6
    _, printed, _ = command_json(
        "cluster", bad_audio, f"--model={calibrated}", "--speakers=3"
    )
    groups = found.cluster(bad_audio, speakers=3)
    assert groups.files == printed["files"]
    assert groups.unusable == printed["unusable"] and len(groups.unusable) == 3
    with pytest.raises(ConfigError, match="no file to embed"):
        found.embed([])
    with pytest.raises(AudioError, match="silent"):
        found.verify(files[0], bad_audio / "silent.wav")


def test_paths_in_any_order(model, audio):
    found = load_model(model)
    paths = [audio / "s1/0.wav", audio / "s0/0.wav"]
    one, other = found.embed(paths), found.embed(paths[::-1])
    assert one.files == [str(path) for path in paths]
    assert one.rows == pytest.approx(other.rows[::-1], rel=1e-4, abs=1e-5)
    whole = found.embed(audio)
    row = whole.rows[whole.files.index("s1/0.wav")]
    assert row == pytest.approx(one.rows[0], rel=1e-4, abs=1e-5)


def test_the_example_of_the_page(
    repository, model, audio, tmp_path, monkeypatch, capsys
):
    text = (repository / "docs" / "python.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"<!-- example -->\n```python\n(.*?)```", text, re.S)
    (tmp_path / "exp").mkdir()
    (tmp_path / "exp" / "demo").symlink_to(model)
    (tmp_path / "recordings").symlink_to(audio)
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "docs/python.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "s0/0.wav (12, 24)"
    assert lines[-1].startswith("Anna Anna {'Anna': ")
