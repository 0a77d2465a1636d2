#!/usr/bin/env python3
"""Compare the readings of the joint gate, on stored embeddings.

    python run.py embed --voices=MODEL --faces=MODEL --corpus=/path/to/speechocean762 \\
        --train_faces=faces_train.csv --trial_faces=faces_dev.csv --output=embeddings.npz
    python run.py train embeddings.npz
    python run.py report

The first command embeds training utterances and trials once. The second trains a
linear layer and a classifier for each modality on these embeddings, under labels
of which a known share is wrong, and writes ``table.csv`` and ``clusters.csv``
beside this file; the third prints the tables of the README. Encoders are not
trained: that would take a hundred times as long.
"""

import argparse
import csv
import pathlib
import time

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import normalized_mutual_info_score

from speechbrain_ssl.clustering.methods import KMeansClusters
from speechbrain_ssl.clustering.rows import unit_rows
from speechbrain_ssl.clustering.views import join_views, reassign
from speechbrain_ssl.data.faces import FaceManifest
from speechbrain_ssl.data.manifest import Manifest
from speechbrain_ssl.embedding.extract import embed_files
from speechbrain_ssl.embedding.faces import embed_faces
from speechbrain_ssl.objectives.margin import AAMSoftmax
from speechbrain_ssl.pseudo_labels.joint_correction import JointLabelCorrection
from speechbrain_ssl.pseudo_labels.joint_gate import READINGS, JointLossGate
from speechbrain_ssl.pseudo_labels.label_correction import (
    combined_loss,
    correction_report,
)
from speechbrain_ssl.pseudo_labels.labels import read_labels
from speechbrain_ssl.pseudo_labels.loss_gate import DynamicLossGate, NoGate
from speechbrain_ssl.publishing.export import load_encoder
from speechbrain_ssl.verification.audio_visual import (
    concatenated_scores,
)
from speechbrain_ssl.verification.faces import read_trial_faces
from speechbrain_ssl.verification.metrics import eer
from speechbrain_ssl.verification.protocol import load_trials
from speechbrain_ssl.verification.scoring import cosine_scores

HERE = pathlib.Path(__file__).resolve().parent
SIZE, BATCH, EPOCHS, GATE, CORRECTION = 128, 64, 8, 3, 5
TRIALS = "dev_trials_H.txt"
#: What is done to the faces of training, and to which share of them.
DAMAGES = {
    "none": None,
    "noise": 0.3,
    "missing": 0.3,
    "swapped": 0.1,
}


def embed(args):
    """Store the embeddings of voices and faces, of training and of trials."""
    corpus = pathlib.Path(args.corpus)
    manifest = Manifest.read(corpus / "train.csv")
    trials = load_trials(str(corpus / TRIALS), str(corpus), 1)
    voices = load_encoder(args.voices)
    faces = load_encoder(args.faces, pictures=True)
    paths = [manifest.path(i) for i in range(len(manifest))]
    trial_paths = [str(corpus / name) for name in trials.names]
    seen, _ = embed_faces(*faces, FaceManifest.read(args.train_faces, manifest))
    trial_seen, _ = embed_faces(
        *faces, read_trial_faces(args.trial_faces, trials)
    )
    np.savez(
        args.output,
        voice=embed_files(*voices, paths),
        face=seen,
        trial_voice=embed_files(*voices, trial_paths),
        trial_face=trial_seen,
        speakers=read_labels(corpus / "train.csv", manifest, "spk_id")[0],
        left=trials.left,
        right=trials.right,
        labels=trials.labels,
    )


def damaged(face, kind, seed):
    """Return faces a share of which is noise, missing or another person's."""
    rng, face = np.random.default_rng(seed), face.copy()
    there = np.flatnonzero(face.any(axis=1))
    if DAMAGES[kind] is None:
        return face
    hit = rng.permutation(there)[: int(DAMAGES[kind] * len(there))]
    if kind == "noise":
        face[hit] = rng.normal(size=(len(hit), face.shape[1]))
    elif kind == "missing":
        face[hit] = 0
    else:
        face[hit] = face[rng.permutation(hit)]
    return face


class Heads(torch.nn.ModuleDict):
    """A linear layer and a classifier for each modality."""

    def __init__(self, sizes, classes):
        super().__init__()
        for m, size in sizes.items():
            self[m] = torch.nn.Linear(size, SIZE)
            self[f"{m}_classes"] = AAMSoftmax(SIZE, classes)


def train(features, there, labels, gate, seed):
    """Train the heads as ``AudioVisualBrain`` trains encoders.

    Noise on the embeddings stands for augmentation.

    Returns
    -------
    tuple
        Heads, the losses of the last epoch, the accepted corrections.
    """
    torch.manual_seed(seed)
    count, modalities = len(labels), list(features)
    heads = Heads({m: features[m].shape[1] for m in modalities}, 170)
    classifiers = {m: heads[f"{m}_classes"] for m in modalities}
    optimizer = torch.optim.AdamW(heads.parameters(), lr=0.003)
    correct = JointLabelCorrection()
    losses = {m: torch.full((count,), torch.nan) for m in modalities}
    for epoch in range(1, EPOCHS + 1):
        gate.prepare_epoch(epoch, losses)
        losses = {m: torch.full((count,), torch.nan) for m in modalities}
        corrected = torch.full((count,), -1)
        for index in torch.randperm(count).split(BATCH):
            here = {m: there[m][index] for m in modalities}
            cosines, now, clean = {}, {}, {}
            for m in modalities:
                x = features[m][index]
                loud = x + torch.randn_like(x) * 0.5 / x.shape[1] ** 0.5
                cosines[m] = classifiers[m].cosines(heads[m](loud))
                found = classifiers[m].losses(cosines[m], labels[index])
                now[m] = torch.where(here[m], found, torch.nan)
                with torch.no_grad():
                    clean[m] = classifiers[m].logits(heads[m](x))
                losses[m][index] = now[m].detach()
            keep, correction = gate(now), {}
            if epoch >= CORRECTION:
                correction = correct(
                    classifiers, cosines, clean, keep, here, None
                )
                for one in correction.values():
                    corrected[index[one.accepted]] = one.labels[one.accepted]
            loss = sum(
                combined_loss(now[m], keep[m], correction.get(m))
                for m in modalities
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return heads, losses, corrected


def make_gate(system, modalities):
    """Return the gate of a system."""
    if system == "no gate":
        return JointLossGate(NoGate, "each", modalities)
    reading = system if system in READINGS else "each"
    return JointLossGate(lambda: DynamicLossGate(GATE), reading, modalities)


@torch.no_grad()
def error_rates(heads, data, trials):
    """Return EERs in percent on the trials: voice, face, both."""
    found, scores = {}, {}
    for m in ("voice", "face"):
        if m in heads:
            rows = heads[m](unit_rows(data[f"trial_{m}"])).numpy()
            scores[m] = cosine_scores(rows, trials)
            found[f"eer_{m}"] = 100 * eer(scores[m], trials.labels)[0]
    if len(scores) == 2:
        both = concatenated_scores(scores["voice"], scores["face"])
        found["eer_both"] = 100 * eer(both, trials.labels)[0]
    return found


def run(data, trials, system, share, damage, seed):
    """Train once; return a row of the table."""
    begin = time.process_time()
    rng = np.random.default_rng(seed)
    truth = torch.from_numpy(data["speakers"])
    wrong = torch.from_numpy(rng.random(len(truth)) < share)
    moved = (truth + torch.from_numpy(rng.integers(1, 170, len(truth)))) % 170
    labels = torch.where(wrong, moved, truth)
    face = damaged(data["face"], damage, seed)
    there = {
        "voice": torch.ones(len(truth), dtype=torch.bool),
        "face": torch.from_numpy(face.any(axis=1)),
    }
    features = {
        "voice": unit_rows(data["voice"]),
        "face": torch.nn.functional.normalize(torch.from_numpy(face).float()),
    }
    if system == "voice alone":
        del features["face"], there["face"]
    gate = make_gate(system, tuple(features))
    heads, losses, corrected = train(features, there, labels, gate, seed)
    report = gate.report(losses, labels == truth)
    report |= correction_report(corrected >= 0, corrected, labels, truth)
    rates = error_rates(heads, data, trials)
    rates = {name: round(rate, 2) for name, rate in rates.items()}
    seconds = time.process_time() - begin
    return {
        "system": system,
        "seed": seed,
        "trials": pathlib.Path(TRIALS).stem,
        "eer_percent": rates.pop("eer_voice"),
        "ci_low": "",
        "ci_high": "",
        "labels_seen": f"all, {100 * share:.0f} % of them wrong",
        "minutes": round(seconds / 60, 2),
        "command": "run.py train embeddings.npz",
        "wrong_labels": share,
        "faces": damage,
        **{k: round(v, 4) for k, v in report.items()},
        **rates,
    }


def cluster(data, damage, seed):
    """Cluster by voice, by face, and by both in three ways; return rows."""
    face, truth = damaged(data["face"], damage, seed), data["speakers"]
    there, voice = face.any(axis=1), data["voice"]
    find = KMeansClusters(200)
    joined = join_views(
        {"voice": voice, "face": face}, there={"face": there}
    ).numpy()
    zeros, _ = find(joined, seed)
    found = {
        "voice": (find(voice, seed)[0], np.ones_like(there)),
        "face, where there is one": (find(face[there], seed)[0], there),
        "both, without reassigning": (zeros, np.ones_like(there)),
        "both": (reassign(voice, zeros, ~there), np.ones_like(there)),
    }
    # Instead: cluster who has both, and assign the others by their voices.
    rows = unit_rows(voice).numpy()
    known, _ = find(joined[there], seed)
    means = np.stack(
        [rows[there][known == k].sum(axis=0) for k in range(known.max() + 1)]
    )
    means /= np.linalg.norm(means, axis=1, keepdims=True).clip(1e-9)
    assigned = (rows @ means.T).argmax(axis=1)
    assigned[there] = known
    found["both, the others assigned"] = assigned, np.ones_like(there)
    return [
        {
            "clustered": name,
            "faces": damage,
            "seed": seed,
            "nmi": round(normalized_mutual_info_score(truth[rows], labels), 4),
        }
        for name, (labels, rows) in found.items()
    ]


def write(path, rows):
    """Write rows with possibly different keys as CSV."""
    fields = list(dict.fromkeys(key for row in rows for key in row))
    with open(path, "w", newline="") as stream:
        table = csv.DictWriter(stream, fields, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def report(args):
    """Print the tables of the README, means over the seeds."""
    found = pd.read_csv(HERE / "clusters.csv")
    wide = found.groupby(["clustered", "faces"], sort=False)["nmi"].mean()
    print_table(wide.unstack("faces").round(3).reset_index())
    found = pd.read_csv(HERE / "table.csv")
    keys = ["wrong_labels", "faces", "system"]
    shown = {
        "kept": "gate_recall",
        "right": "gate_precision",
        "face kept": "face_gate_recall",
        "face right": "face_gate_precision",
        "corrected": "corrected",
        "corrected right": "corrected_precision",
    }
    means = found.groupby(keys, sort=False)[list(shown.values())].mean()
    means = (100 * means).round(1)
    rates = found.groupby(keys, sort=False)[["eer_percent", "eer_both"]].mean()
    rates.columns = ["EER voice", "EER both"]
    table = means.set_axis(list(shown), axis=1).join(rates.round(2))
    print_table(table.reset_index())


def print_table(table):
    """Print a data frame as Markdown."""
    rows = [table.columns, ["---"] * len(table.columns), *table.to_numpy()]
    for row in rows:
        cells = ["–" if cell != cell else str(cell) for cell in row]
        print("| " + " | ".join(cells) + " |")


class StoredTrials:
    """Trials read from the stored arrays."""

    def __init__(self, data):
        self.left, self.right = data["left"], data["right"]
        self.labels = data["labels"]
        self.names = [str(i) for i in range(len(data["trial_voice"]))]

    def __len__(self):
        return len(self.labels)


def study(args):
    """Train all systems and write both tables."""
    data = dict(np.load(args.embeddings))
    trials = StoredTrials(data)
    seeds = range(1, args.seeds + 1)
    rows = [row for d in DAMAGES for s in seeds for row in cluster(data, d, s)]
    write(HERE / "clusters.csv", rows)
    cases = [(share, "none") for share in (0.2, 0.4, 0.6)]
    cases += [(0.4, damage) for damage in DAMAGES if DAMAGES[damage]]
    rows = []
    for share, damage in cases:
        for system in ("no gate", "voice alone", *READINGS):
            for seed in seeds:
                rows.append(run(data, trials, system, share, damage, seed))
                print(rows[-1], flush=True)
                write(HERE / "table.csv", rows)


def main():
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True)
    first = commands.add_parser("embed")
    for name in (
        "voices",
        "faces",
        "corpus",
        "train_faces",
        "trial_faces",
        "output",
    ):
        first.add_argument(f"--{name}", required=True)
    first.set_defaults(call=embed)
    second = commands.add_parser("train")
    second.add_argument("embeddings")
    second.add_argument("--seeds", type=int, default=3)
    second.set_defaults(call=study)
    third = commands.add_parser("report")
    third.set_defaults(call=report)
    args = parser.parse_args()
    args.call(args)


if __name__ == "__main__":
    main()
