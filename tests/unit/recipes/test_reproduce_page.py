"""docs/reproduce.md agrees with the configurations that it describes."""

import importlib.util
import re

import pytest
import reproduce_page as page
import torch
import yaml
from speechbrain.utils.run_opts import RunOptions

from speechbrain_ssl.config import load_config
from speechbrain_ssl.config_base import merge
from speechbrain_ssl.encoders.features import LogMel

SECTIONS = page.sections()
ROWS = [row for text in SECTIONS.values() for row in page.rows(text)]
YAMLS = sorted({row.yaml for row in ROWS})
CHAINS = page.chains()


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
        if isinstance(value, dict):
            value = value.get(part, "no such key")
        else:
            value = getattr(value, part, "no such attribute")
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


def test_every_table_of_settings_is_read():
    assert page.PAGE.read_text("utf-8").count(page.HEADER) == len(YAMLS)


@pytest.mark.parametrize("path", YAMLS)
def test_what_the_page_says_of_ours_is_in_the_configuration(path, load):
    hparams, wrong = load(path), []
    written = [v for row in ROWS if row.yaml == path for v in row.values]
    for key, text in written:
        value = look_up(hparams, key)
        if not same(value, text):
            wrong.append(f"{key}: {text} on the page, {value} in {path}")
    assert len(written) > 5 and not wrong, "\n".join(wrong)


def numbers(text):
    return {float(n) for n in re.findall(r"\d+(?:\.\d+)?", text)}


def test_numbers_are_read():
    assert numbers("0.04 to 0.07 over (30) epochs") == {0.04, 0.07, 30.0}
    assert sum(row.remark == "same" for row in ROWS) > 80


@pytest.mark.parametrize("path", YAMLS)
def test_what_the_page_calls_the_same_has_the_same_numbers(path):
    """Every number of ours stands in the cell of the source."""
    equal = [r for r in ROWS if r.yaml == path and r.remark == "same"]
    for row in equal:
        assert row.values, row.setting
        ours = {n for _, text in row.values for n in numbers(text)}
        # A zero or a switch need not be a number in a sentence.
        assert ours - {0.0} <= numbers(row.source), row


@pytest.mark.parametrize("title", CHAINS)
def test_every_option_of_a_command_exists(title):
    known = set(RunOptions().as_dict())
    for command in CHAINS[title]:
        if command.yaml is not None:
            there = merge(page.ROOT / command.yaml).plain().keys()
            assert command.flags.keys() <= known | there, command


@pytest.mark.parametrize("title", CHAINS)
def test_every_command_begins_where_an_earlier_one_ended(title):
    """A model that a command starts from is what another leaves behind."""
    made = set()
    for command in CHAINS[title]:
        for key in ("initial_model", "initial_checkpoint", "model"):
            if key in command.flags:
                assert command.place(command.flags[key]) in made, command
        made.add(command.output)


def encoder_of(hparams):
    return type(hparams["encoder"]), hparams["encoder"].arguments


@pytest.mark.parametrize("title", CHAINS)
def test_stages_have_one_encoder(title, load):
    """At full size, which the tiny chains do not show."""
    made = {}
    for command in CHAINS[title]:
        if command.output is None:
            continue
        hparams = load(command.yaml)
        start = {"initial_model", "initial_checkpoint"} & command.flags.keys()
        for key in start:
            before = made[command.place(command.flags[key])]
            assert encoder_of(hparams) == encoder_of(before), command
        made[command.output] = hparams
