"""Evaluate encoders of faces on a trial list, and the baselines beside them.

Appends a row for each run to ``table.csv``::

    python results/faces/evaluate.py SYSTEM TRIALS FACES DATA_FOLDER RUN ...
"""

import csv
import json
import pathlib
import sys

import torch

from speechbrain_ssl.embedding.baselines import PixelValues
from speechbrain_ssl.embedding.faces import embed_faces
from speechbrain_ssl.publishing.export import load_encoder
from speechbrain_ssl.verification.faces import (
    evaluate_faces,
    read_trial_faces,
)
from speechbrain_ssl.verification.trials import path_component, read_trials

COLUMNS = (
    "system,seed,trials,eer_percent,ci_low,ci_high,labels_seen,minutes,command"
).split(",")


def main(system, trials_path, faces_path, data_folder, *runs):
    """Write the rows of pixels, untrained encoders and trained ones."""
    trials = read_trials(trials_path, speaker_of=path_component(0))
    faces = read_trial_faces(faces_path, trials, data_folder)
    name, rows = pathlib.Path(trials_path).stem, []

    def add(what, seed, encoder, features, results=None):
        found = evaluate_faces(*embed_faces(encoder, features, faces), trials)
        rates = [
            f"{found[k]:.2f}" for k in ("eer_percent", "ci_low", "ci_high")
        ]
        results = results or {"minutes": 0, "command": ""}
        minutes = f"{results['minutes']:.1f}"
        command = results["command"]
        rows.append([what, seed, name, *rates, "none", minutes, command])
        print(rows[-1])

    for run in runs:
        results = json.loads((pathlib.Path(run) / "results.json").read_text())
        encoder, features = load_encoder(run, pictures=True)
        if run == runs[0]:
            add("pixels", "", PixelValues(), features)
        torch.manual_seed(results["seed"])
        untrained = type(encoder)(**encoder.arguments)
        add("untrained", results["seed"], untrained, features)
        add(system, results["seed"], encoder, features, results)
    path = pathlib.Path(__file__).with_name("table.csv")
    new = not path.exists()
    with open(path, "a", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerows([COLUMNS, *rows] if new else rows)


if __name__ == "__main__":
    main(*sys.argv[1:])
