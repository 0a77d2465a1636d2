"""Measure which share of a run goes into digests and locks.

    python tests/benchmarks/checkpoint_cost.py TRAIN.PY ARGUMENTS...

Runs a training script and adds up the wall time of its digests (when a
checkpoint is saved, and when it is looked for), of the lock on its output folder
and of looking whether that is still there, as a share of the whole run.
"""

import functools
import os
import runpy
import sys
import time

from speechbrain_ssl import run_folder
from speechbrain_ssl.brains import checkpointing, run_checkpoints

PARTS = [
    (checkpointing, "file_digest"),
    (run_folder, "lock_folder"),
    (run_checkpoints, "check_folder"),
]


def timed(function, spent):
    """Wrap a function so that its time is added up."""

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        begin = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            spent.append(time.perf_counter() - begin)

    return wrapper


if __name__ == "__main__":
    spent = {name: [] for _, name in PARTS}
    for module, name in PARTS:
        setattr(module, name, timed(getattr(module, name), spent[name]))
    sys.argv = sys.argv[1:]
    sys.path.insert(0, os.path.dirname(sys.argv[0]))
    begin = time.perf_counter()
    runpy.run_path(sys.argv[0], run_name="__main__")
    whole = time.perf_counter() - begin
    for name, times in spent.items():
        print(
            f"{name}: {len(times)} calls, {sum(times):.3f} s, "
            f"{100 * sum(times) / whole:.3f} % of {whole:.0f} s"
        )
