#!/usr/bin/env python3
"""Classify emotions, or any label, from the embeddings of a speaker encoder.

    python train.py hparams/probe.yaml --model=/path/to/output_folder \\
        --data_folder=/path/to/corpus
    python train.py hparams/finetune.yaml --model=/path/to/output_folder ...

`--model` is the output folder of a training run, a published model, or one of
two untrained baselines: `statistics` (mean and standard deviation of the
log-mel energies) and `untrained` (an encoder with random weights).

The script is the same for all corpora and labels: the YAML names the prepare
function, the folds and the method; --print_config prints all its keys and
exits. The README beside this file describes the outputs and the metrics.
"""

from speechbrain_ssl.runtime import set_up_process

set_up_process()  # before torch is imported

import logging
import os
import pathlib
import time

import pandas as pd
import speechbrain as sb
from speechbrain.utils.distributed import infer_device

from speechbrain_ssl import precision
from speechbrain_ssl.config import load_config, run
from speechbrain_ssl.downstream.metrics import FIGURES, summarise
from speechbrain_ssl.downstream.task import read_task
from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.files import write_csv
from speechbrain_ssl.publishing.systems import (
    load_system,
    write_system_results,
)
from speechbrain_ssl.report.downstream import build_downstream_report
from speechbrain_ssl.run_folder import write_hyperparams

logger = logging.getLogger(__name__)

# Keys that this script and the methods read. Any other key of a YAML is an
# error, unless another key refers to it.
KEYS = set(
    """
    seed output_folder model data_folder prepare manifest label speaker_column
    classes bins folds method encoder features embeddings batch_seconds
    num_workers bootstrap_replicates
    """.split()
)

NAMES = {
    "micro_f1": "micro-F1",
    "uar": "unweighted average recall",
    "macro_f1": "macro-F1",
}


def predict(task, folds, system, hparams, run_opts):
    """Run the method over all folds.

    Arguments
    ---------
    task : speechbrain_ssl.downstream.task.Task
        The task.
    folds : list of speechbrain_ssl.downstream.folds.Fold
        Its folds.
    system : speechbrain_ssl.publishing.systems.System
        The encoder.
    hparams : dict
        The hyper-parameters.
    run_opts : speechbrain.utils.run_opts.RunOptions
        The run options.

    Returns
    -------
    tuple
        Two lists over folds: the predicted classes of the test side, and the
        settings that the method chose.
    """
    predictions, chosen = [], []
    found = hparams["method"](task, folds, system, hparams, run_opts)
    for fold, (predicted, facts) in zip(folds, found, strict=True):
        predictions.append(predicted)
        chosen.append(facts)
        right = (predicted == task.labels[fold.test]).mean()
        logger.info(
            "fold %s: %d utterances to train, %d to test, %.1f %% correct%s",
            fold.name,
            len(fold.train),
            len(fold.test),
            100 * right,
            "".join(f", {k} {v:.4g}" for k, v in facts.items()),
        )
    return predictions, chosen


def write_predictions(path, task, folds, predictions):
    """Write a row for every utterance of a test side.

    Arguments
    ---------
    path : pathlib.Path
        The CSV file.
    task : speechbrain_ssl.downstream.task.Task
        The task.
    folds : list of speechbrain_ssl.downstream.folds.Fold
        Its folds.
    predictions : list of numpy.ndarray
        From ``predict``.
    """
    parts = [
        pd.DataFrame(
            {
                "ID": [task.manifest.ids[i] for i in fold.test],
                "speaker": task.speakers[fold.test],
                "fold": fold.name,
                "truth": [task.classes[c] for c in task.labels[fold.test]],
                "predicted": [task.classes[c] for c in predicted],
            }
        )
        for fold, predicted in zip(folds, predictions, strict=True)
    ]
    write_csv(path, pd.concat(parts))


def table(figures):
    """Format the metrics as lines of text."""
    lines = []
    for key in FIGURES:
        line = f"{NAMES[key]:27}{figures[key]:6.2f} %"
        for suffix, what in (("", "speakers"), ("_over_folds", "folds")):
            low = figures[f"{key}{suffix}_ci_low"]
            high = figures[f"{key}{suffix}_ci_high"]
            if low is not None:
                line += f"  [{low:.2f}, {high:.2f}] over {what}"
        lines.append(line)
    lines.append(f"{'the most frequent class':27}{figures['majority']:6.2f} %")
    return "\n".join(lines)


def check_settings(hparams):
    """Validate settings that would otherwise fail, or mislead, much later."""
    replicates = hparams["bootstrap_replicates"]
    if not isinstance(replicates, int) or replicates < 0:
        raise ConfigError(
            f"`bootstrap_replicates` is {replicates!r}; it must be a whole "
            "number from 0"
        )
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise ConfigError(
            "this script runs in one process; start it without torchrun"
        )


def main(argv):
    """Prepare the corpus, predict over disjoint folds, write the results."""
    start = time.perf_counter()
    path, run_opts, overrides, hparams = load_config(argv, KEYS)
    check_settings(hparams)
    system = load_system(
        hparams["model"],
        hparams["encoder"],
        hparams["features"],
        hparams["seed"],
    )
    if hparams["output_folder"] is None:
        # One folder for each model and label, so that none overwrites
        # another.
        parts = ["results", pathlib.Path(path).stem, hparams["label"]]
        hparams["output_folder"] = "/".join([*parts, system.folder])
    folder = pathlib.Path(hparams["output_folder"])
    precision.keep(hparams)
    precision.resume(hparams, run_opts)
    sb.create_experiment_directory(str(folder))
    write_hyperparams(folder, path, overrides)
    precision.announce(hparams, run_opts)
    if hparams["prepare"] is not None:
        hparams["prepare"]()
    label = hparams["label"]
    task = read_task(
        hparams["manifest"],
        label,
        hparams["data_folder"],
        hparams["speaker_column"],
        hparams["classes"],
        hparams["bins"],
    )
    folds = hparams["folds"](task)
    predictions, chosen = predict(task, folds, system, hparams, run_opts)
    figures, details = summarise(
        task,
        folds,
        predictions,
        hparams["bootstrap_replicates"],
        hparams["seed"],
    )
    for line, facts in zip(details["per_fold"], chosen, strict=True):
        line.update(facts)
    write_predictions(folder / "predictions.csv", task, folds, predictions)
    record = write_system_results(
        folder,
        figures,
        system,
        script=__file__,
        argv=argv,
        seed=hparams["seed"],
        start=start,
        device=run_opts["device"] or infer_device(),
        labels_seen=hparams["method"].labels_seen(label, system),
        extra={
            "label": label,
            "method": type(hparams["method"]).__name__,
            **precision.describe(hparams),
            **details,
        },
    )
    page = build_downstream_report(
        folder,
        f"{label} from {system.name}",
        details["confusion"],
        details["classes"],
    )
    print(f"\n{table(figures)}\n\nreport: {page}")
    return record


if __name__ == "__main__":
    run(main)
