"""Our k-means, scikit-learn's and faiss's, side by side in one run.

    python tests/benchmarks/kmeans_against_sklearn.py --points 200000 \\
        --size 192 --clusters 2000

The rows imitate embeddings: speakers of uneven size scattered on a sphere, each
a cloud around a direction. All cluster the same unit rows, on the same number of
threads (``OMP_NUM_THREADS``), and take turns:

* ours: ``spherical_kmeans`` with its ``--iterations`` updates at most, from
  k-means++
* sklearn: ``KMeans`` with its defaults (k-means++), until it has converged
* sklearn_as_many: ``KMeans`` with at most as many iterations as ours
* ours_random, faiss: as many iterations from random rows, which is how faiss
  begins; only where faiss is installed

They minimise different things, so both are computed for all: ``inertia``, the
squared distances of the unit rows to the plain means of their clusters
(scikit-learn's), and ``spherical``, those to the normalised means (ours and
faiss's). ``cpu_seconds`` are those of all threads, which other work on the machine
changes little. The output is one JSON object.
"""

import argparse
import importlib.util
import json
import resource
import time

import numpy as np
import torch
from sklearn.cluster import KMeans

from speechbrain_ssl.clustering.kmeans import spherical_kmeans


def speakers(points, size, count, spread, seed):
    """Unit rows ``[points, size]`` around ``count`` directions."""
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(count, size)).astype(np.float32)
    centers /= np.linalg.norm(centers, axis=1, keepdims=True)
    shares = rng.gamma(2.0, size=count)
    who = rng.choice(count, size=points, p=shares / shares.sum())
    rows = rng.standard_normal((points, size), dtype=np.float32)
    rows *= spread / np.sqrt(size)
    rows += centers[who]
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def inertias(rows, labels, clusters):
    """Squared distances to plain and to normalised means.

    From the sums S_c of n_c unit rows each: N less the sum of |S_c|^2 / n_c,
    and twice N less the sum of |S_c|.
    """
    sums = np.zeros((clusters, rows.shape[1]))
    np.add.at(sums, labels, rows)
    sizes = np.maximum(np.bincount(labels, minlength=clusters), 1)
    lengths = np.linalg.norm(sums, axis=1)
    return {
        "inertia": float(len(rows) - (lengths**2 / sizes).sum()),
        "spherical": float(2 * (len(rows) - lengths.sum())),
    }


def timed(call):
    """Wall and CPU time, and what the call returns."""
    start, cpu = time.perf_counter(), time.process_time()
    found = call()
    seconds = {
        "seconds": round(time.perf_counter() - start, 2),
        "cpu_seconds": round(time.process_time() - cpu, 2),
    }
    return seconds, found


def theirs(rows, clusters, seed, most):
    """scikit-learn's seconds, labels and iterations."""
    model = KMeans(
        clusters, init="k-means++", n_init=1, max_iter=most, random_state=seed
    )
    seconds, _ = timed(lambda: model.fit(rows))
    return seconds, model.labels_.astype(np.int64), model.n_iter_


def faiss_kmeans(rows, clusters, seed, iterations):
    """faiss's seconds, labels and iterations; all rows are used."""
    import faiss

    def call():
        model = faiss.Kmeans(
            rows.shape[1],
            clusters,
            niter=iterations,
            spherical=True,
            seed=seed + 1,
            max_points_per_centroid=len(rows),
        )
        model.train(rows)
        return model.index.search(rows, 1)[1][:, 0]

    seconds, labels = timed(call)
    return seconds, labels, iterations


def ours(rows, clusters, seed, iterations, device, init="k-means++"):
    """Our seconds, labels and iterations."""

    def call():
        found = spherical_kmeans(
            rows,
            clusters,
            iterations=iterations,
            seed=seed,
            init=init,
            empty="reseed",
            device=device,
        )
        # Fetching the labels waits for the device.
        return found.assignments.cpu().numpy(), len(found.inertia) - 1

    seconds, (labels, made) = timed(call)
    return seconds, labels, made


def compare(options):
    """All runs; a dictionary for JSON."""
    rows = speakers(
        options.points,
        options.size,
        options.speakers or options.clusters,
        options.spread,
        seed=1,
    )
    found = {"options": vars(options), "runs": []}
    own = options.iterations, options.device
    for seed in range(options.repeats):
        data = rows, options.clusters, seed
        systems = {"ours": lambda d=data: ours(*d, *own)}
        if not options.without_sklearn:
            systems["sklearn"] = lambda d=data: theirs(*d, 300)
            systems["sklearn_as_many"] = lambda d=data: theirs(
                *d, options.iterations
            )
        if importlib.util.find_spec("faiss"):
            systems["ours_random"] = lambda d=data: ours(*d, *own, "random")
            systems["faiss"] = lambda d=data: faiss_kmeans(
                *d, options.iterations
            )
        run = {}
        for name, call in systems.items():
            seconds, labels, made = call()
            run[name] = {
                **seconds,
                "iterations": made,
                **inertias(rows, labels, options.clusters),
            }
        for name, mine in (
            ("sklearn", "ours"),
            ("sklearn_as_many", "ours"),
            ("faiss", "ours_random"),
        ):
            for what in ("seconds", "cpu_seconds", "inertia", "spherical"):
                if name in run:
                    ratio = run[mine][what] / run[name][what]
                    run[f"{what}_over_{name}"] = round(ratio, 4)
        found["runs"].append(run)
    found["threads"] = torch.get_num_threads()
    # Kilobytes on Linux; of the whole process, all systems.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found["peak_gib"] = round(peak / 2**20, 2)
    return found


def main(argv=None):
    """Reads the command line; returns what has been measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=20_000)
    parser.add_argument("--size", type=int, default=192)
    parser.add_argument("--clusters", type=int, default=200)
    parser.add_argument("--speakers", type=int, help="default: --clusters")
    parser.add_argument("--spread", type=float, default=1.0)
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--without_sklearn", action="store_true")
    return compare(parser.parse_args(argv))


if __name__ == "__main__":
    print(json.dumps(main(), indent=2))
