"""What ``results.json`` holds."""

import json
import subprocess

import pytest

from speechbrain_ssl.report.results import (
    describe_machine,
    git_revision,
    write_results,
)


def test_content(tmp_path):
    path = write_results(
        tmp_path,
        {"eer": 6.5, "min_dcf_0.01": float("nan")},
        seed=3,
        seconds=150,
        command="train.py a.yaml",
        extra={"systems": ["a", "b"]},
        gpu="some GPU",
    )
    results = json.loads(path.read_text())
    assert path == tmp_path / "results.json"
    assert results["eer"] == 6.5
    assert results["min_dcf_0.01"] is None
    assert results["seed"] == 3
    assert results["minutes"] == 2.5
    assert results["command"] == "train.py a.yaml"
    assert results["labels_seen"] == "none"
    assert results["systems"] == ["a", "b"]
    assert results["machine"]["gpu"] == "some GPU"
    assert "git_revision" in results


def test_command_of_the_process_is_quoted(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["train.py", "--folder=a b"])
    path = write_results(tmp_path, {}, 1, 1.0)
    assert json.loads(path.read_text())["command"] == (
        "train.py '--folder=a b'"
    )


def test_a_taken_name_is_refused(tmp_path):
    with pytest.raises(ValueError, match="seed"):
        write_results(tmp_path, {"seed": 1}, 1, 1.0)
    with pytest.raises(ValueError, match="eer"):
        write_results(tmp_path, {"eer": 1}, 1, 1.0, extra={"eer": 2})
    assert not list(tmp_path.iterdir())


def test_machine():
    machine = describe_machine()
    assert machine["cores"] >= 1
    assert machine["cpu"]
    assert machine["gpu"] is None


def test_revision(tmp_path):
    def git(*arguments):
        subprocess.run(
            [
                "git",
                "-c",
                "user.name=a",
                "-c",
                "user.email=a@b",
                "-C",
                str(tmp_path),
                *arguments,
            ],
            check=True,
            capture_output=True,
        )

    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    assert git_revision(package) is None
    git("init")
    # Inside a checkout, but not of it: an installed copy.
    assert git_revision(package) is None
    git("add", ".")
    git("commit", "-m", "first")
    clean = git_revision(package)
    assert len(clean) == 40
    (package / "__init__.py").write_text("changed = True\n")
    assert git_revision(package) == clean + "+changes"
