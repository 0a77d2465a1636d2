#!/usr/bin/env python3
"""Evaluate a model of voices and faces on a trial list: voice, face, and both.

    python evaluate.py --model=results/joint_ecapa_512/1 --faces=../save/faces.csv \\
        --trials=../save/trials_vox1_O_cleaned.txt --trials_folder=/path/to/wav \\
        --data_folder=/path/to/corpora

The IDs of the face manifest are the names in the list without their extension. A
trial with an utterance that has no face is scored by its voices; it is left out
of the figures by face. Both are the mean of the two cosines, or, with
--calibration_trials, the sum of calibrated scores. That list needs other
speakers than the one that is evaluated.
"""

from speechbrain_ssl.runtime import set_up_process

set_up_process()  # before torch is imported

import argparse
import json
import logging
import pathlib

from speechbrain_ssl.brains.audio_visual_brain import FACE_FOLDER
from speechbrain_ssl.config import run
from speechbrain_ssl.embedding.faces import embed_faces
from speechbrain_ssl.files import atomic_write
from speechbrain_ssl.publishing.export import load_encoder
from speechbrain_ssl.publishing.hub import find_model
from speechbrain_ssl.verification.audio_visual import (
    AudioVisualCalibration,
    describe_modalities,
    evaluate_modalities,
    face_scores,
)
from speechbrain_ssl.verification.faces import read_trial_faces
from speechbrain_ssl.verification.protocol import load_trials, score_trials


def parse(argv):
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--model", required=True, help="output folder of joint rounds")
    add("--face_model", help="another model of faces; default: that of --model")
    add("--faces", required=True, help="face manifest of the utterances")
    add("--trials", required=True, help="trial list")
    add("--trials_folder", required=True, help="folder of its audio files")
    add("--calibration_trials", help="another list, to calibrate scores on")
    add("--data_folder", help="what $data_root in the face manifest stands for")
    add(
        "--trials_speaker_component",
        type=int,
        default=0,
        help="position of the speaker in the names, for the interval",
    )
    add("--output", help="JSON file for the figures")
    add("--device", default="cpu", help="where to compute")
    return parser.parse_args(argv)


def main(argv):
    """Embed voices and faces, score the trials, and print three rows."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = parse(argv)
    lists = [options.trials]
    if options.calibration_trials:
        lists.append(options.calibration_trials)
    # All inputs are read before anything is embedded.
    component = options.trials_speaker_component
    loaded = [load_trials(p, options.trials_folder, component) for p in lists]
    pictures = [
        read_trial_faces(options.faces, trials, options.data_folder)
        for trials in loaded
    ]
    voices = load_encoder(options.model, options.device)
    faces = load_encoder(
        options.face_model or find_model(options.model) / FACE_FOLDER,
        options.device,
        pictures=True,
    )
    scores = []
    for trials, shown in zip(loaded, pictures, strict=True):
        audio, _ = score_trials(
            *voices, trials, options.trials_folder, device=options.device
        )
        rows, there = embed_faces(*faces, shown, device=options.device)
        scores.append((audio, face_scores(rows, there, trials)))
    calibration = None
    if options.calibration_trials:
        calibration = AudioVisualCalibration().fit(*scores[1], loaded[1].labels)
    found = evaluate_modalities(*scores[0], loaded[0], calibration)
    print(f"{pathlib.Path(options.trials).stem}\n{describe_modalities(found)}")
    if options.output:
        with atomic_write(options.output) as stream:
            json.dump({"model": options.model, **found}, stream, indent=2)
            stream.write("\n")


if __name__ == "__main__":
    run(main)
