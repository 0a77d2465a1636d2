"""Signals are noted or raised, a second one ends the process, nohup holds."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from speechbrain_ssl import interruption
from speechbrain_ssl.interruption import Interrupted, handled
from speechbrain_ssl.prepare import prepare_script
from speechbrain_ssl.prepare.workers import finish_jobs


def test_raised_at_once_or_noted():
    """While they are deferred, the code goes on; the handlers are restored."""
    before = signal.getsignal(signal.SIGTERM)
    with handled():
        with pytest.raises(Interrupted, match="SIGTERM"):
            signal.raise_signal(signal.SIGTERM)
    with handled():
        assert interruption.requested() is None
        interruption.defer(True)
        signal.raise_signal(signal.SIGUSR1)
        assert interruption.requested() == "SIGUSR1"
        # The launcher may pass on the same request.
        signal.raise_signal(signal.SIGUSR1)
    assert interruption.requested() is None
    assert signal.getsignal(signal.SIGTERM) is before


def test_part_that_may_be_skipped():
    """It is left at once; what follows is deferred as before."""
    with handled():
        interruption.defer(True)
        after = False
        with interruption.may_be_skipped():
            signal.raise_signal(signal.SIGTERM)
            after = True
        assert not after
        assert interruption.requested() == "SIGTERM"
        assert interruption._deferred


def test_ignored_signals_stay_ignored():
    """As ``nohup`` and a shell's background jobs expect."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with handled():
            signal.raise_signal(signal.SIGHUP)
            assert interruption.requested() is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_second_request_ends_the_process():
    """It does so although the first one is still deferred."""
    code = (
        "import signal\n"
        "from speechbrain_ssl import interruption\n"
        "interruption._SAME_REQUEST = -1\n"
        "with interruption.handled():\n"
        "    interruption.defer(True)\n"
        "    signal.raise_signal(signal.SIGTERM)\n"
        "    print('first', flush=True)\n"
        "    signal.raise_signal(signal.SIGTERM)\n"
        "    print('second', flush=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True
    )
    assert done.returncode == -signal.SIGTERM
    assert done.stdout == "first\n"


def test_a_preparation_says_that_it_was_stopped(capsys):
    """Its exit code is that of a training run."""
    parser = prepare_script.make_parser("Test.", "data")

    def prepare(**options):
        signal.raise_signal(signal.SIGTERM)

    argv = ["--data_folder=a", "--save_folder=b"]
    code = prepare_script.run_parsed(prepare, parser, argv)
    assert code == interruption.EXIT_CODE
    assert "Stopped by SIGTERM" in capsys.readouterr().err


def test_workers_of_every_loader_ignore_signals():
    """One that dies of a signal, or prints a traceback, spoils the end."""
    folder = pathlib.Path(interruption.__file__).parent
    for path in folder.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if "DataLoader(" in text:
            assert "init_loader_worker" in text, path


@pytest.mark.slow
@pytest.mark.parametrize("handles", [True, False])
def test_worker_left_behind_by_a_failed_run(handles):
    """The process ends although a loader is still referred to."""
    code = f"""
import contextlib, torch
from speechbrain_ssl.interruption import handled, init_loader_worker
with handled() if {handles} else contextlib.nullcontext():
    loader = torch.utils.data.DataLoader(
        list(range(100)),
        num_workers=2,
        persistent_workers=True,
        worker_init_fn=init_loader_worker,
    )
    iterator = iter(loader)
    next(iterator)
# As a traceback would: nothing shuts the workers down.
iterator._shutdown_workers = lambda: None
type(iterator).__del__ = lambda self: None
"""
    done = subprocess.run([sys.executable, "-c", code], timeout=60)
    assert done.returncode == 0


def signal_while_forking():
    """Let the next fork get a signal, in a handler of Python's own."""
    sent = []

    def once():
        if not sent:
            sent.append(True)
            signal.raise_signal(signal.SIGTERM)

    os.register_at_fork(before=once)


@pytest.mark.parametrize("dropped_in", ["a fork", "the end of an object"])
def test_raised_again_where_python_drops_it(dropped_in):
    """Otherwise the process would go on to its end as if nothing had come."""

    class Ends:
        def __del__(self):
            signal.raise_signal(signal.SIGTERM)

    with handled(), pytest.raises(Interrupted, match="SIGTERM"):
        if dropped_in == "a fork":
            signal_while_forking()
            if (child := os.fork()) == 0:
                os._exit(0)
            os.waitpid(child, 0)
        else:
            Ends()
        # What follows takes longer than the timer.
        for _ in range(20):
            time.sleep(0.1)
        pytest.fail("the signal was dropped")


def test_a_preparation_that_forks_its_workers_is_stopped(capsys):
    """It does not go on with the files that are left."""
    signal_while_forking()
    done = []

    def prepare(**options):
        for job, _ in finish_jobs(
            time.sleep, [(0.2,) for _ in range(20)], num_workers=1
        ):
            done.append(job)

    parser = prepare_script.make_parser("Test.", "data")
    argv = ["--data_folder=a", "--save_folder=b"]
    code = prepare_script.run_parsed(prepare, parser, argv)
    assert code == interruption.EXIT_CODE
    assert len(done) < 5
    assert "Exception ignored" not in capsys.readouterr().err


def test_the_alarm_of_somebody_else_stays():
    """A caller with a timer of its own gets its signal, during and after."""
    heard = []
    before = signal.signal(signal.SIGALRM, lambda *_: heard.append(1))
    try:
        with interruption.handled():
            signal.setitimer(signal.ITIMER_REAL, 0.01)
            time.sleep(0.05)
            signal.setitimer(signal.ITIMER_REAL, 0.05)
        time.sleep(0.1)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert len(heard) == 2
