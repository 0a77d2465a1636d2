"""Evaluate encoders of faces on a trial list, and the baselines beside them.

Appends rows to ``table.csv``, and what the trained encoders gain over the
baselines to ``differences.csv`` (all runs together, an interval over speakers)::

    python results/faces/evaluate.py SYSTEM TRIALS FACES DATA_FOLDER RUN ...
"""

import csv
import json
import pathlib
import re
import sys

import torch

from speechbrain_ssl.embedding.baselines import PixelValues
from speechbrain_ssl.embedding.faces import embed_faces
from speechbrain_ssl.publishing.export import load_encoder
from speechbrain_ssl.verification.bootstrap import paired_difference
from speechbrain_ssl.verification.faces import (
    evaluate_faces,
    read_trial_faces,
)
from speechbrain_ssl.verification.scoring import product_scores
from speechbrain_ssl.verification.trials import path_component, read_trials

COLUMNS = (
    "system,seed,trials,eer_percent,ci_low,ci_high,labels_seen,minutes,command"
).split(",")
NO_TRAINING = {"minutes": 0.0, "command": ""}


def append(name, columns, rows):
    """Append rows to a table, which gets its columns when it is new."""
    path = pathlib.Path(__file__).with_name(name)
    new = not path.exists()
    with open(path, "a", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerows([columns, *rows] if new else rows)


def main(system, trials_path, faces_path, data_folder, *runs):
    """Write the rows of pixels, untrained encoders and trained ones."""
    trials = read_trials(trials_path, speaker_of=path_component(0))
    faces = read_trial_faces(faces_path, trials, data_folder)
    name = pathlib.Path(trials_path).stem
    rows, scores = [], {"pixels": [], "untrained": [], system: []}

    def add(what, seed, encoder, features, results=NO_TRAINING):
        vectors, has_face = embed_faces(encoder, features, faces)
        found = evaluate_faces(vectors, has_face, trials)
        command = re.sub(r"(_folder=)\S+", r"\1/path/to/…", results["command"])
        rates = [found[k] for k in ("eer_percent", "ci_low", "ci_high")]
        rows.append(
            [what, seed, name]
            + [f"{rate:.2f}" for rate in rates]
            + ["none", f"{results['minutes']:.1f}", command]
        )
        scores[what].append(product_scores(vectors, trials))

    for run in runs:
        results = json.loads((pathlib.Path(run) / "results.json").read_text())
        encoder, features = load_encoder(run, pictures=True)
        if run == runs[0]:
            add("pixels", "", PixelValues(), features)
        torch.manual_seed(results["seed"])
        untrained = type(encoder)(**encoder.arguments)
        add("untrained", results["seed"], untrained, features)
        add(system, results["seed"], encoder, features, results)
    append("table.csv", COLUMNS, rows)
    gains = []
    for other in ("pixels", "untrained"):
        gain, interval = paired_difference(
            scores[system], scores[other], trials
        )
        low, high = 100 * interval.low, 100 * interval.high
        gains.append([system, other, name, len(runs), f"{100 * gain:.2f}"])
        gains[-1] += [f"{low:.2f}", f"{high:.2f}"]
    columns = "system,over,trials,seeds,points,ci_low,ci_high".split(",")
    append("differences.csv", columns, gains)


if __name__ == "__main__":
    main(*sys.argv[1:])
