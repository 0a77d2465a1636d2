"""What SSPS adds to a step of training, beside the reference forward pass.

    python tests/benchmarks/ssps_step.py --csv table.csv

A step of SimCLR (ECAPA-TDNN, two crops an utterance: encode, loss, backward,
optimiser), the reference forward pass of SSPS, and what SSPS does beside it
(drawing pseudo_positives, replacing vectors, taking up memory and queue), in turns in one
process, at the paper's sizes: 1 092 009 utterances, K and queue 25 000. The
k-means of each epoch is not in it. Features and clusters are drawn at random; SSPS
takes as long for any. ``--channels=64`` is an encoder so small that SSPS weighs
most.
"""

import argparse
import csv
import time

import numpy as np
import torch

from speechbrain_ssl.brains.encoding import encode
from speechbrain_ssl.encoders.ecapa import FastECAPA
from speechbrain_ssl.objectives.base import Branch
from speechbrain_ssl.objectives.simclr import SimCLR
from speechbrain_ssl.positives.ssps import SSPS

MELS = 80
FRAMES = 100  # in a second


def make_ssps(objective, encoder, given):
    """SSPS in the middle of an epoch: memory, clusters and queue are full."""
    size, total = encoder.fc.conv.out_channels, given.utterances
    ssps = SSPS(given.clusters, given.queue, start_epoch=2, neighbours=1)
    ssps.set_up(objective, total, size, 2, size, given.batch, seed=1)
    draw = torch.Generator().manual_seed(1)
    ssps.memory.normal_(generator=draw)
    ssps.known.fill_(True)
    ssps.assignments.random_(given.clusters, generator=draw)
    ssps.near.random_(given.clusters, generator=draw)
    ids = torch.randperm(total, generator=draw)[: given.queue]
    ssps.queue.push(ids, torch.randn(len(ids), 2, size, generator=draw))
    return ssps


class Bench:
    """An encoder with its objective, optimiser and SSPS."""

    def __init__(self, channels, given):
        self.encoder = FastECAPA(
            MELS,
            lin_neurons=192,
            channels=[channels] * 4 + [3 * channels],
            kernel_sizes=[5, 3, 3, 3, 1],
            dilations=[1, 2, 3, 4, 1],
            attention_channels=128,
        )
        self.objective = SimCLR(temperature=0.03)
        self.ssps = make_ssps(self.objective, self.encoder, given)
        self.optimizer = torch.optim.Adam(self.encoder.parameters())
        self.batch, self.utterances = given.batch, given.utterances
        frames = int(FRAMES * given.seconds)
        self.crops = torch.randn(self.batch, 2, frames, MELS)
        frames = int(FRAMES * given.reference_seconds)
        self.references = torch.randn(self.batch, 1, frames, MELS)
        self.turn = 0
        self.seconds = {"step": [], "reference": [], "ssps": []}

    def timed(self, what, call):
        """Calls, and notes the seconds of CPU."""
        start = time.process_time()
        found = call()
        self.seconds[what].append(time.process_time() - start)
        return found

    def reference(self):
        """Embeddings of the reference crops."""
        self.encoder.eval()
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            found = encode(self.encoder, [self.references])[:, 0]
        self.encoder.train()
        return found

    def positives(self, index, references, target):
        """All that SSPS does in a step."""
        self.ssps.observe(index, references, target.projections)
        keys = index.numpy().astype(np.uint64)
        target, scalars = self.ssps.substitute(target, 2, keys)
        self.ssps.after_step()
        return target, scalars["coverage"]

    def step(self):
        """A step with SSPS, in three parts; returns its coverage."""
        self.turn += 1
        index = torch.randint(
            self.utterances,
            (self.batch,),
            generator=torch.Generator().manual_seed(self.turn),
        )
        references = self.timed("reference", self.reference)
        # Stands for the target branch: the time of a step is the baseline's.
        size = references.shape[1]
        vectors = torch.randn(self.batch, 2, size)
        branch = Branch(vectors, vectors, self.objective.head, index)
        _, coverage = self.timed(
            "ssps", lambda: self.positives(index, references, branch)
        )
        self.timed("step", self.baseline)
        return float(coverage)

    def baseline(self):
        """A step of SimCLR."""
        with torch.autocast("cpu", torch.bfloat16):
            vectors = encode(self.encoder, [self.crops])
        branch = Branch(vectors, vectors, self.objective.head, None)
        loss, _ = self.objective(branch, branch)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


def main(argv=None):
    """Reads the command line, measures, writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--channels", type=int, nargs="+", default=[64, 512])
    parser.add_argument("--utterances", type=int, default=1_092_009)
    parser.add_argument("--clusters", type=int, default=25_000)
    parser.add_argument("--queue", type=int, default=25_000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--reference_seconds", type=float, default=4.0)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--csv", help="where to write the table")
    given = parser.parse_args(argv)
    rows = []
    for channels in given.channels:
        bench = Bench(channels, given)
        bench.step()  # the first one allocates
        for found in bench.seconds.values():
            found.clear()
        coverage = np.mean([bench.step() for _ in range(given.steps)])
        cost = {k: float(np.median(v)) for k, v in bench.seconds.items()}
        rows.append(
            {
                "channels": channels,
                "batch": given.batch,
                "steps": given.steps,
                "coverage": round(float(coverage), 3),
                **{f"{k}_seconds": f"{v:.4f}" for k, v in cost.items()},
                "reference_over_step": f"{cost['reference'] / cost['step']:.4f}",
                "ssps_over_step": f"{cost['ssps'] / cost['step']:.4f}",
            }
        )
        print(rows[-1], flush=True)
    if given.csv:
        with open(given.csv, "w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, rows[0].keys())
            writer.writeheader()
            writer.writerows(rows)
    return rows


if __name__ == "__main__":
    main()
