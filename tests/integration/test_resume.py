"""A killed run resumes, bit for bit as if nothing had happened."""

import math
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
import tiny
import torch

from speechbrain_ssl.brains.ssl_brain import SSLBrain
from speechbrain_ssl.errors import CheckpointError, DivergenceError

KILLED = pathlib.Path(__file__).with_name("killed.py")

pytestmark = pytest.mark.usefixtures("no_report")


def kill(corpus, place, output, **overrides):
    """Run in a subprocess that is killed at a given place."""
    command = [sys.executable, str(KILLED), place, str(tiny.TRAIN)]
    command += corpus.argv(output, **overrides)
    status, stderr = tiny.shell(command)
    assert status == -signal.SIGKILL, stderr
    assert not (output / "results.json").exists()
    # Add what a kill in the middle of a line would leave.
    with open(output / "metrics.jsonl", "a") as stream:
        stream.write('{"stage": "train", "epoch": 2, "st')


def assert_same_run(left, right):
    """Assert that weights and log lines are equal, each line once."""
    tiny.assert_identical(left, right)
    start = tiny.lines(left, "start")
    assert len(start) == 1 and start == tiny.lines(right, "start")
    for stage in ("train", "valid"):
        ours, theirs = tiny.lines(left, stage), tiny.lines(right, stage)
        assert len(ours) > 1
        assert ours == theirs


@pytest.mark.slow
def test_command_line_goes_on(corpus, reference, tmp_path):
    """SIGKILL from outside in mid-epoch, then the same command again."""
    command = corpus.command(tmp_path, ckpt_interval_steps=2)
    process = subprocess.Popen(
        command, env=tiny.environment(), stderr=subprocess.DEVNULL
    )
    metrics = tmp_path / "metrics.jsonl"
    try:
        end = time.monotonic() + 90
        while time.monotonic() < end and process.poll() is None:
            if metrics.is_file() and '"step": 9,' in metrics.read_text():
                break
            time.sleep(0.002)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (tmp_path / "results.json").exists()
    assert tiny.newest_step(tmp_path) in (6, 8, 10)
    status, stderr = tiny.shell(command)
    assert status == 0, stderr
    assert "report" in " ".join(os.listdir(tmp_path))
    assert_same_run(tmp_path, reference)


@pytest.mark.slow
@pytest.mark.parametrize("place, workers", [("step:9", 2), ("save:2", 0)])
def test_kill_and_go_on(corpus, train, reference, tmp_path, place, workers):
    """The kill comes after a step, or while a checkpoint is written."""
    options = {"ckpt_interval_steps": 2, "num_workers": workers}
    kill(corpus, place, tmp_path, **options)
    assert tiny.newest_step(tmp_path) == (8 if place == "step:9" else 2)
    train.main(corpus.argv(tmp_path, **options))
    assert_same_run(tmp_path, reference)


@pytest.mark.slow
def test_with_accumulation_and_sparse_log(corpus, train, tmp_path):
    """The unfinished means of a log line are resumed, too."""
    options = {
        "batch_size": 4,
        "grad_accumulation_factor": 2,
        "ckpt_interval_steps": 3,
        "log_every": 4,
        # Every configuration sets this.
        "precision": "bf16",
    }
    train.main(corpus.argv(tmp_path / "whole", **options))
    # In the second epoch, after its batch 8, which is step 10.
    kill(corpus, "step:21", tmp_path / "cut", **options)
    assert tiny.newest_step(tmp_path / "cut") == 10
    train.main(corpus.argv(tmp_path / "cut", **options))
    assert_same_run(tmp_path / "cut", tmp_path / "whole")
    steps = [line["step"] for line in tiny.lines(tmp_path / "cut")]
    assert steps == [4, 6, 8, 12]


@pytest.mark.slow
def test_kill_before_the_first_checkpoint(corpus, train, reference, tmp_path):
    """The run starts again, and so does its log."""
    kill(corpus, "step:3", tmp_path)
    assert len(tiny.lines(tmp_path)) == 3
    train.main(corpus.argv(tmp_path))
    assert_same_run(tmp_path, reference)


def test_two_whole_runs_are_identical(corpus, train, reference, tmp_path):
    """Without this, the other comparisons would prove nothing."""
    train.main(corpus.argv(tmp_path, ckpt_interval_steps=2, num_workers=1))
    assert_same_run(tmp_path, reference)


def test_seed_matters(corpus, train, reference, tmp_path):
    """Another seed gives other weights; otherwise equality proves nothing."""
    train.main(corpus.argv(tmp_path, seed=8))
    left, right = map(tiny.final_tensors, (tmp_path, reference))
    moved = [k for k in left if not torch.equal(left[k], right[k])]
    assert len(moved) > 100
    assert tiny.lines(tmp_path) != tiny.lines(reference)


def contents(folder):
    """Return the bytes of every file with learned or measured values."""
    return {
        p.relative_to(folder): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.suffix in {".ckpt", ".pt", ".jsonl"}
    }


def test_finished_run_started_again(corpus, train, tmp_path):
    """It trains no step, and changes no weight and no log line."""
    argv = corpus.argv(tmp_path, number_of_epochs=1)
    train.main(argv)
    before, results = contents(tmp_path), tiny.results(tmp_path)
    assert len(before) > 5
    train.main(argv)
    after = contents(tmp_path)
    assert before.keys() == after.keys()
    assert [k for k in before if before[k] != after[k]] == []
    again = tiny.results(tmp_path)
    for each in (results, again):
        each.pop("minutes")
    assert results == again


def test_other_configuration(corpus, train, tmp_path):
    """The error names what differs, and the checkpoint is kept."""
    options = {"number_of_epochs": 1}
    train.main(corpus.argv(tmp_path, **options))
    before = contents(tmp_path)
    settings = (tmp_path / "save" / "settings.json").read_text()
    configuration = (tmp_path / "hyperparams.yaml").read_text()
    # The settings are the same, but there is one utterance fewer.
    table = pd.read_csv(corpus.train_csv)
    chosen = ~table["wav"].isin(corpus.held_out())
    fewer = tmp_path / "fewer.csv"
    table.drop(index=table.index[chosen][0]).to_csv(fewer, index=False)
    for change, named in (
        ({"prototypes": 48}, r"prototypes \(32 there, 48 here\)"),
        ({"lr": 0.02}, r"lr \(0.01 there, 0.02 here\)"),
        ({"seed": 8}, r"seed \(7 there, 8 here\)"),
        ({"batch_size": 16}, r"batch_size \(8 there, 16 here\)"),
        ({"p_noise": 0.2, "p_reverb": 0.8}, "p_noise.*p_reverb"),
        ({"clip_per_tensor": 1.0}, "clip_per_tensor"),
        ({"train_manifest": fewer}, r"utterances \(48 there, 47 here\)"),
    ):
        with pytest.raises(CheckpointError, match=named):
            train.main(corpus.argv(tmp_path, **{**options, **change}))
        if "train_manifest" not in change:
            # The error comes before anything in the folder is written.
            text = (tmp_path / "hyperparams.yaml").read_text()
            assert text == configuration
    assert contents(tmp_path) == before
    assert (tmp_path / "save" / "settings.json").read_text() == settings


def test_what_may_change(corpus, train, tmp_path):
    """Other paths and other logging are not another configuration."""
    train.main(corpus.argv(tmp_path, number_of_epochs=1))
    before = contents(tmp_path)
    moved = tmp_path / "moved.csv"
    shutil.copy(corpus.train_csv, moved)
    train.main(
        corpus.argv(
            tmp_path, number_of_epochs=1, train_manifest=moved, log_every=2
        )
    )
    # The run resumed: it did not start again, and nothing was added.
    assert len(before) > 5 and contents(tmp_path) == before


def test_diverged_run_goes_on_at_half_the_rate(corpus, train, tmp_path):
    """In the same folder, from the last checkpoint, as the error says."""

    def diverge(brain):
        if brain.optimizer_step == tiny.STEPS + 2:
            torch.nn.init.constant_(brain.encoder.fc.conv.weight, math.nan)
        return after_step(brain)

    after_step = SSLBrain.after_step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SSLBrain, "after_step", diverge)
        with pytest.raises(DivergenceError, match="--on_divergence=retreat"):
            train.main(corpus.argv(tmp_path))
    with pytest.raises(CheckpointError, match=r"lr \(0.01 there, 0.004 here"):
        train.main(corpus.argv(tmp_path, lr=0.004))
    before = tiny.lines(tmp_path)[: tiny.STEPS]
    train.main(corpus.argv(tmp_path, on_divergence="retreat"))
    lines = tiny.lines(tmp_path)
    assert lines[: tiny.STEPS] == before
    assert [line["step"] for line in lines] == list(range(1, 13))
    assert max(x["lr"] for x in lines[: tiny.STEPS]) > 0.009
    assert max(x["lr"] for x in lines[tiny.STEPS :]) <= 0.005
    assert "with half the rate" in tiny.results(tmp_path)["divergences"]
