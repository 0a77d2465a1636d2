#!/usr/bin/env python3
"""Evaluate an encoder of faces on a trial list of utterances.

    python evaluate_faces.py --model=results/simclr_face_resnet18/1 \\
        --faces=../save/faces.csv --trials=../save/trials_vox1_O_cleaned.txt \\
        --data_folder=/path/to/corpora

The IDs of the face manifest are the names in the list without their extension.
Trials with an utterance that has no face are left out, and counted.
"""

from speechbrain_ssl.runtime import set_up_process

set_up_process()  # before torch is imported

import argparse
import json
import logging
import pathlib

from speechbrain_ssl.config import run
from speechbrain_ssl.embedding.baselines import PixelValues
from speechbrain_ssl.embedding.faces import embed_faces
from speechbrain_ssl.encoders.face import PixelNormalization
from speechbrain_ssl.files import atomic_write
from speechbrain_ssl.publishing.export import load_encoder
from speechbrain_ssl.verification.faces import (
    evaluate_faces,
    read_trial_faces,
)
from speechbrain_ssl.verification.trials import path_component, read_trials


def parse(argv):
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add(
        "--model",
        required=True,
        help="output folder of a training run, or `pixels` for the pixels "
        "themselves",
    )
    add("--faces", required=True, help="face manifest of the utterances")
    add("--trials", required=True, help="trial list")
    add("--data_folder", help="what $data_root in the face manifest stands for")
    add(
        "--trials_speaker_component",
        type=int,
        default=0,
        help="position of the speaker in the names, for the interval",
    )
    add("--output", help="JSON file for the figures")
    add("--device", default="cpu", help="where to compute")
    add("--num_workers", type=int, default=0, help="loader processes")
    return parser.parse_args(argv)


def main(argv):
    """Embed the faces, score the trials, and print the figures."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = parse(argv)
    trials = read_trials(
        options.trials,
        speaker_of=path_component(options.trials_speaker_component),
    )
    faces = read_trial_faces(options.faces, trials, options.data_folder)
    if options.model == "pixels":
        encoder, features = PixelValues(), PixelNormalization()
    else:
        encoder, features = load_encoder(options.model, pictures=True)
    rows, has_face = embed_faces(
        encoder,
        features,
        faces,
        device=options.device,
        num_workers=options.num_workers,
        progress=True,
    )
    figures = evaluate_faces(rows, has_face, trials)
    print(
        f"{pathlib.Path(options.trials).stem}, by face: EER "
        f"{figures['eer_percent']:.2f} % [{figures['ci_low']:.2f}, "
        f"{figures['ci_high']:.2f}] on {figures['trials']} trials; "
        f"{figures['trials_without_face']} lack a face"
    )
    if options.output:
        with atomic_write(options.output) as stream:
            json.dump({"model": options.model, **figures}, stream, indent=2)
            stream.write("\n")


if __name__ == "__main__":
    run(main)
