"""Scan a corpus whatever the formats of its files."""

import dataclasses
import logging
import os

import pandas as pd

from speechbrain_ssl.prepare.av_decoder import INSTALL, has_pyav
from speechbrain_ssl.prepare.convert import convert_files
from speechbrain_ssl.prepare.listing import (
    FileListing,
    count_kinds,
    needs_decoding,
    unique_ids,
)

logger = logging.getLogger(__name__)

#: Reason of files that are rejected because PyAV is not installed.
NO_PYAV = "needs PyAV"


def scan_formats(
    preparation,
    root,
    listing,
    name,
    wav_root,
    ids=None,
    trim_silence=False,
    **kwargs,
):
    """Convert the files that training cannot read, and scan all.

    Converted files lie in ``decoded/<name>`` in the folder of the manifests, or
    in ``trimmed/<name>``, under the name of their source and ``.flac``.

    Arguments
    ---------
    preparation : speechbrain_ssl.prepare.preparation.Preparation
        Records the files that are rejected.
    root : str
        The folder.
    listing : speechbrain_ssl.prepare.listing.FileListing
        The files, relative to it.
    name : str
        Name of the caches.
    wav_root : str
        Text that replaces ``root`` in the ``wav`` column. Paths of converted
        files are relative to the manifest.
    ids : dict, optional
        The ID of each file. By default it is made of the path, and a file that
        has to be decoded is left out beside a readable one of the same name,
        which was probably converted from it.
    trim_silence : bool
        Whether to cut silence (``speechbrain_ssl.data.silence.trim_silence``),
        for which all files are converted.
    **kwargs : dict
        Further arguments of ``Preparation.scan``.

    Returns
    -------
    speechbrain_ssl.prepare.scan.Scan
        Its ``usable`` has all files. The others are in
        ``preparation.rejected``.

    Raises
    ------
    ManifestError
        If no file is listed.
    UserError
        If the disk is full.
    """
    rejected = {}
    beside = _converted_before(listing.files) if ids is None else {}
    files = [file for file in listing.files if file not in beside]
    if ids is None:
        ids = dict(zip(files, unique_ids(files), strict=True))
    if not has_pyav():
        lacking = [file for file in files if needs_decoding(file)]
        rejected.update((file, (NO_PYAV, INSTALL)) for file in lacking)
        if lacking:
            logger.warning("left out: %s", needs_pyav(lacking))
    files = [file for file in files if file not in rejected]
    kind = "trimmed" if trim_silence else "decoded"
    targets = {
        file: f"{file}.flac"
        for file in files
        if trim_silence or needs_decoding(file)
    }
    folder = preparation.save_folder / kind / name
    caches = preparation.save_folder / "scan_cache"
    if targets:
        preparation.outputs.append(f"{kind}/{name}")
        outcomes = convert_files(
            root,
            targets,
            folder,
            cache=caches / f"{name}_{kind}.jsonl",
            trim=trim_silence,
            num_workers=preparation.num_workers,
        )
        for file, outcome in outcomes.items():
            if outcome.reason:
                rejected[file] = outcome.reason, outcome.detail
            preparation.notes += [
                (f"{wav_root}/{file}", *note) for note in outcome.notes
            ]
    preparation.rejected += [
        (f"{wav_root}/{file}", *why) for file, why in rejected.items()
    ]
    readable = [file for file in files if file not in targets]
    rest = dataclasses.replace(listing, files=readable)
    if listing.files and not readable and not listing.unreadable:
        # The scan would say that there is no audio.
        rest = []
    found = preparation.scan(root, rest, name, wav_root=wav_root, **kwargs)
    wavs = {f"{wav_root}/{file}": file for file in readable}
    usable = found.usable
    targets = {f: t for f, t in targets.items() if f not in rejected}
    if targets:
        converted = preparation.scan(
            folder,
            list(targets.values()),
            f"{name}_{kind}_files",
            wav_root=f"{kind}/{name}",
            sources={
                f"{kind}/{name}/{t}": f"{wav_root}/{file}"
                for file, t in targets.items()
            },
            **kwargs,
        )
        found.unused_seconds += converted.unused_seconds
        wavs.update((f"{kind}/{name}/{t}", file) for file, t in targets.items())
        tables = (
            [usable, converted.usable] if len(usable) else [converted.usable]
        )
        usable = pd.concat(tables, ignore_index=True)
    sources = usable["wav"].map(wavs)
    # In the order of the sources, with their IDs.
    usable = usable.assign(ID=sources.map(ids)).loc[sources.sort_values().index]
    # Whatever threshold an unbroken file misses, its twin misses, too.
    broken = {
        wav
        for wav, reason, _ in preparation.rejected
        if reason not in ("too short", "wrong sample rate")
    }
    spare = [f for f, t in beside.items() if f"{wav_root}/{t}" in broken]
    left_out = {f: t for f, t in beside.items() if f not in spare}
    if left_out:
        logger.info(
            "left out, beside a readable file of the same name: %d",
            len(left_out),
        )
    preparation.rejected += [
        (
            f"{wav_root}/{file}",
            "beside a converted file",
            os.path.basename(twin),
        )
        for file, twin in left_out.items()
    ]
    if spare:
        new_ids = unique_ids([*files, *spare])
        more = scan_formats(
            preparation,
            root,
            FileListing(spare, {}, []),
            name,
            wav_root,
            dict(zip(spare, new_ids[len(files) :], strict=True)),
            trim_silence,
            **kwargs,
        )
        found.unused_seconds += more.unused_seconds
        tables = [t for t in (usable, more.usable) if len(t)]
        if tables:
            usable = pd.concat(tables).sort_values("ID")
    return dataclasses.replace(found, usable=usable.reset_index(drop=True))


def needs_pyav(files):
    """Say in a line how many files need PyAV, and how to install it.

    Example
    -------
    >>> needs_pyav(["a.m4a", "b.M4A", "c.wma"])
    '2 .m4a, 1 .wma, which need PyAV: pip install "speechbrain_ssl[formats]"'
    """
    return f"{count_kinds(files)}, which need PyAV: {INSTALL}"


def _converted_before(files):
    """Map files to decode to a file of the same name that needs no decoding."""
    twins = {
        os.path.splitext(file)[0]: file
        for file in files
        if not needs_decoding(file)
    }
    stems = {
        file: os.path.splitext(file)[0]
        for file in files
        if needs_decoding(file)
    }
    return {file: twins[s] for file, s in stems.items() if s in twins}
