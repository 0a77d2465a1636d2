#!/usr/bin/env python3
"""Measure what windows do to memory, embeddings and error rates.

    python measure.py memory                                  # random weights
    python measure.py memory --system=before --repository=/path/to/older/clone
    python measure.py lengths --model=/path/to/run --corpora=/path/to/corpora
    python measure.py silence --model=... --corpora=...
    python measure.py voices --model=... --corpora=...

Each call writes runs/<what>.json. The recordings are joined from utterances of
known speakers in a temporary folder, by a fixed seed.
"""

import argparse
import collections
import csv
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np
import soundfile
import torch

from speechbrain_ssl.embedding.extract import embed_files
from speechbrain_ssl.embedding.voices import voice_agreement
from speechbrain_ssl.encoders.ecapa import FastECAPA
from speechbrain_ssl.encoders.features import LogMel
from speechbrain_ssl.publishing.export import export_encoder, load_encoder
from speechbrain_ssl.verification.evaluation import evaluate_scores
from speechbrain_ssl.verification.protocol import load_trials
from speechbrain_ssl.verification.scoring import cosine_scores
from speechbrain_ssl.verification.trials import Trials

HERE = pathlib.Path(__file__).resolve().parent
RATE = 16000
MANIFESTS = {
    "speechocean762": "speechocean762/dev.csv",
    "LibriSpeech": "librispeech_mini/test.csv",
    "RAVDESS": "ravdess/test.csv",
}
#: Lengths of windows in seconds.
LENGTHS = (5, 10, 20, 30, 60)


class Corpus:
    """Utterances by speaker, and recordings joined from them.

    Arguments
    ---------
    name : str
        A key of ``MANIFESTS``.
    corpora : pathlib.Path
        The folder of the corpora.
    """

    def __init__(self, name, corpora):
        manifest = corpora / MANIFESTS[name]
        self.utterances, self.group = collections.defaultdict(list), {}
        with open(manifest, encoding="utf-8", newline="") as stream:
            for row in csv.DictReader(stream):
                speaker = row["spk_id"]
                self.utterances[speaker].append(manifest.parent / row["wav"])
                self.group[speaker] = row["gender"]
        self.speakers = sorted(self.utterances)

    def parts(self, speaker, count, rng):
        """Divide a speaker's utterances into parts, in random order."""
        paths = self.utterances[speaker]
        paths = [paths[i] for i in rng.permutation(len(paths))]
        return [paths[part::count] for part in range(count)]

    def another(self, speaker, rng):
        """Choose another speaker of the same gender."""
        same = [
            s
            for s in self.speakers
            if s != speaker and self.group[s] == self.group[speaker]
        ]
        return same[rng.integers(len(same))]


def join(paths, seconds, rng):
    """Join utterances to a length; repeat them, in other orders, if needed."""
    waves, total = [], 0
    while total < seconds * RATE:
        for i in rng.permutation(len(paths)):
            waves.append(soundfile.read(paths[i], dtype="float32")[0])
            total += len(waves[-1])
    return np.concatenate(waves)[: round(seconds * RATE)]


def write(path, wave):
    """Write a FLAC file; return its path as text."""
    soundfile.write(path, wave, RATE)
    return str(path)


def embed(model, paths, most_seconds, **options):
    """Embed files; return unit rows."""
    rows = embed_files(*model, paths, most_seconds=most_seconds, **options)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


# ---- Memory


def memory(options):
    """Run the command `embed` on files of several lengths; note its peak."""
    repository = options.repository or HERE.parents[1]
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        encoder = FastECAPA(80, channels=[1024] * 4 + [3072], lin_neurons=192)
        export_encoder(folder / "model", encoder.eval(), LogMel())
        noise = np.random.default_rng(0).normal(0, 0.1, 60 * RATE)
        found = {}
        # The first file is too short for a window to matter.
        for minutes in (1 / 30, *options.minutes):
            path = folder / f"{minutes:.2f}.flac"
            with soundfile.SoundFile(path, "w", RATE, 1) as sound:
                for _ in range(max(1, round(minutes))):
                    sound.write(noise[: round(minutes * 60 * RATE)])
            command = [sys.executable, "-m", "speechbrain_ssl.cli.main"]
            command += ["embed", path, f"--model={folder / 'model'}"]
            command += [f"--output={folder / 'a.npz'}", "--quiet"]
            start = time.perf_counter()
            child = subprocess.Popen(
                [str(part) for part in command],
                env={**os.environ, "PYTHONPATH": str(repository)},
                cwd=folder,
                stdout=subprocess.DEVNULL,
            )
            _, status, usage = os.wait4(child.pid, 0)
            if status:
                raise SystemExit(f"embed failed on {minutes} minutes")
            found[f"{minutes:.2f}"] = {
                "peak_gb": usage.ru_maxrss * 1024 / 1e9,
                "minutes": (time.perf_counter() - start) / 60,
            }
            path.unlink()
    return found


# ---- Length of the windows


def lengths(options):
    """Compare windows of several lengths with whole recordings."""
    model = load_encoder(options.model, "cpu")
    found = {"eer": [], "cosine": []}
    with tempfile.TemporaryDirectory() as folder:
        for name, parts, seconds in (
            ("speechocean762", 3, 120),
            ("RAVDESS", 4, 50),
        ):
            rng = np.random.default_rng(0)
            corpus = Corpus(name, options.corpora)
            paths, speakers = [], []
            for speaker in corpus.speakers:
                for i, part in enumerate(corpus.parts(speaker, parts, rng)):
                    path = f"{folder}/{speaker}_{i}.flac"
                    paths.append(write(path, join(part, seconds, rng)))
                    speakers.append(speaker)
            trials = pairs(speakers, corpus)
            for most in (*[n for n in LENGTHS if n < seconds], seconds):
                start = time.perf_counter()
                rows = embed(model, paths, most)
                scores = cosine_scores(rows, trials)
                found["eer"].append(
                    {
                        "corpus": name,
                        "recording_seconds": seconds,
                        "window_seconds": most,
                        "minutes": (time.perf_counter() - start) / 60,
                        **evaluate_scores(scores, trials),
                    }
                )
                print(found["eer"][-1], flush=True)
        rng = np.random.default_rng(1)
        corpus = Corpus("speechocean762", options.corpora)
        chosen = rng.permutation(corpus.speakers)[:8]
        paths = [
            write(
                f"{folder}/{speaker}.flac",
                join(corpus.utterances[speaker], 600, rng),
            )
            for speaker in chosen
        ]
        whole = embed(model, paths, 600)
        between = whole @ whole.T
        found["other_speakers"] = float(
            between[np.triu_indices(len(whole), 1)].mean()
        )
        for most in (*LENGTHS, 150):
            cosines = (embed(model, paths, most) * whole).sum(1)
            found["cosine"].append(
                {
                    "window_seconds": most,
                    "mean": float(cosines.mean()),
                    "lowest": float(cosines.min()),
                }
            )
            print(found["cosine"][-1], flush=True)
    return found


def pairs(speakers, corpus):
    """Return all pairs of recordings whose speakers have one gender."""
    left, right = np.triu_indices(len(speakers), 1)
    groups = np.array([corpus.group[s] for s in speakers])
    kept = groups[left] == groups[right]
    left, right = left[kept], right[kept]
    speakers = np.array(speakers)
    names = [f"{s}/{i}" for i, s in enumerate(speakers)]
    return Trials(speakers[left] == speakers[right], left, right, names)


# ---- Silence


def silence(options):
    """Score a list of utterances with and without inserted silence."""
    model = load_encoder(options.model, "cpu")
    root = options.corpora / "speechocean762"
    trials = load_trials(root / "dev_trials_H.txt", str(root), 1)
    rng = np.random.default_rng(0)
    plain = [str(root / name) for name in trials.names]
    found = []
    with tempfile.TemporaryDirectory() as folder:
        inserted = []
        for i, path in enumerate(plain):
            wave = soundfile.read(path, dtype="float32")[0]
            # Background noise 50 dB below the speech: as long as the utterance
            # in all, at its start, in its middle and at its end.
            shares = np.cumsum(rng.dirichlet([1, 1, 1]))[:2]
            noise = rng.normal(0, wave.std() * 10**-2.5, len(wave))
            noise = np.split(noise, (shares * len(wave)).astype(int))
            middle = len(wave) // 2
            wave = [noise[0], wave[:middle], noise[1], wave[middle:], noise[2]]
            inserted.append(write(f"{folder}/{i}.flac", np.concatenate(wave)))
        rows = {
            (system, trim): embed(model, paths, 60, trim=trim)
            for system, paths in (("plain", plain), ("silence", inserted))
            for trim in (False, True)
        }
        # Both sides alike; and a trimmed side against one that is not.
        for left, right in (
            *((key, key) for key in rows),
            (("silence", True), ("plain", False)),
            (("silence", False), ("plain", False)),
        ):
            scores = np.sum(
                rows[left][trials.left] * rows[right][trials.right], axis=1
            )
            found.append(
                {
                    "left": left[0] + ", trimmed" * left[1],
                    "right": right[0] + ", trimmed" * right[1],
                    "target_mean": float(scores[trials.labels].mean()),
                    "nontarget_mean": float(scores[~trials.labels].mean()),
                    **evaluate_scores(scores, trials),
                }
            )
            print(found[-1], flush=True)
    return found


# ---- Voices


def turns(corpus, speakers, lengths, rng, seconds):
    """Join turns of the given lengths (seconds) of several speakers."""
    waves, total = [], 0
    rests = [join(corpus.utterances[s], seconds, rng) for s in speakers]
    while total < seconds * RATE:
        for i, length in enumerate(lengths):
            size = round(length * RATE)
            waves.append(rests[i][:size])
            rests[i] = rests[i][size:]
            total += size
    return np.concatenate(waves)[: round(seconds * RATE)]


def voices(options):
    """Compute the statistic of recordings with one and with two voices."""
    model = load_encoder(options.model, "cpu")
    found = collections.defaultdict(dict)
    with tempfile.TemporaryDirectory() as folder:
        for name in MANIFESTS:
            corpus = Corpus(name, options.corpora)
            rng = np.random.default_rng(0)
            for kind, length in (
                ("one voice", [1]),
                ("half each", [30, 30]),
                ("turns of 5 s", [5, 5]),
                ("turns of 3 s", [3, 3]),
                ("a fifth of the other", [48, 12]),
            ):
                paths = []
                for i in range(options.recordings):
                    speaker = corpus.speakers[i % len(corpus.speakers)]
                    both = [speaker, corpus.another(speaker, rng)]
                    wave = turns(corpus, both[: len(length)], length, rng, 60)
                    paths.append(write(f"{folder}/{i}.flac", wave))
                values = voice_agreement(
                    *model, paths, [60.0] * len(paths), progress=False
                )
                found[name][kind] = np.round(values, 4).tolist()
                print(name, kind, np.nanquantile(values, [0, 0.05, 0.5, 1]))
    return found


def main():
    """Measure one thing."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    measures = {f.__name__: f for f in (memory, lengths, silence, voices)}
    parser.add_argument("what", choices=measures)
    parser.add_argument("--model", help="the output folder of a run")
    parser.add_argument("--corpora", type=pathlib.Path)
    parser.add_argument("--system", help="a name to add to that of the file")
    parser.add_argument("--repository", help="memory: of another revision")
    parser.add_argument("--minutes", type=int, nargs="+", default=[1, 10, 60])
    parser.add_argument("--recordings", type=int, default=40)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = measures[options.what](options)
    name = options.what + (f"_{options.system}" if options.system else "")
    with open(HERE / "runs" / f"{name}.json", "w", encoding="utf-8") as stream:
        json.dump(found, stream, indent=1)
        stream.write("\n")


if __name__ == "__main__":
    main()
