"""The errors that a user can cause and correct.

Each message names the file or the key at fault and the remedy. Whoever catches
``UserError`` may print it without a traceback: the text is meant to suffice.
"""

import json


class UserError(Exception):
    """Base of all errors that a user can correct without reading our code."""


class ConfigError(UserError):
    """A key, a value or a combination of values in a YAML or command line."""


class ManifestError(UserError):
    """A manifest that is missing, malformed or empty."""


class AudioError(UserError):
    """A single audio file that cannot be used, with the reason."""


class EmbeddingError(UserError):
    """Embeddings that cannot be used: no table, not finite, or all zero."""


class TrialError(UserError):
    """A trial list that is malformed or names what is not there."""


class CheckpointError(UserError):
    """A checkpoint that is of another configuration, or cannot be written."""


class CollapseError(UserError):
    """Training has collapsed: the representation carries nothing any more."""


def differences(before, now):
    """Describe the keys whose values differ between two configurations.

    Arguments
    ---------
    before, now : dict
        Values that JSON knows; a key may be in only one of the two.

    Returns
    -------
    list of str
        One text per key, sorted, for the message of an error.

    Example
    -------
    >>> differences({"lr": 0.1, "seed": 7}, {"lr": 0.2, "seed": 7})
    ['lr (0.1 there, 0.2 here)']
    """
    return [
        f"{key} ({_shorten(before.get(key))} there, "
        f"{_shorten(now.get(key))} here)"
        for key in sorted({*before, *now})
        if before.get(key) != now.get(key)
    ]


def _shorten(value):
    """Write a value in at most 60 characters."""
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
