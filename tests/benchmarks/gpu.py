"""Ten minutes on one GPU: where the time of training goes.

    python tests/benchmarks/gpu.py --out=gpu.jsonl
    python tests/benchmarks/gpu.py --out=cpu.jsonl --device=cpu --batch=2 --steps=1 \\
        --rows=5000 --clusters=50 --workers=0     # a rehearsal on a CPU

Each measurement is a line of JSON, written at once, so that a stop loses nothing. The
audio is noise, written to a temporary folder (0.6 GB). Steps are those of
``train.py`` with the real configurations: augmentation, features, both encoders,
loss, optimiser. **It has not run on a GPU yet.**

The parts, in this order: ``rate`` (bf16 products of large matrices, which the
steps are compared with), ``step`` (one batch again and again: milliseconds,
memory, share of that rate, and of the time in which the GPU computes), ``train``
(with the loader, from wav, ogg and packed audio), ``kmeans``, ``embed``.
"""

import argparse
import json
import pathlib
import runpy
import statistics
import tempfile
import time

import numpy as np
import pandas as pd
import soundfile
import torch
from training_cost import RECIPES, load, ssl_cost

from speechbrain_ssl.brains.training_brain import TrainingBrain
from speechbrain_ssl.clustering.kmeans import spherical_kmeans
from speechbrain_ssl.embedding.extract import embed_files
from speechbrain_ssl.prepare.pack import pack

RECIPE = RECIPES / "SSL"
VALID = 32
SSPS = "simclr_ssps_ecapa"
#: Configuration and precision of each step.
STEPS = [
    ("dino_ecapa", "bf16"),
    ("dino_ecapa", "fp32"),  # TF32 on a GPU that has it
    ("dino_ecapa", "fp16"),
    ("dino_ecapa_1024", "bf16"),
    ("dino_resnet34", "bf16"),
    (SSPS, "bf16"),
]


class Done(Exception):
    """Raised to end a run when enough has been measured."""


class Benchmark:
    """Holds the options, the audio, and the file of results."""

    def __init__(self, options, folder):
        self.options, self.folder = options, folder
        self.cuda = options.device == "cuda"
        self.began = time.monotonic()

    def say(self, part, **figures):
        """Append a line to the results."""
        figures["at"] = round(time.monotonic() - self.began, 1)
        line = json.dumps({"part": part, **figures})
        print(line, flush=True)
        with open(self.options.out, "a", encoding="utf-8") as stream:
            stream.write(line + "\n")

    def timed(self, call, count):
        """Return the median of the milliseconds of some calls."""
        spent = []
        for _ in range(count):
            begin = time.perf_counter()
            call()
            if self.cuda:
                torch.cuda.synchronize()
            spent.append(1000 * (time.perf_counter() - begin))
        return statistics.median(spent)

    # -- audio ---------------------------------------------------------------

    def write_audio(self):
        """Write noise as wav and ogg, packed, and what augments it."""
        rng = np.random.default_rng(0)
        # A few noises, and a few rooms that fade.
        for name, fade in (("noise", 0), ("rirs", 5)):
            rows = []
            for i in range(8):
                path = str(self.folder / f"{name}{i}.wav")
                wave = rng.normal(0, 0.1, 16000)
                wave *= np.exp(-fade * np.arange(16000) / 16000)
                soundfile.write(path, wave, 16000)
                rows.append({"ID": path, "duration": 1.0, "wav": path})
            self.write_manifest(name, pd.DataFrame(rows))
        rows = []
        for i in range(VALID + 16 * self.options.batch):
            samples = int(rng.uniform(4, 12) * 16000)
            wave = rng.normal(0, 0.1, samples).astype(np.float32)
            row = {"ID": f"u{i}", "duration": samples / 16000}
            for form in ("wav", "ogg"):
                row[form] = str(self.folder / f"{i}.{form}")
                soundfile.write(row[form], wave, 16000)
            rows.append(row)
        table = pd.DataFrame(rows)
        for form in ("wav", "ogg"):
            self.write_manifest(form, table.assign(wav=table[form]))
        wavs, _ = pack(table, str(self.folder / "pack"), progress=False)
        self.write_manifest("packed", table.assign(wav=wavs))
        self.wavs = table["wav"].tolist()

    def write_manifest(self, form, table):
        columns = ["ID", "duration", "wav"]
        table[columns].to_csv(self.folder / f"{form}.csv", index=False)

    def run(self, fit_batch, name, precision, form="wav", workers=0):
        """Train with a ``fit_batch`` of ours, until it raises ``Done``."""
        options = {
            "prepare": "null",
            "trials": "null",
            "data_folder": self.folder,
            "train_manifest": self.folder / f"{form}.csv",
            "rirs_csv": self.folder / "rirs.csv",
            **dict.fromkeys(
                ("noise_csv", "music_csv", "speech_csv"),
                self.folder / "noise.csv",
            ),
            "output_folder": tempfile.mkdtemp(dir=self.folder),
            "valid_utterances": VALID,
            "batch_size": self.options.batch,
            "device": self.options.device,
            "precision": precision,
            "num_workers": workers,
        }
        argv = [str(RECIPE / "hparams" / f"{name}.yaml"), "--noprogressbar"]
        argv += [f"--{key}={value}" for key, value in options.items()]
        if name == SSPS:
            # So small that one epoch fills its memory.
            small = "{clusters: 8, queue: 16, start_epoch: 2}"
            argv += [f"--ssps={small}", "--number_of_epochs=4"]
        original = TrainingBrain.fit_batch
        TrainingBrain.fit_batch = lambda *a: fit_batch(original, *a)
        try:
            runpy.run_path(str(RECIPE / "train.py"))["main"](argv)
        except Done:
            pass
        finally:
            TrainingBrain.fit_batch = original

    # -- parts ---------------------------------------------------------------

    def rate(self):
        """Measure the rate of large products in bf16."""
        size = 8192 if self.cuda else 512
        a = torch.randn(size, size, device=self.options.device).bfloat16()
        self.timed(lambda: a @ a, 3)
        milliseconds = self.timed(lambda: a @ a, 20)
        self.peak = 2 * size**3 / milliseconds / 1e9
        self.say("rate", tflops=round(self.peak, 2))

    def step(self):
        """Time steps on one batch."""
        for name, precision in STEPS:
            if precision == "fp16" and not self.cuda:
                continue
            wanted = 2 if name == SSPS else 1
            self.run(
                lambda fit, brain, batch, case=(name, precision), at=wanted: (
                    self.time_step(fit, brain, batch, case)
                    if brain.epoch >= at
                    else fit(brain, batch)
                ),
                name,
                precision,
            )

    def time_step(self, fit, brain, batch, case):
        """Time a batch again and again; look once at what the GPU does."""
        batch.to(self.options.device)
        for _ in range(3):
            fit(brain, batch)
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
        steps = self.options.steps
        milliseconds = self.timed(lambda: fit(brain, batch), steps)
        figures = {"config": case[0], "precision": case[1]}
        operations = ssl_cost(load(RECIPE / "hparams" / f"{case[0]}.yaml"))[1]
        rate = operations.operations * len(batch.index) / milliseconds / 1e9
        figures |= {
            "batch": len(batch.index),
            "ms": round(milliseconds, 1),
            "tflops": round(rate, 2),
            "share_of_rate": round(rate / self.peak, 3),
        }
        if self.cuda:
            figures["gigabytes"] = torch.cuda.max_memory_allocated() / 1e9
            with torch.profiler.profile() as profile:
                self.timed(lambda: fit(brain, batch), 3)
            busy = sum(e.self_device_time_total for e in profile.key_averages())
            # Without the profiler, which slows the host down.
            figures["busy"] = round(busy / 3000 / milliseconds, 3)
        self.say("step", **figures)
        raise Done

    def train(self):
        """Time whole steps, with the loader."""
        for form in ("wav", "ogg", "packed"):
            for workers in self.options.workers:
                ends = []

                def fit_batch(fit, brain, batch, ends=ends):
                    loss = fit(brain, batch)
                    if self.cuda:
                        torch.cuda.synchronize()
                    ends.append(time.perf_counter())
                    if len(ends) > self.options.steps + 2:
                        raise Done
                    return loss

                self.run(fit_batch, "dino_ecapa", "bf16", form, workers)
                gaps = np.diff(ends[1:])
                self.say(
                    "train",
                    audio=form,
                    workers=workers,
                    ms=round(1000 * statistics.median(gaps), 1),
                    mean_ms=round(1000 * gaps.mean(), 1),
                )

    def kmeans(self):
        """Time k-means on as many rows as VoxCeleb2 has."""
        given = self.options
        rows = torch.randn(given.rows, 192, device=given.device)
        for init in ("random", "k-means++"):
            milliseconds = self.timed(
                lambda init=init: spherical_kmeans(
                    rows, given.clusters, init=init
                ),
                1,
            )
            self.say(
                "kmeans",
                init=init,
                rows=given.rows,
                clusters=given.clusters,
                seconds=round(milliseconds / 1000, 2),
            )

    def embed(self):
        """Time the embedding of whole utterances."""
        hparams = load(RECIPE / "hparams" / "dino_ecapa.yaml")
        encoder = hparams["encoder"].to(self.options.device).eval()
        features = hparams["features"].to(self.options.device)
        paths = self.wavs[: len(self.wavs) if self.cuda else 8]
        milliseconds = self.timed(
            lambda: embed_files(
                encoder, features, paths, device=self.options.device
            ),
            1,
        )
        self.say(
            "embed", files_per_second=round(1000 * len(paths) / milliseconds, 1)
        )


def main():
    """Read the options and measure every part that is wanted."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--out", required=True, help="file of JSON lines, appended to")
    add("--device", default="cuda", choices=("cuda", "cpu"))
    add("--batch", type=int, default=64)
    add("--steps", type=int, default=20)
    add("--rows", type=int, default=1_092_009)
    add("--clusters", type=int, default=7_500)
    add("--workers", type=int, nargs="+", default=[4, 8, 16])
    add(
        "--parts",
        nargs="+",
        default=["rate", "step", "train", "kmeans", "embed"],
    )
    options = parser.parse_args()
    options.out = str(pathlib.Path(options.out).resolve())
    with tempfile.TemporaryDirectory() as folder:
        bench = Benchmark(options, pathlib.Path(folder))
        name = torch.cuda.get_device_name() if bench.cuda else "cpu"
        bench.say("machine", device=name, torch=torch.__version__)
        bench.write_audio()
        for part in options.parts:
            try:
                getattr(bench, part)()
            except Exception as error:  # The other parts are worth having.
                bench.say(part, error=f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
