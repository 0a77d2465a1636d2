"""The wheel is complete, and what is written twice is the same in both."""

import os
import re
import shutil
import subprocess
import sys
import zipfile

import pytest
import tiny


def read(name):
    """The text of a file of the repository."""
    return (tiny.ROOT / name).read_text(encoding="utf-8")


def test_oldest_versions_are_the_lower_bounds():
    _, project = read("pyproject.toml").split("\n[project]\n")
    bounds = dict(re.findall(r'"([\w-]+)>=([\d.]+)', project))
    oldest = re.findall(r"^([\w-]+)==([\d.]+)$", read("tests/oldest.txt"), re.M)
    assert len(bounds) > 10
    assert set(bounds) == set(dict(oldest))
    for name, version in oldest:
        assert f"{version}.".startswith(f"{bounds[name]}."), name


def test_one_version_of_ruff():
    (wanted,) = re.findall(r'"ruff==([\d.]+)"', read("pyproject.toml"))
    hook = rf"/ruff-pre-commit\n +rev: v{re.escape(wanted)} "
    assert re.search(hook, read(".pre-commit-config.yaml"))


@pytest.mark.slow
def test_the_wheel_has_the_recipes_and_runs(tmp_path):
    """Built from a copy, with no network; then used without the clone."""
    pytest.importorskip("setuptools", minversion="77")
    pytest.importorskip("pip")
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(tiny.ROOT / name, source)
    skip = shutil.ignore_patterns("__pycache__", "results", "save")
    for name in ("speechbrain_ssl", "hparams", "recipes"):
        shutil.copytree(
            tiny.ROOT / name, source / name, symlinks=True, ignore=skip
        )
    wanted = {
        f"speechbrain_ssl/{p.relative_to(source).as_posix()}": p.read_bytes()
        for part in ("hparams", "recipes")
        for p in (source / part).rglob("*")
        if p.suffix in (".yaml", ".py")
    }
    # What a run in the clone has left is not part of the wheel.
    run = source / "recipes" / "UnlabeledFolder" / "SSL" / "results" / "run"
    run.mkdir(parents=True)
    (run / "hyperparams.yaml").write_text("seed: 1\n")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-index"]
    command += ["--no-build-isolation", "--no-deps", "-w", tmp_path, source]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        data = ("speechbrain_ssl/hparams/", "speechbrain_ssl/recipes/")
        found = {
            name: archive.read(name)
            for name in archive.namelist()
            if name.startswith(data)
        }
        archive.extractall(tmp_path / "installed")
    assert found == wanted
    done = subprocess.run(
        [sys.executable, "-m", "speechbrain_ssl.cli.main"]
        + ["train", ".", "--config=dino_ecapa_mini", "--print_config"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "installed")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "unlabeled_prepare.prepare_unlabeled" in done.stdout
