"""Parse the lines of trial lists, in several layouts.

    | name | line | lists |
    |---|---|---|
    | voxceleb | `1 a.wav b.wav` | VoxCeleb1-O, -E, -H; VoxSRC validation |
    | cnceleb | `model b.wav 1` | CN-Celeb |
    | sitw | `model b.flac tgt`, `... imp` | the keys of SITW and VOiCES |
    | kaldi | `model b target`, `... nontarget` | Kaldi's `trials` |
    | pairs | `a.wav b.wav` | VoxSRC test: without labels |

A *model* is a name for the recordings with which a speaker is enrolled. An
enrolment list maps each model to its recordings.

White space separates the fields. A name that contains spaces needs a line of
three fields or more separated by tabs, or one separated by commas with such
names in quotes (CSV): `1,"a b.wav","c d.wav"`.
"""

import contextlib
import csv
import pathlib
import re

from speechbrain_ssl.errors import TrialError

# Position of the label (None: no label) and its permitted words.
LAYOUTS = {
    "voxceleb": (0, {"1": True, "0": False}),
    "cnceleb": (2, {"1": True, "0": False}),
    "sitw": (2, {"tgt": True, "imp": False}),
    "kaldi": (2, {"target": True, "nontarget": False}),
    "pairs": (None, {}),
}
# Other names of a layout.
ALIASES = {"voxsrc": "voxceleb", "voices": "sitw"}


def lines_of(path):
    """Yield the lines of a text file that are not blank.

    Arguments
    ---------
    path : pathlib.Path
        A file in UTF-8, with or without a byte order mark.

    Yields
    ------
    tuple
        Number of the line, from 1, and the line.

    Raises
    ------
    TrialError
        If the file is not a text file.

    Example
    -------
    >>> import tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "list.txt"
    >>> _ = path.write_text("\\na b\\n")
    >>> list(lines_of(path))
    [(2, 'a b\\n')]
    """
    try:
        # Some editors put a byte order mark before the first label.
        with open(path, encoding="utf-8-sig") as stream:
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    yield number, line
    except UnicodeDecodeError as error:
        raise TrialError(
            f"{path} is not a text file in UTF-8 ({error}); is it an archive?"
        ) from error


def fields_of(line):
    r"""Split a line into fields.

    Arguments
    ---------
    line : str
        Fields separated by commas if there are quotes (CSV), otherwise by tabs
        if there are two or more, otherwise by spaces and tabs.

    Returns
    -------
    list of str

    Example
    -------
    >>> fields_of("1 a.wav  c.wav")
    ['1', 'a.wav', 'c.wav']
    >>> fields_of("1\ta b.wav\tc d.wav")
    ['1', 'a b.wav', 'c d.wav']
    >>> fields_of('1,"a b.wav","c ""d"".wav"')
    ['1', 'a b.wav', 'c "d".wav']
    """
    line = line.strip(" \t\r\n")
    if '"' in line:
        # What is no CSV is a name with a quote, or not a list at all.
        with contextlib.suppress(csv.Error):
            fields = next(csv.reader([line], skipinitialspace=True))
            if len(fields) > 1:
                return fields
    # Other white space, such as a no-break space, may be part of a name.
    if line.count("\t") > 1:
        return [part.strip(" ") for part in line.split("\t") if part.strip(" ")]
    return [part for part in line.replace("\t", " ").split(" ") if part]


def join_fields(fields):
    r"""Join fields to a line that ``fields_of`` splits.

    Example
    -------
    >>> join_fields(["1", "a.wav", "b.wav"])
    '1 a.wav b.wav'
    >>> join_fields(["1", "a.wav", "b c.wav"])
    '1,a.wav,"b c.wav"'
    """
    line = " ".join(fields)
    if fields_of(line) == list(fields):
        return line
    return ",".join(
        field
        if re.fullmatch(r"[\w.+-]+", field)
        else '"' + field.replace('"', '""') + '"'
        for field in fields
    )


def split_trial(fields, layout):
    """Split a line of a trial list into label, left name and right name.

    Arguments
    ---------
    fields : list of str
        The line, split at white space.
    layout : str
        A key of ``LAYOUTS``.

    Returns
    -------
    tuple or None
        None where the line is not of this layout; the label is None where the
        layout has none.

    Example
    -------
    >>> split_trial(["m1", "b.flac", "imp"], "sitw")
    (False, 'm1', 'b.flac')
    """
    position, words = LAYOUTS[layout]
    if position is None:
        return (None, *fields) if len(fields) == 2 else None
    if len(fields) != 3 or fields[position] not in words:
        return None
    left, right = fields[1:] if position == 0 else fields[:2]
    return words[fields[position]], left, right


def detect_layout(fields):
    """Detect the layout of a list from its first line.

    Arguments
    ---------
    fields : list of str
        The line, split at white space.

    Returns
    -------
    str or None
        None where the line fits no layout, or several.

    Example
    -------
    >>> detect_layout("id00800-enroll test/id00800-1.wav 1".split())
    'cnceleb'
    >>> detect_layout("1 model 0".split())
    """
    found = [name for name in LAYOUTS if split_trial(fields, name)]
    # A word is certainly a label; `1` and `0` may be the name of a model.
    by_word = [name for name in found if name in ("sitw", "kaldi")]
    found = by_word or found
    return found[0] if len(found) == 1 else None


def check_layout(layout):
    """Return the key of ``LAYOUTS`` that a name stands for.

    Arguments
    ---------
    layout : str
        A key of ``LAYOUTS`` or ``ALIASES``.

    Returns
    -------
    str

    Raises
    ------
    TrialError
        If there is no layout of that name.

    Example
    -------
    >>> check_layout("voices")
    'sitw'
    """
    name = ALIASES.get(layout, layout)
    if name not in LAYOUTS:
        raise TrialError(
            f"there is no layout '{layout}' of trial lists; take one of "
            f"{', '.join([*LAYOUTS, *ALIASES])}, or leave it out to have it "
            "detected"
        )
    return name


def read_enrolment(path):
    """Read the recordings with which every model is enrolled.

    Arguments
    ---------
    path : str or pathlib.Path
        Each line has a model and its recording: ``12013 audio/a.flac`` (SITW's
        ``enroll-core.lst``, VOiCES' ``dev-enroll.lst``, CN-Celeb's
        ``enroll.lst``), or several recordings.

    Returns
    -------
    dict
        Maps a model to a tuple of recordings.

    Raises
    ------
    TrialError
        If the file is missing or empty, a line lacks a recording, a model
        occurs twice, or a line gives times.

    Example
    -------
    >>> import tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "enroll.lst"
    >>> _ = path.write_text("m1 a.wav b.wav\\nm2 c.wav\\n")
    >>> read_enrolment(path)
    {'m1': ('a.wav', 'b.wav'), 'm2': ('c.wav',)}
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise TrialError(f"there is no enrolment list {path}")
    models = {}
    for number, line in lines_of(path):
        model, *recordings = fields_of(line)
        if not recordings:
            raise TrialError(
                f"{path}, line {number}: the model '{model}' has no "
                "recording; expected 'model a.wav' or 'model a.wav b.wav'"
            )
        if model in models:
            raise TrialError(
                f"{path}, line {number}: the model '{model}' has occurred "
                "before; put all its recordings in one line"
            )
        if any(_is_number(recording) for recording in recordings):
            raise TrialError(
                f"{path}, line {number}: '{line.strip()}' gives times within "
                "a recording (SITW's assisted enrolment?); only whole "
                "recordings are read"
            )
        models[model] = tuple(recordings)
    if not models:
        raise TrialError(f"the enrolment list {path} is empty")
    return models


def _is_number(text):
    try:
        float(text)
    except ValueError:
        return False
    return True
