"""Run ``train.py``, and kill it with SIGKILL at a chosen place.

    python killed.py PLACE TRAIN.PY ARGUMENTS...

PLACE is ``step:N`` (after the N-th batch of this process) or ``save:N`` (while
the N-th checkpoint is written, when some of its files exist).
"""

import os
import runpy
import signal
import sys


def kill_at(owner, name, count):
    """Replace a method; its ``count``-th call kills the process."""
    original = getattr(owner, name)
    calls = []

    def replaced(*args, **kwargs):
        result = original(*args, **kwargs)
        calls.append(None)
        if len(calls) == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, replaced)


if __name__ == "__main__":
    place, count = sys.argv[1].split(":")
    from speechbrain.utils import checkpoints

    from speechbrain_ssl.brains.checkpointing import RunState
    from speechbrain_ssl.brains.ssl_brain import SSLBrain

    if place == "step":
        kill_at(SSLBrain, "on_fit_batch_end", int(count))
    else:
        original = checkpoints.DEFAULT_SAVE_HOOKS

        class Hook:
            """Saves a RunState, which is the last file but one of a checkpoint."""

            save = staticmethod(original[RunState])

        kill_at(Hook, "save", int(count))
        original[RunState] = Hook.save
    sys.argv = sys.argv[2:]
    sys.path.insert(0, os.path.dirname(sys.argv[0]))
    runpy.run_path(sys.argv[0], run_name="__main__")
