#!/usr/bin/env python3
"""Evaluate a speaker encoder on trial lists.

    python evaluate.py hparams/cosine.yaml --model=/path/to/output_folder \\
        --data_folder=/path/to/corpora --save_folder=../save
    python evaluate.py hparams/cosine_one_list.yaml --model=statistics \\
        --trials=/path/to/trials.txt --trials_folder=/path/to/audio

Every list is scored by plain cosine. If the YAML asks for it, each list is also
scored after subtracting the mean of training utterances, by a back-end
(AS-norm, PLDA), and with several crops per utterance.

`--model` is the output folder of a training run, a published model, or one of
two untrained baselines: `statistics` (mean and standard deviation of the
log-mel energies) and `untrained` (an encoder with random weights).

Every key of the YAML can be set on the command line; --print_config prints all
keys and exits. The README beside this file describes the outputs and the
metrics. The labels of the trials are used only to compute metrics: no setting
depends on them.
"""

from speechbrain_ssl.runtime import set_up_process

set_up_process()  # before torch is imported

import functools
import pathlib
import time

import numpy as np
from speechbrain.utils.distributed import infer_device

from speechbrain_ssl import precision
from speechbrain_ssl.config import load_config, run
from speechbrain_ssl.data.manifest import Manifest
from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.pseudo_labels.labels import read_labels
from speechbrain_ssl.publishing.systems import (
    load_system,
    write_system_results,
)
from speechbrain_ssl.report.evaluations import (
    evaluations_text,
    flat_figures,
    write_breakdown,
    write_table,
)
from speechbrain_ssl.report.blocks import section
from speechbrain_ssl.report.hardest_pairs import FILE_NAME as HARDEST_PAIRS
from speechbrain_ssl.report.hardest_pairs import write_hardest_pairs
from speechbrain_ssl.report.page import build_report
from speechbrain_ssl.run_folder import make_run_folder, write_hyperparams
from speechbrain_ssl.verification.breakdown import (
    check_in_table,
    read_speaker_table,
)
from speechbrain_ssl.embedding.cache import embed_cached
from speechbrain_ssl.embedding.crops import CropGrid
from speechbrain_ssl.verification.evaluation import evaluate_lists
from speechbrain_ssl.verification.multicrop import multicrop_rows
from speechbrain_ssl.verification.protocol import (
    check_speakers,
    choose_training,
    load_lists,
    named_lists,
)
from speechbrain_ssl.verification.scoring import cosine_scores, product_scores

# Keys that this script reads. Any other key of a YAML is an error, unless
# another key refers to it.
KEYS = set(
    """
    seed output_folder data_folder model encoder features trials trials_folder
    trials_manifest trials_speaker_component trials_layout trials_enrolment
    mean_manifest mean_utterances backend backend_manifest backend_utterances
    backend_labels crops crop_seconds calibrate_on speaker_table hardest_pairs
    bootstrap_replicates
    batch_seconds embed_most_seconds num_workers eval_precision
    """.split()
)


def read_lists(hparams):
    """Read the trial lists and find the audio file of every utterance.

    Arguments
    ---------
    hparams : dict
        The hyper-parameters.

    Returns
    -------
    tuple
        What ``load_lists`` returns, and the durations that are known (path ->
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
            "it) or trials_manifest (a CSV file with their paths), and null "
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


def read_training(hparams, purpose, trial_paths):
    """Choose the training utterances for the mean, or for the back-end.

    Arguments
    ---------
    hparams : dict
        The hyper-parameters.
    purpose : str
        ``mean`` or ``backend``: the prefix of the keys.
    trial_paths : list of str
        The audio files of the trials.

    Returns
    -------
    tuple
        Manifest and pseudo-labels (int ``[N]``); either may be None.
    """
    key, count = f"{purpose}_manifest", f"{purpose}_utterances"
    if hparams[key] is None:
        return None, None
    manifest = Manifest.read(hparams[key], hparams["data_folder"])
    labels = hparams.get(f"{purpose}_labels")
    if labels is not None:
        labels, _ = read_labels(labels, manifest)
    chosen = choose_training(manifest, trial_paths, hparams[count], purpose)
    labels = None if labels is None else labels[chosen]
    return manifest.select(chosen), labels


def read_inputs(hparams):
    """Read and check all inputs, before any embedding is computed.

    Arguments
    ---------
    hparams : dict
        The hyper-parameters.

    Returns
    -------
    tuple
        The system; the two values that ``read_lists`` returns; purpose -> what
        ``read_training`` returns; the table of speakers, or None.
    """
    system = load_system(
        hparams["model"],
        hparams["encoder"],
        hparams["features"],
        hparams["seed"],
    )
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
    return system, lists, seconds, training, speakers


def scorings(hparams, system, lists, seconds, training, device):
    """Embed all files, and prepare every scoring that was asked for.

    Arguments
    ---------
    hparams : dict
        The hyper-parameters.
    system : speechbrain_ssl.publishing.systems.System
        The encoder.
    lists, seconds
        From ``read_lists``.
    training : dict
        Purpose -> what ``read_training`` returned.
    device : str
        Where to compute.

    Returns
    -------
    tuple
        Path -> row; and name of the scoring -> embeddings ``[files, size]`` and
        a function of embeddings and trials that returns scores.
    """
    files = unique(path for _, paths in lists.values() for path in paths)
    paths = list(files)
    for manifest, _ in training.values():
        if manifest is not None:
            seconds = {**seconds, **durations(manifest)}
            paths += paths_of(manifest)
    paths = unique(paths)
    rows = {path: row for row, path in enumerate(paths)}

    def embed(name, paths, seconds=None, grid=None):
        embeddings, _ = embed_cached(
            pathlib.Path(hparams["output_folder"]) / name,
            system.encoder,
            system.features,
            paths,
            seconds,
            precision.DTYPES[hparams["eval_precision"]],
            grid,
            hparams["embed_most_seconds"],
            device=device,
            batch_seconds=hparams["batch_seconds"],
            num_workers=hparams["num_workers"],
        )
        return embeddings

    known = all(path in seconds for path in paths)
    embeddings = embed(
        "embeddings.npz", paths, [seconds[p] for p in paths] if known else None
    )
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
    if hparams["crops"]:
        grid = CropGrid(hparams["crops"], hparams["crop_seconds"])
        crops = embed("embeddings_crops.npz", files, grid=grid)
        crop_rows = multicrop_rows(embeddings[: len(files)], crops, files)
        found["multi_crop"] = crop_rows, product_scores
    return rows, found


def unique(values):
    """Return each value once, in the order of first appearance."""
    return list(dict.fromkeys(values))


def paths_of(manifest):
    """List the audio files of a manifest."""
    return [manifest.path(i) for i in range(len(manifest))]


def durations(manifest):
    """Return path -> duration in seconds, for all files of a manifest."""
    return dict(
        zip(paths_of(manifest), manifest.durations.tolist(), strict=True)
    )


def mapped(lists, embeddings, rows, by_speaker):
    """Collect the embeddings of the first list, for the map on the page."""
    trials, paths = next(iter(lists.values()))
    found = {
        "embeddings": trials.pool(embeddings[[rows[path] for path in paths]]),
        "names": trials.names,
    }
    if by_speaker:
        found.update(groups=trials.speakers(), group_name="speaker")
    return found


def write_pairs(hparams, system, lists, drawn):
    """Write the page of the hardest pairs, and a link for the report."""
    if not hparams["hardest_pairs"]:
        return []
    wanted = {}
    for name, (trials, paths) in lists.items():
        found = drawn[f"{name}, cosine"]
        wanted[name] = trials, paths, found["scores"], found["threshold"]
    write_hardest_pairs(
        pathlib.Path(hparams["output_folder"]) / HARDEST_PAIRS,
        f"Hardest pairs: {system.name}",
        wanted,
        hparams["hardest_pairs"],
    )
    link = f'<p><a href="{HARDEST_PAIRS}">Hear the worst errors.</a></p>'
    return [section("Hardest pairs", link)]


def check_settings(hparams):
    """Validate settings that would otherwise fail, or mislead, much later."""
    for key in (
        "bootstrap_replicates",
        "hardest_pairs",
        "num_workers",
        "crops",
    ):
        if not isinstance(hparams[key], int) or hparams[key] < 0:
            raise ConfigError(
                f"{key} is {hparams[key]!r}; it must be a whole number from 0"
            )
    if hparams["crops"]:
        CropGrid(hparams["crops"], hparams["crop_seconds"])
    if (hparams["backend"] is None) != (hparams["backend_manifest"] is None):
        raise ConfigError(
            "a back-end is trained on backend_manifest: give both, or null "
            "for both"
        )


def main(argv):
    """Check all inputs, embed, score and write the results."""
    start = time.perf_counter()
    path, run_opts, overrides, hparams = load_config(argv, KEYS)
    check_settings(hparams)
    system, lists, seconds, training, speakers = read_inputs(hparams)
    if hparams["output_folder"] is None:
        # One folder for each model, so that none overwrites another.
        hparams["output_folder"] = f"results/{system.folder}"
    folder = pathlib.Path(hparams["output_folder"])
    make_run_folder(folder)
    write_hyperparams(folder, path, overrides)
    precision.announce(hparams, run_opts)
    device = run_opts["device"] or infer_device()
    rows, ways = scorings(hparams, system, lists, seconds, training, device)
    scores = {
        name: {
            scoring: scorer(
                trials.pool(table[[rows[path] for path in paths]]), trials
            )
            for scoring, (table, scorer) in ways.items()
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
    record = write_system_results(
        folder,
        flat_figures(evaluations),
        system,
        script=__file__,
        argv=argv,
        seed=hparams["seed"],
        start=start,
        device=device,
        labels_seen=system.labels_seen,
        extra={
            # The list and the scoring that the top-level metrics belong to.
            "headline": f"{evaluations[0]['list']}, cosine",
            # The list whose labels the calibrated scores have used.
            "calibrated_on": hparams["calibrate_on"],
            **precision.describe(hparams),
            "evaluations": evaluations,
        },
    )
    write_table(folder / "table.csv", evaluations, system, record)
    build_report(
        folder,
        title=f"Verification: {system.name}",
        trials=drawn,
        embeddings=mapped(
            lists, ways["cosine"][0], rows, bootstrap["replicates"] > 0
        ),
        extra_sections=write_pairs(hparams, system, lists, drawn),
    )
    print(f"\n{evaluations_text(evaluations)}\n")
    print(f"labels seen in training: {system.labels_seen}")
    print(f"report: {folder / 'report.html'}")
    return record


if __name__ == "__main__":
    run(main)
