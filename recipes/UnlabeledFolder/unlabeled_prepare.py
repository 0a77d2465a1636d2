"""Prepare any folder of audio files for training without labels.

    python unlabeled_prepare.py --data_folder=/path/to/audio --save_folder=save

Every file that soundfile reads becomes an utterance of ``train.csv``, whatever
its sample rate and number of channels; every other audio file becomes a row of
``rejected.csv`` with the reason. Hidden files are left out.
"""

import logging
import os
import sys

from speechbrain_ssl.errors import ManifestError
from speechbrain_ssl.prepare.completed import completed
from speechbrain_ssl.prepare.listing import list_files
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
):
    """Write ``train.csv``, ``rejected.csv`` and manifests of noise and rooms.

    Arguments
    ---------
    data_folder : str
        Folder with the audio files, at any depth.
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

    Returns
    -------
    dict
        ``utterances``, ``hours``, ``rejected`` (number by reason),
        ``unknown_extensions`` and ``sample_rates`` (numbers of files). Empty
        with ``skip_prep``.

    Raises
    ------
    ManifestError
        If a folder is missing or holds no usable audio.

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
    background = {
        name: folder and os.path.abspath(folder)
        for name, folder in (("noise", noise_folder), ("rirs", rirs_folder))
    }
    arguments = {
        "data_folder": data_folder,
        "min_duration": min_duration,
        "check": check,
        "sample_rate": sample_rate,
        **{f"{name}_folder": folder for name, folder in background.items()},
    }
    before = completed(save_folder, arguments)
    if before is not None:
        return before

    preparation = Preparation(
        data_folder, save_folder, check, sample_rate, num_workers
    )
    # Done before the long scan, so that a mistyped folder fails at once.
    for name, folder in background.items():
        if folder:
            _write_background(preparation, name, folder)

    listing = list_files(data_folder)
    if listing.unknown:
        logger.info(
            "not audio by their extension: %s",
            ", ".join(f"{n} {e}" for e, n in listing.unknown.items()),
        )
    found = preparation.scan(
        data_folder, listing, "train", min_duration=min_duration
    )
    rejected = preparation.write_rejected()
    if len(found.usable) == 0:
        raise ManifestError(
            f"none of the {len(found.rejected)} audio files below "
            f"{data_folder} can be used; "
            f"{preparation.save_folder / 'rejected.csv'} says why"
        )
    preparation.write("train.csv", found.manifest())
    rates = found.usable["sample_rate"].value_counts().sort_index()
    summary = {
        **found.totals(),
        "rejected": rejected,
        "unknown_extensions": listing.unknown,
        "sample_rates": {str(rate): int(n) for rate, n in rates.items()},
    }
    preparation.complete(arguments, summary)
    return summary


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
    parser = make_parser(__doc__, data_help="Folder with the audio files.")
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
    return run_parsed(prepare_unlabeled, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
