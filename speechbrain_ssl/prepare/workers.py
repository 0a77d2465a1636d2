"""Start worker processes, run jobs in them, and collect the results."""

import concurrent.futures
import contextlib
import multiprocessing
import os
import sys
import threading
import time
from concurrent.futures.process import BrokenProcessPool

from speechbrain_ssl import interruption


def default_workers():
    """Return the number of processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def open_pool(num_workers):
    """Open a pool of worker processes, for the length of a ``with`` block.

    The workers ignore signals, which only the parent handles, write nothing to
    the terminal, and exit when the parent dies. If the block ends by an error
    or a signal, they are killed: a job may take minutes.

    Arguments
    ---------
    num_workers : int
        Number of processes.

    Yields
    ------
    concurrent.futures.ProcessPoolExecutor
    """
    # Forking is quicker, but only safe on Linux.
    method = "fork" if sys.platform.startswith("linux") else "spawn"
    pool = concurrent.futures.ProcessPoolExecutor(
        num_workers,
        mp_context=multiprocessing.get_context(method),
        initializer=_init_worker,
        initargs=(os.getpid(),),
    )
    try:
        yield pool
    except BaseException:
        for process in list((pool._processes or {}).values()):
            process.kill()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _init_worker(parent):
    """Silence stderr, ignore signals, and exit when the parent dies."""
    interruption.ignore_in_worker()
    # A C library may write to the terminal directly, which would break the
    # progress bar; what matters is returned as a reason.
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    threading.Thread(target=_exit_with, args=(parent,), daemon=True).start()


def _exit_with(parent):
    """Exit this process soon after its parent was killed.

    A worker waits on a queue whose other end its siblings keep open, so it
    would otherwise wait forever.
    """
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def finish_jobs(function, jobs, num_workers, retry=None):
    """Yield each job with its result, in the order in which jobs finish.

    Arguments
    ---------
    function : callable
        Called as ``function(*job)`` in a worker process.
    jobs : iterable of tuple
        The arguments of each call. Only a few jobs per worker are fetched in
        advance, so that a million of them are not pickled at once.
    num_workers : int
        Worker processes; ``0`` runs the jobs in this process.
    retry : callable, optional
        A job can crash the process that runs it, which breaks the whole pool.
        ``retry(*job)`` is then called in this process for each job that was
        running or queued, and its result is yielded; a new pool takes the rest.

    Yields
    ------
    tuple
        The job, and what ``function`` or ``retry`` returned.

    Raises
    ------
    BrokenProcessPool
        If a worker process crashed and there is no ``retry``.

    Example
    -------
    >>> list(finish_jobs(pow, [(2, 3), (3, 2)], num_workers=0))
    [((2, 3), 8), ((3, 2), 9)]
    """
    if num_workers == 0:
        for job in jobs:
            yield job, function(*job)
        return
    waiting = iter(jobs)
    more = True
    while more:
        pending, suspects = {}, []
        try:
            with open_pool(num_workers) as pool:
                for job in waiting:
                    suspects = [job]
                    pending[pool.submit(function, *job)] = job
                    suspects = []
                    if len(pending) >= 4 * num_workers:
                        yield from _finished(pending)
                more = False
                while pending:
                    yield from _finished(pending)
        except BrokenProcessPool:
            if retry is None:
                raise
            suspects += pending.values()
        for job in suspects:
            yield job, retry(*job)


def _finished(pending):
    """Wait for a job, then yield and remove the (job, result) of all done."""
    done, _ = concurrent.futures.wait(
        pending, return_when=concurrent.futures.FIRST_COMPLETED
    )
    for future in done:
        result = future.result()
        yield pending.pop(future), result
