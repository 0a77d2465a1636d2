#!/usr/bin/env python3
"""Package a trained model in a folder that anybody can use, and upload it.

    python publish.py --model=../SSL/results/dino_ecapa/1 \\
        --output_folder=published --data="VoxCeleb2 dev, 5 994 speakers" \\
        --results=results/dino_ecapa/1/results.json
    HF_TOKEN=hf_... python publish.py ... --push --hub_id=me/my-model

Before anything is uploaded, SpeechBrain loads the folder in a separate
process and must give the same embeddings as the training code. The README
beside this file lists what the folder holds.
"""

from speechbrain_ssl.runtime import set_up_process

set_up_process()  # before torch is imported

import argparse
import pathlib

from speechbrain_ssl.config import run
from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.publishing.bundle import make_bundle
from speechbrain_ssl.publishing.card import About
from speechbrain_ssl.publishing.hub import is_name, push


def _names(text):
    return [name.strip() for name in text.split(",") if name.strip()]


def parse(argv):
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog="A token for --push is read from HF_TOKEN.",
    )
    add = parser.add_argument
    add(
        "--model",
        required=True,
        help="output folder of a training run, or its folder `model`",
    )
    add("--output_folder", required=True, help="where to write the new folder")
    add(
        "--data",
        required=True,
        help="what the model was trained on, in a sentence, for the card",
    )
    add(
        "--results",
        help="results.json of an evaluation; that of the training run if not "
        "given",
    )
    add(
        "--calibration",
        help="calibration.json; that beside the model if not given",
    )
    add(
        "--p_target",
        type=float,
        default=0.5,
        help="prior of a target at the calibrated threshold (default: 0.5)",
    )
    add("--name", help="title of the card; --hub_id if not given")
    add(
        "--licence",
        default="apache-2.0",
        help="licence of the weights, as the hub spells it (default: "
        "apache-2.0)",
    )
    add(
        "--datasets",
        type=_names,
        default=[],
        help="names of the training sets on the hub, with commas",
    )
    add(
        "--languages",
        type=_names,
        default=[],
        help="codes of the languages of the training data, with commas",
    )
    add(
        "--papers",
        type=_names,
        default=[],
        help="arXiv numbers of the methods used, with commas",
    )
    add(
        "--onnx",
        action="store_true",
        help="add features and encoder as model.onnx",
    )
    add("--push", action="store_true", help="upload the folder to the hub")
    add("--hub_id", help="owner/model, the name on the hub")
    add(
        "--public",
        action="store_true",
        help="make a model that this push creates visible to everybody",
    )
    return parser.parse_args(argv)


def main(argv):
    """Write the folder, test it with SpeechBrain, upload it."""
    options = parse(argv)
    if options.push and not options.hub_id:
        raise ConfigError("--push needs a name: --hub_id=owner/model")
    if options.public and not options.push:
        raise ConfigError("--public applies to --push only; add --push")
    if options.hub_id and not is_name(options.hub_id):
        raise ConfigError(
            f"--hub_id={options.hub_id} is not a name on the hub; give owner/model"
        )
    folder = pathlib.Path(options.output_folder)
    about = About(
        name=options.name or options.hub_id or folder.resolve().name,
        data=options.data,
        licence=options.licence,
        datasets=options.datasets,
        languages=options.languages,
        papers=options.papers,
        hub_id=options.hub_id,
    )
    made = make_bundle(
        options.model,
        folder,
        about,
        results=options.results,
        calibration=options.calibration,
        p_target=options.p_target,
        onnx=options.onnx,
    )
    print(
        f"{folder}: SpeechBrain gives the same embeddings (largest "
        f"difference {made['difference']:.1e} of the largest value)"
    )
    if made["threshold"] is None:
        print("no threshold: there is neither a calibration nor an evaluation")
    else:
        print(f"threshold {made['threshold']:.4f}: {made['threshold_from']}")
    if not made["evaluations"]:
        print("no evaluation is in its card; add one with --results")
    if options.push:
        done = push(folder, options.hub_id, public=options.public)
        seen = "private" if done["private"] else "public"
        print(f"uploaded to {done['url']} ({seen})")
    return made


if __name__ == "__main__":
    run(main)
