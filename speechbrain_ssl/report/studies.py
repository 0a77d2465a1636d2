"""Read, score, compare and tabulate the runs of a study in ``results/``.

A study has a folder ``runs`` with a folder ``<system>_<seed>`` for each run,
and a script ``make_table.py`` that makes the table and the figures from them.
Scores are kept in a file, so that runs can be added to a study: only new runs
are scored, and every comparison is computed again over all seeds.
"""

import json
import re

import numpy as np

from speechbrain_ssl.files import atomic_write
from speechbrain_ssl.report.comparison import read_systems
from speechbrain_ssl.report.evaluations import COLUMNS, write_rows
from speechbrain_ssl.report.style import write_svg
from speechbrain_ssl.verification.bootstrap import paired_difference
from speechbrain_ssl.verification.trials import path_component

#: The first columns of every table of error rates.
HEADLINE = COLUMNS[:9]


def saved_runs(study, systems=("*",)):
    """Yield the saved runs of a study, ordered by system and seed.

    Arguments
    ---------
    study : pathlib.Path
        The folder of the study.
    systems : iterable of str
        The systems in the order wanted. By default all, sorted by name.

    Yields
    ------
    tuple
        Name of the system (str), seed (str) and folder (pathlib.Path).

    Example
    -------
    >>> import pathlib, tempfile
    >>> study = pathlib.Path(tempfile.mkdtemp())
    >>> for name in ("dino_1", "simclr_1", "simclr_long_1"):
    ...     (study / "runs" / name).mkdir(parents=True)
    >>> [run[:2] for run in saved_runs(study)]
    [('dino', '1'), ('simclr', '1'), ('simclr_long', '1')]
    >>> [run[:2] for run in saved_runs(study, ["simclr", "dino"])]
    [('simclr', '1'), ('dino', '1')]
    """
    for system in systems:
        for folder in sorted((study / "runs").glob(f"{system}_[0-9]")):
            name, seed = folder.name.rsplit("_", 1)
            yield name, seed, folder


def read_json(path):
    """Read a JSON file.

    Arguments
    ---------
    path : pathlib.Path
        The file.

    Returns
    -------
    dict or list
    """
    return json.loads(path.read_text(encoding="utf-8"))


def keep_record(run, kept):
    """Copy the ``results.json`` of a run into a study, with public paths.

    Arguments
    ---------
    run : pathlib.Path
        The output folder of the run.
    kept : pathlib.Path
        The folder of the study for it, which is made.

    Example
    -------
    >>> import pathlib, tempfile
    >>> run = pathlib.Path(tempfile.mkdtemp())
    >>> record = {"command": "train.py x.yaml --rirs_csv=/home/me/rooms/all.csv"}
    >>> _ = (run / "results.json").write_text(json.dumps(record))
    >>> keep_record(run, run / "runs" / "simclr_1")
    >>> read_json(run / "runs" / "simclr_1" / "results.json")["command"]
    'train.py x.yaml --rirs_csv=/path/to/rooms/all.csv'
    """
    record = read_json(run / "results.json")
    # All of a path but its last two names.
    record["command"] = re.sub(
        r"/[^\s,\]']*?([^\s,\]'/]+/[^\s,\]'/]+)(?=[\s,\]']|$)",
        r"/path/to/\1",
        record["command"],
    )
    with atomic_write(kept / "results.json") as stream:
        json.dump(record, stream, indent=1)
        stream.write("\n")


def epoch_lines(metrics):
    """Choose the lines of ``metrics.jsonl`` that a study keeps.

    Training writes a line every few steps; a study needs one or two for each
    epoch, and the first and the last epoch of training in full.

    Arguments
    ---------
    metrics : list of dict
        As ``read_metrics`` gives them.

    Returns
    -------
    list of dict
        All lines of other stages, the first ``train`` line, and every
        ``train`` line of the last epoch.

    Example
    -------
    >>> metrics = [
    ...     {"stage": stage, "epoch": epoch, "step": step}
    ...     for epoch in (1, 2)
    ...     for stage, step in (("train", 1), ("train", 2), ("valid", 2))
    ... ]
    >>> [(line["stage"], line["epoch"]) for line in epoch_lines(metrics)]
    [('train', 1), ('valid', 1), ('train', 2), ('train', 2), ('valid', 2)]
    """
    training = [line for line in metrics if line["stage"] == "train"]
    return [
        line
        for line in metrics
        if line["stage"] != "train"
        or line is training[0]
        or line["epoch"] == training[-1]["epoch"]
    ]


def run_row(system, seed, trials, results):
    """Return the row of a run, with the columns of every table of error rates.

    Arguments
    ---------
    system, seed, trials : str
        Name of the system, seed of the run, name of the list.
    results : dict
        Contents of ``results.json``. Error rates are taken from its entry
        ``evaluation``, if a study evaluated the run again.

    Returns
    -------
    dict
        The columns of ``HEADLINE``, ``min_dcf_0.01`` and ``min_dcf_0.05``;
        rates in percent with two decimals.

    Example
    -------
    >>> results = {"eer": 9.333, "ci_low": 7.181, "ci_high": 11.744}
    >>> results |= {"min_dcf_0.01": 0.7, "min_dcf_0.05": 0.5, "minutes": 15.26}
    >>> results |= {"labels_seen": "none", "command": "train.py simclr.yaml"}
    >>> row = run_row("SimCLR", "2", "dev_trials_H", results)
    >>> row["eer_percent"], row["minutes"], row["min_dcf_0.01"]
    ('9.33', '15.3', '0.700')
    """
    found = results.get("evaluation")
    if found is None:
        found = {**results, "eer_percent": results["eer"]}
    return {
        "system": system,
        "seed": seed,
        "trials": trials,
        "labels_seen": results["labels_seen"],
        "minutes": f"{results['minutes']:.1f}",
        "command": results["command"],
        **{
            key: f"{found[key]:.2f}"
            for key in ("eer_percent", "ci_low", "ci_high")
        },
        **{
            key: f"{found[key]:.3f}" for key in ("min_dcf_0.01", "min_dcf_0.05")
        },
    }


def write_study(study, columns, rows, **figures):
    """Write ``table.csv`` and the figures of a study.

    Arguments
    ---------
    study : pathlib.Path
        The folder of the study.
    columns : sequence of str
        The header of the table.
    rows : iterable of dict
        The rows; keys that are not in the header are left out.
    **figures : matplotlib.figure.Figure
        Written as ``<name>.svg``.
    """
    write_rows(study / "table.csv", columns, rows)
    for name, figure in figures.items():
        write_svg(study / f"{name}.svg", figure)


def write_runs(study, trials):
    """Write ``table.csv`` of a study, with a row for each saved run.

    Arguments
    ---------
    study : pathlib.Path
        The folder of the study.
    trials : str
        Name of the trial list.
    """
    rows = []
    for system, seed, folder in saved_runs(study):
        results = read_json(folder / "results.json")
        row = run_row(system, seed, trials, results)
        rows.append({**row, "epochs": results["epochs"]})
    columns = [*HEADLINE, "min_dcf_0.01", "min_dcf_0.05", "epochs"]
    write_study(study, columns, rows)


def write_differences(study, runs, pairs, speaker_component):
    """Keep the records of runs, compare systems, write ``differences.json``.

    Arguments
    ---------
    study : pathlib.Path
        The folder of the study.
    runs : dict
        ``<system>_<seed>`` -> output folder with ``trial_scores.txt``.
    pairs : iterable of tuple
        Two systems each, as ``compare_systems`` takes them.
    speaker_component : int
        Part of a path that names the speaker.
    """
    for name, folder in runs.items():
        keep_record(folder, study / "runs" / name)
    trials, scores = read_systems(
        {name: f"{folder}/trial_scores.txt" for name, folder in runs.items()}
    )
    trials.speaker_of = path_component(speaker_component)
    found = [compare_systems(scores, *pair, trials) for pair in pairs]
    for row in found:
        for key in ("difference", "ci_low", "ci_high"):
            row[key] = round(row[key], 2)
    with atomic_write(study / "differences.json") as stream:
        json.dump(found, stream, indent=1)
        stream.write("\n")


def score_runs(folders, cache, evaluate):
    """Score all finished runs, and keep the scores in a file.

    Arguments
    ---------
    folders : iterable of pathlib.Path
        Output folders of train.py. A run without ``results.json`` has not
        finished and is left out.
    cache : pathlib.Path
        An ``.npz`` file, created if missing. Delete it after repeating a run.
    evaluate : callable
        Takes a folder and returns the scores of the study's trials,
        ``numpy.ndarray [T]``.

    Returns
    -------
    dict
        Maps the name of each run to its scores.
    """
    known = dict(np.load(cache)) if cache.is_file() else {}
    for folder in folders:
        if folder.name in known or not (folder / "results.json").is_file():
            continue
        known[folder.name] = evaluate(folder)
        with atomic_write(cache, "wb") as stream:
            np.savez(stream, **known)
    return known


def compare_systems(scores, better, other, trials, among=None, draw_runs=False):
    """Compute the mean difference of two systems over their common seeds.

    Arguments
    ---------
    scores : dict
        ``<system>_<seed>`` -> scores, ``numpy.ndarray [T]``.
    better, other : str
        The systems.
    trials : Trials
        The trials, with speakers.
    among : collection of str, optional
        The seeds that may be used. By default all.
    draw_runs : bool
        Whether the bootstrap draws runs as well as speakers (see
        ``paired_difference``).

    Returns
    -------
    dict or None
        ``better``, ``than``, ``seeds`` (their number), and ``difference``,
        ``ci_low``, ``ci_high``: how many points of EER ``better`` is below
        ``other``, with a 95 % interval over speakers. None if the systems
        have no seed in common.

    Example
    -------
    >>> from speechbrain_ssl.verification.trials import Trials
    >>> names = [f"s{s}/{u}" for s in range(20) for u in range(2)]
    >>> a, b = np.triu_indices(40, 1)
    >>> trials = Trials(a // 2 == b // 2, a, b, names)
    >>> noise = np.random.default_rng(0).normal(size=len(trials))
    >>> good, bad = 2 * trials.labels + noise, trials.labels + noise
    >>> scores = {"ssps_1": good, "simclr_1": bad, "ssps_2": good}
    >>> found = compare_systems(scores, "ssps", "simclr", trials)
    >>> found["seeds"], found["ci_low"] > 0
    (1, True)
    >>> compare_systems(scores, "ssps", "simclr", trials, among=["2"])
    """
    runs = [name.rsplit("_", 1) for name in scores]
    seeds = sorted(
        seed
        for system, seed in runs
        if system == better
        and [other, seed] in runs
        and (among is None or seed in among)
    )
    if not seeds:
        return None
    found, interval = paired_difference(
        [scores[f"{better}_{seed}"] for seed in seeds],
        [scores[f"{other}_{seed}"] for seed in seeds],
        trials,
        draw_runs=draw_runs,
    )
    return {
        "better": better,
        "than": other,
        "seeds": len(seeds),
        "difference": 100 * found,
        "ci_low": 100 * interval.low,
        "ci_high": 100 * interval.high,
    }
