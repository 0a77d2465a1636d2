"""Show what the preparation of a run's audio has found, and what it rejected."""

import csv
import json
import pathlib

from speechbrain_ssl.errors import counted
from speechbrain_ssl.prepare.completed import FILE_NAME
from speechbrain_ssl.report.blocks import escape, section, table

#: Rows of a table of files; the file itself has all.
ROWS = 50


def read_preparation(manifest):
    """Find the preparation of the audio that a run is trained on.

    Arguments
    ---------
    manifest : str, list or None
        ``train_manifest`` of the run.

    Returns
    -------
    tuple
        The summary of the preparation (dict), and its ``rejected.csv``; an empty
        dict and None where the audio was not prepared by a script of ours.
    """
    # Of a list of manifests, each may have been prepared, or none.
    if not isinstance(manifest, str):
        return {}, None
    prepared = pathlib.Path(manifest).parent
    if not (prepared / FILE_NAME).is_file():
        return {}, None
    record = json.loads((prepared / FILE_NAME).read_text("utf-8"))
    summary = record.get("summary") or {}
    if not summary.keys() >= {"hours", "utterances", "rejected"}:
        return {}, None  # of another program, or not of training audio
    return summary, prepared / "rejected.csv"


def preparation_tiles(summary):
    """Return name, value and note of the tiles on the audio.

    Arguments
    ---------
    summary : dict
        What ``read_preparation`` returned.

    Example
    -------
    >>> summary = {"hours": 0.9, "hours_found": 1.0, "utterances": 99}
    >>> preparation_tiles(summary | {"rejected": {"too short": 1}})[0]
    ('Audio used', '0.90 h', 'of 1.00 h found')
    >>> preparation_tiles(summary | {"rejected": {"too short": 1}})[1]
    ('Files rejected', '1', 'of 100: 1 too short')
    """
    if not summary:
        return []
    rejected = summary["rejected"]
    count = sum(rejected.values())
    why = "".join(f", {n} {reason}" for reason, n in rejected.items())
    note = f"of {summary['utterances'] + count}"
    # Prepared by an earlier version, which did not count them.
    found = summary.get("hours_found")
    return [
        (
            "Audio used",
            f"{summary['hours']:.2f} h",
            "" if found is None else f"of {found:.2f} h found",
        ),
        ("Files rejected", str(count), note + why.replace(",", ":", 1)),
    ]


def listed_files(heading, path, text):
    """Format a CSV file of files that were not used.

    Arguments
    ---------
    heading : str
        Of the section.
    path : pathlib.Path or None
        The file, whose first line is the header.
    text : str
        Follows the number of files.

    Returns
    -------
    str
        HTML; empty if there is no such file or it is empty.
    """
    if path is None or not path.is_file():
        return ""
    with open(path, encoding="utf-8", errors="replace", newline="") as stream:
        rows = [row for row in csv.reader(stream) if row]
    if len(rows) < 2:
        return ""
    header, rows = rows[0], rows[1:]
    text = f"{counted(len(rows), 'file')} {text}."
    if len(rows) > ROWS:
        text += f" The first {ROWS} are listed; {path.name} has all."
    return section(
        heading, f"<p>{escape(text)}</p>{table(header, rows[:ROWS])}"
    )
