"""On a GPU: every tensor is where it has to be, and the host seldom waits.

A pretended GPU (``tests/pretended_cuda``) takes the place of a real one.
"""

import json
import shutil
import subprocess
import sys

import pytest
import tiny
import tiny_objectives
import torch

FOLDER = tiny.ROOT / "tests" / "pretended_cuda"

pytestmark = [
    pytest.mark.skipif(torch.version.cuda is None, reason="torch without CUDA"),
    pytest.mark.skipif(
        not shutil.which("cc") or sys.platform != "linux",
        reason="no compiler, or not Linux",
    ),
]


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    """Build the driver; return the environment that loads it."""
    folder = tmp_path_factory.mktemp("driver")
    library = folder / "libcuda.so.1"
    command = ["cc", "-shared", "-fPIC", "-w", FOLDER / "driver.c"]
    subprocess.run([*command, "-o", library], check=True)
    return {
        **tiny.environment(),
        "LD_LIBRARY_PATH": str(folder),
        "LD_PRELOAD": str(library),
    }


def waits(environment, script, argv):
    """Return the waits of each step of a run: (what, file, line) and number."""
    done = subprocess.run(
        [sys.executable, FOLDER / "run.py", script, *argv],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    lines = [line for line in done.stdout.splitlines() if line[:5] == "step "]
    return [json.loads(line[5:]) for line in lines]


def check(steps, most):
    """Assert that the host waits at most so often in each of these steps."""
    assert len(steps) == tiny_objectives.STEPS
    for found in steps:
        assert sum(count for _, count in found) <= most, found


def test_self_supervised_training(driver, corpus, tmp_path):
    """DINO for an epoch, and DINO with SSPS: for the norm of the gradient.

    Lines of the log, which wait as well, are written every 50 steps.
    """
    path = tiny_objectives.configuration(corpus, "dino", "ssps")
    argv = tiny_objectives.argv(
        corpus,
        path,
        tmp_path / "run",
        device="cuda",
        precision="bf16",
        log_every=50,
    )
    steps = waits(driver, tiny.TRAIN, argv)
    check(steps[: tiny_objectives.STEPS], most=1)
    check(steps[tiny_objectives.STEPS :], most=1)


@pytest.mark.slow
def test_a_round_of_pseudo_labels(driver, corpus, ssl_model, tmp_path):
    """For the norm of the gradient and the gate's warning of an empty batch.

    With label correction also for which utterances the gate has dropped.
    """
    argv = corpus.rounds_argv(
        tmp_path / "rounds",
        ssl_model,
        device="cuda",
        rounds=1,
        batch_size=16,
        number_of_epochs=2,
        log_every=50,
    )
    steps = waits(driver, tiny.ROUNDS, argv)
    check(steps[: tiny_objectives.STEPS], most=2)
    check(steps[tiny_objectives.STEPS :], most=3)
