"""A run that is asked to stop saves, says so, and continues bit for bit."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest
import tiny
from test_resume import assert_same_run

from speechbrain_ssl import interruption
from speechbrain_ssl.brains import finish
from speechbrain_ssl.brains.ssl_brain import SSLBrain
from speechbrain_ssl.interruption import EXIT_CODE

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_report")]

#: The longest time from the signal to the end of the run (seconds).
PATIENCE = 20


def start(command):
    """Start a command in a process group of its own."""
    return subprocess.Popen(
        command,
        env=tiny.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(process, path, text):
    """Wait until a file contains a text."""
    end = time.monotonic() + 90
    while time.monotonic() < end and process.poll() is None:
        if path.is_file() and text in path.read_text():
            return
        time.sleep(0.002)
    pytest.fail(f"the run has ended before {text}: {process.stderr.read()}")


def stopped(process):
    """Wait for the end of a run; return its exit code and stderr."""
    try:
        _, stderr = process.communicate(timeout=PATIENCE)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, stderr


def stop_at(process, path, text, number=signal.SIGTERM, group=False):
    """Send a signal when a file contains a text; return code and stderr."""
    wait_for(process, path, text)
    (os.killpg if group else os.kill)(process.pid, number)
    return stopped(process)


@pytest.mark.parametrize(
    "number, workers, group",
    [
        (signal.SIGTERM, 0, False),
        # A batch system signals the loader's workers, too.
        (signal.SIGTERM, 2, True),
        (signal.SIGUSR1, 2, True),
    ],
)
def test_training(corpus, train, reference, tmp_path, number, workers, group):
    """The step is finished and saved; the same command goes on from there."""
    argv = corpus.argv(tmp_path, num_workers=workers)
    code, stderr = stop_at(
        start([sys.executable, str(tiny.TRAIN), *argv]),
        tmp_path / "metrics.jsonl",
        '"step": 8,',
        number,
        group,
    )
    assert code == EXIT_CODE, stderr
    told = re.search(
        r"Stopped by SIG(TERM|USR1) in epoch 2, after (\d+) steps.*same command",
        stderr,
    )
    assert told, stderr
    assert int(told[2]) == tiny.newest_step(tmp_path) >= 8
    assert "Traceback" not in stderr
    train.main(argv)
    assert_same_run(tmp_path, reference)


@pytest.mark.parametrize(
    "where, name, validated",
    [
        (SSLBrain, "on_fit_batch_end", 0),  # the last step of an epoch
        (SSLBrain, "evaluate_batch", 0),
        (finish, "export_encoder", 2),
    ],
)
def test_between_steps(
    corpus, train, reference, tmp_path, monkeypatch, where, name, validated
):
    """Validation and export end at once, too, and are done again."""
    original, steps = getattr(where, name), (validated or 1) * tiny.STEPS

    def signalled(*args, **kwargs):
        if where is finish or args[0].optimizer_step == steps:
            signal.raise_signal(signal.SIGTERM)
        return original(*args, **kwargs)

    argv = corpus.argv(tmp_path)
    with interruption.handled(), monkeypatch.context() as patch:
        patch.setattr(where, name, signalled)
        with pytest.raises(interruption.Interrupted):
            train.main(argv)
    assert tiny.newest_step(tmp_path) == steps
    assert len(tiny.lines(tmp_path, "valid")) == validated
    assert not (tmp_path / "results.json").exists()
    train.main(argv)
    assert_same_run(tmp_path, reference)


def test_preparation_and_rounds(corpus, rounds, ssl_model, tmp_path):
    """Outside of training a signal ends the run at once, and nothing is lost."""
    argv = corpus.rounds_argv(tmp_path, ssl_model)
    process = start([sys.executable, str(tiny.ROUNDS), *argv])
    code, stderr = stop_at(process, tmp_path / "rounds.json", '"embed"')
    assert code == EXIT_CODE, stderr
    assert "Traceback" not in stderr
    assert not (tmp_path / "results.json").exists()
    rounds.main(argv)
    assert tiny.results(tmp_path)["rounds"] >= 1


def test_two_processes_stop_after_the_same_step(corpus, tmp_path):
    """One of the two gets the signal; both save and stop."""
    argv = [
        *corpus.argv(tmp_path),
        "--distributed_backend=gloo",
    ]
    code = f"""
import os, signal, sys
sys.path.insert(0, {str(tiny.ROOT)!r})
from speechbrain_ssl.brains.ssl_brain import SSLBrain
original = SSLBrain.on_fit_batch_end
def signalled(brain, *args):
    original(brain, *args)
    if brain.optimizer_step == 4 and os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGTERM)
SSLBrain.on_fit_batch_end = signalled
import runpy
runpy.run_path({str(tiny.TRAIN)!r}, run_name="__main__")
"""
    script = tmp_path / "signalled.py"
    script.write_text(code)
    status, stderr = tiny.torchrun(script, *argv)
    assert status != 0
    assert tiny.newest_step(tmp_path) == 5, stderr
    assert "another process in epoch" in stderr
    assert "SIGTERM in epoch" in stderr
    status, stderr = tiny.torchrun(tiny.TRAIN, *argv)
    assert status == 0, stderr
    steps = [line["step"] for line in tiny.lines(tmp_path)]
    assert steps == sorted(set(steps))


def test_second_run_in_the_same_folder_is_refused(corpus, tmp_path):
    """The first one is not disturbed, and its end frees the folder."""
    argv = corpus.argv(tmp_path, number_of_epochs=30)
    command = [sys.executable, str(tiny.TRAIN), *argv]
    first = start(command)
    wait_for(first, tmp_path / "metrics.jsonl", '"step": 2,')
    # It must not end before the second one has been imported.
    first.send_signal(signal.SIGSTOP)
    status, stderr = tiny.shell(command)
    assert status == 1
    assert f"in use by another run (process {first.pid} on " in stderr
    assert "`output_folder`" in stderr
    assert first.poll() is None
    first.send_signal(signal.SIGKILL)
    first.wait()
    third = start(command)
    step = max(line["step"] for line in tiny.lines(tmp_path))
    code, stderr = stop_at(
        third, tmp_path / "metrics.jsonl", f'"step": {step + 2},'
    )
    assert code == EXIT_CODE, stderr
