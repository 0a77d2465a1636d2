#!/usr/bin/env python3
"""Compare several evaluations on one page: DET curves, metrics, differences.

    python compare.py results/ssl results/ssl:as_norm base=results/statistics

A system is given by the output folder of `evaluate.py`, or of a training run
with trials. Append `:scoring` for another scoring than the plain cosine, and put
`name=` in front to choose a name. Each system is compared with the first one, on
every list that all of them have scored, and is better, worse or not
distinguishable: the 95 % interval of the difference then contains zero.
`--fuse_on=LIST` adds a fusion of all systems by logistic regression, trained on
that list (with its labels) and shown on the others. `--fuse` adds the plain mean
of their scores, which must have the same scale.

`comparison.html` and `comparison.csv` are written into `--output_folder`.
"""

from speechbrain_ssl.runtime import set_up_process

set_up_process()  # before torch is imported

import argparse
import pathlib

from speechbrain_ssl.config import run
from speechbrain_ssl.config_base import read_hyperparams
from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.report.comparison import (
    compare,
    read_systems,
    write_comparison,
)
from speechbrain_ssl.report.evaluations import evaluations_text, write_rows
from speechbrain_ssl.report.headline import run_name
from speechbrain_ssl.verification.fusion import learn_fusion, weighted_fusion
from speechbrain_ssl.verification.protocol import check_speakers
from speechbrain_ssl.verification.trials import linked_speakers, path_component

COLUMNS = (
    "list system trials targets speakers eer_percent ci_low ci_high "
    "min_dcf_0.01 min_dcf_0.05 difference difference_low difference_high verdict"
).split()


def scored_lists(folder, scoring):
    """Return list -> file with its scores, of an evaluation or a training run."""
    end = f"_{scoring}.txt"
    lists = {
        path.name[len("scores_") : -len(end)]: path
        for path in sorted(folder.glob(f"scores_*{end}"))
    }
    of_training = folder / "trial_scores.txt"
    if scoring == "cosine" and of_training.is_file():
        trials = read_hyperparams(folder).get("trials") or "trials"
        lists.setdefault(pathlib.Path(trials).stem, of_training)
    if not lists:
        raise ConfigError(
            f"{folder} has no scores called '{scoring}' "
            f"(scores_<list>{end}); run evaluate.py with that output_folder first"
        )
    return lists


def find_scores(systems):
    """Find the score files of every system.

    Arguments
    ---------
    systems : list of str
        As on the command line.

    Returns
    -------
    dict
        List -> name of the system -> file, for the lists that all systems have
        scored.

    Raises
    ------
    ConfigError
        If a folder has no such scores, a name occurs twice, or the systems have
        no list in common.
    """
    found = {}
    for text in systems:
        name, _, place = text.rpartition("=")
        folder, _, scoring = place.partition(":")
        folder = pathlib.Path(folder)
        name = name or ":".join(filter(None, (run_name(folder), scoring)))
        lists = scored_lists(folder, scoring or "cosine")
        if name in found:
            raise ConfigError(
                f"two systems are called '{name}'; write name={place}"
            )
        found[name] = lists
    common = set.intersection(*(set(lists) for lists in found.values()))
    if not common:
        raise ConfigError(
            "no trial list has been scored by all systems: "
            + "; ".join(f"{n}: {', '.join(ls)}" for n, ls in found.items())
        )
    return {
        name: {system: lists[name] for system, lists in found.items()}
        for name in sorted(common)
    }


def parse(argv):
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("systems", nargs="+", help="[name=]folder[:scoring]")
    parser.add_argument("--output_folder", default="results/comparison")
    parser.add_argument("--fuse", action="store_true", help="mean of scores")
    parser.add_argument("--fuse_on", help="list to learn a fusion on")
    parser.add_argument(
        "--trials_speaker_component",
        help="which component of a name is the speaker; null: inferred from "
        "the target trials (default: as for the first system)",
    )
    parser.add_argument("--bootstrap_replicates", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args(argv)


def main(argv):
    """Read the scores, compare the systems, and write page and table."""
    options = parse(argv)
    files = find_scores(options.systems)
    if options.fuse_on not in (None, *files):
        raise ConfigError(
            f"--fuse_on={options.fuse_on}: the lists are {', '.join(files)}"
        )
    lists = {name: read_systems(paths) for name, paths in files.items()}
    component = options.trials_speaker_component
    if component is None:
        folder = next(iter(next(iter(files.values())).values())).parent
        component = read_hyperparams(folder).get("trials_speaker_component", 0)
    for trials, _ in lists.values():
        if component in (None, "null"):
            trials.speaker_of = linked_speakers(trials)
        else:
            trials.speaker_of = path_component(int(component))
    if options.bootstrap_replicates:
        check_speakers(lists)
    fusion = None
    if options.fuse_on is not None:
        trials, scores = lists[options.fuse_on]
        fusion = learn_fusion(list(scores.values()), trials.labels)
    compared, rows = {}, []
    for name, (trials, scores) in lists.items():
        plain = list(scores.values())
        if options.fuse:
            scores["mean of all"] = weighted_fusion(plain)
        # On the list it was trained on, a fusion would look too good.
        if fusion is not None and name != options.fuse_on:
            scores[f"fusion, learnt on {options.fuse_on}"] = fusion(plain)
        found = compare(
            trials, scores, options.bootstrap_replicates, options.seed
        )
        compared[name] = trials, scores, found
        rows += [{"list": name, **row} for row in found]
    folder = pathlib.Path(options.output_folder)
    write_comparison(folder / "comparison.html", compared)
    write_rows(folder / "comparison.csv", COLUMNS, rows)
    print(f"\n{evaluations_text(rows)}\n")
    print(f"page: {folder / 'comparison.html'}")
    return rows


if __name__ == "__main__":
    run(main)
