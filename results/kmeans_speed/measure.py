#!/usr/bin/env python3
"""Measures k-means: against scikit-learn once, and how the cost grows.

    OMP_NUM_THREADS=1 python measure.py

Runs tests/benchmarks/kmeans_against_sklearn.py, one process a row, so that the
peak of memory is that of the row; writes against_sklearn.json and table.csv beside
this file.
"""

import csv
import json
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
SCRIPT = HERE.parents[1] / "tests" / "benchmarks" / "kmeans_against_sklearn.py"
#: Points and clusters; each is doubled while the other stays.
GROWTH = [
    (25_000, 1000),
    (50_000, 1000),
    (100_000, 1000),
    (200_000, 1000),
    (100_000, 250),
    (100_000, 500),
    (100_000, 2000),
]


def measure(points, clusters, *flags):
    """What the benchmark prints, for rows of 192 dimensions."""
    command = [sys.executable, str(SCRIPT), "--size", "192", *flags]
    command += ["--points", str(points), "--clusters", str(clusters)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout)


def main():
    """Measures and writes."""
    rows = []
    for points, clusters in GROWTH:
        found = measure(points, clusters, "--ours_only")
        ours = found["runs"][0]["ours"]
        # The centroids begin by k-means++, one pass, and there is a last
        # assignment.
        work = points * clusters * (ours["iterations"] + 2)
        rows.append(
            {
                "points": points,
                "clusters": clusters,
                "iterations": ours["iterations"],
                "seconds": ours["seconds"],
                "ns_per_point_cluster_pass": f"{1e9 * ours['seconds'] / work:.3f}",
                "peak_gib": found["peak_gib"],
            }
        )
        print(rows[-1], flush=True)
    with open(HERE / "table.csv", "w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    text = json.dumps(measure(200_000, 2000), indent=1)
    (HERE / "against_sklearn.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
