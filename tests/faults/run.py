#!/usr/bin/env python3
"""Do faults to real runs of a tiny configuration, and write a table of outcomes.

    python tests/faults/run.py results/reliability
    python tests/faults/run.py --tries=2 --only=kills,full_disk /path/to/folder

The exit code is 1 if anything was lost. ``make test-faults`` runs all of it.
"""

from speechbrain_ssl.runtime import set_up_process

set_up_process()  # before torch is imported

import argparse
import pathlib
import random
import resource
import shutil
import sys
import tempfile
import time

TESTS = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "integration")]

import torch
from cases import CASES
from jobs import World
from speechbrain.utils import logger
from table import write


def main(argv):
    """Run the cases; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "folder", type=pathlib.Path, help="where table.csv goes"
    )
    parser.add_argument(
        "--tries", type=int, default=50, help="kills of each kind of run"
    )
    parser.add_argument(
        "--only",
        type=lambda text: text.split(","),
        default=list(CASES),
        help=f"some of {','.join(CASES)}",
    )
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    # It calls pip at every start, which takes as long as an epoch here.
    logger.get_environment_description = lambda: ""
    rows, begin = [], time.monotonic()
    # No TemporaryDirectory: the forks would delete it when they end.
    folder = pathlib.Path(tempfile.mkdtemp())
    try:
        world = World(folder, random.Random(options.seed))
        for name in options.only:
            # Where random moments do not matter, fewer tries are enough.
            tries = options.tries
            if name not in ("kills", "damaged_files"):
                tries = max(tries // 10, 1)
            if name in ("command_line", "ranks", "elastic_restart"):
                tries = min(tries, 2)
            world.measure()
            for row in CASES[name](world, tries):
                print(
                    "\t".join(row.cells()), *row.details, sep="\n", flush=True
                )
                rows.append(row)
                write(options.folder, rows)
    finally:
        shutil.rmtree(folder)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(
        f"{(time.monotonic() - begin) / 60:.1f} minutes, "
        f"{(used.ru_utime + used.ru_stime) / 60:.1f} of CPU"
    )
    return int(any(row.lost for row in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
