"""Check single values, in constructors that are called from a YAML file.

Each function raises a ``ConfigError`` that names the owner and the key, what is
allowed, and what was given. Although ``bool`` is a subclass of ``int``, no
check accepts True as the number 1.
"""

import math
import numbers

from speechbrain_ssl.errors import ConfigError


def check_int(owner, key, value, least, remedy=None):
    """Raise unless a value is a whole number of at least ``least``.

    Arguments
    ---------
    owner : str
        What the value belongs to, such as "SSPS".
    key : str
        The name of the value in the configuration.
    value : object
        The value to check.
    least : int
        The smallest number allowed.
    remedy : str, optional
        Text added to the message: a reason, or what to set instead.

    Raises
    ------
    ConfigError
        If the value is of another type, or too small.

    Example
    -------
    >>> check_int("MoCo", "queue", 32, least=1)
    >>> check_int("MoCo", "queue", True, least=1)
    Traceback (most recent call last):
    speechbrain_ssl.errors.ConfigError: MoCo's queue must be a whole number \
from 1, got True
    """
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not whole or value < least:
        _refuse(owner, key, f"a whole number from {least}", value, remedy)


def check_number(
    owner,
    key,
    value,
    above=-math.inf,
    least=-math.inf,
    below=math.inf,
    most=math.inf,
    remedy=None,
):
    """Raise unless a value is a finite number within the bounds.

    Arguments
    ---------
    owner, key, value, remedy
        See ``check_int``.
    above, below : float
        Exclusive bounds.
    least, most : float
        Inclusive bounds.

    Raises
    ------
    ConfigError
        If the value is not a finite number, or out of bounds.

    Example
    -------
    >>> check_number("DINO", "center_momentum", 0.9, least=0, below=1)
    >>> check_number("DINO", "center_momentum", 1.0, least=0, below=1)
    Traceback (most recent call last):
    speechbrain_ssl.errors.ConfigError: DINO's center_momentum must be a \
number of at least 0 and below 1, got 1.0
    """
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if (
        real
        and math.isfinite(value)
        and above < value < below
        and least <= value <= most
    ):
        return
    bounds = {
        "above": above,
        "of at least": least,
        "below": below,
        "of at most": most,
    }
    allowed = " and ".join(
        f"{words} {bound:g}"
        for words, bound in bounds.items()
        if math.isfinite(bound)
    )
    _refuse(owner, key, f"a number {allowed}".rstrip(), value, remedy)


def check_choice(owner, key, value, choices):
    """Raise unless a value is one of the names allowed.

    Arguments
    ---------
    owner, key, value
        See ``check_int``.
    choices : iterable of str
        The names allowed.

    Raises
    ------
    ConfigError
        If the value is none of them.

    Example
    -------
    >>> check_choice("LIM", "loss", "nce", ["bce", "nce"])
    >>> check_choice("LIM", "loss", "l2", ["bce", "nce"])
    Traceback (most recent call last):
    speechbrain_ssl.errors.ConfigError: LIM's loss must be one of bce, nce; \
got 'l2'
    """
    choices = list(choices)
    if value not in choices:
        raise ConfigError(
            f"{owner}'s {key} must be one of {', '.join(choices)}; "
            f"got {value!r}"
        )


def check_bool(owner, key, value):
    """Raise unless a value is True or False; 1 and "no" are not.

    Arguments
    ---------
    owner, key, value
        See ``check_int``.

    Raises
    ------
    ConfigError
        If the value is of another type.
    """
    if not isinstance(value, bool):
        _refuse(owner, key, "True or False", value, None)


def _refuse(owner, key, allowed, value, remedy):
    """Raise a ``ConfigError`` that says what is allowed and what was given."""
    message = f"{owner}'s {key} must be {allowed}, got {value!r}"
    raise ConfigError(f"{message}; {remedy}" if remedy else message)
