"""How often is a stranger taken for one of 20 enrolled speakers?

Labels of the corpus decide who is a stranger; they choose nothing here. Writes
``table.csv``::

    python results/enrolment/measure.py MODEL /path/to/speechocean762
"""

import csv
import pathlib
import sys

import numpy as np
import pandas as pd

from speechbrain_ssl import load_model
from speechbrain_ssl.embedding.rows import unit_rows

DRAWS, KNOWN, MOST = 20, 20, 5


def measure(rows, speakers, count, threshold, rng):
    """Return right nearest, missed, accepted (shares) and mean own score."""
    ids = np.unique(speakers)
    known = rng.permutation(ids)[:KNOWN]
    means, tests = [], {}
    for speaker in ids:
        found = rng.permutation(np.flatnonzero(speakers == speaker))
        tests[speaker] = found[MOST:]
        if speaker in known:
            means.append(rows[found[:count]].mean(axis=0))
    names = [speaker for speaker in ids if speaker in known]
    right, missed, accepted, own = [], [], [], []
    for speaker, test in tests.items():
        scores = rows[test] @ unit_rows(np.stack(means)).T
        above = scores.max(axis=1) > threshold
        if speaker in names:
            nearest = scores.argmax(axis=1) == names.index(speaker)
            right += nearest.tolist()
            missed += (~(nearest & above)).tolist()
            own += scores[:, names.index(speaker)].tolist()
        else:
            accepted += above.tolist()
    return [np.mean(column) for column in (right, missed, accepted, own)]


def main(name, corpus):
    """Embed the development speakers once and write the table."""
    corpus = pathlib.Path(corpus)
    model = load_model(name)
    table = pd.read_csv(corpus / "dev.csv")
    found = model.embed([corpus / path for path in table["wav"]])
    rows, speakers = unit_rows(found.rows), table["spk_id"].to_numpy()
    threshold = model.results["threshold"]
    path = pathlib.Path(__file__).with_name("table.csv")
    with open(path, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(
            ["recordings", "threshold", "draws", "right_nearest", "missed"]
            + ["stranger_accepted", "accepted_sd", "own_score"]
        )
        for count in (1, 3, 5):
            rng = np.random.default_rng(0)
            draws = [
                measure(rows, speakers, count, threshold, rng)
                for _ in range(DRAWS)
            ]
            right, missed, accepted, own = np.mean(draws, axis=0).round(3)
            spread = np.std(draws, axis=0, ddof=1)[2].round(3)
            writer.writerow(
                [count, round(threshold, 3), DRAWS, right, missed]
                + [accepted, spread, own]
            )


if __name__ == "__main__":
    main(*sys.argv[1:])
