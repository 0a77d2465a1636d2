"""Train on the pretended GPU; print the waits of each step, a JSON line each.

    LD_LIBRARY_PATH=… LD_PRELOAD=… python run.py SCRIPT PICKLED_ARGV

Started by ``tests/integration/test_waits.py``, which builds the driver.
"""

import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import tiny

from pretended_cuda.tensors import pretended_gpu, waits
from speechbrain_ssl.brains import finish
from speechbrain_ssl.brains.training_brain import TrainingBrain


def main():
    """Run a training script with the arguments of the command line."""
    script, *argv = sys.argv[1:]
    original = TrainingBrain.fit_batch

    def fit_batch(brain, batch):
        before = waits.copy()
        loss = original(brain, batch)
        print("step", json.dumps(sorted((waits - before).items())), flush=True)
        return loss

    TrainingBrain.fit_batch = fit_batch
    # The pages of a report have nothing to do with devices.
    finish.build_report = lambda *_, **__: "none"
    with pretended_gpu():
        tiny.load_train(script).main(argv)


main()
