"""Check and copy the trial lists of VoxCeleb1, and scan their audio.

``voxceleb_prepare.py`` calls ``prepare_trials``.
"""

import logging
import pathlib
import re

import pandas as pd
from voxceleb_places import TRIAL_LISTS, VOX1_SPEAKER

from speechbrain_ssl.errors import ManifestError, TrialError
from speechbrain_ssl.files import atomic_write
from speechbrain_ssl.prepare.listing import list_files
from speechbrain_ssl.prepare.preparation import spaced
from speechbrain_ssl.verification import trials as trial_lists

logger = logging.getLogger(__name__)

UTTERANCE = re.compile(r"id\d{5}/[^/]+/[^/]+$")

# Published sizes.
VOX1_DEV = {"speakers": 1211, "utterances": 148642}
VOX1_TEST = {"speakers": 40, "utterances": 4874}

# The test speakers of VoxCeleb1.
VOX1_TEST_SPEAKERS = {f"id{n}" for n in range(10270, 10310)}


def prepare_trials(preparation, places, train_speakers):
    """Check and copy the trial lists, and write ``vox1.csv``.

    Arguments
    ---------
    preparation : speechbrain_ssl.prepare.preparation.Preparation
        Collects the manifest, the counts and what is missing.
    places : dict
        What ``find_places`` returned.
    train_speakers : set of str
        Speakers in the training list, none of which may be in a trial.

    Returns
    -------
    dict
        Name of a list -> ``trials`` (their number), ``published`` (their number
        at the source) and ``utterances`` (files named).

    Raises
    ------
    TrialError
        If a list is malformed, or names a file that is absent or unusable.
    ManifestError
        If a speaker of the training list is in a trial.
    """
    trees, lists = places["vox1"], places["trials"]
    if not trees:
        preparation.missing.append(
            "VoxCeleb1: not found, so there are no trials to evaluate on; "
            "give vox1_folder"
        )
        return {}
    where = {}
    for tree in trees:
        for name in list_files(tree, extensions=(".wav",)).files:
            if VOX1_SPEAKER.match(name.split("/")[0]):
                where.setdefault(name, tree)
    _count(preparation, where)
    for name in sorted(set(TRIAL_LISTS) - set(lists)):
        preparation.missing.append(
            f"{TRIAL_LISTS[name][0]}: not found beside VoxCeleb1, so there "
            f"is no list {name}"
        )
    summary, named = {}, {}
    for name, path in lists.items():
        trials, lines = read_trials(path)
        _check_files(path, lines, where, trees)
        for file_name, line in lines.items():
            named.setdefault(file_name, (path, line))
        published = TRIAL_LISTS[name][1]
        summary[name] = {
            "trials": trials,
            "published": published,
            "utterances": len(lines),
        }
        if trials != published:
            logger.warning(
                "%s has %s trials; %s were published",
                path,
                spaced(trials),
                spaced(published),
            )
    check_overlap(train_speakers, named)
    if named:
        _write_manifest(preparation, trees, where, named)
    for name, path in lists.items():
        output = f"trials_{name}.txt"
        with atomic_write(preparation.save_folder / output, "wb") as stream:
            stream.write(pathlib.Path(path).read_bytes())
        preparation.outputs.append(output)
    return summary


def _count(preparation, files):
    """Count speakers and utterances of both parts of VoxCeleb1."""
    speakers = [name.split("/")[0] for name in files]
    for part, published in (("dev", VOX1_DEV), ("test", VOX1_TEST)):
        found = [
            s for s in speakers if (s in VOX1_TEST_SPEAKERS) == (part == "test")
        ]
        numbers = {"speakers": len(set(found)), "utterances": len(found)}
        preparation.count(f"VoxCeleb1 {part}", numbers, published)


def read_trials(path):
    """Read and check a trial list.

    Arguments
    ---------
    path : str or pathlib.Path
        Lines of ``1 id10270/x6uYqmx31kE/00001.wav id10270/8jEA…/00008.wav``.

    Returns
    -------
    tuple
        The number of trials, and a dictionary from each file named to the first
        line that names it.

    Raises
    ------
    TrialError
        If the list is empty or not text, or if a line is malformed.
    """
    # Part of a list may lack targets or nontargets, and must be readable, too.
    trials = trial_lists.read_trials(path, require_both=False)
    lines = {}
    for line, left, right in zip(
        trials.lines.tolist(),
        trials.left.tolist(),
        trials.right.tolist(),
        strict=True,
    ):
        lines.setdefault(trials.names[left], line)
        lines.setdefault(trials.names[right], line)
    for name, line in lines.items():
        if not UTTERANCE.match(name):
            raise TrialError(
                f"{path}, line {line}: '{name[:120]}' is not an utterance of "
                "VoxCeleb1, such as id10270/x6uYqmx31kE/00001.wav; get the "
                "list again"
            )
    return len(trials), lines


def _check_files(path, lines, where, trees):
    """Raise if a file that the list names is absent."""
    absent = [name for name in lines if name not in where]
    if absent:
        raise TrialError(
            f"{path}, line {lines[absent[0]]}: there is no {absent[0]} in "
            f"{', '.join(trees)}; {spaced(len(absent))} of the "
            f"{spaced(len(lines))} files that it names are absent; complete "
            "VoxCeleb1, or remove the list"
        )


def check_overlap(train_speakers, named):
    """Raise if the training list contains a speaker of the trials.

    Arguments
    ---------
    train_speakers : set of str
        Speakers in the training list.
    named : iterable of str
        Files that trials name.

    Raises
    ------
    ManifestError
        If a speaker of the trials, or any other speaker of VoxCeleb1, is in the
        training list.
    """
    both = train_speakers & {name.split("/")[0] for name in named}
    both |= {s for s in train_speakers if VOX1_SPEAKER.match(s)}
    if both:
        raise ManifestError(
            f"{len(both)} speakers of VoxCeleb1 are in the training list, "
            f"the first {min(both)}; keep the VoxCeleb1 folders out of the "
            "VoxCeleb2 tree"
        )


def _write_manifest(preparation, trees, where, named):
    """Write ``vox1.csv``, the manifest of the utterances that trials name."""
    tables = []
    for tree in trees:
        files = sorted(name for name in named if where[name] == tree)
        root = preparation.wav_root(tree)
        found = preparation.scan(tree, files, "vox1", wav_root=root)
        if len(found.rejected):
            wav, reason, detail = found.rejected.iloc[0]
            name = wav[len(root) + 1 :]
            path, line = named[name]
            raise TrialError(
                f"{path}, line {line}: {name} cannot be used ({reason}: "
                f"{detail}); {len(found.rejected)} of the {len(files)} "
                f"named files in {tree} cannot; copy them again"
            )
        tables.append(found.manifest())
    preparation.write("vox1.csv", pd.concat(tables).sort_values("ID"))
