"""An output folder belongs to one configuration."""

import os
import shutil

import pytest
from hyperpyyaml import load_hyperpyyaml

from speechbrain_ssl import run_folder
from speechbrain_ssl.errors import CheckpointError
from speechbrain_ssl.prepare.preparation import Preparation
from speechbrain_ssl.run_folder import (
    check_folder,
    claim_folder,
    refuse_other,
    resume_batch,
    settings_of,
    write_hyperparams,
)

YAML = """\
lr: 0.1
num_workers: 2
data_folder: /somewhere
noise_csv: !ref <data_folder>/noise.csv
optimizer: !name:torch.optim.SGD
    momentum: 0.9
nested:
    rate: !ref <lr>
    file: !ref <noise_csv>
"""


@pytest.fixture
def settings(tmp_path):
    """``settings(overrides, text)`` of a small configuration."""

    def make(overrides="", text=YAML):
        path = tmp_path / "some.yaml"
        path.write_text(text)
        return settings_of(path, overrides)

    return make


def test_references_are_followed_and_paths_left_out(settings):
    found = settings("lr: 0.2")
    assert found["lr"] == 0.2 and found["nested"]["rate"] == 0.2
    assert "num_workers" not in found and "data_folder" not in found
    assert found == settings("lr: 0.2\ndata_folder: /elsewhere")


def test_what_watches_is_no_setting(settings):
    """At any depth: a monitor may come and go."""
    block = "ssps:\n    clusters: 3\n    monitor_labels: {}\n"
    watched = settings(text=YAML + block.format("some.csv"))
    assert watched == settings(text=YAML + block.format("null"))
    assert watched["ssps"] == {"clusters": 3}


def test_a_class_is_a_setting(settings):
    """AdamW in place of SGD has the same arguments here."""
    other = settings(text=YAML.replace("SGD", "AdamW"))
    assert other["optimizer"] != settings()["optimizer"]


def test_the_seed_is_a_setting(settings):
    """Another seed is another run: batches, crops and noise differ."""
    text = YAML + "seed: 7\n"
    assert settings("seed: 7", text) == settings(text=text)
    assert settings("seed: 8", text) != settings(text=text)


def test_differences_from_a_base_are_the_same_settings(settings, tmp_path):
    """However a configuration is written, and whatever its base is called."""
    (tmp_path / "base.yaml").write_text(YAML.replace("0.9", "0.5"))
    text = "base: base.yaml\noptimizer: !name:torch.optim.SGD {momentum: 0.9}\n"
    assert settings(text=text) == settings()
    assert settings("lr: 0.2", text) == settings("lr: 0.2") != settings()


def test_hyperparams_are_the_merged_ones(tmp_path):
    """Stock HyperPyYAML reads them, in a folder that has nothing else."""
    recipe, output = tmp_path / "recipe", tmp_path / "some" / "where" / "else"
    for folder in (recipe, output):
        folder.mkdir(parents=True)
    (recipe / "block.yaml").write_text("a: 1\nb: 2\nsum: !ref <a> + <b>\n")
    (recipe / "base.yaml").write_text(
        "c: 0\nblock: !include:block.yaml\n    a: !ref <c>\nlr: 0.1\n"
    )
    (recipe / "x.yaml").write_text("base: base.yaml\nblock: {b: 3}\n")
    write_hyperparams(output, recipe / "x.yaml", "c: 5")
    for path in recipe.iterdir():
        path.unlink()
    with open(output / "hyperparams.yaml", encoding="utf-8") as stream:
        assert load_hyperpyyaml(stream) == {
            "c": 5,
            "block": {"a": 5, "b": 3, "sum": 8},
            "lr": 0.1,
        }


def claimed(folder, settings):
    """A folder that a run has claimed and trained in."""
    claim_folder(folder, settings)
    (folder / "save" / "checkpoints" / "CKPT+x").mkdir(parents=True)


def test_the_same_settings_go_on(settings, tmp_path):
    claimed(tmp_path, settings())
    before = (tmp_path / "save" / "settings.json").read_text()
    claim_folder(tmp_path, settings("num_workers: 8\ndata_folder: /moved"))
    assert (tmp_path / "save" / "settings.json").read_text() == before


def test_more_epochs_name_the_way_to_go():
    """And other audio, which a checkpoint counts as `utterances`."""
    for key in ("number_of_epochs", "utterances"):
        with pytest.raises(CheckpointError, match="old one as `initial_model`"):
            refuse_other("A holds a run", {key: 8}, {key: 9})
    with pytest.raises(CheckpointError) as caught:
        refuse_other("A holds a run", {"lr": 8}, {"lr": 9})
    assert "initial_model" not in str(caught.value)


def test_other_settings_are_refused_by_name(settings, tmp_path):
    claimed(tmp_path, settings())
    before = (tmp_path / "save" / "settings.json").read_text()
    with pytest.raises(CheckpointError, match=r"lr \(0.1 there, 0.3 here\)"):
        claim_folder(tmp_path, settings("lr: 0.3"))
    with pytest.raises(CheckpointError, match="optimizer"):
        claim_folder(tmp_path, settings(text=YAML.replace("SGD", "AdamW")))
    with pytest.raises(CheckpointError, match=r"more \(null there, 1 here\)"):
        claim_folder(tmp_path, settings(text=YAML + "more: 1\n"))
    assert (tmp_path / "save" / "settings.json").read_text() == before


def test_a_folder_without_checkpoints_is_free(settings, tmp_path):
    claim_folder(tmp_path, settings())
    claim_folder(tmp_path, settings("lr: 0.3"))
    (tmp_path / "save" / "checkpoints" / "CKPT+x").mkdir(parents=True)
    with pytest.raises(CheckpointError):
        claim_folder(tmp_path, settings())


def test_a_deleted_folder_is_noticed(settings, tmp_path):
    """What is written from then on would not be a whole run."""
    folder = tmp_path / "run"
    claim_folder(folder, settings())
    check_folder(folder)
    shutil.rmtree(folder)
    for inside in (folder, folder / "round_1" / "save"):
        with pytest.raises(CheckpointError, match="run was deleted"):
            check_folder(inside)
    check_folder(tmp_path / "another")


def test_two_preparations_in_one_folder(tmp_path):
    """The second one is refused, and the first one is named."""
    Preparation(tmp_path, tmp_path / "save", "header", None, 0)
    child = os.fork()
    if child == 0:
        run_folder._locks.clear()
        try:
            Preparation(tmp_path, tmp_path / "save", "header", None, 0)
        except CheckpointError as error:
            os._exit(f"process {os.getppid()} on" in str(error))
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1


def test_another_number_of_processes_keeps_the_global_batch(
    settings, tmp_path, monkeypatch
):
    """The same command after a lost host, or one with the same product."""

    def start(processes, batch_size):
        monkeypatch.setenv("WORLD_SIZE", str(processes))
        monkeypatch.setattr(run_folder, "world_size", lambda: processes)
        claim_folder(tmp_path, settings(text=f"{YAML}batch_size: {batch_size}"))
        hparams = {"output_folder": tmp_path, "batch_size": batch_size}
        resume_batch(hparams)
        return hparams["batch_size"]

    assert start(4, 8) == 8
    (tmp_path / "save" / "checkpoints" / "CKPT+x").mkdir(parents=True)
    assert start(2, 8) == 16
    assert start(8, 8) == 4
    assert start(2, 16) == 16
    assert start(4, 8) == 8
    with pytest.raises(CheckpointError, match=r"batch of 32 in 4 .*which 3 "):
        start(3, 8)
    with pytest.raises(CheckpointError, match=r"batch_size \(8 there, 4 here"):
        start(4, 4)
