"""The commands: what they print, what they write, and how they fail."""

import csv
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from voices import RATE, voice

from speechbrain_ssl.data.silence import trim_silence
from speechbrain_ssl.embedding.extract import embed_files
from speechbrain_ssl.prepare import lists
from speechbrain_ssl.prepare.probe import probe
from speechbrain_ssl.publishing.export import load_encoder
from speechbrain_ssl.publishing.onnx import load_onnx
from speechbrain_ssl.report import comparison
from speechbrain_ssl.speakers import files as audio_files


def cosine(model, *paths):
    rows = embed_files(*load_encoder(model), list(map(str, paths)))
    left, right = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return float(left @ right)


# ----------------------------------------------------------------------- usage


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["sing"],
        ["verify", "a.wav"],
        ["verify", "a.wav", "b.wav"],
        ["embed", "folder", "--model=m"],
        ["cluster", "folder", "--model=m", "--speakers=many"],
    ],
)
def test_wrong_usage_is_two(command, argv, capfd):
    with pytest.raises(SystemExit) as stop:
        command(*argv)
    assert stop.value.code == 2
    assert "usage: speechbrain-ssl" in capfd.readouterr().err


def test_help_imports_no_torch(repository):
    """It is there at once."""
    code = (
        "import sys\n"
        "from speechbrain_ssl.cli.main import main\n"
        "try:\n    main(['--help'])\n"
        "except SystemExit as stop:\n"
        "    print(stop.code, 'torch' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=repository,
    )
    assert done.stdout.splitlines()[-1] == "0 False"
    for name in ("verify", "embed", "score", "cluster", "Exit codes"):
        assert name in done.stdout


def test_the_module_is_a_program(repository, tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "speechbrain_ssl.cli.main",
            "verify",
            "a.wav",
            "b.wav",
            "--model=m",
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(repository)},
    )
    assert done.returncode == 1
    # A library may warn before it, as where a cache is being made.
    assert done.stderr.endswith(
        "Error: a.wav cannot be used: missing (No such file or directory)\n"
    )


# ---------------------------------------------------------------------- verify


def test_verify(command, command_json, model, audio):
    files = audio / "s0/0.wav", audio / "s0/1.wav"
    wanted = cosine(model, *files)
    code, found, _ = command_json("verify", *files, f"--model={model}")
    assert code == 0
    assert found["score"] == pytest.approx(wanted, abs=1e-5)
    # Without a threshold nothing is decided.
    assert found["llr"] is found["same"] is found["threshold"] is None
    code, out, _ = command("verify", *files, f"--model={model}")
    assert code == 0 and f"{wanted:.4f}" in out and "none: the model" in out
    for shift, same in ((-0.01, True), (0.01, False)):
        _, found, _ = command_json(
            "verify",
            *files,
            f"--model={model}",
            f"--threshold={wanted + shift}",
        )
        assert found["same"] is same


def test_verify_calibrated(command, command_json, calibrated, audio):
    files = audio / "s0/0.wav", audio / "s1/1.wav"
    score = cosine(calibrated, *files)
    for prior in (0.5, 0.01, 0.999999):
        code, found, _ = command_json(
            "verify", *files, f"--model={calibrated}", f"--p_target={prior}"
        )
        assert code == 0
        llr = 20 * score - 12
        assert found["llr"] == pytest.approx(llr, abs=1e-3)
        assert found["same"] is bool(llr > np.log((1 - prior) / prior))
        assert "my_trials" in found["threshold_from"]
    _, out, _ = command("verify", *files, f"--model={calibrated}")
    assert "log-likelihood ratio" in out and "speaker" in out
    code, found, err = command_json(
        "verify", *files, f"--model={calibrated}", "--p_target=1"
    )
    assert code == 1 and "between 0 and 1" in found["error"]
    assert err.startswith("Error: ")


def test_verify_by_the_trials_of_the_run(command_json, model, audio, tmp_path):
    """The results of a training run lie beside its model folder."""
    run = tmp_path / "run"
    (run / "model").mkdir(parents=True)
    for path in (model / "model").iterdir():
        (run / "model" / path.name).write_bytes(path.read_bytes())
    (run / "results.json").write_text('{"threshold": -1.5, "eer": 5.0}')
    for place in (run, run / "model"):
        _, found, _ = command_json(
            "verify",
            audio / "s0/0.wav",
            audio / "s1/0.wav",
            f"--model={place}",
        )
        assert found["same"] is True and found["threshold"] == -1.5
        assert "equal error rate" in found["threshold_from"]


def test_verify_other_forms_of_audio(command_json, calibrated, tmp_path):
    """48 kHz in stereo is the same voice; 0.1 s is said to be short."""
    wave = voice(0, 0)
    soundfile.write(tmp_path / "mono.wav", wave, RATE)
    many = voice(0, 0, rate=48000)
    soundfile.write(tmp_path / "many.wav", np.stack([many, many], 1), 48000)
    soundfile.write(tmp_path / "short.flac", wave[: RATE // 10], RATE)
    code, found, _ = command_json(
        "verify",
        tmp_path / "mono.wav",
        tmp_path / "many.wav",
        f"--model={calibrated}",
    )
    assert code == 0 and not found["notes"]
    code, found, _ = command_json(
        "verify",
        tmp_path / "mono.wav",
        tmp_path / "short.flac",
        f"--model={calibrated}",
    )
    assert code == 0 and np.isfinite(found["score"])
    assert any("only 0.10 s" in note for note in found["notes"])


def test_what_is_odd_about_files_is_noted(command_json, calibrated, tmp_path):
    """A line for each kind of oddness, with the first file and how many."""
    wave = voice(0, 0)
    opposite = np.stack([wave, -wave], 1)
    for name in ("a.wav", "b.wav"):
        soundfile.write(tmp_path / name, opposite, RATE)
    argv = ("verify", tmp_path / "a.wav", tmp_path / "b.wav")
    code, found, _ = command_json(*argv, f"--model={calibrated}")
    assert code == 0
    (note,) = found["notes"]
    assert note.startswith(
        f"{tmp_path / 'a.wav'} and 1 more: channels cancel each other (in "
    )


@pytest.mark.parametrize(
    "name, reason",
    [
        ("nowhere.wav", "missing"),
        ("broken.wav", "unreadable"),
        ("empty.wav", "empty file"),
        ("silent.wav", "silent"),
    ],
)
def test_verify_what_cannot_be_used(
    command, command_json, model, bad_audio, name, reason
):
    good = bad_audio / "s0/0.wav"
    code, out, err = command(
        "verify", good, bad_audio / name, f"--model={model}"
    )
    assert code == 1 and out == ""
    assert err.startswith("Error: ") and err.count("\n") == 1
    assert name in err and reason in err
    code, found, _ = command_json(
        "verify", bad_audio / name, good, f"--model={model}"
    )
    assert code == 1 and list(found) == ["error"]


@pytest.mark.parametrize(
    "option, match",
    [
        ("--model=/no/where", "there is no such folder"),
        ("--model=.", "hyperparams.yaml is missing"),
        ("--device=cuda:99", "GPU"),
        ("--device=toaster", "not a device"),
    ],
)
def test_what_is_no_model_or_device(command, model, audio, option, match):
    code, _, err = command(
        "verify",
        audio / "s0/0.wav",
        audio / "s0/1.wav",
        f"--model={model}",
        option,
    )
    assert code == 1 and match in err


def test_a_broken_calibration_is_no_calibration(command, calibrated, audio):
    files = audio / "s0/0.wav", audio / "s0/1.wav"
    for text in ('{"scale": -1, "offset": 0}', '{"scale": true}', "[1]", ""):
        (calibrated / "calibration.json").write_text(text)
        code, _, err = command("verify", *files, f"--model={calibrated}")
        assert code == 1 and "calibration.json" in err


# ----------------------------------------------------------------------- embed


def test_embed(command, command_json, model, bad_audio, tmp_path):
    """What can be used is done, the rest is named, the code says so."""
    output = tmp_path / "new" / "embeddings.npz"
    code, found, err = command_json(
        "embed", bad_audio, f"--model={model}", f"--output={output}"
    )
    assert code == 1
    assert found["embedded"] == 12 and found["size"] == 24
    assert set(found["unusable"]) == {"broken.wav", "empty.wav", "silent.wav"}
    for name in found["unusable"]:
        assert f"not used: {name}: " in err
    with np.load(output, allow_pickle=False) as kept:
        files, rows = kept["files"].tolist(), kept["embeddings"]
        assert kept["seconds"] == pytest.approx([1.5] * 12)
    assert files == sorted(f"s{s}/{t}.wav" for s in range(3) for t in range(4))
    paths = [str(bad_audio / name) for name in files]
    wanted = embed_files(*load_encoder(model), paths, progress=False)
    assert np.abs(rows - wanted).max() < 1e-5 * np.abs(wanted).max()


def test_embed_all_well_is_zero(command, model, audio, tmp_path):
    output = tmp_path / "embeddings.npz"
    code, out, _ = command(
        "embed", audio, f"--model={model}", f"--output={output}", "--quiet"
    )
    assert code == 0 and "12 of 12 files embedded, 24 dimensions" in out


@pytest.mark.parametrize(
    "make, match",
    [
        (lambda f: f / "nowhere", "there is no folder"),
        (lambda f: (f / "none").mkdir() or f / "none", "no audio file below"),
        (lambda f: f / "empty.wav", "empty.wav cannot be used: "),
    ],
)
def test_embed_nothing(command, model, bad_audio, tmp_path, make, match):
    output = tmp_path / "embeddings.npz"
    code, _, err = command(
        "embed", make(bad_audio), f"--model={model}", f"--output={output}"
    )
    assert code == 1 and match in err
    assert not output.exists()


def test_embed_outputs(command, model, audio, tmp_path):
    for name, match in (("a.csv", "must end in"), ("", "must end in")):
        code, _, err = command(
            "embed", audio, f"--model={model}", f"--output={tmp_path / name}"
        )
        assert code == 1 and match in err


def test_embed_parquet(command, model, audio, tmp_path, monkeypatch):
    output = tmp_path / "embeddings.parquet"
    argv = ["embed", audio, f"--model={model}", f"--output={output}"]
    if importlib.util.find_spec("pyarrow") is not None:
        assert command(*argv)[0] == 0
        table = pd.read_parquet(output)
        assert len(table) == 12 and len(table["embedding"][0]) == 24
        output.unlink()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    code, _, err = command(*argv)
    assert code == 1 and "pip install pyarrow" in err
    assert not output.exists()


# ------------------------------------------------------- long files and silence


def test_windows(command, command_json, model, bad_audio, tmp_path):
    """A row for each window, with its times, in the order of the files."""
    soundfile.write(bad_audio / "long.wav", voice(5, 0, 7.0), RATE)
    output = tmp_path / "windows.npz"
    argv = ["embed", bad_audio, f"--model={model}", f"--output={output}"]
    code, found, _ = command_json(*argv, "--windows=2")
    assert code == 1 and len(found["unusable"]) == 3
    assert found["embedded"] == 13 and found["windows"] == 16
    with np.load(output, allow_pickle=False) as kept:
        long = kept["files"] == "long.wav"
        assert kept["seconds"][long] == pytest.approx([7.0] * 4)
        assert kept["start"][long] == pytest.approx([0, 1.75, 3.5, 5.25])
        assert kept["end"][long] == pytest.approx([1.75, 3.5, 5.25, 7.0])
        assert kept["files"][0] == "long.wav" and kept["files"][4] == "s0/0.wav"
        rows = kept["embeddings"]
    encoder, features = load_encoder(model)
    wave = soundfile.read(bad_audio / "long.wav", dtype="float32")[0]
    wave = torch.from_numpy(wave[28000:56000])[None]
    with torch.no_grad():
        wanted = encoder.eval()(features(wave))[0, 0].numpy()
    assert np.abs(rows[1] - wanted).max() < 1e-5 * np.abs(wanted).max()
    # Without a value: 10 s, more than any of these has.
    code, out, _ = command(*argv, "--windows", "--quiet")
    assert "13 of 16 files (not used: 3 .wav) embedded in 13 windows" in out


@pytest.mark.parametrize("seconds", ["0", "0.1", "1000", "nan"])
def test_windows_that_cannot_be(command, model, audio, tmp_path, seconds):
    code, _, err = command(
        "embed",
        audio,
        f"--model={model}",
        f"--output={tmp_path / 'a.npz'}",
        f"--windows={seconds}",
    )
    assert code == 1 and "--windows must be a number" in err


def test_windows_in_parquet(command, model, audio, tmp_path):
    pytest.importorskip("pyarrow")
    output = tmp_path / "windows.parquet"
    argv = ["embed", audio, f"--model={model}", f"--output={output}"]
    assert command(*argv, "--windows=1")[0] == 0
    table = pd.read_parquet(output)
    assert list(table["file"][:2]) == ["s0/0.wav"] * 2
    assert list(table["start"][:2]) == [0, 0.75]
    assert set(table) == {"file", "seconds", "start", "end", "embedding"}


def test_two_voices_in_one_file_are_noted(
    command, command_json, model, tmp_path
):
    """By embed, cluster, verify and enrol; one voice is not."""
    folder = tmp_path / "long"
    folder.mkdir()
    halves = [voice(speaker, 0, 31.0) for speaker in (0, 1, 2)]
    two, one = np.append(*halves[:2]), np.append(halves[2], voice(2, 1, 31.0))
    soundfile.write(folder / "two.flac", two, RATE)
    soundfile.write(folder / "one.flac", one, RATE)
    for name, *rest in (
        ("embed", folder, f"--output={tmp_path / 'a.npz'}"),
        ("cluster", folder, "--speakers=2"),
        ("verify", folder / "one.flac", folder / "two.flac"),
        ("enrol", "Anna", folder / "two.flac", f"--database={tmp_path / 'a'}"),
    ):
        code, found, _ = command_json(name, *rest, f"--model={model}")
        assert code == 0
        (note,) = found["notes"]
        assert "two.flac may contain more than one voice" in note
    _, out, _ = command(
        "verify", folder / "two.flac", folder / "one.flac", f"--model={model}"
    )
    assert "two.flac may contain more than one voice" in out


def test_trim_silence(command, command_json, calibrated, audio, tmp_path):
    """Off unless asked for; then silence does not count, in every command."""
    rng = np.random.default_rng(0)
    wave = voice(0, 0)
    quiet = rng.normal(0, 1e-4, 3 * RATE)
    soundfile.write(
        audio / "s0/0.wav", np.concatenate([quiet, wave, quiet, wave]), RATE
    )
    files = audio / "s0/0.wav", audio / "s0/1.wav"
    trials = tmp_path / "trials.txt"
    trials.write_text("1 s0/0.wav s0/1.wav\n0 s0/0.wav s1/1.wav\n")
    model = f"--model={calibrated}"
    found = {}
    for option in ([], ["--trim-silence"]):
        score = command_json("verify", *files, model, *option)[1]["score"]
        output = tmp_path / "scores.txt"
        argv = ["score", trials, f"--audio_folder={audio}", model]
        assert command(*argv, f"--output={output}", *option)[0] == 0
        assert read_scores(output)[0] == pytest.approx(score, abs=1e-5)
        output = tmp_path / "a.npz"
        argv = ["embed", audio, model, f"--output={output}", *option]
        assert command(*argv)[0] == 0
        with np.load(output) as kept:
            rows = kept["embeddings"][:2].astype(float)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        assert rows[0] @ rows[1] == pytest.approx(score, abs=1e-5)
        assert command("cluster", audio, model, "--speakers=3", *option)[0] == 0
        found[len(option)] = score
    assert found[0] == pytest.approx(cosine(calibrated, *files), abs=1e-5)
    for path in files:
        wave = trim_silence(soundfile.read(path)[0], RATE)
        soundfile.write(path, wave, RATE)
    assert len(wave) < 2 * RATE
    assert found[1] == pytest.approx(cosine(calibrated, *files), abs=1e-4)
    assert abs(found[1] - found[0]) > 0.05


# ----------------------------------------------------------------------- score


def write_trials(path, audio, extra=()):
    lines = [
        f"{int(a == b)} s{a}/0.wav s{b}/{t}.wav"
        for a in range(3)
        for b in range(3)
        for t in (1, 2)
    ]
    path.write_text("\n".join([*lines, *extra]) + "\n")
    return path


def read_scores(path):
    return [float(line.split()[-1]) for line in path.read_text().splitlines()]


def test_score(command_json, calibrated, audio, tmp_path):
    trials = write_trials(tmp_path / "trials.txt", audio)
    output = tmp_path / "scores.txt"
    argv = [
        "score",
        trials,
        f"--model={calibrated}",
        f"--audio_folder={audio}",
        f"--output={output}",
    ]
    code, found, _ = command_json(*argv)
    assert code == 0
    assert found["trials"] == found["scored"] == 18
    assert found["recordings"] == 9
    scores = read_scores(output)
    first = output.read_text().split("\n")[0].split()
    assert first[:3] == ["1", "s0/0.wav", "s0/1.wav"]
    assert scores[0] == pytest.approx(
        cosine(calibrated, audio / "s0/0.wav", audio / "s0/1.wav"), abs=1e-5
    )
    # Formants tell these apart without any training.
    assert found["eer_percent"] < 20
    code, found, _ = command_json(*argv, "--llr")
    assert code == 0 and found["kind"] == "log-likelihood ratio"
    assert read_scores(output) == pytest.approx(
        [20 * s - 12 for s in scores], abs=1e-3
    )


def test_score_without_labels(command_json, model, audio, tmp_path):
    trials = tmp_path / "pairs.txt"
    trials.write_text("s0/0.wav s0/1.wav\ns0/0.wav s1/0.wav\n")
    output = tmp_path / "scores.txt"
    code, found, _ = command_json(
        "score",
        trials,
        f"--model={model}",
        f"--audio_folder={audio}",
        f"--output={output}",
    )
    assert code == 0 and found["eer_percent"] is None
    assert output.read_text().startswith("s0/0.wav s0/1.wav 0.")


def test_score_an_unreadable_file_among_others(
    command_json, model, bad_audio, tmp_path
):
    trials = write_trials(
        tmp_path / "trials.txt", bad_audio, ["1 broken.wav s0/0.wav"]
    )
    output = tmp_path / "scores.txt"
    code, found, err = command_json(
        "score",
        trials,
        f"--model={model}",
        f"--audio_folder={bad_audio}",
        f"--output={output}",
    )
    assert code == 1 and "not used: broken.wav" in err
    assert found["scored"] == 18 and found["trials"] == 19
    scores = read_scores(output)
    assert np.isfinite(scores[:18]).all() and np.isnan(scores[18])


@pytest.mark.parametrize(
    "text, options, match",
    [
        ("1 s0/0.wav s9/9.wav\n", [], "line 1: there is no file 's9/9.wav'"),
        ("1 s0/0.wav\n2 3 4 5\n", [], "line 2"),
        ("", [], "empty"),
        ("1 s0/0.wav s0/1.wav\n", ["--llr"], "no calibration.json"),
        ("1 s0/0.wav s0/1.wav\n", ["--layout=odd"], "layout"),
        ("1 s0/0.wav s0/1.wav\n", ["--output=."], "is a folder"),
    ],
)
def test_score_what_cannot_be(
    command, model, audio, tmp_path, text, options, match
):
    (tmp_path / "trials.txt").write_text(text)
    output = tmp_path / "scores.txt"
    code, _, err = command(
        "score",
        tmp_path / "trials.txt",
        f"--model={model}",
        f"--audio_folder={audio}",
        f"--output={output}",
        *options,
    )
    assert code == 1 and match in err
    assert not output.exists()


# --------------------------------------------------------------------- cluster


def speakers_apart(files):
    """Whether every cluster is one speaker's folder, and every one has one."""
    groups = {}
    for name, number in files.items():
        groups.setdefault(number, set()).add(name.split("/")[0])
    folders = [next(iter(g)) for g in groups.values() if len(g) == 1]
    return len(folders) == len(groups) == len(set(folders))


def test_cluster(command, command_json, model, audio, tmp_path):
    argv = ["cluster", audio, f"--model={model}", "--quiet"]
    code, found, _ = command_json(*argv, "--speakers=3")
    assert code == 0 and found["guessed"] is False
    assert len(found["files"]) == 12 and speakers_apart(found["files"])
    code, found, _ = command_json(*argv)
    assert code == 0 and found["guessed"] is True
    assert found["speakers"] == 3 and speakers_apart(found["files"])
    assert "is a guess" in found["notes"][-1]
    output = tmp_path / "clusters.csv"
    code, out, _ = command(*argv, "--speakers=3", f"--output={output}")
    assert code == 0 and "12 of 12 files, 3 speakers" in out
    with open(output, newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {r["file"]: int(r["speaker"]) for r in rows} == found["files"]
    code, out, _ = command(*argv, "--speakers=1")
    assert code == 0 and out.count("speaker 1\t") == 12


def test_the_page_of_the_groups(command, model, audio, tmp_path):
    page = tmp_path / "pages" / "speakers.html"
    code, out, _ = command(
        "cluster", audio, f"--model={model}", f"--page={page}"
    )
    assert code == 0 and f"listen and name the speakers: {page}" in out
    text = page.read_text(encoding="utf-8")
    assert text.count("<input data-speaker=") == 3
    sources = json.loads(text.split('id="data">')[1].split("</script>")[0])
    for name, source in zip(sources["names"], sources["sources"], strict=True):
        assert (page.parent / source).resolve() == (audio / name).resolve()


def test_cluster_names_what_it_left_out(command_json, model, bad_audio):
    code, found, err = command_json(
        "cluster", bad_audio, f"--model={model}", "--speakers=3"
    )
    assert code == 1 and len(found["files"]) == 12
    assert "not used: silent.wav: silent" in err


def test_a_name_that_is_no_utf8(command_json, model, audio):
    """Latin-1 in a file name: it is opened by its bytes, and named in ASCII."""
    odd = os.path.join(os.fsencode(audio / "s0"), b"caf\xe9.wav")
    os.rename(os.fsencode(audio / "s0/0.wav"), odd)
    code, found, err = command_json(
        "cluster", audio, f"--model={model}", "--speakers=3"
    )
    assert code == 0 and len(found["files"]) == 12
    assert "s0/caf\\udce9.wav" in found["files"]


@pytest.mark.parametrize(
    "options, match",
    [
        (["--speakers=0"], "at least 1"),
        (["--speakers=13"], "number of usable files is 12"),
        (["--output=a.txt"], "must end in .csv"),
        (["--page=a.txt"], "--page=a.txt must end in .html"),
    ],
)
def test_cluster_what_cannot_be(command, model, audio, options, match):
    code, _, err = command("cluster", audio, f"--model={model}", *options)
    assert code == 1 and match in err


def test_too_few_files_to_guess_from(command, model, audio):
    code, _, err = command("cluster", audio / "s0/0.wav", f"--model={model}")
    assert code == 1 and "cannot tell the number" in err


def test_an_unexpected_error_is_not_hidden(command, model, audio, monkeypatch):
    """A bug has a traceback; only what a user can mend is one line."""

    def bug(*args, **kwargs):
        raise ZeroDivisionError

    monkeypatch.setattr("speechbrain_ssl.cli.verify.Checked", bug)
    with pytest.raises(ZeroDivisionError):
        command("verify", "a", "b", f"--model={model}")


def test_json_is_one_line_of_json(command, model, audio):
    _, out, _ = command(
        "verify",
        audio / "s0/0.wav",
        audio / "s1/0.wav",
        f"--model={model}",
        "--json",
    )
    assert set(json.loads(out)) == {
        "score",
        "llr",
        "threshold",
        "threshold_from",
        "same",
        "files",
        "notes",
    }


# ------------------------------------------------- other formats, lists, names


@pytest.fixture
def other_formats(audio):
    """A voice once more as m4a and webm, a broken one, and no audio."""
    av_files = pytest.importorskip("av_files")
    wave = voice(0, 0).astype(np.float32)
    av_files.encode(audio / "s0/a.m4a", "alac", RATE, wave=wave)
    av_files.encode(audio / "s0/b.webm", "libopus", RATE, wave=wave)
    (audio / "s1/bad.m4a").write_bytes(b"no audio")
    (audio / "notes.txt").write_text("x")
    return audio


def test_embed_other_formats(
    command, command_json, model, other_formats, tmp_path, monkeypatch
):
    output = tmp_path / "embeddings.npz"
    argv = ["embed", other_formats, f"--model={model}", f"--output={output}"]
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    code, found, err = command_json(*argv)
    assert code == 1 and found["embedded"] == 14
    assert list(found["unusable"]) == ["s1/bad.m4a"]
    assert found["left_out"] == {".txt": 1}
    assert "left out, not audio by their extension: 1 .txt" in found["notes"]
    with np.load(output) as kept:
        row = dict(zip(kept["files"], kept["embeddings"], strict=True))
    wav, m4a = row["s0/0.wav"], row["s0/a.m4a"]
    assert np.linalg.norm(wav - m4a) < 0.01 * np.linalg.norm(wav)
    assert np.isfinite(row["s0/b.webm"]).all()
    assert list((tmp_path / "temporary").iterdir()) == []
    code, out, err = command(*argv)
    assert code == 1
    assert (
        "14 of 15 files (not used: 1 .m4a; not audio: 1 .txt) embedded" in out
    )
    assert "not used: s1/bad.m4a: unreadable" in err


def test_without_pyav(command, command_json, model, other_formats, monkeypatch):
    """What is left out is counted in the line, the notes and the object."""
    monkeypatch.setattr(
        "speechbrain_ssl.speakers.files.has_pyav", lambda: False
    )
    output = other_formats / "clusters.csv"
    argv = ["cluster", other_formats, f"--model={model}", "--speakers=3"]
    code, out, err = command(*argv, f"--output={output}")
    assert code == 1
    kinds = "not used: 2 .m4a, 1 .webm"
    assert f"12 of 15 files ({kinds}; not audio: 1 .txt), 3 speakers" in out
    assert f'{kinds}, which need PyAV: pip install "speechbrain_ssl[' in out
    assert "not used: s0/a.m4a: needs PyAV (pip install" in err
    output.unlink()
    code, found, _ = command_json(*argv)
    assert code == 1 and len(found["unusable"]) == 3
    assert len(found["files"]) == 12 and found["left_out"] == {".txt": 1}
    code, _, err = command(
        "embed",
        other_formats / "s0/a.m4a",
        f"--model={model}",
        "--output=a.npz",
    )
    assert code == 1 and "a.m4a cannot be used: needs PyAV" in err


def test_verify_and_score_other_formats(
    command_json, model, other_formats, tmp_path
):
    files = other_formats / "s0/0.wav", other_formats / "s0/a.m4a"
    code, found, _ = command_json("verify", *files, f"--model={model}")
    assert code == 0 and found["score"] > 0.999
    trials = tmp_path / "trials.txt"
    trials.write_text("s0/0.wav s0/a.m4a\ns0/0.wav s1/bad.m4a\n")
    code, found, _ = command_json(
        "score",
        trials,
        f"--model={model}",
        f"--audio_folder={other_formats}",
        f"--output={tmp_path / 'scores.txt'}",
    )
    assert code == 1 and found["scored"] == 1
    scores = read_scores(tmp_path / "scores.txt")
    assert scores[0] > 0.999 and np.isnan(scores[1])


def test_folder_that_cannot_be_listed(command_json, model, audio, monkeypatch):
    listed = lists.list_files

    def refused(*args, **kwargs):
        listing = listed(*args, **kwargs)
        listing.unreadable.append(("privé", "Permission denied"))
        return listing

    monkeypatch.setattr(lists, "list_files", refused)
    code, found, _ = command_json(
        "cluster", audio, f"--model={model}", "--speakers=3"
    )
    assert code == 1
    assert found["unusable"] == {
        "privé": "folder not listed (Permission denied)"
    }


def test_embed_a_list(command, command_json, model, audio, tmp_path):
    scp, paths = tmp_path / "wav.scp", tmp_path / "paths.txt"
    scp.write_text("u1 audio/s0/0.wav\nu2 audio/s9/9.wav\n")
    paths.write_text("audio/s0/0.wav\n")
    output = tmp_path / "embeddings.npz"
    argv = [f"--model={model}", f"--output={output}"]
    code, found, _ = command_json("embed", scp, *argv)
    assert code == 1 and list(found["unusable"]) == ["u2"]
    with np.load(output) as kept:
        assert kept["files"].tolist() == ["u1"]
    code, out, _ = command("embed", paths, *argv)
    assert code == 0 and "1 of 1 file embedded" in out
    with np.load(output) as kept:
        assert kept["files"].tolist() == ["audio/s0/0.wav"]
    scp.write_text("u1 sox a.wav -t wav - |\n")
    code, _, err = command("embed", scp, *argv)
    assert code == 1 and "line 1" in err and "is a command" in err


@pytest.mark.slow
def test_names_that_the_console_cannot_show(model, audio, tmp_path, repository):
    """And names that steer it; a table has them as they are."""
    names = ["\u4e2d \U0001f3a4.wav", "a\rb\x1b[31m.wav"]
    for old, new in zip(("0.wav", "1.wav"), names, strict=True):
        (audio / "s0" / old).rename(audio / "s0" / new)
    (audio / "s0" / "\u4e2d.wav").touch()
    output = tmp_path / "clusters.csv"
    run = [sys.executable, "-m", "speechbrain_ssl.cli.main", "cluster"]
    run += [str(audio), f"--model={model}", "--speakers=3", "--quiet"]
    for options in (["--json"], [f"--output={output}"]):
        done = subprocess.run(
            [*run, *options],
            env={
                **os.environ,
                "PYTHONPATH": str(repository),
                "PYTHONIOENCODING": "ascii",
            },
            capture_output=True,
        )
        text = done.stdout.decode("ascii")
        assert done.returncode == 1, done.stderr
        assert b"not used: s0/\\u4e2d.wav: empty file" in done.stderr
        if options == ["--json"]:
            found = json.loads(text)["files"]
            assert {f"s0/{name}" for name in names} < set(found)
    with open(output, newline="", encoding="utf-8") as stream:
        rows = {row["file"] for row in csv.DictReader(stream)}
    assert {f"s0/{name}" for name in names} < rows


def test_score_names_with_spaces(command_json, model, audio, tmp_path):
    (audio / "s0/0.wav").rename(audio / "s0/my voice, 1.wav")
    trials = tmp_path / "trials.csv"
    trials.write_text(
        '1,"s0/my voice, 1.wav",s0/1.wav\n0,"s0/my voice, 1.wav","s1/0.wav"\n'
    )
    code, found, _ = command_json(
        "score",
        trials,
        f"--model={model}",
        f"--audio_folder={audio}",
        f"--output={tmp_path / 'scores.txt'}",
    )
    assert code == 0 and found["scored"] == 2
    again, _ = comparison.read_scores(tmp_path / "scores.txt")
    assert again.names[0] == "s0/my voice, 1.wav"


@pytest.mark.parametrize("name, code", [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_ends_it_and_leaves_nothing(
    command, model, audio, tmp_path, monkeypatch, name, code
):
    """Files that wait are not checked, and decoded ones are deleted."""
    checked = []

    def stop(path, check):
        checked.append(path)
        if len(checked) == 1:
            signal.raise_signal(signal.Signals[name])
        time.sleep(0.2)
        return probe(path, check)

    monkeypatch.setattr(audio_files, "probe", stop)
    argv = ["embed", audio, f"--model={model}", f"--output={tmp_path}/a.npz"]
    number = signal.Signals[name]
    # A shell starts what runs in its background with SIGINT ignored.
    before = signal.signal(number, signal.default_int_handler)
    try:
        found, _, _ = command(*argv, "--quiet", "--jobs=1")
    finally:
        signal.signal(number, before)
    assert found == code
    assert len(checked) < 12
    assert not (tmp_path / "a.npz").exists()


def test_odd_audio_is_noted(command_json, model, audio, tmp_path):
    """What preparation notes, the command line says, too."""
    wave = voice(0, 0)
    soundfile.write(audio / "s0/0.wav", np.stack([wave, -wave], 1), RATE)
    quiet = np.append(wave, np.zeros(9 * len(wave)))
    soundfile.write(audio / "s0/1.wav", quiet, RATE)
    av_files = pytest.importorskip("av_files")
    both = np.stack([wave, -wave]).astype(np.float32)
    av_files.encode(audio / "s0/2.m4a", "alac", RATE, 2, both)
    argv = ["embed", audio, f"--model={model}", f"--output={tmp_path}/a.npz"]
    _, found, _ = command_json(*argv)
    notes = sorted(found["notes"])
    # One for both files, the decoded one first.
    assert notes[1].startswith("s0/2.m4a and 1 more: channels")
    assert notes[0].startswith("s0/1.wav: mostly silent")


def test_export_onnx(command, model, tmp_path):
    """The file gives the embeddings of the model, and says so."""
    pytest.importorskip("onnxscript")
    path = tmp_path / "model.onnx"
    code, out, _ = command("export-onnx", model, f"--output={path}")
    assert code == 0 and out.startswith(f"{path}: its embeddings have a cosine")
    wave = voice(1, 1).astype(np.float32)[None]
    encoder, features = load_encoder(model)
    with torch.no_grad():
        wanted = encoder(features(torch.from_numpy(wave)))[:, 0].numpy()
    np.testing.assert_allclose(load_onnx(path)(wave), wanted, atol=1e-3)
    code, _, err = command("export-onnx", model, "--output=model.bin")
    assert code == 1 and "must end in .onnx" in err
    code, _, err = command("export-onnx", "nothing", f"--output={path}")
    assert code == 1 and "there is no" in err
