"""Commands that run a recipe: what they refuse, and what the script gets."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import tiny
import yaml

import speechbrain_ssl
from speechbrain_ssl.cli import choice, recipe
from speechbrain_ssl.cli.keys import explained_keys
from speechbrain_ssl.config_base import merge
from speechbrain_ssl.prepare.probe import probe


@pytest.fixture
def script_argv(monkeypatch):
    """Take the place of the scripts; returns the arguments of the last."""
    monkeypatch.setattr(sys, "argv", ["speechbrain-ssl"])
    started = []
    monkeypatch.setattr(
        recipe.runpy, "run_path", lambda path, run_name: started.append(path)
    )

    def argv():
        assert started == sys.argv[:1]
        return sys.argv

    return argv


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)


@pytest.fixture
def audio(tmp_path):
    """A folder of three minutes in two files."""
    folder = tmp_path / "2021: été #1"
    folder.mkdir()
    for name in ("a.wav", "b.wav"):
        soundfile.write(folder / name, np.zeros(90 * 8000), 8000)
    return folder


@pytest.mark.parametrize(
    "name, task, configuration",
    [
        ("train", "SSL", "simclr_ecapa_mini"),
        ("rounds", "PseudoLabels", "dlg_lc_ecapa_mini"),
    ],
)
def test_the_script_gets_folder_and_keys(
    command, script_argv, audio, monkeypatch, name, task, configuration
):
    # YAML would read its name as something else.
    folder = audio
    monkeypatch.chdir(folder.parent)
    keys = ["batch_size=8", "--device=cpu", "--initial_model=run"]
    code, _, err = command(name, folder.name, *keys)
    assert code == 0
    assert f"`speechbrain-ssl {name} --config={configuration} --help`" in err
    here = tiny.ROOT / "recipes" / "UnlabeledFolder" / task
    script, path, data, *rest = script_argv()
    assert script == str(here / "train.py")
    assert path == str(here / "hparams" / f"{configuration}.yaml")
    flag, _, value = data.partition("=")
    assert flag == "--data_folder"
    assert yaml.safe_load(value) == str(folder)
    assert rest == ["--batch_size=8", *keys[1:]]


@pytest.mark.parametrize(
    "gpu, hours, keys, expected",
    [
        (True, 0.06, [], "simclr_ecapa_mini"),
        (True, 0.04, [], "dino_ecapa"),
        (False, 0.04, [], "simclr_ecapa_mini"),
        (True, 0.04, ["--device=cpu"], "simclr_ecapa_mini"),
    ],
)
def test_the_configuration_is_chosen_from_hours_and_gpu(
    command, script_argv, audio, monkeypatch, gpu, hours, keys, expected
):
    """The two files have 0.05 hours."""
    monkeypatch.setattr(choice, "HOURS", hours)
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpu)
    _, _, err = command("train", audio, *keys)
    assert pathlib.Path(script_argv()[1]).stem == expected
    gpu = gpu and not keys
    assert f"about 0.1 hours, {'a' if gpu else 'no'} GPU" in err
    assert f"configuration {expected}." in err


def test_the_length_is_estimated_from_some_files(audio, monkeypatch):
    paths = [str(audio / "a.wav")] * 1000 + [str(audio / "gone.wav")] * 10
    assert choice._estimate(paths) == pytest.approx(1010 * 90 / 3600)
    probed = []
    monkeypatch.setattr(
        choice, "probe", lambda p: probed.append(p) or probe(paths[0])
    )
    choice._estimate(paths)
    assert len(probed) <= 200


def test_evaluate_gets_its_model_and_keys(command, script_argv):
    folder = tiny.ROOT / "recipes" / "VoxCeleb" / "Verification"
    assert command("evaluate", "a: run", "trials=t.txt")[0] == 0
    assert script_argv() == [
        str(folder / "evaluate.py"),
        str(folder / "hparams" / "cosine_one_list.yaml"),
        '--model="a: run"',
        "--trials=t.txt",
    ]


def test_publish_gets_its_model_and_keys(command, script_argv):
    assert command("publish", "a: run", "data=calls", "--onnx")[0] == 0
    script, *rest = script_argv()
    assert script.endswith("/Verification/publish.py")
    assert rest == ["--model=a: run", "--data=calls", "--onnx"]


def test_compare_gets_its_runs_and_keys(command, script_argv):
    code, _, _ = command("compare", "a", "b=c:d", "--output_folder=e", "--fuse")
    script, *rest = script_argv()
    assert code == 0 and script.endswith("/Verification/compare.py")
    assert rest == ["a", "b=c:d", "--output_folder=e", "--fuse"]


def test_a_configuration_is_named(command, script_argv, tmp_path):
    code, _, _ = command("train", "--config=dino_ecapa", tmp_path)
    assert code == 0
    assert script_argv()[1].endswith("/SSL/hparams/dino_ecapa.yaml")


@pytest.mark.parametrize(
    "argv, text",
    [
        (["train", "absent"], "no folder or list absent"),
        (["train", ".", "--config=dino"], "no configuration dino; take one of"),
        (["train", "docs"], "no audio file below docs, only"),
        (["rounds", ".", "--config=dino_ecapa"], "dlg_lc_ecapa_mini"),
        (["config", "dino"], "no configuration dino; take one of"),
    ],
)
def test_mistakes_are_found_before_torch_is_imported(argv, text, repository):
    code = (
        "import sys\n"
        "from speechbrain_ssl.cli.main import main\n"
        f"code = main({argv!r})\n"
        "sys.exit(3 if 'torch' in sys.modules else code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=repository,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ") and text in done.stderr


def test_configurations_are_listed_and_printed(command, command_json):
    code, out, _ = command("config")
    assert code == 0
    names = [n for task in recipe.TASKS for n in recipe.configurations(task)]
    for name in names:
        assert f"\n  {name} " in out
    _, titles, _ = command_json("config")
    assert list(titles) == names and all(titles.values())
    code, found, _ = command_json("config", "dlg_lc_ecapa_mini")
    assert code == 0
    path = recipe.configurations("rounds")["dlg_lc_ecapa_mini"]
    assert found == {"dlg_lc_ecapa_mini": merge(path).text}


@pytest.mark.parametrize(
    "argv, lines",
    [
        (
            ["train", "--help"],
            [
                "keys of simclr_ecapa_mini (of another: --config=NAME --help):",
                "  temperature=0.07",
                "  data_folder=...  # any tree of audio files, or a list of files",
                # From the base, with a value of the corpus between them.
                "  log_every=10  # steps",
            ],
        ),
        (
            ["rounds", "-h"],
            [
                "keys of dlg_lc_ecapa_mini (of another: --config=NAME --help):",
                "  gate_epoch=3",
            ],
        ),
        (
            ["train", "--config=dino_ecapa", "--help"],
            ["keys of dino_ecapa (of another: --config=NAME --help):"],
        ),
    ],
)
def test_help_explains_the_keys(command, capfd, argv, lines):
    with pytest.raises(SystemExit) as stop:
        command(*argv)
    assert stop.value.code == 0
    out = capfd.readouterr().out
    said = out.splitlines()
    for line in lines:
        assert any(s.startswith(line) for s in said), line
    assert not any("!" in s for s in out.split("keys of")[1].split("#"))


def test_comments_are_those_of_the_nearest_file(tmp_path):
    (tmp_path / "base.yaml").write_text(
        "# of both\na: 1\n\nb: 2  # two\n       # lines\nc: null # none\n"
    )
    (tmp_path / "x.yaml").write_text("base: base.yaml\nc: 3  # three\n")
    assert explained_keys(tmp_path / "x.yaml") == [
        "a=1  # of both",
        "b=2  # two lines",
        "c=3  # three",
    ]


def test_version(command, capfd):
    with pytest.raises(SystemExit) as stop:
        command("--version")
    assert stop.value.code == 0
    expected = f"speechbrain-ssl {speechbrain_ssl.__version__}\n"
    assert capfd.readouterr().out == expected


def test_other_commands_take_no_keys(command, capfd):
    with pytest.raises(SystemExit) as stop:
        command("verify", "a.wav", "b.wav", "--model=m", "--batch_size=8")
    assert stop.value.code == 2
    assert "unrecognized arguments: --batch_size=8" in capfd.readouterr().err
