"""Compare rules that make a threshold from halves of unlabelled files.

    python measure.py --work=/path/to/scratch

reads what ``embed.py`` wrote and writes ``table.csv``. Speaker labels judge the
thresholds; no rule sees them.
"""

import argparse
import csv
import pathlib

import numpy as np

from speechbrain_ssl.clustering.speakers import find_speakers
from speechbrain_ssl.verification.metrics import det_points, eer

MAD = 1.4826


def unit(rows):
    """Scale rows to length 1."""
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


class Scores:
    """Scores of halves, and of files as the mean of their halves."""

    def __init__(self, halves):
        halves = unit(halves.astype(np.float64))
        every = halves[:, 0] @ halves[:, 1].T
        other = ~np.eye(len(every), dtype=bool)
        self.same, self.halves = np.diag(every), every[other]
        self.rows = unit(halves.mean(axis=1))
        every = self.rows @ self.rows.T
        self.files = every[np.triu_indices(len(every), 1)]
        np.fill_diagonal(every, -np.inf)
        self.matrix, self.nearest = every, every.max(axis=1)


def equal_errors(same, other):
    """Return the threshold at the equal error rate of two sets of scores."""
    return eer(
        np.concatenate([same, other]),
        np.concatenate([np.ones(len(same)), np.zeros(len(other))]),
    )[1]


def spread(values):
    """Return median and robust standard deviation."""
    middle = np.median(values)
    return middle, MAD * np.median(np.abs(values - middle))


def bells(s):
    """Cut two normal densities where both leave an equal share."""
    (high, wide), (low, broad) = spread(s.same), spread(s.files)
    return (high * broad + low * wide) / (wide + broad)


def mutual(s):
    """Return the scores of files that are each other's nearest."""
    near = s.matrix.argmax(axis=1)
    return s.nearest[near[near] == np.arange(len(near))]


def shifted(s):
    """Lower the scores of halves to those of mutual neighbours."""
    shift = np.median(s.same) - np.median(mutual(s))
    return equal_errors(s.same - max(shift, 0), s.files)


def clusters(s):
    """Take pairs of one found speaker for targets."""
    found = find_speakers(s.rows)
    one = (found[:, None] == found)[np.triu_indices(len(found), 1)]
    return equal_errors(s.files[one], s.files[~one])


RULES = {
    "SpeechBrain's 0.25": lambda s: 0.25,
    "equal errors of halves": lambda s: equal_errors(s.same, s.halves),
    "equal errors, halves and files": lambda s: equal_errors(s.same, s.files),
    "midpoint of medians": lambda s: (
        (np.median(s.same) + np.median(s.files)) / 2
    ),
    "midpoint of medians, halves alone": lambda s: (
        (np.median(s.same) + np.median(s.halves)) / 2
    ),
    "two bells": bells,
    "shifted to mutual neighbours": shifted,
    "found speakers": clusters,
    "neighbours": lambda s: (np.median(s.nearest) + np.median(s.files)) / 2,
    "neighbours and halves": lambda s: (
        (np.median(s.nearest) + np.median(s.same) + 2 * np.median(s.files)) / 4
    ),
    "mean of both": lambda s: (
        (RULES["equal errors of halves"](s) + RULES["neighbours"](s)) / 2
    ),
    **{
        f"median + {z} deviations": lambda s, z=z: (
            spread(s.files)[0] + z * spread(s.files)[1]
        )
        for z in (1, 1.5, 2, 2.5, 3)
    },
    **{
        f"quantile {q}": lambda s, q=q: np.quantile(s.files, q)
        for q in (0.9, 0.95, 0.99)
    },
}


def judge(path):
    """Return a function from threshold to miss and false alarm, and the best."""
    with np.load(path) as found:
        rows, who = unit(found["whole"].astype(np.float64)), found["speakers"]
    pairs = np.triu_indices(len(rows), 1)
    scores, same = (rows @ rows.T)[pairs], (who[:, None] == who)[pairs]
    thresholds, miss, alarm = det_points(scores, same)
    best = thresholds[np.argmin(miss + alarm)]

    def rates(threshold):
        return (
            float(np.mean(scores[same] < threshold)),
            float(np.mean(scores[~same] >= threshold)),
        )

    return rates, best


def main():
    """Write a row for each model, corpus, source of halves and rule."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=pathlib.Path, required=True)
    work = parser.parse_args().work
    rows = []
    for path in sorted(work.glob("*.npz")):
        model, corpus = path.stem.split("_", 1)
        if corpus == "training":
            continue
        rates, best = judge(path)
        rows.append([model, corpus, "labels", "labelled optimum", best])
        rows[-1] += [*rates(best), 0.0]
        least = sum(rates(best)) / 2
        for source in (corpus, "training"):
            with np.load(work / f"{model}_{source}.npz") as found:
                scores = Scores(found["halves"])
            name = "training" if source == "training" else "its own files"
            for rule, threshold in RULES.items():
                value = threshold(scores)
                miss, alarm = rates(value)
                excess = (miss + alarm) / 2 - least
                rows.append(
                    [model, corpus, name, rule, value, miss, alarm, excess]
                )
        print(path.stem, flush=True)
    target = pathlib.Path(__file__).with_name("table.csv")
    with open(target, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(
            ["model", "corpus", "halves_from", "rule", "threshold"]
            + ["miss_percent", "false_alarm_percent", "above_optimum"]
        )
        for row in rows:
            figures = [round(row[4], 3)] + [round(100 * v, 1) for v in row[5:]]
            writer.writerow(row[:4] + figures)


if __name__ == "__main__":
    main()
