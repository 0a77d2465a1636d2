"""Read lists of audio files in the formats that other toolkits write.

The kind of a list is recognised by its content:

    | kind | a line |
    |---|---|
    | CSV | a header with a column ``wav`` or ``path``, and perhaps ``ID`` |
    | paths | ``calls/a.wav`` |
    | Kaldi's ``wav.scp`` | ``utterance calls/a.wav`` |
    | Lhotse's recordings | ``{"id": …, "sources": [{"type": "file", …}]}`` |

Paths may contain spaces, so that a line alone does not tell the second kind from
the third: the files that exist do (see ``_is_scp``). A list may be compressed by
gzip. Relative paths are relative to the folder of
the list. Other columns, such as a duration, are not read: the files are
measured. Only whole files are read, so a list of parts of files is an error.
"""

import csv
import gzip
import io
import json
import os
import re
from typing import NamedTuple

from speechbrain_ssl.errors import AudioError, ManifestError
from speechbrain_ssl.prepare.listing import (
    AUDIO_EXTENSIONS,
    DECODED_EXTENSIONS,
    FileListing,
    list_files,
    unique_ids,
)

# The lines by which plain paths are told from a wav.scp.
_MOST_LINES = 1000

# Lines of a trial list, its fields separated by white space or commas; the
# first line may be a header.
_TRIAL = re.compile(
    r"[01][\s,]+\S+[\s,]+\S+|\S+[\s,]+\S+[\s,]+([01]|tgt|imp|(non)?target)"
)

_CHANNELS_APART = (
    "its channels are separate files; mix them into one file, and list that"
)


class Entry(NamedTuple):
    """One line of a list.

    Attributes
    ----------
    id : str or None
        The utterance ID, where the list has any.
    path : str
        Absolute path of the audio file.
    text : str
        The path as it is written in the list.
    line : int
        Number of the line, from 1.
    """

    id: str | None
    path: str
    text: str
    line: int


def read_list(path):
    """Read a list of audio files.

    Whether the files exist is not checked.

    Arguments
    ---------
    path : str or pathlib.Path
        The list.

    Returns
    -------
    list of Entry
        In the order of the list.

    Raises
    ------
    ManifestError
        If it is not text, lists nothing, has an empty cell, lists an ID or a
        file twice, or has a line that is not a whole audio file (a command, an
        entry of an archive, a part of a recording), or if it is a list of trials or its
        columns are separated by semicolons. Names file and line.

    Example
    -------
    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "wav.scp"
    >>> _ = path.write_text("u1 /data/a.wav\\nu2 /data/b c.wav\\n")
    >>> [(entry.id, entry.path) for entry in read_list(path)]
    [('u1', '/data/a.wav'), ('u2', '/data/b c.wav')]
    """
    path = os.path.abspath(path)
    text = _read_text(path)
    lines = [
        (number, line.strip())
        for number, line in enumerate(text.split("\n"), start=1)
        if line.strip()
    ]
    if not lines:
        raise ManifestError(f"the list {path} is empty")
    folder, first = os.path.dirname(path), lines[0][1]
    if re.match(r'\{\s*"|\[\s*(\{|$)', first):
        rows = _read_lhotse(path, lines)
    elif not {"wav", "path"}.isdisjoint(_header(first)):
        rows = _read_csv(path, text)
    elif not {"wav", "path"}.isdisjoint(_header(first.replace(";", ","))):
        raise ManifestError(
            f"{path}, line {lines[0][0]}: semicolons separate the columns; "
            "separate them by commas or tabs"
        )
    elif all(_TRIAL.fullmatch(line) for _, line in lines[1:] or lines):
        raise ManifestError(
            f"{path} is a list of trials, not of files: list each file once, or "
            "score the trials (speechbrain-ssl score)"
        )
    elif _is_scp(folder, lines):
        rows = _read_scp(path, lines)
    else:
        rows = [(number, None, line) for number, line in lines]
    entries, ids, paths = [], {}, {}
    for number, utterance, name in rows:
        where = f"{path}, line {number}"
        file = os.path.normpath(os.path.join(folder, name))
        if file in paths:
            raise ManifestError(
                f"{where}: '{name}' is also in line {paths[file]}; remove one"
            )
        if utterance is not None and utterance in ids:
            raise ManifestError(
                f"{where}: the ID '{utterance}' is also in line "
                f"{ids[utterance]}; rename one"
            )
        paths[file] = ids[utterance] = number
        entries.append(Entry(utterance, file, name, number))
    if not entries:
        raise ManifestError(f"the list {path} names no file")
    return entries


def list_entries(entries):
    """Return the files of a list like those of a folder.

    Arguments
    ---------
    entries : list of Entry
        What ``read_list`` returned.

    Returns
    -------
    tuple
        The folder that holds all files, a ``FileListing`` relative to it, and
        a dict from these files to their IDs, which are made of the paths where
        the list has none.

    Raises
    ------
    ManifestError
        If the files are on several drives (of Windows).

    Example
    -------
    >>> entry = Entry("u1", os.path.abspath("/data/a/b.wav"), "b.wav", 1)
    >>> folder, listing, ids = list_entries([entry])
    >>> listing.files, ids
    (['b.wav'], {'b.wav': 'u1'})
    """
    try:
        root = os.path.commonpath([os.path.dirname(e.path) for e in entries])
    except ValueError as error:
        raise ManifestError(
            "a list of files on several drives cannot be read; make a list for "
            "each"
        ) from error
    files = [
        os.path.relpath(e.path, root).replace(os.sep, "/") for e in entries
    ]
    ids = [entry.id for entry in entries]
    if ids[0] is None:
        ids = unique_ids(files)
    ids = dict(zip(files, ids, strict=True))
    return root, FileListing(sorted(files), {}, []), ids


def audio_of(source, options):
    """Find the audio files below a folder, of a list, or the one named.

    Arguments
    ---------
    source : str
        A folder, a list of files or an
        audio file.
    options : speakers.files.Reading or argparse.Namespace
        ``quiet``: whether to show no progress.

    Returns
    -------
    tuple
        Names (of a folder: relative to it; of a list: the ID if it has any,
        else the path as it is written there) and paths, lists of str; and the
        ``FileListing`` of a folder, None otherwise.

    Raises
    ------
    ManifestError
        If there is no such folder, or if a list is malformed.
    AudioError
        If it holds no audio file.
    """
    extensions = AUDIO_EXTENSIONS + DECODED_EXTENSIONS
    if os.path.isfile(source):
        if os.path.splitext(source)[1].lower() in extensions:
            return [os.path.basename(source)], [source], None
        entries = read_list(source)
        names = [e.text if e.id is None else e.id for e in entries]
        return names, [e.path for e in entries], None
    listing = list_files(source, extensions, progress=not options.quiet)
    if not listing.files:
        others = ", ".join(f"{n} {e}" for e, n in listing.unknown.items())
        raise AudioError(
            f"there is no audio file below {source}"
            + (f", only {others}" if others else "")
        )
    # Escape names that are not UTF-8, which could not be printed.
    names = [
        name.encode("utf-8", "backslashreplace").decode()
        for name in listing.files
    ]
    return names, [os.path.join(source, n) for n in listing.files], listing


def _read_text(path):
    """Read a text file, which gzip may have compressed."""
    try:
        with open(path, "rb") as stream:
            data = stream.read()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        text = data.decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise ManifestError(
            f"{path} is neither a folder nor a list in UTF-8 text ({error}); "
            "give a folder of audio files, or a list of their paths"
        ) from error
    if "\0" in text:
        raise ManifestError(
            f"{path} is not text; give a folder of audio files, or a list of "
            "their paths"
        )
    return text


def _header(line):
    """Split the header of a CSV file into lower-case names of columns."""
    separator = "\t" if "\t" in line else ","
    return [name.strip(' \r"').lower() for name in line.split(separator)]


def _read_csv(path, text):
    """Yield line number, ID (or None) and path of the rows of a CSV file."""
    # Blank lines before the header would not be a header.
    skipped = len(text) - len(text.lstrip("\r\n"))
    first = text[:skipped].count("\n")
    text = text[skipped:]
    top = text.split("\n", 1)[0]
    header = _header(top)
    if {"start", "stop"} <= set(header):
        raise ManifestError(
            f"{path} lists parts of files (columns start and stop); only whole "
            "files are read: cut them into files of their own"
        )
    # A cell may contain line ends, so let the csv module find the rows.
    rows = csv.reader(
        io.StringIO(text, newline="\n"), delimiter="\t" if "\t" in top else ","
    )
    column = header.index("wav" if "wav" in header else "path")
    key = header.index("id") if "id" in header else None
    before = rows.line_num
    for number, row in enumerate(_rows_of(rows, path)):
        line, before = first + before + 1, rows.line_num
        if number == 0 or not row:
            continue
        cells = [row[i] if i < len(row) else "" for i in (column, key or 0)]
        if "" in cells:
            raise ManifestError(
                f"{path}, line {line}: an empty cell; fill it in or remove the "
                "line"
            )
        if cells[0].startswith("$data_root"):
            raise ManifestError(
                f"{path}, line {line}: '{cells[0]}' uses $data_root, which a "
                "list of files cannot; write absolute paths, or paths "
                "relative to the list"
            )
        yield line, None if key is None else cells[1], cells[0]


def _rows_of(rows, path):
    """Yield the rows of a CSV reader."""
    try:
        yield from rows
    except csv.Error as error:
        raise ManifestError(
            f"{path}, line {rows.line_num}: {error}; is it a CSV file?"
        ) from error


def _is_scp(folder, lines):
    """Return whether lines are an ID and a path, and not paths with spaces.

    The reading by which more files exist is right; where none does, or as many,
    most lines decide.
    """
    some = [line for _, line in lines[:: -(-len(lines) // _MOST_LINES)]]
    names = [line.split(maxsplit=1)[1:] for line in some]
    if not any(names):
        return False
    paths = sum(os.path.exists(os.path.join(folder, line)) for line in some)
    rests = sum(
        os.path.exists(os.path.join(folder, *name)) for name in names if name
    )
    if paths != rests:
        return rests > paths
    return sum(map(len, names)) >= len(some) / 2


def _read_scp(path, lines):
    """Yield line number, ID and path of the lines of a ``wav.scp``."""
    for number, line in lines:
        where = f"{path}, line {number}"
        utterance, *rest = line.split(maxsplit=1)
        if not rest:
            raise ManifestError(
                f"{where}: '{line}' is not an ID and a path, as the first line "
                "is; write both"
            )
        (name,) = rest
        if name.endswith("|"):
            raise ManifestError(
                f"{where}: '{name[:100]}' is a command, and no command of a "
                "list is run; run it once to write a file, and list that"
            )
        if re.search(r"\.ark:\d+$", name):
            raise ManifestError(
                f"{where}: '{name}' is an entry of an archive; copy the audio "
                "to files, and list those"
            )
        if re.fullmatch(r"\S+\s+[\d.]+\s+[\d.]+", name):
            raise ManifestError(
                f"{where}: '{line}' is a part of a recording (Kaldi's "
                "segments); only whole files are read: cut them into files of "
                "their own, and list those"
            )
        yield number, utterance, name


def _read_lhotse(path, lines):
    """Yield line number, ID and path of Lhotse's recordings."""
    for number, line in lines:
        where = f"{path}, line {number}"
        try:
            recording = json.loads(line)
            sources = recording["sources"]
            kinds = [source["type"] for source in sources]
            names = [source["source"] for source in sources]
            utterance = str(recording["id"])
        except (ValueError, KeyError, TypeError) as error:
            raise ManifestError(
                f"{where}: not a recording of Lhotse, an object with id and "
                "sources in one line; give recordings.jsonl, not cuts or "
                "supervisions"
            ) from error
        if kinds != ["file"]:
            wrong = set(kinds) - {"file"}
            why = f"its source is a {min(wrong)}" if wrong else _CHANNELS_APART
            raise ManifestError(
                f"{where}: the recording '{utterance}' is not one file: {why}"
            )
        yield number, utterance, names[0]
