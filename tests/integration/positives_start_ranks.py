"""Runs ``train.py`` with the start rule; run by torchrun, judged by a test.

torchrun --nproc_per_node=2 positives_start_ranks.py HOW FOLDER TRAIN.PY ARGUMENTS

HOW is what the first process finds: ``yes``, ``error``, or ``rule`` (what the
rule says). What each process made of it goes to ``rank<r>.json``.
"""

import json
import os
import pathlib
import runpy
import sys

from speechbrain_ssl.brains.ssl_brain import SSLBrain
from speechbrain_ssl.errors import AudioError, UserError
from speechbrain_ssl.positives.start_rule import Advice


def answer(brain):
    """What stands in for the rule; the first process alone is asked."""
    found["asked"] += 1
    if how == "error":
        raise AudioError("a file of the first process")
    ssps = brain.ssps
    return Advice(ssps.clusters, ssps.neighbours, 1.0, True, "so it is", [])


if __name__ == "__main__":
    how, folder, script = sys.argv[1:4]
    rank = int(os.environ["RANK"])
    found, brains = {"asked": 0, "error": None, "start": None}, []
    if how != "rule":
        SSLBrain._may_start = answer
    original = SSLBrain.on_fit_start

    def noted(brain):
        brains.append(brain)
        original(brain)

    SSLBrain.on_fit_start = noted
    try:
        runpy.run_path(script)["main"](sys.argv[4:])
    except UserError as error:
        found["error"] = f"{type(error).__name__}: {error}"
    found["start"] = brains[0].ssps.start_epoch
    path = pathlib.Path(folder) / f"rank{rank}.json"
    path.write_text(json.dumps(found))
