"""What nobody asked for is refused, in one line that says the remedy."""

import errno
import sys

import pytest
import torch

from speechbrain_ssl import config
from speechbrain_ssl.config import load_config, run
from speechbrain_ssl.config_base import merge, parse_plain, read_plain
from speechbrain_ssl.data.crops import CropPlan
from speechbrain_ssl.errors import ConfigError

KNOWN = {"seed", "batch_size", "data_folder", "crops"}
GOOD = """\
seed: 1
batch_size: 32
data_folder: null
helper: 3.0
precision: bf16
crops: !new:speechbrain_ssl.data.crops.CropPlan
    global_seconds: !ref <helper>
"""


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Loads a text as ``recipe/hparams/x.yaml`` with some arguments."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delenv("LOCAL_RANK", raising=False)

    def loader(text, *arguments):
        path = tmp_path / "recipe" / "task" / "hparams" / "x.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return load_config([str(path), *arguments], KNOWN)

    return loader


def test_a_good_one(load):
    path, options, overrides, hparams = load(
        GOOD, "--batch_size=8", "--device=cpu", "--helper=2"
    )
    assert path.endswith("x.yaml")
    assert options["device"] == "cpu"
    assert overrides == "batch_size: 8\nhelper: 2"
    assert hparams["batch_size"] == 8
    assert hparams["crops"] == CropPlan(global_seconds=2)


def test_the_recipes_own_modules_are_importable(load, tmp_path):
    """A YAML names its prepare function; the script may be run anywhere."""
    folder = tmp_path / "recipe"
    folder.mkdir()
    (folder / "test_config_prepare.py").write_text("def prepare(): return 7\n")
    text = GOOD.replace("null", "!apply:test_config_prepare.prepare")
    assert load(text)[3]["data_folder"] == 7


def test_a_misspelt_key_in_the_file(load):
    """HyperPyYAML would carry it along, and the default would stay."""
    with pytest.raises(
        ConfigError, match=r"`batchsize` in .*x\.yaml is not read"
    ) as e:
        load(GOOD + "batchsize: 64\n")
    assert str(e.value).endswith("did you mean `batch_size`?")
    # A key that only another one refers to is suggested, too.
    with pytest.raises(ConfigError, match="`helpr` .*did you mean `helper`"):
        load(GOOD + "helpr: 2.0\n")
    with pytest.raises(ConfigError, match="`zzzzz` .*not read by anything$"):
        load(GOOD + "zzzzz: 64\n")


def test_a_misspelt_key_on_the_command_line(load):
    with pytest.raises(ConfigError, match="--batchsize .*mean `batch_size`"):
        load(GOOD, "--batchsize=64")
    with pytest.raises(ConfigError, match="--batchsize "):
        load(GOOD, "--batchsize", "64")
    with pytest.raises(ConfigError, match=r"a block is set by --block='\{key"):
        load(GOOD, "--margin=0.2")


def test_a_word_for_a_number(load):
    """Else it is some comparison deep inside that fails, and names no key."""
    with pytest.raises(ConfigError, match="--helper=abc .* a number .* 3.0"):
        load(GOOD, "--helper=abc")
    assert load(GOOD, "--helper=5e-1")[3]["helper"] == 0.5


BLOCK = GOOD.replace(
    "helper: 3.0", "helper: !include:block.yaml\n    seconds: 2.0"
).replace("<helper>", "<helper[seconds]>")


@pytest.fixture
def block(tmp_path):
    """A building block beside the configuration."""
    folder = tmp_path / "recipe" / "task" / "hparams"
    folder.mkdir(parents=True)
    (folder / "block.yaml").write_text("seconds: 3.0\nmore: null\n")


@pytest.mark.usefixtures("block")
def test_a_misspelt_key_given_to_a_block(load):
    """HyperPyYAML would add it to the block, and the block's own would stay."""
    assert load(BLOCK)[3]["crops"].global_seconds == 2
    hparams = load(BLOCK, "--helper={seconds: 4.0, more: 1}")[3]
    assert hparams["crops"].global_seconds == 4
    with pytest.raises(ConfigError, match=r"`helper` in .*x\.yaml sets `secs`"):
        load(BLOCK.replace("seconds: 2.0", "secs: 2.0"))
    with pytest.raises(
        ConfigError, match=r"--helper on .* `mroe`.*block\.yaml.*mean `more`"
    ):
        load(BLOCK, "--helper={mroe: 1}")
    plain = BLOCK.replace("\n    seconds: 2.0", "")
    assert load(plain)[3]["crops"].global_seconds == 3
    with pytest.raises(ConfigError, match="`second`.*mean `seconds`"):
        load(plain, "--helper={second: 1}")


def test_a_missing_key(load):
    with pytest.raises(ConfigError, match="lacks `batch_size`, `seed`"):
        load(GOOD.replace("seed: 1\nbatch_size: 32\n", ""))


def test_a_placeholder_is_to_be_filled_in(load):
    text = GOOD.replace("null", "!PLACEHOLDER  # e.g. /corpus")
    with pytest.raises(
        ConfigError, match=r"`data_folder` .*--data_folder=\.\."
    ):
        load(text)
    assert load(text, "--data_folder=/x")[3]["data_folder"] == "/x"
    nested = (
        GOOD.replace("!ref <helper>", "!PLACEHOLDER") + "y: !ref <helper>\n"
    )
    with pytest.raises(ConfigError, match="PLACEHOLDER"):
        load(nested.replace("y: !ref", "seed: !ref").replace("seed: 1\n", ""))


def test_no_such_file(tmp_path):
    with pytest.raises(ConfigError, match="no configuration .*none.yaml"):
        load_config([str(tmp_path / "none.yaml")], KNOWN)
    with pytest.raises(ConfigError, match="no configuration"):
        read_plain(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: [1, 2\nx: 3", r"x\.yaml is not valid YAML.*line 2"),
        ("- 1\n- 2\n", "holds no keys"),
        ("", "holds no keys"),
        (GOOD + "seed: 2\n", r"x\.yaml is not valid YAML.*duplicate.*seed"),
        (GOOD.replace("CropPlan", "CropPlam"), r"x\.yaml: .*CropPlam"),
        (GOOD.replace("data.crops", "data.no_crops"), r"x\.yaml: .*no_crops"),
        (
            GOOD.replace("<helper>", "<helpe>"),
            "`helper` .*not read by anything",
        ),
        (GOOD.replace("global_seconds", "second"), r"x\.yaml: .*'second'"),
        (GOOD.replace("null", "!include:no.yaml"), r"x\.yaml: .*no\.yaml"),
        (
            GOOD.replace("null", "!ref <seed> + <nothing>"),
            r"x\.yaml: .*nothing",
        ),
    ],
)
def test_a_broken_file_is_named(load, text, message):
    with pytest.raises(ConfigError, match="(?s)" + message.replace("(?s)", "")):
        load(text)


@pytest.mark.parametrize(
    "arguments", [["--seed=[1"], ["64"], ["--seed=a: b: c"]]
)
def test_a_broken_command_line(load, arguments):
    with pytest.raises(ConfigError, match="command line is not understood"):
        load(GOOD, *arguments)


@pytest.mark.parametrize(
    ("count", "device", "good"),
    [
        (0, "cpu", True),
        (0, "cuda", False),
        (0, "cuda:0", False),
        (2, "cuda", True),
        (2, "cuda:1", True),
        (2, "cuda:2", False),
        (2, "cuda:x", False),
    ],
)
def test_a_device_that_is_not_there(load, monkeypatch, count, device, good):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    if good:
        load(GOOD, f"--device={device}")
        return
    remedy = "--device=cpu" if count == 0 else ""
    with pytest.raises(ConfigError, match=f"has {count} GPU.*{remedy}"):
        load(GOOD, f"--device={device}")


def test_more_processes_than_gpus(load, monkeypatch):
    """Else NCCL says so, in a hundred lines, or hangs."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    load(GOOD)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(
        ConfigError, match="process 2 .*2 GPU.*--nproc_per_node"
    ):
        load(GOOD)
    load(GOOD, "--device=cpu", "--distributed_backend=gloo")
    # NCCL has no collectives for CPU tensors.
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises(ConfigError, match="--distributed_backend=gloo"):
        load(GOOD, "--device=cpu")


def test_each_process_has_a_gpu_of_its_own(load, monkeypatch):
    """A device that is named under torchrun would be that of all of them."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for device in ("cuda", "cuda:0"):
        for rank in ("0", "1"):
            monkeypatch.setenv("LOCAL_RANK", rank)
            options = load(GOOD, f"--device={device}")[1]
            assert options["device"] == f"cuda:{rank}"
        monkeypatch.delenv("LOCAL_RANK")
        assert load(GOOD, f"--device={device}")[1]["device"] == device
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises(ConfigError, match="all processes.*CUDA_VISIBLE_DEV"):
        load(GOOD, "--device=cuda:1")


def test_errors_of_constructors_come_out_as_themselves(load):
    """With their own text, not as "could not construct"."""
    with pytest.raises(ConfigError) as caught:
        load(GOOD, "--helper=99")
    assert str(caught.value) == (
        "chunk_seconds (20.0) must be at least the longest crop (99 s)"
    )


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, capsys):
    (tmp_path / "run").touch()
    with pytest.raises(SystemExit) as stop:
        run(lambda _: (tmp_path / "run" / "save").mkdir(parents=True))
    assert stop.value.code == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 2 and f"'{tmp_path}/run/save'" in said
    assert "name another path" in said


def test_a_users_error_is_one_line(monkeypatch, capsys):
    """No traceback; and the exit status says that it failed."""

    def main(argv):
        assert argv == ["x.yaml", "--seed=1"]
        raise ConfigError("this is how to mend it")

    monkeypatch.setattr(sys, "argv", ["train.py", "x.yaml", "--seed=1"])
    with pytest.raises(SystemExit) as caught:
        run(main)
    assert caught.value.code == 1
    assert capsys.readouterr().err == "\nError: this is how to mend it\n"
    with pytest.raises(ZeroDivisionError):
        run(lambda _: 1 / 0)


def test_every_recipe_passes(repository):
    """All YAMLs of the self-supervised recipes have exactly the keys read."""
    found = sorted(repository.glob("recipes/*/SSL/hparams/*.yaml"))
    assert found
    source = (repository / "recipes/VoxCeleb/SSL/train.py").read_text()
    known = set(source.split('"""')[3].split())
    assert {"crops", "train_manifest"} <= known
    for path in found:
        config.check_keys(merge(path), {}, known)


def test_a_comment_refers_to_nothing(load):
    """A key that only a comment mentions is not read by anything."""
    comment = "    # <batch>\nbatch: 64  # not <batch>, nor <batch[size]>\n"
    with pytest.raises(ConfigError, match="`batch` in .*not read by anything"):
        load(GOOD + comment)
    load(GOOD.replace("32", "!ref <batch>  # not a number") + comment)


def test_print_config(load, tmp_path, capsys):
    """The configuration as it would be used; nothing is made, or missing."""
    text = GOOD.replace("null", "!PLACEHOLDER").replace("CropPlan", "NoClass")
    with pytest.raises(SystemExit) as caught:
        load(text, "--print_config", "--batch_size=8", "--device=cuda:99")
    assert caught.value.code == 0
    shown = parse_plain(capsys.readouterr().out)
    assert shown == {**parse_plain(text), "batch_size": 8}
    (only,) = (p for p in tmp_path.rglob("*") if p.is_file())
    assert only.name == "x.yaml"
    with pytest.raises(ConfigError, match="--batchsize .*mean `batch_size`"):
        load(text, "--print_config", "--batchsize=8")


def test_help_names_what_speechbrain_does_not_know(load, capsys):
    """``--print_config`` and ``auto``, above SpeechBrain's own options."""
    with pytest.raises(SystemExit) as caught:
        load(GOOD, "--help")
    assert caught.value.code == 0
    text = capsys.readouterr().out
    ours, theirs = text.split("Run a SpeechBrain experiment")
    assert "--print_config" in ours and "--precision=auto" in ours
    assert "--print_config" not in theirs and "fp16,bf16" in theirs


def test_a_name_that_is_no_text(load):
    """As Python reads a name of other bytes than the locale's."""
    match = r"no text in this locale: .*/data/\\udcc3\\udca9.*LC_ALL=C.UTF-8"
    with pytest.raises(ConfigError, match=match):
        load(GOOD, "--data_folder=/data/\udcc3\udca9")


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_a_protected_folder_is_named_and_not_the_yaml(
    load, monkeypatch, number
):
    """Objects of the YAML make folders, such as that of the checkpoints."""

    def protected(*_, **__):
        raise OSError(number, "No", "/output/save")

    monkeypatch.setattr(CropPlan, "__init__", protected)
    with pytest.raises(ConfigError, match="'/output/save'; correct it") as e:
        load(GOOD)
    assert "x.yaml" not in str(e.value)
