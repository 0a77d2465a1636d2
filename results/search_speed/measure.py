"""How long does it take to find the nearest of a million embeddings?

    python results/search_speed/measure.py FILE.npz

Writes the file first if it is missing (0.8 GB of random rows of 192 values),
and prints CPU and wall seconds, and memory. Each repetition opens the file anew.
"""

import pathlib
import resource
import sys
import time

import numpy as np

from speechbrain_ssl.embedding.nearest import nearest, open_columns

ROWS, SIZE, REPETITIONS = 1_000_000, 192, 7


def main(path):
    """Search seven times, after a first time that fills the page cache."""
    path = pathlib.Path(path)
    rng = np.random.default_rng(0)
    if not path.exists():
        np.savez(
            path,
            files=np.array([f"folder/{i:07d}.wav" for i in range(ROWS)]),
            embeddings=rng.standard_normal((ROWS, SIZE), dtype=np.float32),
        )
    found = []
    for _ in range(REPETITIONS + 1):
        query = rng.standard_normal(SIZE)
        begin = time.perf_counter(), time.process_time()
        columns = open_columns(path)
        places, _ = nearest(columns["embeddings"], query, 10)
        names = columns["files"][places].tolist()
        found.append(
            (
                time.process_time() - begin[1],
                time.perf_counter() - begin[0],
            )
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    for name, seconds in zip(
        ("CPU", "wall"), zip(*found, strict=True), strict=True
    ):
        first, *others = seconds
        print(
            f"{name}: first {first:.2f} s, then {np.median(others):.2f} s, "
            f"from {min(others):.2f} to {max(others):.2f}"
        )
    print(f"nearest: {names[0]}; peak memory {peak:.0f} MB")


if __name__ == "__main__":
    main(*sys.argv[1:])
