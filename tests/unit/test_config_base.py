"""A configuration may be written as differences from another one."""

import pytest
from hyperpyyaml import load_hyperpyyaml

from speechbrain_ssl.config import load_config
from speechbrain_ssl.config_base import merge, read_plain
from speechbrain_ssl.errors import ConfigError

BASE = """\
seed: 1
__set_seed: !apply:random.seed [!ref <seed>]
data_folder: !PLACEHOLDER  # a remark
batch_size: 32
rate: 1e-3
block: !include:blocks/one.yaml
    seconds: !ref <rate>
crops: !new:collections.Counter
    a: 1
    b: 2
stage:
    lr: 0.5
    other: !name:math.sqrt
last: [1, 2]
none: null
"""


@pytest.fixture
def write(tmp_path):
    """``write(name, text)`` -> a path; ``base.yaml`` and its block are there."""

    def write(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    write("base.yaml", BASE)
    write("blocks/one.yaml", "seconds: 2\nmore: 3\n")
    return write


def test_nothing_but_a_base(write):
    assert read_plain(write("x.yaml", "base: base.yaml\n")) == read_plain(
        write("same.yaml", BASE)
    )


def test_differences(write):
    """Of a mapping single keys, of all else the whole; {} empties."""
    path = write(
        "x.yaml",
        "base: base.yaml\n"
        "batch_size: 1e-4\n"
        "block: {more: 4}\n"
        "crops: !new:collections.Counter\n    c: 3\n"
        "stage:\n    lr: 0.1\n"
        "last: [3]\n"
        "new: 5\n",
    )
    before, after = read_plain(path.with_name("base.yaml")), read_plain(path)
    changed = {
        "batch_size": "1e-4",
        "block": {**before["block"], "more": 4},
        "crops": {"!": "new:collections.Counter", "c": 3},
        "stage": {**before["stage"], "lr": 0.1},
        "last": [3],
        "new": 5,
    }
    assert after == {**before, **changed}
    # In the order of the base: the seed is set before anything is made.
    assert list(after) == [*before, "new"]
    assert "batch_size: 1e-4\n" in merge(path).text
    empty = write("empty.yaml", "base: base.yaml\nstage: {}\n")
    assert read_plain(empty)["stage"] == {}
    tagged = write("tagged.yaml", "base: base.yaml\ncrops: {b: 7}\n")
    assert read_plain(tagged)["crops"] == {**before["crops"], "b": 7}


def test_a_block_that_nothing_was_given_to(write):
    """It stays an include."""
    write("base.yaml", "block: !include:blocks/one.yaml\n")
    path = write("x.yaml", "base: base.yaml\nblock: {more: 4}\n")
    hparams = load_hyperpyyaml(merge(path).open())
    assert hparams == {"block": {"seconds": 2, "more": 4}}


def test_dropped_keys(write):
    path = write("x.yaml", "base: base.yaml\ndrop: [last, stage]\nlast: 7\n")
    before, after = read_plain(path.with_name("base.yaml")), read_plain(path)
    del before["last"], before["stage"]
    assert after == {**before, "last": 7}


def test_two_levels_in_three_folders(write):
    """Bases and includes are relative to the file that says them."""
    write("down here/some blocks/two.yaml", "three: 3\n")
    write(
        "down here/middle.yaml",
        "base: ../base.yaml\nrate: 2\nseed: 2\nbatch_size: 2\n"
        "drop: [data_folder]\ntwo: !include:some%20blocks/two.yaml\n",
    )
    path = write(
        "ein anderes Häuschen/deep/x.yaml",
        "base: ../../down here/middle.yaml\n"
        "rate: 3\nblock: {more: !ref <rate>}\n",
    )
    merged = merge(path)
    hparams = load_hyperpyyaml(merged.open())
    assert hparams["block"] == {"seconds": 3, "more": 3}
    assert hparams["two"] == {"three": 3}
    assert (hparams["seed"], hparams["rate"]) == (2, 3)
    sources = {
        key: source.rsplit("/", 1)[1] for key, source in merged.sources.items()
    }
    assert sources["crops"] == "base.yaml"
    assert sources["seed"] == sources["two"] == "middle.yaml"
    assert sources["rate"] == sources["block"] == "x.yaml"
    assert set(sources) == set(merged.plain())


def test_an_include_that_hyperpyyaml_could_not_read(write):
    """Its path has a letter that no tag can have."""
    write("Häuschen/blocks/one.yaml", "seconds: 2\n")
    write("Häuschen/base.yaml", BASE)
    near = write("Häuschen/x.yaml", "base: base.yaml\n")
    assert load_hyperpyyaml(merge(near, "data_folder: x").open())["block"]
    far = write("far/x.yaml", "base: ../Häuschen/base.yaml\n")
    with pytest.raises(
        ConfigError, match=r"base\.yaml includes .*one\.yaml.*x\.yaml.* ASCII"
    ):
        merge(far)


def test_definitions_stand_above_what_refers_to_them(write):
    """Else HyperPyYAML finds no `key` in a block that is yet to be included,
    and leaves a reference to a reference as it is."""
    write("base.yaml", "first: null\nsecond: null\nx: 1\n")
    path = write(
        "x.yaml",
        "base: base.yaml\n"
        "first: !ref <block[seconds]>\n"
        "second: {deep: [!ref <third>]}\n"
        "block: !include:blocks/one.yaml\n    seconds: !ref <third>\n"
        "third: !ref <fourth>\n"
        "fourth: !ref <x>\n",
    )
    assert list(read_plain(path)) == "x fourth third block first second".split()
    hparams = load_hyperpyyaml(merge(path).open())
    assert hparams["first"] == hparams["second"]["deep"][0] == 1
    circle = write("circle.yaml", "a: !ref <b>\nb: !ref <a>\n")
    assert set(read_plain(circle)) == {"a", "b"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "base: no.yaml",
            r"`base` in .*x\.yaml is no\.yaml, .* not exist.*rel",
        ),
        ("base: ..", r"`base` in .*x\.yaml is \.\., which does not exist"),
        (
            "base: [base.yaml]",
            r"`base` in .*x\.yaml is not a path; .* `base: other",
        ),
        ("base: !ref <seed>", r"`base` in .*x\.yaml is not a path"),
        ("base: null", r"`base` in .*x\.yaml is not a path"),
        ("base: x.yaml", r"circle: .*x\.yaml -> .*x\.yaml; remove a `base`"),
        ("base: list.yaml", r"list\.yaml holds no keys"),
        ("base: bad.yaml", r"(?s)bad\.yaml is not valid YAML.*line 3"),
        (
            "base: base.yaml\ndrop: [batch]",
            r"`drop` in .*x\.yaml names `batch`, which its base does not have",
        ),
        ("drop: [seed]\nseed: 1", r"`drop` in .*x\.yaml names `seed`, which"),
        (
            "base: base.yaml\ndrop: seed",
            r"`drop` in .*x\.yaml is not a list .*write `drop: \[seed\]`",
        ),
    ],
)
def test_refused(write, text, message):
    """With the file, the key and the remedy."""
    write("list.yaml", "- 1\n")
    write("bad.yaml", "a: 1\nb: [\n")
    path = write("x.yaml", text + "\n")
    with pytest.raises(ConfigError, match=message):
        merge(path)


def test_a_circle_of_three(write):
    write("one.yaml", "base: two.yaml\n")
    write("two.yaml", "base: x.yaml\n")
    path = write("x.yaml", "base: one.yaml\n")
    with pytest.raises(
        ConfigError, match="circle: .*x.yaml -> .*one.* -> .*two.* -> .*x.yaml;"
    ):
        merge(path)


def test_more_than_two_levels(write):
    write("two.yaml", "base: base.yaml\n")
    write("one.yaml", "base: two.yaml\n")
    assert "last" in read_plain(write("fine.yaml", "base: two.yaml\n"))
    path = write("x.yaml", "base: one.yaml\n")
    with pytest.raises(
        ConfigError,
        match=r"x\.yaml -> .*one\.yaml -> .*two\.yaml -> .*base\.yaml: .*no more",
    ) as caught:
        merge(path)
    assert "two.yaml into" in str(caught.value)


KNOWN = set(
    "seed data_folder batch_size rate block crops stage last none".split()
)


def test_it_loads_and_errors_name_the_file_that_is_at_fault(write, monkeypatch):
    """The difference, or the base that it has the key from."""
    monkeypatch.setattr("sys.path", [])
    path = write("x.yaml", "base: base.yaml\nlasst: 1\n")
    # However the path is written.
    monkeypatch.chdir(path.parent)
    for name in (str(path), "./x.yaml"):
        with pytest.raises(
            ConfigError,
            match=r"`lasst` in .*x\.yaml is not read .*mean `last`\?$",
        ):
            load_config([name], KNOWN)
    path = write("x.yaml", "base: base.yaml\nblock: {secondz: 1}\n")
    with pytest.raises(
        ConfigError,
        match=r"`block` in .*x\.yaml sets `secondz`.*mean `seconds`",
    ):
        load_config([str(path)], KNOWN)
    path = write("x.yaml", "base: base.yaml\n")
    with pytest.raises(
        ConfigError, match=r"`data_folder` in .*base\.yaml .*--data_folder=\.\."
    ):
        load_config([str(path)], KNOWN)
    path = write("x.yaml", "base: base.yaml\ndata_folder: /x\nseed: 3\n")
    hparams = load_config([str(path), "--rate=2"], KNOWN)[-1]
    assert hparams["block"] == {"seconds": 2, "more": 3}
    assert (hparams["seed"], hparams["data_folder"]) == (3, "/x")
    # What the difference has made useless.
    path = write("x.yaml", "base: base.yaml\nblock: !include:blocks/one.yaml\n")
    with pytest.raises(
        ConfigError,
        match=r"`rate` in .*base\.yaml is not read by anything.*`drop: \[rate\]` in"
        r" .*x\.yaml",
    ):
        load_config([str(path)], KNOWN - {"rate"})


def test_print_config_is_the_merged_one(write, capsys, monkeypatch):
    """It can be saved as it is, beside the file, and says the same."""
    monkeypatch.setattr("sys.path", [])
    path = write("deep/x.yaml", "base: ../base.yaml\nstage: {lr: 0.2}\n")
    flags = ["--print_config", "--seed=5", "--block={more: 9}"]
    with pytest.raises(SystemExit) as caught:
        load_config([str(path), *flags], KNOWN)
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    saved = read_plain(write("deep/y.yaml", shown))
    before = read_plain(path)
    before["block"]["more"], before["seed"] = 9, 5
    assert saved == before
    assert "base" not in saved and "# a remark" not in shown
    assert "block: !include:../blocks/one.yaml\n" in shown
    assert "none: null\n" in shown
