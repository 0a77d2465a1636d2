"""Define the errors that a user can cause and correct.

Each message names the file or the key at fault, and the remedy, so that it can
be printed without a traceback. ``speechbrain_ssl.config.run`` does that.
"""

import errno
import json

# The last one is a limit on the size of files (``ulimit -f``).
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class UserError(Exception):
    """Base class of errors that a user can correct without reading the code."""


class ConfigError(UserError):
    """A wrong key, value or combination of values in a YAML or command line."""


class ManifestError(UserError):
    """A manifest that is missing, malformed or empty."""


class AudioError(UserError):
    """A single audio file that cannot be used, with the reason."""


class ImageError(UserError):
    """A single picture that cannot be used, with the reason."""


class EmbeddingError(UserError):
    """Embeddings that cannot be used: no table, not finite, or all zero."""


class TrialError(UserError):
    """A trial list that is malformed or names something missing."""


class CheckpointError(UserError):
    """A checkpoint of another configuration, or one that cannot be written."""


class CollapseError(UserError):
    """A representation that has collapsed and carries no information."""


class DivergenceError(UserError):
    """Training that has left the finite numbers."""


class DistributedError(UserError):
    """A process of a distributed run that has gone."""


#: What is wrong with a path: not permitted, read-only, a file and no folder (or
#: the reverse), too long, a loop of links, or a place where nothing can be
#: created, such as /proc.
_PLACE = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.ENAMETOOLONG,
    errno.ELOOP,
    errno.ENOENT,
)


def full_disk(error):
    """Explain an error that means that no more can be written.

    Arguments
    ---------
    error : BaseException
        Any one. What it was raised from, or while it was handled, is looked at,
        too: torch replaces the error of a stream by one of its own.

    Returns
    -------
    str or None
        A sentence with the remedy; None if the error means something else.

    Example
    -------
    >>> full_disk(OSError(errno.EDQUOT, "Disk quota exceeded"))[:16]
    'no space is left'
    >>> full_disk(OSError(errno.EACCES, "Permission denied"))
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return (
                f"no space is left ({error}). What was written before is "
                "intact: make room and start the same command again"
            )
        error = error.__cause__ or error.__context__
    return None


def explain(error):
    """Explain an error of the file system that the user can correct.

    Arguments
    ---------
    error : BaseException
        Any one.

    Returns
    -------
    str or None
        A sentence with the remedy; None if the error means something else.

    Example
    -------
    >>> explain(OSError(errno.EACCES, "Permission denied", "/data/run"))
    "[Errno 13] Permission denied: '/data/run'; correct it or name another path"
    """
    if getattr(error, "errno", None) in _PLACE:
        return f"{error}; correct it or name another path"
    return full_disk(error)


def counted(number, noun):
    """Write a number and a noun that agree.

    Arguments
    ---------
    number : int
        How many.
    noun : str
        The noun in the singular; its plural has to end in an additional ``s``.

    Returns
    -------
    str

    Example
    -------
    >>> counted(1, "file"), counted(0, "file")
    ('1 file', '0 files')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def differences(before, now):
    """Describe the keys whose values differ between two configurations.

    Arguments
    ---------
    before, now : dict
        Key -> value that JSON can represent; a key may be in only one of them.

    Returns
    -------
    list of str
        One text per key, sorted by key, for an error message.

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
    """Return a value as text of at most 60 characters."""
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
