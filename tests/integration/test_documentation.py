"""The code blocks of the documentation are executed as they are."""

import importlib
import pathlib
import re
import sys

import pytest
import tiny

from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.objectives.base import Objective

PAGE = tiny.ROOT / "docs" / "add_your_own_objective.md"


def code(name):
    """Return a code block of the page, found by the comment above it."""
    text = PAGE.read_text(encoding="utf-8")
    found = re.findall(
        rf"<!-- {re.escape(name)} -->\n```\w+\n(.*?)```", text, re.S
    )
    (block,) = found
    return block


@pytest.fixture
def alignment(tmp_path, monkeypatch):
    """Write the files of the page where it says, and return its module."""
    folder = tmp_path / "recipes" / "MiniVox" / "SSL"
    (folder / "hparams").mkdir(parents=True)
    (tmp_path / "hparams").symlink_to(tiny.ROOT / "hparams")
    (folder / "alignment.py").write_text(code("alignment.py"))
    (folder / "hparams" / "alignment.yaml").write_text(code("alignment.yaml"))
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "alignment", raising=False)
    yield importlib.import_module("alignment")
    monkeypatch.delitem(sys.modules, "alignment")


def test_the_objective_of_the_page_passes_its_tests(alignment):
    names = {}
    exec(compile(code("test"), str(PAGE), "exec"), names)
    tests = [f for name, f in names.items() if name.startswith("test_")]
    assert len(tests) == 3
    for test in tests:
        test()
    with pytest.raises(ConfigError, match="above 0"):
        alignment.Alignment(8, weight=0.0)


def test_the_objective_of_the_page_trains(
    alignment, corpus, train, no_report, tmp_path
):
    """The objective trains in a recipe, with the text of the page unchanged."""
    path = tmp_path / "recipes" / "MiniVox" / "SSL" / "hparams" / "my.yaml"
    path.write_text(code("recipe"))
    sizes = {
        "number_of_epochs": 2,
        "warmup_epochs": 0.5,
        "batch_size": 8,
        "channels": 16,
        "pooled_channels": 48,
        "global_seconds": 0.5,
        "valid_seconds": 0.4,
        "valid_utterances": 8,
        "log_every": 1,
    }
    # The tiny corpus has no music and no voices.
    keys = ("prepare", "trials", "music_csv", "speech_csv")
    nulls = dict.fromkeys(keys, "null")
    argv = corpus.argv(
        tmp_path / "run", data_folder=corpus.audio, **sizes, **nulls
    )
    train.main([str(path), *argv[1:]])
    lines = tiny.lines(tmp_path / "run")
    assert len(lines) == 2 * tiny.STEPS
    assert all({"alignment", "uniformity"} <= set(line) for line in lines)
    assert lines[-1]["uniformity"] < 0 < lines[-1]["alignment"]
    assert (tmp_path / "run" / "model" / "embedding_model.ckpt").is_file()


def links(text, folder=PAGE.parent):
    """Return the files that a text in a folder links to, as paths."""
    found = re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", text)
    return [(folder / link).resolve() for link in found]


@pytest.mark.parametrize(
    "page, least",
    [
        ("README.md", 10),
        ("CONTRIBUTING.md", 1),
        ("docs/add_your_own_objective.md", 10),
        ("docs/architecture.md", 20),
        ("docs/index.md", 1),
        ("docs/faq.md", 12),
        ("docs/outputs.md", 1),
        ("docs/which_configuration.md", 7),
        ("results/README.md", 9),
    ],
)
def test_links_of_a_page(page, least):
    path = tiny.ROOT / page
    found = links(path.read_text(encoding="utf-8"), path.parent)
    assert len(found) >= least
    assert [path for path in found if not path.exists()] == []


#: What looks like a placeholder and is a name.
NAMES = {"RIRS_NOISES", "ECAPA_TDNN"}
FOLDERS = ("", "docs/**/", "hparams/**/", "recipes/**/", "results/**/")


def placeholders(text):
    """Return what waits to be written in a text, except in its code."""
    prose = re.sub(r"```.*?```|`[^`]*`", "", text, flags=re.S)
    return (
        set(
            re.findall(r"\b(?:[A-Z]+(?:_[A-Z]+)+|TODO|TBD|FIXME|XXX+)\b", prose)
        )
        - NAMES
    )


def test_no_page_or_configuration_has_a_placeholder():
    text = "ONE_SENTENCE, TODO: of ECAPA_TDNN with `LC_ALL=C` on XXX hours"
    assert placeholders(text) == {"ONE_SENTENCE", "TODO", "XXX"}
    paths = [
        path
        for folder in FOLDERS
        for kind in ("*.md", "*.yaml")
        for path in tiny.ROOT.glob(folder + kind)
    ]
    assert len(paths) > 80
    texts = {path: placeholders(path.read_text("utf-8")) for path in paths}
    assert {path: found for path, found in texts.items() if found} == {}


def test_the_index_of_results_has_all_studies():
    path = tiny.ROOT / "results" / "README.md"
    studies = {table.parent for table in path.parent.glob("*/README.md")}
    assert studies <= set(links(path.read_text("utf-8"), path.parent))


def test_a_walk_enters_no_file_twice():
    text = (tiny.ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    walks = re.findall(r"\n## From (.*?)(?=\n## )", text, re.S)
    assert len(walks) == 2
    for walk in walks:
        assert len(links(walk)) > 5
        assert len(links(walk)) == len(set(links(walk)))


def test_nothing_else_names_an_objective():
    """The page lists every file that names SimSiam, except READMEs."""
    _, section = PAGE.read_text(encoding="utf-8").split("\n## 5. ")
    places = (
        "speechbrain_ssl/**/*.py",
        "hparams/**/*.yaml",
        "recipes/*/SSL/hparams/*.yaml",
        "recipes/*/SSL/*.py",
        "tests/**/*.py",
        "tests/recipes/*.csv",
    )
    # Imports, keys and paths; a comment may mention "SimSiam".
    named = {
        path
        for place in places
        for path in tiny.ROOT.glob(place)
        if "simsiam" in path.read_text(encoding="utf-8")
    }
    assert named - {pathlib.Path(__file__)} == set(links(section))


def test_every_hook_is_on_the_page():
    """The table lists everything that a subclass may set or override."""
    text = PAGE.read_text(encoding="utf-8")
    hooks = [name for name in vars(Objective) if not name.startswith("_")]
    assert len(hooks) > 10
    assert [name for name in hooks if f"`{name}" not in text] == []
