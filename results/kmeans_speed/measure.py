#!/usr/bin/env python3
"""Measure k-means: how its cost grows, and once against scikit-learn.

    OMP_NUM_THREADS=1 python measure.py [--growth_only]

Writes table.csv beside this file and, without ``--growth_only``, against_sklearn.json.
Each row of the table is measured in a process of its own. Its times are differences
of three calls, in CPU seconds, each the better of two turns:

    A   k-means++, no iteration
    B   from the centroids of A, no iteration
    C   from the centroids of A, five iterations

A - B is k-means++, C - B are the iterations, each an update and an assignment.
"""

import argparse
import csv
import json
import math
import multiprocessing
import pathlib
import runpy
import subprocess
import sys
import time

from speechbrain_ssl.clustering.kmeans import spherical_kmeans

HERE = pathlib.Path(__file__).resolve().parent
SCRIPT = HERE.parents[1] / "tests" / "benchmarks" / "kmeans_against_sklearn.py"
SIZE, ITERATIONS, TURNS = 192, 5, 2
#: Points and clusters: one is doubled while the other stays. In the last row
#: k-means++ samples all points.
GROWTH = [
    (25_000, 1000),
    (50_000, 1000),
    (100_000, 1000),
    (200_000, 1000),
    (100_000, 250),
    (100_000, 500),
    (100_000, 2000),
    (25_000, 2000),
]

speakers = runpy.run_path(str(SCRIPT))["speakers"]


def timed(rows, clusters, init, iterations):
    """Return the CPU seconds of a call, and what it found."""
    start = time.process_time()
    found = spherical_kmeans(
        rows, clusters, iterations, init=init, empty="reseed"
    )
    seconds = time.process_time() - start
    if len(found.inertia) - 1 != iterations:
        raise RuntimeError(f"only {len(found.inertia) - 1} iterations")
    return seconds, found


def grow(case):
    """Measure a row of the table."""
    points, clusters = case
    rows = speakers(points, SIZE, clusters, spread=1.0, seed=1)
    spherical_kmeans(rows[:4000], 100, 2, init="k-means++")  # allocates, loads
    turns = []
    for _ in range(TURNS):
        drawn, begun = timed(rows, clusters, "k-means++", 0)
        assigned, _ = timed(rows, clusters, begun.centroids, 0)
        iterated, _ = timed(rows, clusters, begun.centroids, ITERATIONS)
        turns.append((drawn, assigned, iterated))
    drawn, assigned, iterated = map(min, zip(*turns, strict=True))
    plus_plus = drawn - assigned
    iteration = (iterated - assigned) / ITERATIONS
    sample, tries = min(points, 16 * clusters), 2 + int(math.log(clusters))
    return {
        "points": points,
        "clusters": clusters,
        "iteration_seconds": f"{iteration:.3f}",
        "ns_per_point_cluster_iteration": (
            f"{1e9 * iteration / (points * clusters):.2f}"
        ),
        "sample": sample,
        "tries": tries,
        "plus_plus_seconds": f"{plus_plus:.2f}",
        "ns_per_sample_try_cluster": (
            f"{1e9 * plus_plus / (sample * tries * clusters):.2f}"
        ),
    }


def main():
    """Measure everything and write the files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--growth_only", action="store_true")
    given = parser.parse_args()
    rows = []
    # A forked process need not import anything.
    with multiprocessing.get_context("fork").Pool(
        1, maxtasksperchild=1
    ) as pool:
        for row in pool.imap(grow, GROWTH, chunksize=1):
            print(row, flush=True)
            rows.append(row)
    with open(HERE / "table.csv", "w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    if not given.growth_only:
        command = [sys.executable, str(SCRIPT), f"--size={SIZE}"]
        command += ["--points=200000", "--clusters=2000"]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
        text = json.dumps(json.loads(done.stdout), indent=1)
        (HERE / "against_sklearn.json").write_text(
            text + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
