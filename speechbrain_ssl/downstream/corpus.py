"""Write the labelled manifest of a corpus from its label files.

A prepare script reads the label files in the format of its corpus. The steps
that are the same for all corpora are here.
"""

import argparse
import logging
import os
import pathlib

import pandas as pd

from speechbrain_ssl.downstream.task import SPEAKER, write_labelled
from speechbrain_ssl.errors import ManifestError, UserError
from speechbrain_ssl.prepare.completed import completed, mark_completed
from speechbrain_ssl.prepare.prepare_script import run_parsed
from speechbrain_ssl.prepare.probe import CHECKS
from speechbrain_ssl.prepare.rejected import (
    describe_reasons,
    reasons,
    write_rejected,
)
from speechbrain_ssl.prepare.scan import scan
from speechbrain_ssl.run_folder import locked

logger = logging.getLogger(__name__)

#: The labelled manifest that a prepare script writes.
MANIFEST = "utterances.csv"


def prepare_corpus(
    corpus,
    places,
    read,
    data_folder,
    save_folder,
    check="header",
    num_workers=None,
    skip_prep=False,
    published=None,
    **choices,
):
    """Write ``utterances.csv`` of a corpus, unless that has been done before.

    Arguments
    ---------
    corpus : str
        Name of the corpus, for messages.
    places : list of str
        Folders, relative to ``data_folder``, of which one must exist.
    read : callable
        Takes the first of ``places`` that exists (an absolute path). Returns
        the folder of the audio files, the labelled rows, and the files that
        were skipped; see ``write_corpus``. Not called if the preparation has
        been completed with the same arguments.
    data_folder : str
        The folder given by the user.
    save_folder : str
        Folder for the outputs.
    check : str
        ``"header"`` reads headers; ``"decode"`` reads all audio.
    num_workers : int, optional
        Number of processes that read files. By default one per core.
    skip_prep : bool
        Whether to skip the preparation.
    published : dict, optional
        See ``write_corpus``.
    **choices
        Further arguments that determine the outputs.

    Returns
    -------
    dict
        See ``write_corpus``. Empty with ``skip_prep``.

    Raises
    ------
    UserError
        If none of the places exists.
    ManifestError
        If no labelled file can be used, or as ``read``.
    """
    if skip_prep:
        return {}
    data_folder = os.path.abspath(data_folder)
    place = find_folder(data_folder, places, corpus)
    arguments = {"data_folder": data_folder, **choices, "check": check}
    before = completed(save_folder, arguments)
    if before is not None:
        return before
    audio_folder, rows, rejected = read(place)
    with locked(pathlib.Path(save_folder)):
        return write_corpus(
            data_folder,
            audio_folder,
            save_folder,
            rows,
            arguments,
            published,
            rejected,
            check,
            num_workers,
        )


def find_folder(data_folder, candidates, what):
    """Return the first of some places in a folder that exists.

    Arguments
    ---------
    data_folder : str
        The folder given by the user.
    candidates : list of str
        Relative places; ``""`` is the folder itself.
    what : str
        Name of the folder looked for, for the message.

    Returns
    -------
    str
        The absolute path.

    Raises
    ------
    UserError
        If none exists.
    """
    root = os.path.abspath(data_folder)
    if not os.path.isdir(root):
        raise UserError(
            f"there is no folder {root}; give the corpus' folder as data_folder"
        )
    for name in candidates:
        path = os.path.normpath(os.path.join(root, name))
        if os.path.isdir(path):
            return path
    raise UserError(
        f"{what} was not found: there is no folder "
        f"{' or '.join(candidates)} in {root}; correct data_folder"
    )


def read_label_table(path, columns, what):
    """Read a CSV file of labels.

    Arguments
    ---------
    path : str
        The file.
    columns : list of str
        Columns that it must have, in upper or lower case.
    what : str
        Description of the file, for the message.

    Returns
    -------
    pandas.DataFrame
        These columns as text, under these names.

    Raises
    ------
    ManifestError
        If the file is missing, is empty or lacks a column.
    """
    if not os.path.isfile(path):
        raise ManifestError(
            f"{what} {path} is missing; it comes with the corpus: put it "
            "there, under this name"
        )
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (ValueError, UnicodeDecodeError) as error:
        raise ManifestError(
            f"{path} cannot be read as a table ({error}); get it again from "
            "the source of the corpus"
        ) from error
    found = {str(name).strip().lower(): name for name in table.columns}
    missing = [name for name in columns if name.lower() not in found]
    if missing:
        raise ManifestError(
            f"{path} is not {what}: it has no column {', '.join(missing)} but "
            f"{', '.join(map(str, table.columns))}; get it again from the "
            "source of the corpus"
        )
    if len(table) == 0:
        raise ManifestError(
            f"{path} lists no file; get it again from the source of the corpus"
        )
    table = table[[found[name.lower()] for name in columns]]
    return table.set_axis(columns, axis=1)


def write_corpus(
    data_folder,
    audio_folder,
    save_folder,
    rows,
    arguments,
    published=None,
    rejected=(),
    check="header",
    num_workers=None,
):
    """Scan the labelled files and write the manifest that the recipe reads.

    Arguments
    ---------
    data_folder : str
        The folder that ``$data_root`` stands for.
    audio_folder : str
        Folder of the files that ``rows`` names; below ``data_folder``.
    save_folder : str or pathlib.Path
        Folder for ``utterances.csv``, ``rejected.csv``, ``notes.csv`` and
        ``prepare.json``.
    rows : pandas.DataFrame
        ``file`` (relative to ``audio_folder``), ``spk_id``, and labels.
    arguments : dict
        See ``speechbrain_ssl.prepare.completed.completed``.
    published : dict, optional
        ``utterances`` and ``speakers`` of the whole corpus; a difference is
        reported.
    rejected : list of tuple
        (file, reason, detail) of files that were skipped before.
    check, num_workers
        See ``speechbrain_ssl.prepare.scan.scan``.

    Returns
    -------
    dict
        ``utterances``, ``speakers``, ``hours``, ``missing`` (in words),
        ``rejected`` (number by reason) and ``notes`` (number by note).

    Raises
    ------
    ManifestError
        If no labelled file can be used.
    """
    save_folder = pathlib.Path(save_folder)
    inner = os.path.relpath(audio_folder, os.path.abspath(data_folder))
    root = "$data_root" if inner == "." else f"$data_root/{inner}"
    found = scan(
        audio_folder,
        rows["file"].tolist(),
        wav_root=root,
        cache=save_folder / "scan_cache" / "audio.jsonl",
        check=check,
        num_workers=num_workers,
    )
    passed_over = pd.DataFrame(
        [(f"{root}/{name}", *why) for name, *why in rejected],
        columns=found.rejected.columns,
    )
    unused = pd.concat([found.rejected, passed_over], ignore_index=True)
    write_rejected(save_folder / "rejected.csv", unused)
    write_rejected(save_folder / "notes.csv", found.notes)
    if len(found.usable) == 0:
        raise ManifestError(
            f"none of the {len(rows)} labelled files in {audio_folder} can be "
            f"used, the first because: {unused.iloc[0]['reason']} "
            f"({unused.iloc[0]['detail']}); "
            f"{save_folder / 'rejected.csv'} has them all"
        )
    labels = rows.assign(wav=f"{root}/" + rows["file"]).drop(columns="file")
    table = found.manifest().merge(labels, on="wav", validate="1:1")
    write_labelled(save_folder / MANIFEST, table)
    summary = {
        "utterances": len(table),
        "speakers": int(table[SPEAKER].nunique()),
        "hours": round(float(table["duration"].sum()) / 3600, 4),
        "missing": [],
        "rejected": reasons(unused),
        "notes": reasons(found.notes),
    }
    for what, number in (published or {}).items():
        if summary[what] != number:
            line = f"{summary[what]} {what}; the whole corpus has {number}"
            summary["missing"].append(line)
            logger.warning("%s", line)
    outputs = [MANIFEST, "rejected.csv", "notes.csv"]
    mark_completed(save_folder, arguments, outputs, summary)
    logger.info(
        "%d utterances of %d speakers, %.1f hours; rejected: %s; noted: %s",
        summary["utterances"],
        summary["speakers"],
        summary["hours"],
        describe_reasons(summary["rejected"]),
        describe_reasons(summary["notes"]),
    )
    return summary


def run_prepare(prepare, description, argv=None, **choices):
    """Run a prepare function from the command line.

    Arguments
    ---------
    prepare : callable
        Takes ``data_folder``, ``save_folder``, ``check``, ``num_workers`` and
        the names of ``choices``; its defaults apply to those not given.
    description : str
        Its first line is the description that ``--help`` prints.
    argv : list of str, optional
        The arguments; those of this process if not given.
    **choices : sequence of str
        Maps the name of a further option to its permitted values.

    Returns
    -------
    int
        The exit status: 1 after an error that the user can correct.
    """
    parser = argparse.ArgumentParser(
        description=description.split("\n")[0],
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("--data_folder", required=True, help="The corpus.")
    parser.add_argument(
        "--save_folder", required=True, help="Folder for the manifest."
    )
    for name, values in {"check": CHECKS, **choices}.items():
        parser.add_argument(f"--{name}", choices=values)
    parser.add_argument("--num_workers", type=int, help="Processes.")
    return run_parsed(prepare, parser, argv)
