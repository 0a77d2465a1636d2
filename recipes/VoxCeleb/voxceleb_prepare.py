"""Prepare VoxCeleb, MUSAN and RIRS_NOISES.

    python voxceleb_prepare.py --data_folder=/path/to/corpora --save_folder=save

VoxCeleb2 dev becomes ``train.csv``, without a speaker column. Speaker names are
used here only to compare their number with the published one; they leave this
script as part of the utterance IDs alone. VoxCeleb1 gives the trial lists and
``vox1.csv`` (``voxceleb_trials.py``); MUSAN and RIRS_NOISES give the manifests
for augmentation. ``voxceleb_places.py`` finds the corpora. All but VoxCeleb2
may be missing, and are then left out with a warning.
"""

import collections
import logging
import os
import sys

from speechbrain_ssl.errors import ManifestError, UserError
from speechbrain_ssl.prepare.av_decoder import INSTALL, has_pyav
from speechbrain_ssl.prepare.background import prepare_musan, prepare_rirs
from speechbrain_ssl.prepare.completed import completed
from speechbrain_ssl.prepare.convert import convert_files
from speechbrain_ssl.prepare.listing import list_files
from speechbrain_ssl.prepare.prepare_script import make_parser, run_parsed
from speechbrain_ssl.prepare.preparation import Preparation, spaced
from voxceleb_places import VOX1_SPEAKER, VOX2_SPEAKER, find_places
from voxceleb_trials import UTTERANCE, prepare_trials

logger = logging.getLogger(__name__)

SAMPLE_RATE = 16000

# Published size.
VOX2_DEV = {"speakers": 5994, "videos": 145569, "utterances": 1092009}


def prepare_voxceleb(
    data_folder,
    save_folder,
    vox2_folder=None,
    vox1_folder=None,
    musan_folder=None,
    rirs_folder=None,
    wav_folder=None,
    min_duration=1.0,
    check="header",
    num_workers=None,
    skip_prep=False,
    pack=None,
):
    """Write the manifests and trial lists of the VoxCeleb recipes.

    Arguments
    ---------
    data_folder : str
        Folder of the corpora; ``$data_root`` in the manifests stands for it.
    save_folder : str
        Folder for the outputs.
    vox2_folder : str, optional
        VoxCeleb2, if it is not below ``data_folder`` under a usual name.
    vox1_folder : str, optional
        Likewise for VoxCeleb1 and its trial lists.
    musan_folder : str, optional
        Likewise for MUSAN.
    rirs_folder : str, optional
        Likewise for RIRS_NOISES.
    wav_folder : str, optional
        Folder for wav files converted from m4a files; by default beside the
        ``aac`` folder.
    min_duration : float
        VoxCeleb2 files shorter than this (seconds) are rejected.
    check : str
        ``"header"`` reads headers; ``"decode"`` reads all audio and also finds
        silent and damaged files.
    num_workers : int, optional
        Number of processes that read or convert; one per core by default.
    skip_prep : bool
        If True, do nothing.
    pack : str or list of str, optional
        Folders, each on a disk of its own, for copies of the training audio in
        few large files (``speechbrain_ssl.prepare.pack``).

    Returns
    -------
    dict
        ``utterances``, ``hours``, ``rejected`` (number by reason), ``counts``
        (found and published, by corpus), ``missing`` (in words) and ``trials``
        (trials, published number and utterances, by list). Empty with
        ``skip_prep``.

    Raises
    ------
    UserError
        If VoxCeleb2 or a folder that was named is not found, or if there are
        m4a files to convert and PyAV is not installed.
    ManifestError
        If no file of VoxCeleb2 is usable, or if the training list overlaps the
        trials.
    TrialError
        If a trial list is malformed or names an absent or unusable file.
    """
    if skip_prep:
        return {}
    data_folder = os.path.abspath(data_folder)
    if not os.path.isdir(data_folder):
        raise UserError(
            f"there is no folder {data_folder}; give the folder of the corpora "
            "as data_folder"
        )
    places = find_places(
        data_folder,
        vox2_folder,
        vox1_folder,
        musan_folder,
        rirs_folder,
        wav_folder,
    )
    arguments = {
        "data_folder": data_folder,
        "min_duration": min_duration,
        "check": check,
        "pack": pack,
        **places,
    }
    before = completed(save_folder, arguments)
    if before is not None:
        return before
    preparation = Preparation(
        data_folder, save_folder, check, SAMPLE_RATE, num_workers
    )
    try:
        found, speakers = prepare_training(
            preparation, places, min_duration, pack
        )
        trials = prepare_trials(preparation, places, speakers)
        prepare_musan(preparation, places["musan"])
        prepare_rirs(preparation, places["rirs"])
    finally:
        # Write it also if a step failed: the reason may be in it.
        rejected = preparation.write_rejected()
    summary = {
        **found.totals(),
        "rejected": rejected,
        "counts": preparation.counts,
        "missing": preparation.missing,
        "trials": trials,
    }
    preparation.complete(arguments, summary)
    return summary


def prepare_training(preparation, places, min_duration, pack=None):
    """Write ``train.csv``.

    Arguments
    ---------
    preparation : Preparation
        Collects the manifest, the counts and what is missing.
    places : dict
        What ``find_places`` returned.
    min_duration : float
        Files shorter than this (seconds) are rejected.
    pack : str or list of str, optional
        As for ``prepare_voxceleb``.

    Returns
    -------
    tuple
        The ``Scan``, and the set of speakers in the list, for checks.

    Raises
    ------
    ManifestError
        If no file is usable.
    """
    tree, meta = places["vox2_wav"], read_meta(places["vox2_meta"])
    if places["vox2_aac"]:
        _convert(preparation, places["vox2_aac"], tree)
        preparation.outputs.append(tree)
    found = preparation.scan(
        tree,
        _training_files(preparation, tree, meta),
        "train",
        wav_root=preparation.wav_root(tree),
        min_duration=min_duration,
    )
    preparation.pack(found, pack)
    if len(found.usable) == 0:
        raise ManifestError(
            f"no file of VoxCeleb2 below {tree} can be used; "
            f"{preparation.save_folder / 'rejected.csv'} says why"
        )
    preparation.write("train.csv", found.manifest())
    ids = found.usable["ID"]
    speakers = {i.split("/")[0] for i in ids}
    numbers = {
        "speakers": len(speakers),
        "videos": len({i.rsplit("/", 1)[0] for i in ids}),
        "utterances": len(ids),
    }
    preparation.count("VoxCeleb2 dev", numbers, VOX2_DEV)
    absent = sorted(s for s in meta if meta[s] == "dev" and s not in speakers)
    if absent:
        preparation.missing.append(
            f"VoxCeleb2 dev: {spaced(len(absent))} speakers of "
            f"vox2_meta.csv have no usable utterance, the first {absent[0]}"
        )
    return found, speakers


def _convert(preparation, aac, tree):
    """Convert the m4a files that have no wav file yet."""
    done = set()
    if os.path.isdir(tree):
        wavs = list_files(tree, extensions=(".wav",)).files
        done = {os.path.splitext(name)[0] for name in wavs}
    targets = {
        name: os.path.splitext(name)[0] + ".wav"
        for name in list_files(aac, extensions=(".m4a",)).files
        if os.path.splitext(name)[0] not in done
    }
    if not targets:
        return
    if not has_pyav():
        raise UserError(
            f"{spaced(len(targets))} m4a files below {aac} have to be "
            f"converted to wav, for which PyAV is needed: {INSTALL}, or put "
            f"wav files into {tree}"
        )
    logger.info("converting %d m4a files into %s", len(targets), tree)
    outcomes = convert_files(
        aac, targets, tree, num_workers=preparation.num_workers
    )
    root = preparation.wav_root(aac)
    preparation.rejected += [
        (f"{root}/{name}", outcome.reason, outcome.detail)
        for name, outcome in outcomes.items()
        if outcome.reason
    ]


def _training_files(preparation, tree, meta):
    """List the files of VoxCeleb2 dev in a tree that may hold more."""
    listing = list_files(tree, extensions=(".wav",))
    prefix = preparation.wav_root(tree)
    preparation.rejected += [
        (f"{prefix}/{name}", "folder not listed", message)
        for name, message in listing.unreadable
    ]
    files, others = [], collections.Counter()
    for name in listing.files:
        speaker = name.split("/")[0]
        if VOX1_SPEAKER.match(speaker):
            others["VoxCeleb1"] += 1
        elif meta.get(speaker) == "test":
            others["the VoxCeleb2 test set"] += 1
        elif VOX2_SPEAKER.match(speaker) and UTTERANCE.match(name):
            files.append(name)
        else:
            detail = "not <speaker>/<video>/<utterance>.wav"
            row = (f"{prefix}/{name}", "unexpected place", detail)
            preparation.rejected.append(row)
    for corpus, number in others.items():
        logger.info("left out: %d files of %s", number, corpus)
    return files


def read_meta(path):
    """Read the set (dev or test) of each speaker from ``vox2_meta.csv``.

    Two forms of the file exist, separated by tabs (with commas in some names)
    or by commas. Both have blanks around the fields.

    Arguments
    ---------
    path : str or None
        The file, if there is one.

    Returns
    -------
    dict
        Speaker -> set; empty if there is no file.
    """
    if path is None:
        return {}
    with open(path, encoding="utf-8") as stream:
        text = stream.read()
    separator = "\t" if "\t" in text else ","
    rows = [
        [field.strip() for field in line.split(separator)]
        for line in text.splitlines()
    ]
    header = [name.lower() for name in rows[0]] if rows else []
    try:
        speaker, part = header.index("voxceleb2 id"), header.index("set")
    except ValueError as error:
        raise UserError(
            f"{path} has no columns 'VoxCeleb2 ID' and 'Set'; get the file "
            "again, or remove it to skip this check"
        ) from error
    width = max(speaker, part) + 1
    return {row[speaker]: row[part] for row in rows[1:] if len(row) >= width}


def main(argv=None):
    """Run the preparation from the command line; return the exit status."""
    parser = make_parser(__doc__, data_help="Folder of the corpora.")
    for name, text in (
        ("vox2", "Folder of VoxCeleb2"),
        ("vox1", "Folder of VoxCeleb1 and its trial lists"),
        ("musan", "Folder of MUSAN"),
        ("rirs", "Folder of RIRS_NOISES"),
    ):
        parser.add_argument(
            f"--{name}_folder",
            help=f"{text} (default: looked for in the data folder).",
        )
    parser.add_argument(
        "--wav_folder",
        help="Folder for converted m4a files (default: beside aac).",
    )
    return run_parsed(prepare_voxceleb, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
