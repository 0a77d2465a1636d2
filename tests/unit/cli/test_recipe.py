"""Commands that run a recipe: what they refuse, and what the script gets."""

import subprocess
import sys

import pytest
import tiny
import yaml

import speechbrain_ssl
from speechbrain_ssl.cli import recipe
from speechbrain_ssl.config_base import merge


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


@pytest.mark.parametrize(
    "name, task, configuration",
    [
        ("train", "SSL", "simclr_ecapa_mini"),
        ("rounds", "PseudoLabels", "dlg_lc_ecapa_mini"),
    ],
)
def test_the_script_gets_folder_and_keys(
    command, script_argv, tmp_path, monkeypatch, name, task, configuration
):
    # A name that YAML would read as something else.
    folder = tmp_path / "2021: été #1"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    keys = ["batch_size=8", "--device=cpu", "--simclr={margin: 0.2}"]
    code, out, _ = command(name, folder.name, *keys)
    assert code == 0
    assert f"Configuration {configuration}:" in out
    here = tiny.ROOT / "recipes" / "UnlabeledFolder" / task
    script, path, data, *rest = script_argv()
    assert script == str(here / "train.py")
    assert path == str(here / "hparams" / f"{configuration}.yaml")
    flag, _, value = data.partition("=")
    assert flag == "--data_folder"
    assert yaml.safe_load(value) == str(folder)
    assert rest == ["--batch_size=8", *keys[1:]]


def test_a_configuration_is_named(command, script_argv, tmp_path):
    code, _, _ = command("train", "--config=dino_ecapa", tmp_path)
    assert code == 0
    assert script_argv()[1].endswith("/SSL/hparams/dino_ecapa.yaml")


@pytest.mark.parametrize(
    "argv, text",
    [
        (["train", "absent"], "no folder or list absent"),
        (["train", ".", "--config=dino"], "no configuration dino; take one of"),
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
