#!/usr/bin/env python3
"""Evaluates a speaker encoder on trial lists.

    python evaluate.py hparams/cosine.yaml --model=/path/to/output_folder \\
        --data_folder=/path/to/corpora --save_folder=../save
    python evaluate.py hparams/cosine_one_list.yaml --model=statistics \\
        --trials=/path/to/trials.txt --trials_folder=/path/to/audio

`--model` is the output folder of a training run, a published model, or one of
two baselines that nothing was trained for: `statistics` (mean and standard
deviation of the log-mel energies) and `untrained` (an encoder as initialised).

What comes out, and what the figures mean, is in the README beside this file.
The labels of the trials are for the reader: no setting is chosen by them.
"""

from speechbrain_ssl.runtime import set_up_process

set_up_process()  # before torch is imported

import csv
import json
import logging
import os
import pathlib
import shlex
import time

import numpy as np
import speechbrain as sb
import torch
from speechbrain.utils.distributed import infer_device

from speechbrain_ssl.config import load_config, run
from speechbrain_ssl.data.manifest import Manifest
from speechbrain_ssl.encoders.features import LogMel
from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.files import atomic_write
from speechbrain_ssl.publishing.export import load_encoder
from speechbrain_ssl.report.page import build_report
from speechbrain_ssl.report.results import write_results
from speechbrain_ssl.verification.baselines import LogMelStatistics
from speechbrain_ssl.verification.cache import embed_cached
from speechbrain_ssl.verification.evaluation import evaluate_scores
from speechbrain_ssl.verification.protocol import (
    check_speakers,
    load_lists,
    named_lists,
    write_scores,
)
from speechbrain_ssl.verification.scoring import cosine_scores

logger = logging.getLogger(__name__)

# What this script reads; anything else in a YAML must be referred to by another
# key, or it is an error.
KEYS = set(
    """
    seed output_folder data_folder model encoder features trials trials_folder
    trials_manifest trials_speaker_component mean_manifest mean_utterances
    batch_seconds num_workers eval_precision bootstrap_replicates
    """.split()
)

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}

COLUMNS = (
    "system",
    "seed",
    "trials",
    "eer_percent",
    "ci_low",
    "ci_high",
    "labels_seen",
    "minutes",
    "command",
    "min_dcf_0.01",
    "min_dcf_0.05",
)


def load_model(hparams):
    """The encoder that `model` names, its features, and what is known of it.

    Arguments
    ---------
    hparams : dict
        The hyper-parameters.

    Returns
    -------
    tuple
        Encoder, features, and a dict of ``system``, ``seed`` and
        ``labels_seen``.

    Raises
    ------
    ConfigError
        If ``model`` is no model.
    """
    name, seed, features = (
        hparams["model"],
        hparams["seed"],
        hparams["features"],
    )
    if name == "statistics":
        # Nothing is drawn, so no seed has any part in it.
        about = {"system": name, "seed": None, "labels_seen": "none"}
        features = LogMel(
            features.n_mels, features.sample_rate, mean_norm=False
        )
        return LogMelStatistics(), features, about
    if name == "untrained":
        about = {"system": name, "seed": seed, "labels_seen": "none"}
        return hparams["encoder"], features, about
    path = pathlib.Path(str(name))
    try:
        encoder, features = load_encoder(str(name))
    except ConfigError as error:
        raise ConfigError(
            f"--model={error}; a baseline is `statistics` or `untrained`"
        ) from error
    parts = path.resolve().parts if path.is_dir() else path.parts
    if parts[-1] == "model":
        parts = parts[:-1]
    about = {"system": "/".join(parts[-2:]), "seed": None}
    # How it was trained only its own run can tell.
    about["labels_seen"] = "unknown"
    for folder in (path, path.parent):
        record = folder / "results.json"
        if path.is_dir() and record.is_file():
            record = json.loads(record.read_text(encoding="utf-8"))
            for key in ("seed", "labels_seen"):
                about[key] = record.get(key, about[key])
            break
    return encoder, features, about


def read_lists(hparams):
    """The trial lists, with the audio file of every utterance.

    Arguments
    ---------
    hparams : dict
        The hyper-parameters.

    Returns
    -------
    tuple
        What ``load_lists`` returns, and the durations that are known (path to
        seconds).
    """
    lists = named_lists(hparams["trials"])
    folder, manifest = hparams["trials_folder"], hparams["trials_manifest"]
    if (folder is None) == (manifest is None):
        raise ConfigError(
            "give either trials_folder (the names in the lists are paths in "
            "it) or trials_manifest (a CSV that says where they are), and null "
            "for the other"
        )
    seconds = {}
    if manifest is not None:
        manifest = Manifest.read(manifest, hparams["data_folder"])
        seconds = durations(manifest)
    loaded = load_lists(
        lists, hparams["trials_speaker_component"], folder, manifest
    )
    if hparams["bootstrap_replicates"]:
        check_speakers(loaded)
    return loaded, seconds


def durations(manifest):
    """Path to seconds."""
    return {
        manifest.path(i): float(manifest.durations[i])
        for i in range(len(manifest))
    }


def read_mean_utterances(hparams, trial_paths):
    """The training utterances whose mean embedding is subtracted.

    Arguments
    ---------
    hparams : dict
        The hyper-parameters.
    trial_paths : list of str
        The audio files of the trials.

    Returns
    -------
    Manifest or None

    Raises
    ------
    ConfigError
        If an utterance of the trials is among them.
    """
    if hparams["mean_manifest"] is None:
        return None
    manifest = Manifest.read(hparams["mean_manifest"], hparams["data_folder"])
    count = hparams["mean_utterances"]
    if count is not None:
        if count < 1:
            raise ConfigError(
                "mean_utterances must be at least 1; without mean_manifest no "
                "mean is subtracted"
            )
        # By key, hence the same ones in whatever order the manifest is.
        manifest = manifest.select(np.argsort(manifest.keys)[:count])
    paths = {os.path.realpath(manifest.path(i)) for i in range(len(manifest))}
    common = paths.intersection(map(os.path.realpath, trial_paths))
    if common:
        raise ConfigError(
            f"mean_manifest: {len(common)} of its {len(manifest)} utterances "
            f"are in the trials ({min(common)}); the mean must come from other "
            "utterances. Use the training manifest, or null"
        )
    for i in range(len(manifest)):
        if not os.path.isfile(manifest.path(i)):
            raise ConfigError(
                f"mean_manifest: there is no file {manifest.path(i)}; correct "
                "data_folder, or set mean_manifest to null"
            )
    return manifest


def embed(hparams, encoder, features, lists, seconds, mean_set, device):
    """Embeds every utterance once, however many lists name it.

    Arguments
    ---------
    hparams : dict
        The hyper-parameters.
    encoder, features : torch.nn.Module
        The model.
    lists : dict
        From ``read_lists``.
    seconds : dict
        Path to seconds, where known.
    mean_set : Manifest or None
        From ``read_mean_utterances``.
    device : str
        Where to compute.

    Returns
    -------
    tuple
        Path to row, embeddings (``[files, size]``), and the mean embedding of
        ``mean_set`` (None where there is none).
    """
    rows = {}
    for _, paths in lists.values():
        for path in paths:
            rows.setdefault(path, len(rows))
    mean_paths = []
    if mean_set is not None:
        mean_paths = [mean_set.path(i) for i in range(len(mean_set))]
        seconds = {**seconds, **durations(mean_set)}
        for path in mean_paths:
            rows.setdefault(path, len(rows))
    known = all(path in seconds for path in rows)
    start = time.perf_counter()
    embeddings, made = embed_cached(
        pathlib.Path(hparams["output_folder"]) / "embeddings.npz",
        encoder,
        features,
        list(rows),
        [seconds[path] for path in rows] if known else None,
        PRECISIONS[hparams["eval_precision"]],
        device=device,
        batch_seconds=hparams["batch_seconds"],
        num_workers=hparams["num_workers"],
    )
    spent = time.perf_counter() - start
    logger.info(
        "%d utterances: %d embedded in %.1f s (%.1f a second), %d kept from an "
        "earlier call",
        len(rows),
        made,
        spent,
        made / spent,
        len(rows) - made,
    )
    mean = None
    if mean_paths:
        chosen = embeddings[[rows[path] for path in mean_paths]]
        mean = chosen.mean(axis=0, dtype=np.float64)
    return rows, embeddings, mean


def score(hparams, lists, rows, embeddings, mean):
    """Scores every list, plainly and, given a mean, after subtracting it.

    Arguments
    ---------
    hparams : dict
        The hyper-parameters.
    lists : dict
        From ``read_lists``.
    rows, embeddings, mean
        From ``embed``.

    Returns
    -------
    tuple
        Evaluations (list of dict) and what ``build_report`` draws (dict).
    """
    folder = pathlib.Path(hparams["output_folder"])
    evaluations, drawn = [], {}
    for name, (trials, paths) in lists.items():
        own = embeddings[[rows[path] for path in paths]]
        for scoring, centre in (("cosine", None), ("mean_subtracted", mean)):
            if scoring != "cosine" and mean is None:
                continue
            scores = cosine_scores(own, trials, mean=centre)
            figures = evaluate_scores(
                scores,
                trials,
                replicates=hparams["bootstrap_replicates"],
                seed=hparams["seed"],
            )
            counts = {"list": name, "scoring": scoring}
            evaluations.append({**counts, **figures})
            write_scores(
                folder / f"scores_{name}_{scoring}.txt", trials, scores
            )
            drawn[f"{name}, {scoring.replace('_', ' ')}"] = {
                "scores": scores,
                "labels": trials.labels,
                "threshold": figures["threshold"],
            }
    return evaluations, drawn


def table(evaluations):
    """The evaluations as lines of text."""
    header = ("list", "scoring", "trials", "EER % [95 % interval]")
    header += ("minDCF 0.01", "minDCF 0.05")
    cells = [header]
    for found in evaluations:
        rate = f"{found['eer_percent']:.2f}"
        if found["ci_low"] is not None:
            rate += f" [{found['ci_low']:.2f}, {found['ci_high']:.2f}]"
        cells.append(
            (
                found["list"],
                found["scoring"].replace("_", " "),
                str(found["trials"]),
                rate,
                f"{found['min_dcf_0.01']:.3f}",
                f"{found['min_dcf_0.05']:.3f}",
            )
        )
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in cells
    )


def flat_figures(evaluations):
    """The evaluations as scalars; the first of them is the headline."""
    flat = {}
    for number, found in enumerate(evaluations):
        name = found["list"]
        if found["scoring"] != "cosine":
            name += f"_{found['scoring']}"
        if number == 0:
            flat["eer"] = found["eer_percent"]
            for key in ("ci_low", "ci_high", "min_dcf_0.01", "min_dcf_0.05"):
                flat[key] = found[key]
        if len(evaluations) > 1:
            flat[f"eer_{name}"] = found["eer_percent"]
            flat[f"eer_{name}_ci_low"] = found["ci_low"]
            flat[f"eer_{name}_ci_high"] = found["ci_high"]
    return flat


def write_table(path, evaluations, about, record):
    """Writes ``table.csv``, a row for every list and scoring."""
    with atomic_write(path, newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, extrasaction="ignore")
        writer.writeheader()
        for found in evaluations:
            system = about["system"]
            if found["scoring"] != "cosine":
                system += f", {found['scoring'].replace('_', ' ')}"
            shown = {
                key: round(value, 4) if isinstance(value, float) else value
                for key, value in found.items()
            }
            writer.writerow(
                {
                    **shown,
                    **about,
                    "system": system,
                    "trials": found["list"],
                    "minutes": record["minutes"],
                    "command": record["command"],
                }
            )


def check_settings(hparams):
    """Refuses values that would fail, or mislead, only after the work."""
    if hparams["eval_precision"] not in PRECISIONS:
        raise ConfigError(
            f"eval_precision is {hparams['eval_precision']!r}; it must be one "
            f"of {', '.join(PRECISIONS)}"
        )
    for key, least in (("bootstrap_replicates", 0), ("num_workers", 0)):
        if not isinstance(hparams[key], int) or hparams[key] < least:
            raise ConfigError(
                f"{key} is {hparams[key]!r}; it must be a whole number from "
                f"{least}"
            )


def main(argv):
    """Checks all inputs, embeds, scores, writes."""
    start = time.perf_counter()
    path, run_opts, overrides, hparams = load_config(argv, KEYS)
    if "eval_precision" in run_opts.overridden_args:
        # SpeechBrain takes this key for itself where the command line has it.
        hparams["eval_precision"] = run_opts["eval_precision"]
    check_settings(hparams)
    # All that can be wrong with the inputs shows before any embedding is made.
    encoder, features, about = load_model(hparams)
    lists, seconds = read_lists(hparams)
    mean_set = read_mean_utterances(
        hparams, [p for _, paths in lists.values() for p in paths]
    )
    if hparams["output_folder"] is None:
        # One for each model, so that none overwrites another's figures.
        name = about["system"]
        if name == "untrained":
            name += f"/{about['seed']}"
        hparams["output_folder"] = f"results/{name}"
    folder = pathlib.Path(hparams["output_folder"])
    sb.create_experiment_directory(
        experiment_directory=str(folder),
        hyperparams_to_save=path,
        overrides=overrides,
    )
    device = run_opts["device"] or infer_device()
    rows, embeddings, mean = embed(
        hparams, encoder, features, lists, seconds, mean_set, device
    )
    evaluations, drawn = score(hparams, lists, rows, embeddings, mean)
    on_gpu = str(device).startswith("cuda")
    written = write_results(
        folder,
        flat_figures(evaluations),
        seed=hparams["seed"] if about["seed"] is None else about["seed"],
        seconds=time.perf_counter() - start,
        command=shlex.join(["python", pathlib.Path(__file__).name, *argv]),
        extra={
            "system": about["system"],
            # What `eer` and its neighbours at the top are of.
            "headline": f"{evaluations[0]['list']}, cosine",
            "evaluations": evaluations,
        },
        labels_seen=about["labels_seen"],
        gpu=torch.cuda.get_device_name(device) if on_gpu else None,
    )
    record = json.loads(written.read_text(encoding="utf-8"))
    write_table(folder / "table.csv", evaluations, about, record)
    build_report(folder, title=f"Verification: {about['system']}", trials=drawn)
    print(f"\n{table(evaluations)}\n")
    print(f"labels seen in training: {about['labels_seen']}")
    print(f"report: {folder / 'report.html'}")
    return record


if __name__ == "__main__":
    run(main)
