#!/usr/bin/env python3
"""Evaluates a speaker encoder on trial lists.

    python evaluate.py hparams/cosine.yaml --model=/path/to/output_folder \\
        --data_folder=/path/to/corpora --save_folder=../save
    python evaluate.py hparams/cosine_one_list.yaml --model=statistics \\
        --trials=/path/to/trials.txt --trials_folder=/path/to/audio

Every list is scored by plain cosine; then, as the YAML says, less the mean of
training utterances, by a back-end (AS-norm, PLDA), and with several crops.

`--model` is the output folder of a training run, a published model, or one of
two baselines that nothing was trained for: `statistics` (mean and standard
deviation of the log-mel energies) and `untrained` (an encoder as initialised).

What comes out, and what the figures mean, is in the README beside this file.
The labels of the trials are for the reader: no setting is chosen by them.
"""

from speechbrain_ssl.runtime import set_up_process

set_up_process()  # before torch is imported

import functools
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
from speechbrain_ssl.pseudo_labels.labels import read_labels
from speechbrain_ssl.publishing.export import load_encoder
from speechbrain_ssl.report.evaluations import (
    evaluate_lists,
    evaluations_text,
    flat_figures,
    write_breakdown,
    write_table,
)
from speechbrain_ssl.report.page import build_report
from speechbrain_ssl.report.results import write_results
from speechbrain_ssl.verification.baselines import LogMelStatistics
from speechbrain_ssl.verification.breakdown import (
    check_in_table,
    read_speaker_table,
)
from speechbrain_ssl.verification.cache import embed_cached
from speechbrain_ssl.verification.extract import PRECISIONS
from speechbrain_ssl.verification.multicrop import multicrop_rows
from speechbrain_ssl.verification.protocol import (
    check_speakers,
    load_lists,
    named_lists,
)
from speechbrain_ssl.verification.scoring import cosine_scores, product_scores

logger = logging.getLogger(__name__)

# What this script reads; anything else in a YAML must be referred to by another
# key, or it is an error.
KEYS = set(
    """
    seed output_folder data_folder model encoder features trials trials_folder
    trials_manifest trials_speaker_component trials_layout trials_enrolment
    mean_manifest mean_utterances backend backend_manifest backend_utterances
    backend_labels crops calibrate_on speaker_table bootstrap_replicates
    batch_seconds num_workers eval_precision
    """.split()
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
    if hparams["calibrate_on"] not in (None, *lists):
        raise ConfigError(
            f"calibrate_on is '{hparams['calibrate_on']}', which is none of "
            f"the lists {', '.join(lists)}"
        )
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
        lists,
        hparams["trials_speaker_component"],
        folder,
        manifest,
        hparams["trials_layout"],
        hparams["trials_enrolment"],
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


def read_training(hparams, purpose, trial_paths):
    """The training utterances for the mean, or for the back-end.

    Arguments
    ---------
    hparams : dict
        The hyper-parameters.
    purpose : str
        ``mean`` or ``backend``: the beginning of the keys.
    trial_paths : list of str
        The audio files of the trials.

    Returns
    -------
    tuple
        Manifest and pseudo labels (int ``[N]``), either of them None.

    Raises
    ------
    ConfigError
        If an utterance of the trials is among them.
    """
    key = f"{purpose}_manifest"
    if hparams[key] is None:
        return None, None
    manifest = Manifest.read(hparams[key], hparams["data_folder"])
    labels = hparams.get(f"{purpose}_labels")
    if labels is not None:
        labels, _ = read_labels(labels, manifest)
    count = hparams[f"{purpose}_utterances"]
    if count is not None:
        if count < 1:
            raise ConfigError(
                f"{purpose}_utterances must be at least 1, or null for all"
            )
        # By key, hence the same ones in whatever order the manifest is.
        chosen = np.argsort(manifest.keys)[:count]
        manifest = manifest.select(chosen)
        labels = None if labels is None else labels[chosen]
    paths = {os.path.realpath(manifest.path(i)) for i in range(len(manifest))}
    common = paths.intersection(map(os.path.realpath, trial_paths))
    if common:
        raise ConfigError(
            f"{key}: {len(common)} of its {len(manifest)} utterances are in "
            f"the trials ({min(common)}); they must be other utterances. Use "
            "the training manifest, or null"
        )
    for i in range(len(manifest)):
        if not os.path.isfile(manifest.path(i)):
            raise ConfigError(
                f"{key}: there is no file {manifest.path(i)}; correct "
                "data_folder, or set it to null"
            )
    return manifest, labels


def paths_of(manifest):
    """The audio files of a manifest."""
    return [manifest.path(i) for i in range(len(manifest))]


def embed(hparams, encoder, features, paths, seconds, device, grid=None):
    """Embeds every file once, however many lists name it.

    Arguments
    ---------
    hparams : dict
        The hyper-parameters.
    encoder, features : torch.nn.Module
        The model.
    paths : list of str
        The files.
    seconds : dict
        Path to seconds, where known.
    device : str
        Where to compute.
    grid : speechbrain_ssl.verification.multicrop.CropGrid, optional
        For the crops of the files instead of the whole of them.

    Returns
    -------
    numpy.ndarray
        Embeddings ``[files, size]``.
    """
    known = all(path in seconds for path in paths)
    name = "embeddings.npz" if grid is None else "embeddings_crops.npz"
    start = time.perf_counter()
    embeddings, made = embed_cached(
        pathlib.Path(hparams["output_folder"]) / name,
        encoder,
        features,
        paths,
        [seconds[path] for path in paths] if known else None,
        PRECISIONS[hparams["eval_precision"]],
        grid,
        device=device,
        batch_seconds=hparams["batch_seconds"],
        num_workers=hparams["num_workers"],
    )
    spent = time.perf_counter() - start
    logger.info(
        "%d utterances: %d embedded in %.1f s (%.1f a second), %d kept from an "
        "earlier call",
        len(paths),
        made,
        spent,
        made / spent,
        len(paths) - made,
    )
    return embeddings


def scorings(hparams, encoder, features, lists, seconds, training, device):
    """Embeds, and prepares every way in which the lists are scored.

    Arguments
    ---------
    hparams : dict
        The hyper-parameters.
    encoder, features : torch.nn.Module
        The model.
    lists, seconds
        From ``read_lists``.
    training : dict
        Purpose to what ``read_training`` returned.
    device : str
        Where to compute.

    Returns
    -------
    tuple
        Path to row; and name to a pair of rows ``[files, size]`` and a
        function of rows and trials that scores.
    """
    trial_paths = [path for _, paths in lists.values() for path in paths]
    paths = list(dict.fromkeys(trial_paths))
    trial_files = len(paths)
    for manifest, _ in training.values():
        if manifest is not None:
            seconds = {**seconds, **durations(manifest)}
            paths += paths_of(manifest)
    paths = list(dict.fromkeys(paths))
    rows = {path: row for row, path in enumerate(paths)}
    embeddings = embed(hparams, encoder, features, paths, seconds, device)
    found = {"cosine": (embeddings, cosine_scores)}
    manifest, _ = training["mean"]
    if manifest is not None:
        chosen = embeddings[[rows[path] for path in paths_of(manifest)]]
        mean = chosen.mean(axis=0, dtype=np.float64)
        scorer = functools.partial(cosine_scores, mean=mean)
        found["mean_subtracted"] = embeddings, scorer
    backend = hparams["backend"]
    if backend is not None:
        manifest, labels = training["backend"]
        chosen = embeddings[[rows[path] for path in paths_of(manifest)]]
        found[backend.name] = embeddings, backend.fit(chosen, labels).score
    if hparams["crops"] is not None:
        files = paths[:trial_files]
        crops = embed(
            hparams, encoder, features, files, {}, device, hparams["crops"]
        )
        crop_rows = multicrop_rows(embeddings[:trial_files], crops, files)
        found["multi_crop"] = crop_rows, product_scores
    return rows, found


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
    if (hparams["backend"] is None) != (hparams["backend_manifest"] is None):
        raise ConfigError(
            "a back-end is trained on backend_manifest: give both, or null "
            "for both"
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
    trial_paths = [path for _, paths in lists.values() for path in paths]
    training = {
        purpose: read_training(hparams, purpose, trial_paths)
        for purpose in ("mean", "backend")
    }
    if hparams["backend"] is not None:
        manifest, labels = training["backend"]
        hparams["backend"].check(len(manifest), labels)
    speakers = None
    if hparams["speaker_table"] is not None:
        speakers = read_speaker_table(hparams["speaker_table"])
        check_in_table(lists, speakers)
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
    rows, systems = scorings(
        hparams, encoder, features, lists, seconds, training, device
    )
    scores = {
        name: {
            scoring: scorer(
                trials.pool(table[[rows[path] for path in paths]]), trials
            )
            for scoring, (table, scorer) in systems.items()
        }
        for name, (trials, paths) in lists.items()
    }
    bootstrap = {
        "replicates": hparams["bootstrap_replicates"],
        "seed": hparams["seed"],
    }
    evaluations, drawn = evaluate_lists(
        folder, lists, scores, hparams["calibrate_on"], **bootstrap
    )
    if speakers is not None:
        write_breakdown(folder, lists, scores, speakers, **bootstrap)
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
            # Its labels were used, for what is called calibrated.
            "calibrated_on": hparams["calibrate_on"],
            "evaluations": evaluations,
        },
        labels_seen=about["labels_seen"],
        gpu=torch.cuda.get_device_name(device) if on_gpu else None,
    )
    record = json.loads(written.read_text(encoding="utf-8"))
    write_table(folder / "table.csv", evaluations, about, record)
    build_report(folder, title=f"Verification: {about['system']}", trials=drawn)
    print(f"\n{evaluations_text(evaluations)}\n")
    print(f"labels seen in training: {about['labels_seen']}")
    print(f"report: {folder / 'report.html'}")
    return record


if __name__ == "__main__":
    run(main)
