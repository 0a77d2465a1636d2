"""Run ``train.py`` with the start rule; started by torchrun, checked by a test.

torchrun --nproc_per_node=2 positives_start_ranks.py HOW FOLDER TRAIN.PY ARGS

HOW is ``rule`` or ``differ``. With ``differ`` rank 0 decides that SSPS may
start with two clusters, and every other rank that it may not. What each process
made of the verdicts is written to ``rank<r>.pt``.
"""

import os
import pathlib
import runpy
import sys

import torch

from speechbrain_ssl import distributed
from speechbrain_ssl.brains import embedded_halves, positives
from speechbrain_ssl.brains.ssl_brain import SSLBrain
from speechbrain_ssl.data.halves import ReadableHalves
from speechbrain_ssl.positives import start_rule
from speechbrain_ssl.positives.start_rule import Advice


def noted(ssps, *references, **options):
    """Apply the rule, or replace its verdict; record both input and verdict."""
    found["references"].append(torch.stack(references))
    verdict = start_rule.judge(ssps, *references, **options)
    if how == "differ":
        first = distributed.rank() == 0
        verdict = Advice(2 if first else 3, 0, 1.0, first, "so it is", [])
    found["verdicts"].append((verdict.start, verdict.clusters))
    found["tables"].append(verdict.table)
    return verdict


class NotedHalves(ReadableHalves):
    """Reads halves of utterances, and records which were read."""

    def __getitem__(self, index):
        found["read"].append(index)
        return super().__getitem__(index)


if __name__ == "__main__":
    how, folder, script = sys.argv[1:4]
    rank = int(os.environ["RANK"])
    found = {"references": [], "verdicts": [], "tables": [], "read": []}
    brains = []
    positives.judge = noted
    embedded_halves.ReadableHalves = NotedHalves
    begin = SSLBrain.on_fit_start

    def on_fit_start(brain):
        brains.append(brain)
        begin(brain)

    SSLBrain.on_fit_start = on_fit_start
    runpy.run_path(script)["main"](sys.argv[4:])
    found["start"] = brains[0].positives.rule.start_epoch
    found["clusters"] = brains[0].positives.rule.clusters
    torch.save(found, pathlib.Path(folder) / f"rank{rank}.pt")
