"""Prepare any folder or list of audio files for training without labels.

    python unlabeled_prepare.py --data_folder=/path/to/audio --save_folder=save

Every audio file becomes an utterance of ``train.csv``, whatever its format, its
sample rate and its number of channels, or a row of ``rejected.csv`` with the
reason. Hidden files are left out.
"""

import hashlib
import logging
import os
import pathlib
import sys

from speechbrain_ssl.errors import ManifestError
from speechbrain_ssl.minivox.background import write_background
from speechbrain_ssl.prepare.completed import completed
from speechbrain_ssl.prepare.av_decoder import has_pyav
from speechbrain_ssl.prepare.formats import NO_PYAV, scan_formats
from speechbrain_ssl.prepare.listing import (
    AUDIO_EXTENSIONS,
    DECODED_EXTENSIONS,
    list_files,
)
from speechbrain_ssl.prepare.lists import list_entries, read_list
from speechbrain_ssl.prepare.prepare_script import make_parser, run_parsed
from speechbrain_ssl.prepare.preparation import Preparation
from speechbrain_ssl.prepare.scan import write_folder_manifest

logger = logging.getLogger(__name__)


def prepare_unlabeled(
    data_folder,
    save_folder,
    min_duration=1.0,
    check="header",
    sample_rate=None,
    num_workers=None,
    skip_prep=False,
    noise_folder=None,
    rirs_folder=None,
    trim_silence=False,
    pack=None,
    noise_csv=None,
    rirs_csv=None,
):
    """Write ``train.csv``, ``rejected.csv`` and manifests of noise and rooms.

    Arguments
    ---------
    data_folder : str
        Folder with the audio files, at any depth, or a list of files (see
        ``speechbrain_ssl.prepare.lists``).
    save_folder : str
        Folder for the outputs.
    min_duration : float
        Files shorter than this (seconds) are rejected.
    check : str
        ``"header"`` reads headers; ``"decode"`` reads all audio and also finds
        silent and damaged files.
    sample_rate : int, optional
        If given, files of another sample rate are rejected. By default any rate
        is accepted.
    num_workers : int, optional
        Number of processes that read; one per core by default.
    skip_prep : bool
        If True, do nothing.
    noise_folder, rirs_folder : str, optional
        Folders of noises and of room responses. Their usable files are listed
        in ``noise.csv`` and ``rirs.csv``.
    trim_silence : bool
        Whether to train on copies without silence (see
        ``speechbrain_ssl.data.silence.trim_silence``).
    pack : str or list of str, optional
        Folders, each on a disk of its own, for copies of the training audio in
        few large files (``speechbrain_ssl.prepare.pack``).
    noise_csv, rirs_csv : str, optional
        The manifests that training will read. Where it is the one written here
        and there is no folder for it, synthetic sounds are written to
        ``background`` and listed.

    Returns
    -------
    dict
        ``utterances``, ``hours``, ``rejected`` (number by reason),
        ``unknown_extensions`` and ``sample_rates`` (numbers of files). Empty
        with ``skip_prep``.

    Raises
    ------
    ManifestError
        If a folder is missing or holds no usable audio, or if a list is
        malformed.

    Example
    -------
    >>> import tempfile, numpy, soundfile
    >>> data, save = tempfile.mkdtemp(), tempfile.mkdtemp()
    >>> soundfile.write(f"{data}/a.flac", numpy.ones(32000) / 2, 16000)
    >>> prepare_unlabeled(data, save, num_workers=0)["utterances"]
    1
    """
    if skip_prep:
        return {}
    data_folder = os.path.abspath(data_folder)
    background = _background(
        save_folder,
        {"noise": noise_folder, "rirs": rirs_folder},
        {"noise": noise_csv, "rirs": rirs_csv},
    )
    arguments = {
        "data_folder": data_folder,
        "min_duration": min_duration,
        "check": check,
        "sample_rate": sample_rate,
        "trim_silence": trim_silence,
        "pack": pack,
        **{f"{name}_folder": folder for name, folder in background.items()},
    }
    if os.path.isfile(data_folder):
        digest = hashlib.sha256(pathlib.Path(data_folder).read_bytes())
        arguments["list"] = digest.hexdigest()
    before = completed(save_folder, arguments)
    # What needed PyAV is prepared once it is installed.
    if before is not None and not (
        NO_PYAV in before["rejected"] and has_pyav()
    ):
        return before

    preparation = Preparation(
        data_folder, save_folder, check, sample_rate, num_workers
    )
    # Done before the long scan, so that a mistyped folder fails at once.
    for name, folder in background.items():
        if folder:
            _write_background(preparation, name, folder)

    root, wav_root, ids = data_folder, "$data_root", None
    if os.path.isfile(data_folder):
        root, listing, ids = list_entries(read_list(data_folder))
        wav_root = root.rstrip("/")
    else:
        listing = list_files(data_folder, AUDIO_EXTENSIONS + DECODED_EXTENSIONS)
    if listing.unknown:
        logger.info(
            "not audio by their extension: %s",
            ", ".join(f"{n} {e}" for e, n in listing.unknown.items()),
        )
    found = scan_formats(
        preparation,
        root,
        listing,
        "train",
        wav_root,
        ids,
        trim_silence,
        min_duration=min_duration,
    )
    preparation.pack(found, pack)
    rejected = preparation.write_rejected()
    if len(found.usable) == 0:
        raise ManifestError(
            f"none of the {len(preparation.rejected)} audio files of "
            f"{data_folder} can be used; "
            f"{preparation.save_folder / 'rejected.csv'} says why"
        )
    preparation.write("train.csv", found.manifest())
    rates = found.usable["sample_rate"].value_counts().sort_index()
    totals = found.totals()
    if trim_silence:
        del totals["hours_found"]  # it would be that of the copies
    summary = {
        **totals,
        "rejected": rejected,
        "unknown_extensions": listing.unknown,
        "sample_rates": {str(rate): int(n) for rate, n in rates.items()},
    }
    preparation.complete(arguments, summary)
    return summary


def _background(save_folder, folders, manifests):
    """Return the folders of noises and rooms; make those that are missing."""
    missing = [
        name
        for name, folder in folders.items()
        if not folder and manifests[name] == f"{save_folder}/{name}.csv"
    ]
    if missing:
        made = os.path.join(save_folder, "background")
        write_background(made)
        places = {"noise": f"{made}/noise", "rirs": f"{made}/rooms"}
        folders = folders | {name: places[name] for name in missing}
        logger.info(
            "augmentation: synthetic sounds serve, in %s; name recorded ones by %s",
            made,
            " and ".join(f"--{name}_folder" for name in missing),
        )
    return {
        name: folder and os.path.abspath(folder)
        for name, folder in folders.items()
    }


def _write_background(preparation, name, folder):
    """Write the manifest of a folder of noises or room responses."""
    save_folder = preparation.save_folder
    write_folder_manifest(
        folder,
        save_folder / f"{name}.csv",
        cache=save_folder / "scan_cache" / f"{name}.jsonl",
        num_workers=preparation.num_workers,
        progress=True,
    )
    preparation.outputs.append(f"{name}.csv")


def main(argv=None):
    """Run the preparation from the command line; return the exit status."""
    parser = make_parser(
        __doc__, data_help="Folder with the audio files, or a list of them."
    )
    parser.add_argument(
        "--sample_rate",
        type=int,
        help="Reject files of another sample rate (default: accept any).",
    )
    for name, text in (("noise", "noises"), ("rirs", "room responses")):
        parser.add_argument(
            f"--{name}_folder",
            help=f"Folder of {text} for the augmentation (default: none).",
        )
    parser.add_argument(
        "--trim_silence",
        action="store_true",
        help="Train on copies without silence (default: no).",
    )
    return run_parsed(prepare_unlabeled, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
