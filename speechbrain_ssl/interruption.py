"""End a run in good order when the system asks it to.

A batch system pre-empts a job with SIGTERM, warns it of its time limit with
SIGUSR1 if asked to (SLURM's ``--signal=USR1@60``), and a user presses Ctrl-C.
``handled`` catches these signals for the length of a script:

* While an encoder is trained, a signal is only noted (``defer``). The training
  loop asks ``requested`` after each optimiser step, saves a checkpoint and
  raises ``Interrupted``.
* Elsewhere (preparation, embedding, clustering) the signal raises
  ``Interrupted`` at once. What these stages have finished is on disk already.
  Python drops what is raised in some moments, such as a fork or the end of an
  object: ``Interrupted`` is then raised again right after it.

Either way the script ends with ``EXIT_CODE``, and the same command continues. A
second signal ends the process at once.
"""

import atexit
import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time

#: Exit code of a run that was stopped by a signal and can be continued with the
#: same command (EX_TEMPFAIL of sysexits.h).
EXIT_CODE = 75

_SIGNALS = [
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP")
    if hasattr(signal, name)  # Windows has the first two only
]

# torchrun and the batch system may both pass on the same request.
_SAME_REQUEST = 2.0  # seconds

# After an ``Interrupted`` that was dropped.
_RAISE_AGAIN = 0.01  # seconds

_received = None  # (signal's name, time)
_deferred = False
_handles = False  # whether this process has ever handled them


class Interrupted(BaseException):
    """A signal asked the process to stop; not an error of the program.

    It is no ``Exception``, so that code that handles errors does not catch it.
    """


def requested():
    """Return the name of the signal that asked to stop; None without one."""
    return _received and _received[0]


@contextlib.contextmanager
def handled():
    """Handle the signals as described above, until the context is left.

    Signals that are ignored (by ``nohup``, say) stay ignored. Outside the main
    thread, where Python allows no signal handlers, nothing is changed.

    Example
    -------
    >>> with handled():
    ...     defer(True)
    ...     signal.raise_signal(signal.SIGTERM)
    ...     requested()
    'SIGTERM'
    """
    global _received, _deferred, _handles
    _received, _deferred, before = None, False, {}
    if not _handles:
        atexit.register(_kill_workers)
    _handles = True
    hook = sys.unraisablehook
    if threading.current_thread() is threading.main_thread():
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, _receive)
        # Windows has neither this signal nor a fork. Somebody else's alarm stays.
        alarm = getattr(signal, "SIGALRM", None)
        if alarm and signal.getsignal(alarm) is signal.SIG_DFL:
            before[signal.SIGALRM] = signal.signal(signal.SIGALRM, _raise_again)
            sys.unraisablehook = _not_dropped(hook)
    try:
        yield
    finally:
        if sys.unraisablehook is not hook:
            signal.setitimer(signal.ITIMER_REAL, 0)
            sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)
        _received, _deferred = None, False


def defer(yes):
    """Only note signals from now on, or raise ``Interrupted`` again.

    Arguments
    ---------
    yes : bool
        Whether to note them only; the caller then asks ``requested``.
    """
    global _deferred
    _deferred = yes


@contextlib.contextmanager
def may_be_skipped():
    """Leave the code inside when a signal arrives, even while they are deferred.

    For what takes long and may be lost. The signal stays ``requested``.
    """
    before = _deferred
    try:
        defer(False)
        yield
    except Interrupted:
        atexit.register(_kill_workers)
    finally:
        defer(before)


def report(stop):
    """Say on stderr that a signal has stopped the process.

    Arguments
    ---------
    stop : Interrupted
        The signal.

    Returns
    -------
    int
        The exit code.
    """
    sys.stderr.write(
        f"\nStopped by {stop}. What was finished is saved: start the same "
        "command again to continue\n"
    )
    return EXIT_CODE


def ignore_in_worker():
    """Ignore the signals in a worker process, whose main process decides.

    A batch system signals all processes of a job. A worker that died of it would
    take the main process along before a checkpoint is saved.
    """
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def init_loader_worker(_):
    """Ignore the signals in a loader worker if the main process handles them.

    Otherwise the main process could not end a worker that a failed run has left
    behind: multiprocessing does so by SIGTERM when the interpreter exits, and
    would wait forever. If it handles them, it kills its workers before.
    """
    if _handles:
        ignore_in_worker()


def _kill_workers():
    """Kill the processes that are left when the interpreter exits."""
    if hasattr(signal, "SIGCHLD"):
        # Torch raises an error when a loader worker is killed.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for process in multiprocessing.active_children():
        process.kill()


def _not_dropped(hook):
    """Return a hook for exceptions that Python drops, which keeps ours."""

    def dropped(unraisable):
        if unraisable.exc_type is Interrupted:
            signal.setitimer(signal.ITIMER_REAL, _RAISE_AGAIN)
        else:
            hook(unraisable)

    return dropped


def _raise_again(*_):
    """Handle the timer of ``_not_dropped``."""
    if not _deferred:
        raise Interrupted(requested())


def _receive(number, _):
    """Handle a signal."""
    global _received
    now, name = time.monotonic(), signal.Signals(number).name
    if _received is None:
        _received = (name, now)
        if not _deferred:
            raise Interrupted(name)
    elif now - _received[1] > _SAME_REQUEST:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
