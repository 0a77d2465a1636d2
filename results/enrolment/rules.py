"""Compare rules that score a recording against a name of several recordings.

Argument: a folder with a folder for each model, and in it ``NAME.npz`` of each
corpus, as ``speechbrain-ssl embed`` writes it, and ``NAME.spk``, one speaker a
line in the order of the embeddings. Half of the speakers are enrolled, the
others are strangers. Labels decide who is who and grade the rules. Writes
``rules.csv``.
"""

import csv
import pathlib
import sys

import numpy as np

from speechbrain_ssl.embedding.rows import unit_rows

DRAWS, MOST = 50, 5
#: Recordings of each name; in the last case each name draws its number.
COUNTS = {"1": [1], "2": [2], "3": [3], "5": [5], "1 to 5": [1, 2, 3, 4, 5]}
#: Share of strangers that the threshold of ``identified`` accepts.
ACCEPTED = 0.1


def normalised(rows):
    """Scale one vector to unit length."""
    return rows / np.linalg.norm(rows)


#: Rule -> scores ``[T]`` of unit ``tests``, for the ``rows`` of a name as the
#: encoder makes them and for the lengths of its recordings.
RULES = {
    "mean of unit embeddings, scaled to unit length": lambda tests, rows, s: (
        tests @ normalised(unit_rows(rows).mean(axis=0))
    ),
    "mean of embeddings as they are": lambda tests, rows, s: (
        tests @ normalised(rows.mean(axis=0))
    ),
    "mean of unit embeddings, weighted by length": lambda tests, rows, s: (
        tests @ normalised(s @ unit_rows(rows))
    ),
    "mean of scores": lambda tests, rows, s: (tests @ unit_rows(rows).T).mean(
        axis=1
    ),
    "median of scores": lambda tests, rows, s: np.median(
        tests @ unit_rows(rows).T, axis=1
    ),
    "highest score": lambda tests, rows, s: (tests @ unit_rows(rows).T).max(
        axis=1
    ),
    "mean of the two highest": lambda tests, rows, s: np.sort(
        tests @ unit_rows(rows).T, axis=1
    )[:, -2:].mean(axis=1),
}


def draw(rows, seconds, speakers, counts, rng):
    """Enrol half of the speakers and return the figures of each rule.

    Returns
    -------
    dict
        Rule -> share of recordings whose own name is nearest, and share of
        those that are also above the threshold that a tenth of the strangers
        exceed.
    """
    ids = rng.permutation(np.unique(speakers))
    names = ids[: len(ids) // 2]
    enrolled, tests, owners = [], [], []
    for speaker in ids:
        found = rng.permutation(np.flatnonzero(speakers == speaker))
        tests.extend(found[MOST:])
        owner = -1
        if speaker in names:
            owner = len(enrolled)
            enrolled.append(found[: rng.choice(counts)])
        owners.extend([owner] * len(found[MOST:]))
    units, owners = unit_rows(rows[tests]), np.array(owners)
    figures = {}
    for name, rule in RULES.items():
        scores = np.stack(
            [rule(units, rows[files], seconds[files]) for files in enrolled], 1
        )
        highest, known = scores.max(axis=1), owners >= 0
        right = scores.argmax(axis=1)[known] == owners[known]
        bound = np.quantile(highest[~known], 1 - ACCEPTED)
        figures[name] = right.mean(), (right & (highest[known] > bound)).mean()
    return figures


def main(folder):
    """Write a row for each model, corpus, number of recordings and rule."""
    path = pathlib.Path(__file__).with_name("rules.csv")
    with open(path, "w", newline="", encoding="utf-8") as stream:
        write = csv.writer(stream, lineterminator="\n").writerow
        write(
            ["model", "corpus", "recordings", "rule", "nearest", "identified"]
            + ["identified_sd"]
        )
        for stored in sorted(pathlib.Path(folder).glob("*/*.npz")):
            with np.load(stored) as found:
                rows, seconds = found["embeddings"], found["seconds"]
            speakers = np.array(stored.with_suffix(".spk").read_text().split())
            for kind, counts in COUNTS.items():
                rng = np.random.default_rng(0)
                draws = [
                    draw(rows, seconds, speakers, counts, rng)
                    for _ in range(DRAWS)
                ]
                for rule in RULES:
                    figures = np.array([found[rule] for found in draws])
                    nearest, identified = figures.mean(axis=0).round(4)
                    spread = figures.std(axis=0, ddof=1)[1].round(4)
                    write(
                        [stored.parent.name, stored.stem, kind, rule]
                        + [nearest, identified, spread]
                    )


if __name__ == "__main__":
    main(sys.argv[1])
