"""What is written in two places is the same in both."""

import re

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
