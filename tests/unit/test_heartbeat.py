"""A process that has gone is named; one whose work is done is not missed."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch.distributed as dist

from speechbrain_ssl import heartbeat, interruption
from speechbrain_ssl.heartbeat import _Heartbeat


@pytest.fixture
def three(monkeypatch):
    """Three heartbeats in one store, of which the last two count."""
    monkeypatch.setattr(heartbeat, "INTERVAL", 0.05)
    monkeypatch.setattr(heartbeat, "PATIENCE", 60.0)
    store = dist.HashStore()
    found = [_Heartbeat(store, rank, 3) for rank in range(3)]
    for each in found[1:]:
        each.start()
    yield found
    for each in found[1:]:
        each.finished.set()
        each.join()


def test_all_are_there(three):
    assert three[0].lost() is None


def test_silent_process(three):
    """As one that was killed or hangs: it no longer counts."""
    three[2].finished.set()
    sentence, stopped = three[0].lost()
    assert "process 2 on" in sentence and "not answered" in sentence
    assert not stopped


def test_process_that_says_why_it_ends(three):
    three[1].leave("the disk is full", stopped=False)
    time.sleep(2 * heartbeat.INTERVAL)
    sentence, stopped = three[0].lost()
    assert "process 1 on" in sentence and "the disk is full" in sentence
    assert not stopped


def test_process_stopped_by_a_signal(three):
    three[2].leave("SIGTERM", stopped=True)
    time.sleep(2 * heartbeat.INTERVAL)
    sentence, stopped = three[0].lost()
    assert "a signal to process 2" in sentence and "SIGTERM" in sentence
    assert stopped


def test_process_whose_work_is_done(three):
    """Rank 0 alone evaluates and reports at the end."""
    three[1].leave(None, stopped=False)
    assert three[0].lost() is None


def test_one_process_needs_none():
    heartbeat.start()
    assert heartbeat._running is None and heartbeat.lost() is None
    heartbeat.leave()


def test_a_signal_ends_the_search(three, monkeypatch):
    """torchrun ends those that are left, and waits for them before it restarts."""
    monkeypatch.setattr(heartbeat, "INTERVAL", 60.0)
    with interruption.handled():
        interruption.defer(True)
        signal.raise_signal(signal.SIGTERM)
        begin = time.monotonic()
        assert three[0].lost() is None
    assert time.monotonic() - begin < 10


def test_processes_started_again_meet_in_a_new_store():
    """That of torchrun's agent has the addresses of those before them."""
    agent = dist.TCPStore(
        "127.0.0.1", 0, is_master=True, wait_for_workers=False
    )
    environment = {
        **os.environ,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(agent.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }
    code = (
        "import os\n"
        "from speechbrain_ssl.distributed import renew_store\n"
        "renew_store()\n"
        "print(os.environ['MASTER_PORT'], "
        "os.environ['TORCHELASTIC_USE_AGENT_STORE'])\n"
    )

    def started(rank):
        more = {"RANK": str(rank), "TORCHELASTIC_RESTART_COUNT": "1"}
        return subprocess.Popen(
            [sys.executable, "-c", code],
            env={**environment, **more},
            stdout=subprocess.PIPE,
            text=True,
        )

    # The second one comes first, and waits.
    second, first = started(1), started(0)
    port, agents = first.communicate()[0].split()
    assert second.communicate()[0].split() == [port, "False"]
    assert agents == "False" and int(port) != agent.port
