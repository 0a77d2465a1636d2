"""How often is a stranger taken for one of 20 enrolled speakers?

    python open_set.py --work=/path/to/scratch

The protocol of ``results/enrolment`` with thresholds made without labels, for
a pair of recordings and raised for the highest of 20 scores. Reads what
``embed.py`` wrote and writes ``open_set.csv``.
"""

import argparse
import csv
import pathlib
import runpy

import numpy as np

from speechbrain_ssl.embedding.rows import unit_rows
from speechbrain_ssl.verification.label_free_threshold import (
    label_free_threshold,
    raise_for_many,
)

HERE = pathlib.Path(__file__).resolve().parent
CORPORA = ("speechocean762", "speechocean762, conditions")
MODELS = ("simclr", "dino")


def main():
    """Write a row for each model, corpus, number of recordings, threshold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=pathlib.Path, required=True)
    work = parser.parse_args().work
    enrolment = runpy.run_path(str(HERE.parent / "enrolment" / "measure.py"))
    rows = []
    for model in MODELS:
        for corpus in CORPORA:
            with np.load(work / f"{model}_{corpus}.npz") as found:
                files, speakers = unit_rows(found["whole"]), found["speakers"]
            for source in (corpus, "training"):
                with np.load(work / f"{model}_{source}.npz") as found:
                    made = label_free_threshold(found["halves"])
                pair = made["label_free_threshold"]
                raised = raise_for_many(
                    pair,
                    made["label_free_median"],
                    made["label_free_decile"],
                    enrolment["KNOWN"],
                )
                name = "training" if source == "training" else "its own files"
                for kind, threshold in (("pair", pair), ("raised", raised)):
                    for count in (1, 3, 5):
                        rng = np.random.default_rng(0)
                        draws = [
                            enrolment["measure"](
                                files, speakers, count, threshold, rng
                            )
                            for _ in range(enrolment["DRAWS"])
                        ]
                        figures = [*np.mean(draws, axis=0)[:3]]
                        figures.append(np.std(draws, axis=0, ddof=1)[2])
                        rows.append([model, corpus, name, kind, threshold])
                        rows[-1] += [count, *(100 * np.array(figures))]
    with open(HERE / "open_set.csv", "w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(
            ["model", "corpus", "halves_from", "threshold_for", "threshold"]
            + ["recordings", "right_nearest_percent", "missed_percent"]
            + ["stranger_accepted_percent", "accepted_sd"]
        )
        for row in rows:
            row[4] = round(row[4], 3)
            writer.writerow(row[:6] + [round(value, 1) for value in row[6:]])


if __name__ == "__main__":
    main()
