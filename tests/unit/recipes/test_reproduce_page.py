"""docs/reproduce.md agrees with the configurations that it describes."""

import importlib.util
import re

import pytest
import reproduce_page as page
import torch
import yaml
from speechbrain.utils.run_opts import RunOptions

from speechbrain_ssl.config import load_config
from speechbrain_ssl.config_base import merge, read_plain
from speechbrain_ssl.encoders.features import LogMel

SECTIONS = page.sections()
ROWS = [row for text in SECTIONS.values() for row in page.rows(text)]
YAMLS = sorted({row.yaml for row in ROWS})
CHAINS = {
    title: found
    for title, text in SECTIONS.items()
    if any(c.yaml for c in (found := page.commands(text)))
}


def script_of(path):
    """Return the keys that the training script of a configuration reads."""
    folder = (page.ROOT / path).parents[1]
    spec = importlib.util.spec_from_file_location("read", folder / "train.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    """Return ``load(path)`` -> the hyper-parameters, without weights."""
    original, found = LogMel.__init__, {}
    folder = tmp_path_factory.mktemp("outputs")

    def with_content(*args, **kwargs):
        # Its filters are computed, not random.
        with torch.device("cpu"):
            original(*args, **kwargs)

    def load(path):
        if path not in found:
            blank = {
                key
                for key, value in merge(page.ROOT / path).plain().items()
                if str(value).startswith("!PLACEHOLDER")
            }
            flags = [f"--{k}=x" for k in sorted(blank | {"output_folder"})]
            flags[flags.index("--output_folder=x")] = (
                f"--output_folder={folder}"
            )
            argv = [str(page.ROOT / path), "--device=cpu", *flags]
            with torch.device("meta"):
                found[path] = load_config(argv, script_of(path).KEYS)[-1]
        return found[path]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LogMel, "__init__", with_content)
        yield load


def look_up(hparams, key):
    """Follow a dotted key through dictionaries and attributes."""
    value = hparams
    for part in key.split("."):
        known = isinstance(value, dict)
        value = value[part] if known else getattr(value, part)
    return value


def same(value, text):
    """Whether a value is what the page writes: a class goes by its name."""
    written = yaml.safe_load(text)
    if isinstance(written, str):
        kind = getattr(value, "func", value)
        name = kind.__name__ if isinstance(kind, type) else type(kind).__name__
        return written in (value, name)
    if isinstance(value, tuple):
        value = list(value)
    # YAML reads 5e-5 as text.
    return value == written


@pytest.mark.parametrize("path", YAMLS)
def test_what_the_page_says_of_ours_is_in_the_configuration(path, load):
    hparams = load(path)
    checked = 0
    for row in ROWS:
        for key, text in row.values if row.yaml == path else ():
            value = look_up(hparams, key)
            assert same(value, text), (row.setting, key, value)
            checked += 1
    assert checked > 10


def numbers(text):
    return {float(n) for n in re.findall(r"\d+(?:\.\d+)?", text)}


@pytest.mark.parametrize("path", YAMLS)
def test_what_the_page_calls_the_same_has_the_same_numbers(path):
    """Every number of ours stands in the cell of the source."""
    equal = [r for r in ROWS if r.yaml == path and r.remark == "same"]
    assert equal
    for row in equal:
        assert row.values, row.setting
        ours = {n for _, text in row.values for n in numbers(text)}
        # A zero or a switch need not be a number in a sentence.
        assert ours - {0.0} <= numbers(row.source.replace(" ", " ")), row


@pytest.mark.parametrize("title", CHAINS)
def test_every_option_of_a_command_exists(title):
    known = set(RunOptions().as_dict())
    for command in CHAINS[title]:
        if command.yaml is not None:
            there = known | read_plain(page.ROOT / command.yaml).keys()
            there |= merge(page.ROOT / command.yaml).plain().keys()
            assert command.flags.keys() <= there, command


@pytest.mark.parametrize("title", CHAINS)
def test_every_command_begins_where_an_earlier_one_ended(title):
    """A model that a command starts from is what another leaves behind."""
    made = set()
    for command in CHAINS[title]:
        for key in ("initial_model", "initial_checkpoint", "model"):
            if key in command.flags:
                assert command.place(command.flags[key]) in made, command
        if command.script == "train.py":
            plain = merge(page.ROOT / command.yaml).plain()
            folder = command.flags.get("output_folder", plain["output_folder"])
            folder = str(folder).removeprefix("!ref ").replace("<seed>", "1")
            made.add(command.place(folder))


def encoder_of(hparams):
    return type(hparams["encoder"]), hparams["encoder"].arguments


@pytest.mark.parametrize("title", CHAINS)
def test_stages_have_one_encoder(title, load):
    """At full size, which the tiny chains do not show."""
    made = {}
    for command in CHAINS[title]:
        if command.script != "train.py" or "Emotion" in command.folder:
            continue
        hparams = load(command.yaml)
        start = {"initial_model", "initial_checkpoint"} & command.flags.keys()
        for key in start:
            before = made[command.place(command.flags[key])]
            assert encoder_of(hparams) == encoder_of(before), command
        plain = merge(page.ROOT / command.yaml).plain()
        folder = command.flags.get("output_folder", plain["output_folder"])
        folder = str(folder).removeprefix("!ref ").replace("<seed>", "1")
        made[command.place(folder)] = hparams
