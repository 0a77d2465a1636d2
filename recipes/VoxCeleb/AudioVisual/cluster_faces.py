#!/usr/bin/env python3
"""Cluster the faces of utterances, for positives of audio training.

    python cluster_faces.py --model=results/simclr_face_resnet18/1 \\
        --manifest=../save/train.csv --faces=../save/faces.csv --clusters=25000 \\
        --data_folder=/path/to/corpora --output=../save/face_clusters.csv

Writes a CSV file with the columns ID and label, which SSL/train.py reads with
hparams/simclr_faces_ecapa.yaml. Utterances without a face are left out.
"""

from speechbrain_ssl.runtime import set_up_process

set_up_process()  # before torch is imported

import argparse
import logging

import numpy as np

from speechbrain_ssl.clustering.methods import KMeansClusters
from speechbrain_ssl.config import run
from speechbrain_ssl.data.faces import FaceManifest
from speechbrain_ssl.data.manifest import Manifest
from speechbrain_ssl.embedding.faces import embed_faces
from speechbrain_ssl.pseudo_labels.labels import write_labels
from speechbrain_ssl.publishing.export import load_encoder


def parse(argv):
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--model", required=True, help="output folder of a run on faces")
    add("--manifest", required=True, help="manifest of the utterances")
    add("--faces", required=True, help="face manifest of the utterances")
    add("--clusters", type=int, required=True, help="number of clusters")
    add("--output", required=True, help="CSV file for the clusters")
    add("--data_folder", help="what $data_root in the manifests stands for")
    add("--seed", type=int, default=1, help="seed of k-means")
    add("--device", default="cpu", help="where to compute")
    add("--num_workers", type=int, default=0, help="loader processes")
    return parser.parse_args(argv)


def main(argv):
    """Embed the faces, cluster them, and write the labels."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = parse(argv)
    manifest = Manifest.read(options.manifest, options.data_folder)
    faces = FaceManifest.read(options.faces, manifest, options.data_folder)
    clustering = KMeansClusters(options.clusters)
    clustering.check(int(faces.has_face.sum()))
    rows, there = embed_faces(
        *load_encoder(options.model, options.device, pictures=True),
        faces,
        device=options.device,
        num_workers=options.num_workers,
        progress=True,
    )
    labels = np.full(len(manifest), -1)
    labels[there], _ = clustering(rows[there], options.seed, options.device)
    write_labels(options.output, manifest, labels)
    print(
        f"{there.sum()} of {len(manifest)} utterances in "
        f"{len(np.unique(labels[there]))} clusters: {options.output}"
    )


if __name__ == "__main__":
    run(main)
