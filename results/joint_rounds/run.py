#!/usr/bin/env python3
"""Run rounds by voice, by face and by both, and save what the table needs.

    python run.py minivox --data=/path/to/corpus --runs=/path/to/runs --seeds 1 2 3
    python run.py real --data=/path/to/corpora --runs=/path/to/runs --seeds 1 2 3
    python run.py damaged --data=/path/to/corpus --runs=/path/to/runs --seeds 1
    python run.py weights_minivox --data=/path/to/corpus --runs=/path/to/runs --seeds 1 2 3
    python run.py weights_real --data=/path/to/corpora --runs=/path/to/runs --seeds 1

``runs`` holds the self-supervised starts ``<data>/voice_<seed>`` and
``<data>/face_<seed>`` (README); the rounds are put beside them. A finished run is
not repeated. What each run scored and which labels it made is written to
``runs/`` beside this file, which ``make_table.py`` reads.
"""

import argparse
import json
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import soundfile
from PIL import Image
from sklearn.metrics import normalized_mutual_info_score

from speechbrain_ssl.clustering.methods import KMeansClusters
from speechbrain_ssl.clustering.views import reassign
from speechbrain_ssl.data.faces import FaceManifest
from speechbrain_ssl.data.manifest import Manifest
from speechbrain_ssl.embedding.face_store import FaceStore
from speechbrain_ssl.embedding.faces import embed_faces
from speechbrain_ssl.embedding.rows import unit_or_zero
from speechbrain_ssl.embedding.store import EmbeddingStore
from speechbrain_ssl.pseudo_labels.labels import read_labels
from speechbrain_ssl.publishing.export import load_encoder
from speechbrain_ssl.verification.audio_visual import (
    concatenated_scores,
    evaluate_modalities,
    face_scores,
)
from speechbrain_ssl.verification.bootstrap import paired_difference
from speechbrain_ssl.verification.faces import read_trial_faces
from speechbrain_ssl.verification.protocol import load_trials, score_trials

HERE = pathlib.Path(__file__).resolve().parent
RECIPES = HERE.parents[1] / "recipes"
MINI = RECIPES / "MiniVox"
READINGS = ("each", "both", "sum")
#: Script, configuration and start of a kind of rounds.
KINDS = {
    "audio": (
        RECIPES / "VoxCeleb/PseudoLabels/train.py",
        MINI / "PseudoLabels/hparams/dlg_lc_ecapa_mini.yaml",
    ),
    "face": (HERE / "face_rounds.py", HERE / "face_rounds.yaml"),
    "joint": (
        MINI / "AudioVisual/train.py",
        MINI / "AudioVisual/hparams/joint_mini.yaml",
    ),
}
#: No round is judged, and none is left out for an agreement of the labels.
ALL_ROUNDS = [
    "--valid_utterances=3",
    "--collapse_alarm={grace_epochs: 99}",
    "--stop_agreement=1.1",
    "--stop_gain=-1",
]
#: Weights of the face in the clustering, and utterances in a file of a store.
WEIGHTS, SHARD = (0, 0.25, 0.5, 1, 2, 4), 16384
#: What is done to the training set, and to which share of it.
DAMAGES = {"voices": 0.3, "faces": 0.3, "swapped": 0.1}


class MiniVox:
    """Synthetic voices and drawn faces; every utterance has both."""

    name, component, epochs, clusters = "minivox", 0, 5, {}

    def __init__(self, data, runs):
        self.data, self.runs = data, runs / self.name
        manifests = self.runs / "face_1/manifests"
        self.manifest = manifests / "train.csv"
        self.faces = self.trial_faces = manifests / "faces.csv"
        self.trials = manifests / "trials_cross_video.txt"
        self.trials_folder = data / "wav"
        self.background = {
            f"{kind}_csv": manifests / f"{kind}.csv"
            for kind in ("noise", "music", "speech", "rirs")
        }
        self.augmentation = []

    def speakers(self):
        """Return the speakers of the training utterances, for monitoring."""
        table = pd.read_csv(self.manifest, dtype=str)
        return table[["ID"]].assign(spk_id=table["ID"].str.split("/").str[0])


class Real(MiniVox):
    """speechocean762; half of its speakers have pictures of other people."""

    name, component, epochs = "real", 1, 4
    clusters = {"audio": 200, "joint": 200, "face": 100}

    def __init__(self, data, runs):
        self.data, self.runs = data, runs / self.name
        corpus = data / "speechocean762"
        self.manifest = corpus / "train.csv"
        self.faces = self.runs / "faces_train.csv"
        self.trial_faces = self.runs / "faces_dev.csv"
        self.trials, self.trials_folder = corpus / "dev_trials_H.txt", corpus
        self.background = {
            "noise_csv": data / "noise_esc50/manifest.csv",
            "music_csv": "null",
            "speech_csv": data / "librispeech_mini/train.csv",
            "rirs_csv": data / "rir_simulated/manifest.csv",
        }
        # As in the recipe for real audio (dlg_lc_ecapa_mini.yaml of
        # UnlabeledFolder).
        self.augmentation = ["--clean=0.5", "--reverb=0.2", "--both=0.0"]

    def speakers(self):
        """Return the speakers of the training utterances, for monitoring."""
        return pd.read_csv(self.manifest, dtype=str)[["ID", "spk_id"]]


def train(corpus, kind, seed, rounds, output, manifest, faces, *changes):
    """Run rounds; nothing if they are finished."""
    if (output / "results.json").is_file():
        return
    output.parent.mkdir(parents=True, exist_ok=True)
    speakers = corpus.runs / "speakers.csv"
    corpus.speakers().to_csv(speakers, index=False)
    script, config = KINDS[kind]
    voice, face = (corpus.runs / f"{m}_{seed}" for m in ("voice", "face"))
    arguments = {
        "seed": seed,
        "rounds": rounds,
        "number_of_epochs": corpus.epochs,
        "data_folder": corpus.data,
        "prepare": "null",
        "manifest_folder": output / "manifests",
        "train_manifest": manifest,
        "monitor_labels": speakers,
        "trials": "null",
        "initial_model": face if kind == "face" else voice,
        "output_folder": output,
    }
    if kind in corpus.clusters:
        arguments["clusters"] = corpus.clusters[kind]
    if kind != "audio":
        arguments["face_csv"] = faces
    changed = [*ALL_ROUNDS, *changes]
    if kind != "face":
        arguments |= corpus.background
        changed += corpus.augmentation
    if kind == "joint":
        arguments |= {"initial_face_model": face, "trials_faces": "null"}
    command = [sys.executable, str(script), str(config), "--noprogressbar"]
    command += [f"--{key}={value}" for key, value in arguments.items()]
    with open(f"{output}.log", "w", encoding="utf-8") as log:
        subprocess.run(
            command + changed, check=True, stdout=log, stderr=log, cwd=HERE
        )


def damage(corpus, kind, seed):
    """Write a damaged training set; return its manifests of voices and faces.

    ``voices`` and ``faces``: noise in the place of a share of the recordings or
    pictures. ``swapped``: the pictures of a share of the utterances are those
    of another one of them.
    """
    folder = corpus.runs / f"damage_{kind}_{seed}"
    folder.mkdir(exist_ok=True)
    voices = pd.read_csv(corpus.manifest, dtype=str)
    faces = pd.read_csv(corpus.faces, dtype=str)
    rng = np.random.default_rng(seed)
    hit = rng.permutation(voices["ID"])[: int(DAMAGES[kind] * len(voices))]
    if kind == "voices":
        for i in np.flatnonzero(voices["ID"].isin(hit)):
            path = folder / f"{i}.wav"
            samples = int(16000 * float(voices.loc[i, "duration"]))
            soundfile.write(path, 0.1 * rng.standard_normal(samples), 16000)
            voices.loc[i, "wav"] = str(path)
    elif kind == "faces":
        for i in np.flatnonzero(faces["ID"].isin(hit)):
            path = folder / f"{i}.png"
            pixels = rng.integers(0, 256, (48, 48, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
            faces.loc[i, "image"] = str(path)
    else:
        other = dict(zip(hit, np.roll(hit, 1), strict=True))
        faces["ID"] = faces["ID"].map(lambda name: other.get(name, name))
    paths = folder / "train.csv", folder / "faces.csv"
    voices.to_csv(paths[0], index=False)
    faces.to_csv(paths[1], index=False)
    return paths


class Scorer:
    """Scores the trials of a corpus by voice and by face, each model once."""

    def __init__(self, corpus):
        self.corpus = corpus
        self.trials = load_trials(
            str(corpus.trials), str(corpus.trials_folder), corpus.component
        )
        self.pictures = read_trial_faces(
            corpus.trial_faces, self.trials, corpus.data
        )

    def __call__(self, model, face):
        """Return the scores ``[T]`` of a model, kept beside it."""
        kept = model / f"scores_{'face' if face else 'voice'}.npy"
        if kept.is_file():
            return np.load(kept)
        encoder, features = load_encoder(model, pictures=face)
        if face:
            rows, there = embed_faces(encoder, features, self.pictures)
            scores = face_scores(rows, there, self.trials)
        else:
            scores, _ = score_trials(
                encoder, features, self.trials, self.corpus.trials_folder
            )
        np.save(kept, scores)
        return scores

    def pair(self, voice, face):
        """Return the scores of two models and of both together."""
        found = {"audio": self(voice, False), "face": self(face, True)}
        both = concatenated_scores(found["audio"], found["face"])
        return {**found, "both": both}


def label_quality(corpus, folder, faces):
    """Return the NMI of a round's labels with the speakers.

    ``nmi`` is over all labelled utterances, and ``nmi_with_face`` over those
    that have a face, for a comparison of all three kinds of labels.
    """
    table = pd.read_csv(folder / "labels.csv", dtype=str)
    column = next(c for c in table.columns if c != "ID")
    table = table.merge(corpus.speakers(), on="ID")
    seen = table["ID"].isin(pd.read_csv(faces, dtype=str)["ID"])

    def nmi(rows):
        return normalized_mutual_info_score(rows["spk_id"], rows[column])

    return {
        "labelled": len(table),
        "nmi": nmi(table),
        "nmi_with_face": nmi(table[seen]),
    }


def gate_figures(folder):
    """Return what the gate did in the last epoch of a round."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    last = {}
    for line in lines:
        last |= json.loads(line)
    return {
        key: last[key]
        for key in (
            "gate_kept",
            "gate_precision",
            "face_gate_kept",
            "face_gate_precision",
        )
        if key in last
    }


def models_of(corpus, system, seed):
    """Return the models after 0, 1 and 2 rounds: voice and face.

    ``alone`` are the rounds of voices and of faces, each by itself.
    """
    pairs = [(corpus.runs / f"voice_{seed}", corpus.runs / f"face_{seed}")]
    for number in (1, 2):
        if system == "alone":
            pair = [
                corpus.runs / f"{kind}_rounds_{seed}" / f"round_{number}"
                for kind in ("audio", "face")
            ]
        else:
            one = corpus.runs / f"{system}_{seed}" / f"round_{number}"
            pair = [one, one / "model/face"]
        pairs.append(tuple(pair))
    return pairs


def origin(voice, face):
    """Return minutes and command by modality, from what training has written."""
    found = {}
    for by, model in (("audio", voice), ("face", face)):
        # The encoder of faces of a joint run is below that of voices.
        own = model if (model / "results.json").is_file() else voice
        results = json.loads((own / "results.json").read_text())
        # The folders of this machine are nobody else's.
        command = re.sub(
            r"(^|[\s=\[])/[^\s,\]']*/", r"\1/path/to/", results["command"]
        )
        found[by] = results["minutes"], command
    runs = dict.fromkeys(found.values())
    found["both"] = (
        sum(minutes for minutes, _ in runs),
        "; ".join(command for _, command in runs),
    )
    return found


def record(scorer, pair, scores, **known):
    """Return the figures of two models, of voices and of faces."""
    found = evaluate_modalities(scores["audio"], scores["face"], scorer.trials)
    return {
        **known,
        "trials": scorer.corpus.trials.stem,
        "origin": origin(*pair),
        "eer": {
            by: [row[k] for k in ("eer_percent", "ci_low", "ci_high")]
            for by, row in found.items()
        },
    }


def difference(scorer, better, other, by, than=None):
    """Return how many points of EER one system is below another.

    ``by`` and ``than`` say by which modality the two are scored, the same if
    ``than`` is not given.
    """
    trials, than = scorer.trials, than or by
    there = np.ones(len(trials), dtype=bool)
    if "face" in (by, than):
        there = ~np.isnan(better[0]["face"])
    found, interval = paired_difference(
        [scores[by][there] for scores in better],
        [scores[than][there] for scores in other],
        trials.select(there),
    )
    return [100 * found, 100 * interval.low, 100 * interval.high]


def save(name, content):
    """Write a JSON file beside this script."""
    path = HERE / "runs" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")


def clean(corpus, seeds):
    """Run all rounds on undamaged data, and compare joint with separate ones."""
    scorer, rows, scores = Scorer(corpus), [], {}
    for seed in seeds:
        for kind in KINDS:
            name = (
                f"{'joint_sum' if kind == 'joint' else f'{kind}_rounds'}_{seed}"
            )
            paths = corpus.manifest, corpus.faces
            train(corpus, kind, seed, 2, corpus.runs / name, *paths)
        for system in ("alone", "joint_sum"):
            pairs = models_of(corpus, system, seed)
            for number, (voice, face) in enumerate(pairs):
                found = scorer.pair(voice, face)
                scores.setdefault((system, number), []).append(found)
                rows.append(
                    record(
                        scorer,
                        (voice, face),
                        found,
                        data=corpus.name,
                        system=system,
                        seed=seed,
                        rounds=number,
                    )
                )
        for kind in ("audio_rounds", "face_rounds", "joint_sum"):
            for number in (1, 2):
                folder = corpus.runs / f"{kind}_{seed}" / f"round_{number}"
                rows.append(
                    {
                        "data": corpus.name,
                        "labels": kind,
                        "seed": seed,
                        "rounds": number,
                        **label_quality(corpus, folder, corpus.faces),
                        **gate_figures(folder),
                    }
                )
        save(
            corpus.name, {"rows": rows, "differences": compare(scorer, scores)}
        )


def compare(scorer, scores):
    """Compare what joint rounds give with what else there is."""
    joint, alone, start = (
        scores[key] for key in (("joint_sum", 2), ("alone", 2), ("alone", 0))
    )
    found = {}
    for by in ("audio", "face", "both"):
        for name, other in (("separate rounds", alone), ("the start", start)):
            found[f"joint over {name}, by {by}"] = difference(
                scorer, joint, other, by
            )
    for by in ("audio", "face"):
        found[f"joint by both over rounds by {by} alone"] = difference(
            scorer, joint, alone, "both", by
        )
    return found


def damaged(corpus, seeds):
    """Run joint rounds on damaged data, in all readings, and audio alone."""
    scorer, rows, scores = Scorer(corpus), [], {}
    for seed in seeds:
        for kind in DAMAGES:
            paths = damage(corpus, kind, seed)
            runs = {f"joint_{r}": ("joint", f"--reading={r}") for r in READINGS}
            if kind == "voices":
                runs["audio_rounds"] = ("audio",)
            for system, (which, *changes) in runs.items():
                folder = corpus.runs / f"{kind}_{system}_{seed}"
                train(corpus, which, seed, 1, folder, *paths, *changes)
            # Voices are whole: their rounds are those on undamaged data.
            runs.setdefault("audio_rounds", None)
            for system in runs:
                whole = system == "audio_rounds" and kind != "voices"
                name = system if whole else f"{kind}_{system}"
                last = corpus.runs / f"{name}_{seed}" / "round_1"
                face = last / "model/face"
                if system == "audio_rounds":
                    face = corpus.runs / f"face_{seed}"
                found = scorer.pair(last, face)
                scores.setdefault((kind, system), []).append(found)
                row = record(
                    scorer,
                    (last, face),
                    found,
                    data=corpus.name,
                    damaged=kind,
                    system=system,
                    seed=seed,
                    rounds=1,
                )
                row |= label_quality(corpus, last, paths[1])
                rows.append({**row, **gate_figures(last)})
            save(
                "damaged",
                {"rows": rows, "differences": against_audio(scorer, scores)},
            )


def against_audio(scorer, scores):
    """Compare the voices of joint rounds with those of rounds of voices."""
    return {
        f"{kind}: joint, {system}, over audio alone, by voice": difference(
            scorer, found, scores[kind, "audio_rounds"], "audio"
        )
        for (kind, system), found in scores.items()
        if system != "audio_rounds"
    }


def weights(corpus, seeds):
    """Cluster the embeddings of the starts with other weights of the face.

    The library gives both modalities the same weight, 1. All else is as there.
    """
    manifest = Manifest.read(corpus.manifest, corpus.data)
    truth, _ = read_labels(corpus.runs / "speakers.csv", manifest, "spk_id")
    pictures = FaceManifest.read(corpus.faces, manifest, corpus.data)
    find, rows = KMeansClusters(corpus.clusters.get("joint", 100)), []
    for seed in seeds:
        folder = corpus.runs / f"joint_sum_{seed}" / "round_1"
        voices, _ = EmbeddingStore(
            folder / "embeddings", manifest, SHARD
        ).read()
        store = FaceStore(folder / "faces", manifest, SHARD, pictures)
        found, where = store.read()
        faces = np.zeros((len(voices), found.shape[1]))
        faces[where] = unit_or_zero(found)
        lacking = ~faces.any(axis=1)
        for weight in WEIGHTS:
            joined = np.hstack([unit_or_zero(voices), weight * faces])
            labels, _ = find(unit_or_zero(joined), seed + 1)
            labels = reassign(voices, labels, lacking)
            rows.append(
                {
                    "data": corpus.name,
                    "seed": seed,
                    "weight": weight,
                    "nmi": normalized_mutual_info_score(truth, labels),
                }
            )
    save(f"weights_{corpus.name}", rows)


def main():
    """Parse the command line and run a part of the study."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=list(PARTS))
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--runs", type=pathlib.Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    args = parser.parse_args()
    os.environ["PYTHONPATH"] = str(HERE.parents[1])
    corpus, study = PARTS[args.part]
    study(corpus(args.data, args.runs), args.seeds)


#: What the command line calls.
PARTS = {
    "minivox": (MiniVox, clean),
    "real": (Real, clean),
    "damaged": (MiniVox, damaged),
    "weights_minivox": (MiniVox, weights),
    "weights_real": (Real, weights),
}


if __name__ == "__main__":
    main()
