"""Notice that a process of a group has gone, and say which one.

A collective waits for all processes, in SpeechBrain's group for two hours. If one
of them hangs or its host is lost, the others would wait in silence; if it ends,
they get an error that does not say which one. ``start`` lets a thread of each
process count in the group's store and look at the counts of others: rank 0 looks
at all of them, the others look at rank 0. The thread counts whatever its process
does, so that no stage takes too long for it.
"""

import json
import os
import socket
import sys
import threading
import time

import torch.distributed as dist

from speechbrain_ssl import distributed, interruption

#: Seconds between two counts.
INTERVAL = 5.0

#: Seconds without a count after which the run ends.
PATIENCE = 120.0

_running = None

# What is read of a process that has not written yet.
_NOTHING = '["an unknown host", 0, "counts", null]'


def start():
    """Begin to count and to look, if there are several processes."""
    global _running
    if _running is None and distributed.is_distributed():
        # A connection of its own: the main thread may wait in the group's.
        store = dist.distributed_c10d._get_default_store().clone()
        _running = _Heartbeat(
            store, distributed.rank(), distributed.world_size()
        )
        _running.start()


def leave(why=None, stopped=False):
    """Stop counting; call it before the process leaves the group.

    Arguments
    ---------
    why : str, optional
        What the others are told: why the process ends before its work is done.
    stopped : bool
        Whether a signal has asked for it.
    """
    global _running
    if _running is not None:
        _running.leave(why, stopped)
        _running = None


def lost():
    """Find out, after a failed collective, which process has gone.

    Returns
    -------
    tuple or None
        A sentence, and whether a signal had asked that process to stop. None if
        all others are still there.
    """
    return _running and _running.lost()


class _Heartbeat(threading.Thread):
    """Counts in the store, and looks at the counts of others."""

    def __init__(self, store, rank, world_size):
        super().__init__(daemon=True)
        self.store, self.rank = store, rank
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)
        self.prefix = f"speechbrain_ssl/heartbeat/{attempt}"
        self.others = set(range(world_size)) - {rank}
        self.count, self.finished = 0, threading.Event()
        # Rank -> what it has written, and since when that is unchanged.
        self.seen = {r: (None, time.monotonic()) for r in self.others}
        self._write()

    def _write(self, state="counts", why=None):
        self.count += 1
        value = json.dumps([socket.gethostname(), self.count, state, why])
        self.store.set(f"{self.prefix}/{self.rank}", value)

    def _look(self, ranks):
        """Read the counts of some ranks."""
        for r in ranks:
            key = f"{self.prefix}/{r}"
            value = self.store.get(key) if self.store.check([key]) else None
            if value != self.seen[r][0]:
                self.seen[r] = (value, time.monotonic())

    def _gone(self, ranks, patience):
        """Describe the first rank that has gone; see ``lost``."""
        for r in sorted(ranks):
            value, since = self.seen[r]
            host, _, state, why = json.loads(value or _NOTHING)
            unchanged = time.monotonic() - since
            if state == "failed" and unchanged > INTERVAL:
                return f"process {r} on {host} has failed: {why}", False
            if state == "stopped" and unchanged > INTERVAL:
                return f"a signal to process {r} on {host} ({why})", True
            if state == "counts" and unchanged > patience:
                return (
                    f"process {r} on {host} has not answered for "
                    f"{unchanged:.0f} s: it hangs or was killed, or its host "
                    "is lost. The same command continues from the last "
                    "checkpoint",
                    False,
                )
        return None

    def run(self):
        """Count and look, until the process leaves."""
        ranks = self.others if self.rank == 0 else {0}
        while not self.finished.wait(INTERVAL):
            try:
                self._write()
                self._look(ranks)
            except RuntimeError:
                # Rank 0, which may hold the store, has ended: gloo and nccl
                # notice that themselves.
                return
            gone = self._gone(ranks, PATIENCE)
            if gone and not self.finished.is_set():
                sentence, stopped = gone
                kind = "Stopped by" if stopped else "Error:"
                sys.stderr.write(f"\n{kind} {sentence}\n")
                sys.stderr.flush()
                # The main thread is in a collective that cannot be left.
                os._exit(interruption.EXIT_CODE if stopped else 1)

    def leave(self, why, stopped):
        """Stop the thread, and tell the others why."""
        self.finished.set()
        self.join()
        try:
            state = "stopped" if stopped else "failed" if why else "done"
            self._write(state, why)
        except RuntimeError:
            pass  # nobody is left to read it

    def lost(self):
        """Look at the others for a while; see the function ``lost``."""
        end = time.monotonic() + 3 * INTERVAL
        for r in self.others:
            self.seen[r] = (self.seen[r][0], time.monotonic())
        # torchrun ends those that are left by a signal.
        while time.monotonic() < end and not interruption.requested():
            try:
                self._look(self.others)
            except RuntimeError:
                return (
                    "process 0, which holds the group's store, has gone",
                    False,
                )
            gone = self._gone(self.others, 2.5 * INTERVAL)
            if gone:
                return gone
            time.sleep(INTERVAL / 10)
        return None
