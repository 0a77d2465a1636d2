"""Run scripts in processes that can be killed, signalled and starved of disk.

A process is a fork of one that has only imported the modules, so that a run of
the tiny configuration takes two seconds and not eight. With ``cold`` it is a
new interpreter, as on the command line.
"""

import atexit
import contextlib
import os
import resource
import runpy
import signal
import sys
import time

import tiny

#: Seconds after which a process counts as hanging, on a machine that is busy.
PATIENCE = 300


class Process:
    """A script that runs in a process group of its own.

    Arguments
    ---------
    argv : list
        The script and its arguments.
    cold : bool
        Whether to start a new interpreter.
    environment : dict, optional
        Variables to set.
    """

    def __init__(self, argv, cold=False, environment=None):
        self.started, self.code, self._output = time.monotonic(), None, b""
        # Not a file, because the limit of ``fill_disk`` would apply to it.
        self._pipe, out = os.pipe()
        os.set_blocking(self._pipe, False)
        self.pid = os.fork()
        if self.pid == 0:
            try:
                _become(list(map(str, argv)), out, cold, environment or {})
            finally:
                os._exit(99)
        os.close(out)

    def _read(self):
        with contextlib.suppress(BlockingIOError):
            while more := os.read(self._pipe, 2**16):
                self._output += more

    def poll(self):
        """Return the exit code, negative after a signal; None while it runs."""
        self._read()
        if self.code is None:
            found, status = os.waitpid(self.pid, os.WNOHANG)
            if found:
                self.code = os.waitstatus_to_exitcode(status)
                self._read()
        return self.code

    def wait(self, seconds=PATIENCE):
        """Wait for the end; return the exit code, or None if it hangs."""
        end = time.monotonic() + seconds
        while self.poll() is None and time.monotonic() < end:
            time.sleep(0.002)
        if self.code is None:
            self.send(signal.SIGKILL)
            os.waitpid(self.pid, 0)
        return self.code

    def send(self, number):
        """Send a signal to all processes of its group."""
        if self.code is None:
            os.killpg(self.pid, number)

    def halt(self):
        """Stop it until SIGCONT; return False if it has ended."""
        self.send(signal.SIGSTOP)
        what = os.WEXITED | os.WSTOPPED | os.WNOWAIT
        return os.waitid(os.P_PID, self.pid, what).si_code == os.CLD_STOPPED

    def fill_disk(self, size=1024):
        """Let every file that it writes from now on end at some bytes."""
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (size, size))

    def wait_for(self, condition):
        """Wait until a condition holds; return False if it ends before."""
        end = time.monotonic() + PATIENCE
        while not condition():
            if self.poll() is not None or time.monotonic() > end:
                return False
            time.sleep(0.002)
        return True

    @property
    def output(self):
        """What it has written to stdout and stderr."""
        return self._output.decode(errors="replace")


def _become(argv, out, cold, environment):
    """Turn the child of a fork into the script."""
    os.setsid()
    # A shell lets its background jobs ignore them, and the scripts respect that.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.environ.update(environment)
    if cold:
        command = [sys.executable, *argv]
        os.execve(command[0], command, tiny.environment())
    # The parent's streams may be those of a test framework.
    sys.stdout, sys.stderr = open(1, "w"), open(2, "w")
    sys.argv = argv
    sys.path.insert(0, os.path.dirname(argv[0]))
    code = 0
    try:
        runpy.run_path(argv[0], run_name="__main__")
    except SystemExit as stop:
        code = stop.code or 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
