"""Read the record of a run, and remove from it what must not be published.

A published record must not tell where a corpus was stored, under which user's
name, or with which password; the options are kept, because others need them.
"""

import re
import shlex

from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.publishing.description import read_json

# Characters that end a path inside a list or a mapping of YAML.
_ENDS = r",;'\"\[\]{}()"
# The start of an absolute path: not within a relative one, or a URL.
_BEGIN = rf"(?<![^\s{_ENDS}=])(?:~\w*)?/"
_IN_TEXT = re.compile(rf"{_BEGIN}[^\s{_ENDS}]*")
# Blanks within an argument belong to its paths.
_IN_ARGUMENT = re.compile(rf"{_BEGIN}[^{_ENDS}]*")
_SHOWN = "/path/to/"

_SECRET = re.compile(r"token|password|secret|_key\b|^-*key\b", re.IGNORECASE)
# The same within a block: --hub='{token: abc, private: True}'.
_IN_BLOCK = re.compile(
    r"(\w*(?:token|password|secret|_key)\b['\"]?\s*:\s*)[^\s,{}\[\]]+",
    re.IGNORECASE,
)
_HIDDEN = "***"

# What is read of a results.json and of a row of its evaluations.
_NUMBERS = (
    "eer eer_percent ci_low ci_high min_dcf_0.01 min_dcf_0.05 cllr min_cllr "
    "trials speakers threshold label_free_threshold label_free_median "
    "label_free_decile"
).split()
_TEXTS = "list scoring labels_seen command git_revision".split()
_NEEDED = ("list", "scoring", "eer_percent")


def read_record(path):
    """Read a ``results.json``, which may be from a stranger.

    Arguments
    ---------
    path : pathlib.Path
        The file.

    Returns
    -------
    dict

    Raises
    ------
    ConfigError
        If it is no JSON object, or a value that is used has another type.
    """
    record = read_json(path)
    rows = record.get("evaluations") or []
    if not isinstance(rows, list) or not all(isinstance(r, dict) for r in rows):
        raise ConfigError(f"{path}: `evaluations` must be a list of objects")
    training = record.get("training") or {}
    if not isinstance(training, dict):
        raise ConfigError(f"{path}: `training` must be an object")
    for row in (record, training, *rows):
        for key in _NUMBERS:
            value = row.get(key)
            number = isinstance(value, (int, float)) and -1e12 < value < 1e12
            if value is not None and not number:
                raise ConfigError(f"{path}: `{key}` must be a number")
        for key in _TEXTS:
            value = row.get(key)
            known = key == "labels_seen" and isinstance(value, bool)
            if not (value is None or known or isinstance(value, str)):
                raise ConfigError(f"{path}: `{key}` must be a text")
        if (row.get("ci_low") is None) != (row.get("ci_high") is None):
            raise ConfigError(f"{path}: `ci_low` and `ci_high` need each other")
    for row in rows:
        if any(row.get(key) is None for key in _NEEDED):
            raise ConfigError(
                f"{path}: each of `evaluations` needs {', '.join(_NEEDED)}"
            )
    return record


def without_folders(record):
    """Cut every absolute path of a record to its last component.

    The values of options and keys that hold a secret (``--hub_token``) are
    replaced as well.

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
        return {key: _entry(key, value) for key, value in record.items()}
    if isinstance(record, list):
        return [without_folders(value) for value in record]
    if isinstance(record, str):
        return _IN_TEXT.sub(_last, record)
    return record


def _entry(key, value):
    """Remove folders and secrets from the value of a key."""
    if key == "command" and isinstance(value, str):
        return _command(value)
    if isinstance(value, (str, list, dict)) and _SECRET.search(key):
        return _HIDDEN
    return without_folders(value)


def _command(text):
    """Remove folders and secrets from a command line."""
    try:
        words = shlex.split(text)
    except ValueError:
        # Unbalanced quotes: this is text, not a command.
        return without_folders(text)
    shown, secret_next = [], False
    for word in words:
        name, equals, _ = word.partition("=")
        secret = name.startswith("--") and _SECRET.search(name)
        if secret_next:
            word = _HIDDEN
        elif secret and equals:
            word = f"{name}={_HIDDEN}"
        secret_next = bool(secret and not equals)
        word = _IN_BLOCK.sub(rf"\1{_HIDDEN}", word)
        shown.append(_IN_ARGUMENT.sub(_last, word))
    return shlex.join(shown)


def _last(match):
    """Remove the folders from a path."""
    path = match[0].rstrip("/")
    return _SHOWN + path.rsplit("/", 1)[-1]
