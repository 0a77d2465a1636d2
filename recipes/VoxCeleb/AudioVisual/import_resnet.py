#!/usr/bin/env python3
"""Make a model folder of a ResNet that torchvision or face recognition trained.

    python import_resnet.py --checkpoint=/path/to/resnet18.pth \\
        --labels="ImageNet's classes" --output=models/resnet18

The folder can be named as initial_model of training on faces, or as
initial_face_model of rounds with voices and faces. Its results.json says which
labels the checkpoint has seen, and so do those of all runs that begin with it.
"""

from speechbrain_ssl.runtime import set_up_process

set_up_process()  # before torch is imported

import argparse
import json
import logging
import pathlib
import pickle

import torch

from speechbrain_ssl.config import run
from speechbrain_ssl.encoders.face import FaceResNet, PixelNormalization
from speechbrain_ssl.encoders.torchvision_weights import load_torchvision
from speechbrain_ssl.errors import CheckpointError
from speechbrain_ssl.files import atomic_write
from speechbrain_ssl.publishing.export import export_encoder


def parse(argv):
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add(
        "--checkpoint", required=True, help="state dict, as torch.save wrote it"
    )
    add(
        "--labels",
        required=True,
        help="labels that the checkpoint was trained with, or none",
    )
    add("--output", required=True, help="folder for the model")
    add(
        "--blocks",
        type=int,
        nargs=4,
        default=[2, 2, 2, 2],
        help="blocks of the four stages; ResNet-34: 3 4 6 3",
    )
    add("--channels", type=int, default=64, help="of the first stage")
    add("--image_size", type=int, default=112, help="pixels on a side")
    add("--embedding_size", type=int, default=512, help="of the last layer")
    add("--seed", type=int, default=1, help="of what the checkpoint lacks")
    return parser.parse_args(argv)


def read_weights(path):
    """Read the entries of a checkpoint, which ``load_torchvision`` checks.

    Raises
    ------
    CheckpointError
        If it is missing, damaged, or no dictionary.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        state = dict(state.get("state_dict", state))
    except (
        OSError,
        RuntimeError,
        AttributeError,
        TypeError,
        ValueError,
        EOFError,
        pickle.UnpicklingError,
    ) as error:
        raise CheckpointError(
            f"{path} is no state dict of tensors ({error}); save "
            "model.state_dict() with torch.save"
        ) from error
    return state


def main(argv):
    """Read the checkpoint, and export the encoder."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = parse(argv)
    torch.manual_seed(options.seed)
    encoder = FaceResNet(
        options.image_size,
        options.embedding_size,
        options.channels,
        options.blocks,
    )
    load_torchvision(encoder, read_weights(options.checkpoint))
    output = pathlib.Path(options.output)
    export_encoder(output, encoder, PixelNormalization(options.image_size))
    with atomic_write(output / "results.json") as stream:
        json.dump({"labels_seen": options.labels}, stream)
    print(f"{output}: labels seen: {options.labels}")


if __name__ == "__main__":
    run(main)
