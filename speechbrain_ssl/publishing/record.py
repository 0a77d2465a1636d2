"""Remove the folders of a machine from the record of a run.

A published record must not tell where a corpus was stored, or under which
user's name; the options are kept, because others need them.
"""

import re
import shlex

# Characters that end a path inside a list or a mapping of YAML.
_ENDS = r",;'\"\[\]{}()"
# The start of an absolute path: not within a relative one, or a URL.
_BEGIN = rf"(?<![^\s{_ENDS}=])(?:~\w*)?/"
_IN_TEXT = re.compile(rf"{_BEGIN}[^\s{_ENDS}]*")
# Blanks within an argument belong to its paths.
_IN_ARGUMENT = re.compile(rf"{_BEGIN}[^{_ENDS}]*")
_SHOWN = "/path/to/"


def without_folders(record):
    """Cut every absolute path of a record to its last component.

    Arguments
    ---------
    record : dict, list, str, number or None
        Contents of a ``results.json``. A ``command`` is split as a shell
        would, so that folders with blanks in their names are found as well.

    Returns
    -------
    dict, list, str, number or None
        A copy.

    Example
    -------
    >>> without_folders(
    ...     {"command": "train.py a.yaml '--data=/home/me/my data' --seed=1"}
    ... )
    {'command': "train.py a.yaml '--data=/path/to/my data' --seed=1"}
    >>> without_folders("[/a/b/train.csv, ../save/c.csv, https://x.org/d/e]")
    '[/path/to/train.csv, ../save/c.csv, https://x.org/d/e]'
    """
    if isinstance(record, dict):
        return {
            key: _command(value)
            if key == "command" and isinstance(value, str)
            else without_folders(value)
            for key, value in record.items()
        }
    if isinstance(record, list):
        return [without_folders(value) for value in record]
    if isinstance(record, str):
        return _IN_TEXT.sub(_last, record)
    return record


def _command(text):
    """Remove the folders from a command line."""
    try:
        words = shlex.split(text)
    except ValueError:
        # Unbalanced quotes: this is text, not a command.
        return without_folders(text)
    return shlex.join(_IN_ARGUMENT.sub(_last, word) for word in words)


def _last(match):
    """Remove the folders from a path."""
    path = match[0].rstrip("/")
    return _SHOWN + path.rsplit("/", 1)[-1]
