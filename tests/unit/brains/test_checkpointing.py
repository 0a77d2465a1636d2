"""Checkpoints are complete or absent, whatever happens while one is written."""

import errno
import os
import pathlib
import random
import tempfile
import time
import unittest.mock

import numpy as np
import pytest
import torch
from damages import DAMAGES, flip
from speechbrain.utils.checkpoints import Checkpointer

from speechbrain_ssl.brains import checkpointing
from speechbrain_ssl.brains.checkpointing import (
    AtomicCheckpointer,
    Generators,
    RunState,
    load_tensors,
)
from speechbrain_ssl.brains.evaluation import (
    RecentWeights,
    average_weights,
    keep_initial_encoder,
)
from speechbrain_ssl.errors import CheckpointError


def state(folder, cls=AtomicCheckpointer):
    """Return a checkpointer of two layers, and the layers."""
    layers = {"a": torch.nn.Linear(2, 2), "b": torch.nn.Linear(2, 2)}
    return cls(folder, layers), layers


def fill(layers, value):
    """Set every weight to a value."""
    for layer in layers.values():
        torch.nn.init.constant_(layer.weight, value)


def interrupted(checkpointer, error):
    """Save a checkpoint that fails before its second file is written."""

    def die(obj, path):
        path.write_bytes(b"half a fi")
        raise error

    checkpointer.custom_save_hooks["b"] = die
    try:
        checkpointer.save_checkpoint()
    finally:
        del checkpointer.custom_save_hooks["b"]


def test_stock_finds_the_torn_checkpoint(tmp_path):
    """Stock's newest checkpoint is incomplete and cannot be loaded."""
    checkpointer, layers = state(tmp_path, Checkpointer)
    whole = checkpointer.save_checkpoint()
    with pytest.raises(KeyboardInterrupt):
        interrupted(checkpointer, KeyboardInterrupt())
    found = state(tmp_path, Checkpointer)[0].find_checkpoint()
    assert found.path != whole.path
    with pytest.raises(Exception, match=r".+"):
        checkpointer.load_checkpoint(found)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("bug")])
def test_torn_checkpoint_is_never_found(tmp_path, error):
    """After an interrupt or an error, the older checkpoint is found."""
    checkpointer, layers = state(tmp_path)
    fill(layers, 1.0)
    whole = checkpointer.save_checkpoint()
    fill(layers, 2.0)
    with pytest.raises(type(error)):
        interrupted(checkpointer, error)
    fresh, others = state(tmp_path)
    assert [c.path for c in fresh.list_checkpoints()] == [whole.path]
    fresh.recover_if_possible()
    assert (others["b"].weight == 1.0).all()
    # The next save removes what was left behind.
    assert len(os.listdir(tmp_path)) == 2
    fresh.save_and_keep_only()
    assert len(os.listdir(tmp_path)) == 1


def test_kill_in_the_middle_of_a_save(tmp_path):
    """If the process ends at once (``_exit``), the older one is found."""
    checkpointer, layers = state(tmp_path)
    fill(layers, 1.0)
    whole = checkpointer.save_checkpoint()
    child = os.fork()
    if child == 0:
        checkpointer.custom_save_hooks["b"] = lambda obj, path: os._exit(9)
        checkpointer.save_checkpoint()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    fresh, others = state(tmp_path)
    assert len(os.listdir(tmp_path)) == 2
    assert fresh.find_checkpoint().path == whole.path


@pytest.mark.parametrize("hidden", [False, True])
def test_full_disk(tmp_path, monkeypatch, hidden):
    """The error names a remedy; older checkpoints load; nothing is left."""
    checkpointer, layers = state(tmp_path)
    fill(layers, 1.0)
    checkpointer.save_checkpoint()
    fill(layers, 2.0)
    error = OSError(errno.ENOSPC, "No space left on device")
    if hidden:
        # torch.save reports a full disk like this.
        error = RuntimeError("PytorchStreamWriter failed writing file data/0")
        full = unittest.mock.Mock(side_effect=OSError(errno.ENOSPC, "full"))
        monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(CheckpointError, match="no space.*same command again"):
        interrupted(checkpointer, error)
    assert len(os.listdir(tmp_path)) == 1
    fresh, others = state(tmp_path)
    fresh.recover_if_possible()
    assert (others["a"].weight == 1.0).all()


@pytest.mark.parametrize(
    "error", [PermissionError(errno.EACCES, "no"), RuntimeError("a bug")]
)
def test_other_errors_are_not_called_a_full_disk(tmp_path, error):
    """Other errors are raised unchanged."""
    checkpointer, _ = state(tmp_path)
    with pytest.raises(type(error)):
        interrupted(checkpointer, error)


def test_several_saves_within_a_second(tmp_path, monkeypatch):
    """Each has its own folder, and the last one is the newest."""
    monkeypatch.setattr(time, "localtime", lambda _: time.gmtime(0))
    checkpointer, layers = state(tmp_path)
    saved = []
    for value in range(12):
        fill(layers, value)
        saved.append(checkpointer.save_checkpoint())
    assert len({s.path for s in saved}) == 12
    assert all(s.path.is_dir() for s in saved)
    assert all(f.is_file() for s in saved for f in s.paramfiles.values())
    fresh, others = state(tmp_path)
    fresh.recover_if_possible()
    assert (others["a"].weight == 11.0).all()


def test_the_same_name_twice(tmp_path):
    """A named checkpoint never replaces another one."""
    checkpointer, layers = state(tmp_path)
    names = {checkpointer.save_checkpoint(name="x").path for _ in range(3)}
    assert len(names) == 3
    assert len(checkpointer.list_checkpoints()) == 3


def test_saved_checkpoint_names_its_files(tmp_path):
    """Its paths are in the final folder, not in the temporary one."""
    saved = state(tmp_path)[0].save_checkpoint(meta={"epoch": 3})
    assert saved.path.name.startswith("CKPT+")
    assert set(saved.paramfiles) == {"a", "b"}
    assert saved.meta["epoch"] == 3
    assert {p.parent for p in saved.paramfiles.values()} == {saved.path}


def keys_used(cls, folder, monkeypatch):
    """Return the number of importance keys that each of three calls passes."""
    counts = []
    original = Checkpointer.delete_checkpoints

    def spy(self, *args, **kwargs):
        counts.append(len(kwargs["importance_keys"]))
        return original(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpointer, "delete_checkpoints", spy)
        checkpointer, _ = state(folder, cls)
        for _ in range(3):
            checkpointer.save_and_keep_only(num_to_keep=1)
    return counts


def test_importance_keys_do_not_grow(tmp_path, monkeypatch):
    """Stock's default list grows with every save and slows saving down."""
    stock = keys_used(Checkpointer, tmp_path / "stock", monkeypatch)
    ours = keys_used(AtomicCheckpointer, tmp_path / "ours", monkeypatch)
    assert stock[0] < stock[1] < stock[2]
    assert ours == [1, 1, 1]


def test_keep_only_keeps_the_newest(tmp_path):
    """One checkpoint is left, the last one."""
    checkpointer, layers = state(tmp_path)
    for value in range(3):
        fill(layers, value)
        checkpointer.save_and_keep_only(num_to_keep=1)
    (left,) = pathlib.Path(tmp_path).iterdir()
    weight = torch.load(left / "a.ckpt", weights_only=True)["weight"]
    assert (weight == 2).all()


def draws():
    """Return some numbers of each generator (a normal fills numpy's cache)."""
    return (
        torch.rand(3).tolist(),
        np.random.normal(size=3).tolist(),
        np.random.randint(1000, size=3).tolist(),
        random.random(),
    )


def test_generators_round_trip(tmp_path):
    """torch, numpy (with half a normal pair) and Python continue exactly."""
    torch.manual_seed(5)
    np.random.seed(5)
    random.seed(5)
    draws()
    saved = AtomicCheckpointer(
        tmp_path, {"generators": Generators(1, rank=0)}
    ).save_checkpoint()
    wanted = draws()
    draws()
    assert draws() != wanted
    AtomicCheckpointer(
        tmp_path, {"generators": Generators(1, rank=0)}
    ).load_checkpoint(saved)
    assert draws() == wanted


def test_generators_of_other_ranks_differ(tmp_path):
    """Other ranks are seeded again, each differently."""
    path = tmp_path / "generators.ckpt"
    Generators(1, rank=0).save(path)
    seen = set()
    for rank in range(3):
        Generators(1, rank).load(path, end_of_epoch=True)
        seen.add(float(torch.rand(1)))
    assert len(seen) == 3


def test_run_state_round_trip(tmp_path):
    """Values are restored; values that are new keep their default."""
    path = tmp_path / "state.ckpt"
    values = {"seconds": 1.25, "signs": {"single": 2}, "sums": {"x": 0.1 + 0.2}}
    RunState(**values).save(path)
    other = RunState(seconds=0.0, skipped=0, signs={})
    other.load(path, end_of_epoch=False)
    assert other.values == {**values, "skipped": 0}


# -- the Brain ---------------------------------------------------------------


def intra_epoch_steps(brain, loader):
    """Return the steps at which a fit saves within an epoch."""
    steps = []
    save = brain._save_checkpoint

    def spy(end_of_epoch):
        if not end_of_epoch:
            steps.append(brain.step)
        save(end_of_epoch)

    brain._save_checkpoint = spy
    brain.fit(brain.hparams.epoch_counter, loader)
    return steps


def test_no_checkpoint_between_accumulated_batches(make_brain):
    """No checkpoint holds partial gradients; the epoch's end has its own."""
    brain = make_brain.brain(
        steps=12,
        checkpoints=True,
        run_opts={"ckpt_interval_steps": 3, "grad_accumulation_factor": 2},
    )
    steps = intra_epoch_steps(brain, make_brain.loader(12))
    assert steps == [4, 8]


def test_two_checkpoints_are_kept_within_an_epoch(make_brain):
    """The first epoch may take a day; without a second one all of it is lost."""
    brain = make_brain.brain(
        steps=12, checkpoints=True, run_opts={"ckpt_interval_steps": 2}
    )
    brain.fit(brain.hparams.epoch_counter, make_brain.loader(12))
    kept = brain.checkpointer.list_checkpoints()
    assert len(kept) == 2


@pytest.mark.parametrize(
    "change, named",
    [
        ({"seed": 2}, r"seed \(1 there, 2 here\)"),
        ({"epochs": 2}, r"epochs \(1 there, 2 here\)"),
        ({"steps": 8}, r"utterances \(16 there, 32 here\)"),
        ({"batch_size": 8, "lr_reference_batch": 8}, "effective_batch"),
        ({"lr_reference_batch": 8}, "schedules"),
        (
            {
                "batch_size": 2,
                "run_opts": {"grad_accumulation_factor": 2},
            },
            r"accumulated \(1 there, 2 here\)",
        ),
    ],
)
def test_other_configuration_is_refused(make_brain, change, named):
    """The error names what differs, and nothing is loaded."""
    brain = make_brain.brain(steps=4, checkpoints=True)
    brain.fit(
        brain.hparams.epoch_counter, make_brain.loader(4), make_brain.loader(3)
    )
    other = make_brain.brain(**{"steps": 4, "checkpoints": True, **change})
    before = other.modules.encoder.fc.conv.weight.detach().clone()
    with pytest.raises(CheckpointError, match=named) as caught:
        other.on_fit_start()
    assert "`output_folder`" in str(caught.value)
    # The network is the same in all of these, so it is not named.
    assert "model (" not in str(caught.value)
    assert torch.equal(other.modules.encoder.fc.conv.weight, before)


def test_same_configuration_goes_on(make_brain):
    """The same configuration resumes, unlike in the test above."""
    brain = make_brain.brain(steps=4, checkpoints=True)
    brain.fit(
        brain.hparams.epoch_counter, make_brain.loader(4), make_brain.loader(3)
    )
    other = make_brain.brain(steps=4, checkpoints=True)
    other.on_fit_start()
    assert other.optimizer_step == 4
    assert torch.equal(
        other.modules.encoder.fc.conv.weight,
        brain.modules.encoder.fc.conv.weight,
    )


# -- damage ------------------------------------------------------------------


def two_checkpoints(folder):
    """Save two checkpoints; return the older and the newer one."""
    checkpointer, layers = state(folder)
    saved = []
    for value in (1.0, 2.0):
        fill(layers, value)
        saved.append(checkpointer.save_checkpoint(meta={"epoch": int(value)}))
    return saved


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(
    "name", ["a.ckpt", "b.ckpt", "CKPT.yaml", "digests.json"]
)
def test_damaged_checkpoint_is_not_loaded(tmp_path, caplog, damage, name):
    """The older one is, the file is named, and the damaged one is kept."""
    # A script that another test has called may have lowered it.
    caplog.set_level("WARNING")
    older, newer = two_checkpoints(tmp_path)
    DAMAGES[damage](newer.path / name)
    fresh, layers = state(tmp_path)
    found = fresh.newest_whole()
    assert found.path == older.path
    (report,) = (r.getMessage() for r in caplog.records)
    # A flipped bit in a digest makes another file look damaged.
    assert name in report or name == "digests.json"
    assert "epoch 1" in report
    assert (tmp_path / f"damaged-{newer.path.name}").is_dir()
    # The next start has nothing to report.
    caplog.clear()
    assert fresh.newest_whole().path == older.path
    assert not caplog.records
    fresh.load_checkpoint(found)
    assert (layers["b"].weight == 1.0).all()


def test_older_damaged_checkpoint_is_cleared_away(tmp_path, caplog):
    """As one whose deletion was interrupted; nothing is lost."""
    # A script that another test has called may have lowered it.
    caplog.set_level("WARNING")
    older, newer = two_checkpoints(tmp_path)
    (older.path / "CKPT.yaml").unlink()
    fresh, _ = state(tmp_path)
    assert fresh.newest_whole().path == newer.path
    assert not caplog.records
    fresh.save_and_keep_only(num_to_keep=1)
    assert len(os.listdir(tmp_path)) == 1


def test_file_that_cannot_be_read_is_damaged(tmp_path, monkeypatch):
    """A disk may fail to read, too."""
    older, newer = two_checkpoints(tmp_path)

    def digest(path):
        if path.parent == newer.path:
            raise OSError(errno.EIO, "Input/output error")
        return whole(path)

    whole = checkpointing.file_digest
    monkeypatch.setattr(checkpointing, "file_digest", digest)
    assert state(tmp_path)[0].newest_whole().path == older.path


def test_newest_of_whole_checkpoints(tmp_path):
    """Without damage the newest one is loaded; without any there is none."""
    assert state(tmp_path / "empty")[0].newest_whole() is None
    _, newer = two_checkpoints(tmp_path / "two")
    assert state(tmp_path / "two")[0].newest_whole().path == newer.path


def test_nothing_whole_is_an_error(tmp_path):
    """It is not taken for a new run, neither now nor at the next start."""
    for saved in two_checkpoints(tmp_path):
        flip(saved.path / "a.ckpt")
    fresh, _ = state(tmp_path)
    for _ in range(2):
        with pytest.raises(CheckpointError, match="a.ckpt is not what.*backup"):
            fresh.newest_whole()


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_tensors_are_not_loaded(tmp_path, damage):
    """One flipped bit is enough, which torch would not notice."""
    path = tmp_path / "a.pt"
    torch.save({"weight": torch.ones(1000)}, path)
    assert load_tensors(path)["weight"].sum() == 1000
    DAMAGES[damage](path)
    if damage == "flipped":
        assert torch.load(path, weights_only=True)["weight"].sum() != 1000
    with pytest.raises(CheckpointError, match="a.pt is damaged"):
        load_tensors(path)


def test_damaged_weights_are_left_out_of_the_average(tmp_path, caplog):
    """It is said; without any whole file there is nothing to average."""
    caplog.set_level("WARNING")
    layer = torch.nn.Linear(40, 40)
    recent = RecentWeights(tmp_path, 3)
    for epoch in (1, 2, 3):
        fill({"a": layer}, epoch)
        recent.save({"a": layer}, epoch)
    flip(recent.files()[1])
    average_weights({"a": layer}, recent.files())
    assert (layer.weight == 2).all() and "epoch_00002.pt" in caplog.text
    flip(recent.files()[2])
    average_weights({"a": layer}, recent.files())
    assert (layer.weight == 1).all()
    flip(recent.files()[0])
    with pytest.raises(CheckpointError, match="all weights in .* are damaged"):
        average_weights({"a": layer}, recent.files())


def test_damaged_initial_encoder_costs_a_baseline(tmp_path, caplog):
    """The run goes on, and says what its results will lack."""
    caplog.set_level("WARNING")
    layer = torch.nn.Linear(40, 40)
    keep_initial_encoder(layer, tmp_path, False, "cpu")
    assert keep_initial_encoder(layer, tmp_path, True, "cpu") is not None
    flip(tmp_path / "save" / "initial.ckpt")
    assert keep_initial_encoder(layer, tmp_path, True, "cpu") is None
    assert "eer_initial" in caplog.text


def test_a_flipped_bit_anywhere_is_noticed_or_changes_nothing(tmp_path):
    """The average and the initial encoder have the checksums of their zip."""
    path = tmp_path / "a.pt"
    weight = torch.arange(300.0)
    torch.save({"weight": weight, "count": torch.tensor(3)}, path)
    whole, noticed = path.read_bytes(), 0
    for place in range(0, len(whole), 7):
        content = bytearray(whole)
        content[place] ^= 1 << place % 8
        path.write_bytes(content)
        try:
            found = load_tensors(path)
        except CheckpointError:
            noticed += 1
        else:
            assert torch.equal(found["weight"], weight), place
            assert found["count"] == 3, place
    # The rest is padding, and what a reader does not look at.
    assert noticed > 0.5 * len(range(0, len(whole), 7))
