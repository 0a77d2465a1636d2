"""Worker processes: all jobs are done, also after one has crashed a worker."""

import os
import signal
import time
from concurrent.futures.process import BrokenProcessPool

import pytest

from speechbrain_ssl.prepare.workers import default_workers, finish_jobs


def double(number):
    """Doubles; 5 crashes the process."""
    if number == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * number


@pytest.mark.parametrize("num_workers", [0, 2])
def test_every_job_is_finished_once(num_workers):
    jobs = [(number,) for number in range(30) if number != 5]
    done = list(finish_jobs(double, iter(jobs), num_workers))
    assert sorted(done) == [((n,), 2 * n) for (n,) in jobs]


def test_a_crash_is_an_error_or_retried():
    jobs = [(number,) for number in range(30)]
    with pytest.raises(BrokenProcessPool):
        list(finish_jobs(double, jobs, 2))
    done = list(finish_jobs(double, jobs, 2, retry=lambda n: 2 * n))
    assert sorted(done) == [((n,), 2 * n) for (n,) in jobs]


def test_there_is_a_core():
    assert 1 <= default_workers() <= os.cpu_count()


def test_workers_do_not_outlive_a_signal():
    """A job may take minutes, and a stopped run must end soon."""
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        for _ in finish_jobs(time.sleep, [(0,), (600,)], 2):
            raise KeyboardInterrupt
    assert time.monotonic() - start < 10
