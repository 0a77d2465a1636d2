"""Draw random numbers by address instead of from a stream.

A draw is a function of its address: the seed, the epoch, the utterance, the
crop and the purpose. There is no state to save. The draws of an utterance are
the same with any number of workers or ranks, in any batch, and after a resume.

The generator is splitmix64 (Steele, Lea and Flood, 2014), whose output function
is a good hash of a counter; all of it is numpy on unsigned 64-bit integers.
"""

import functools
import zlib

import numpy as np

_GAMMA = np.uint64(0x9E3779B97F4A7C15)


def _mix(x):
    """Apply the output function of splitmix64, element by element."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def purpose(name):
    """Return a number for the name of a purpose, such as ``"crop"``."""
    return zlib.crc32(name.encode("utf-8"))


def uniform(*address, size=None):
    """Draw uniformly from [0, 1) at an address.

    Arguments
    ---------
    *address : int or numpy.ndarray or str
        What the draw is for. Integers and integer arrays are broadcast against
        each other; a string is a purpose. Order matters.
    size : int, optional
        How many draws per address; they are appended as a last axis.

    Returns
    -------
    numpy.ndarray
        float64, of the broadcast shape of the address (and ``size``).

    Example
    -------
    >>> import numpy as np
    >>> keys = np.array([3, 7], dtype=np.uint64)
    >>> both = uniform(1234, 1, keys, "crop")
    >>> bool(both[1] == uniform(1234, 1, 7, "crop"))
    True
    """
    state = np.uint64(0x5EED)
    # Unsigned arithmetic wraps around, as a hash needs it.
    with np.errstate(over="ignore"):
        for part in address:
            if isinstance(part, str):
                part = purpose(part)
            part = np.asarray(part).astype(np.uint64)
            state = _mix((state + _GAMMA) ^ _mix(part + _GAMMA))
        if size is not None:
            steps = np.arange(1, size + 1, dtype=np.uint64) * _GAMMA
            state = _mix(np.asarray(state)[..., None] + steps)
    # A double holds 53 bits.
    return (state >> np.uint64(11)).astype(np.float64) * 2.0**-53


#: ``uniform`` for draws that are needed several times in a row: the crops of a
#: sample may be cut from several utterances. Do not write to the result.
cached_uniform = functools.lru_cache(maxsize=4)(uniform)


def permutation(count, *address):
    """Draw a permutation of ``range(count)`` at an address.

    Arguments
    ---------
    count : int
        Number of elements.
    *address : int or str
        What the permutation is for.

    Returns
    -------
    numpy.ndarray
        int64 ``[count]``.
    """
    index = np.arange(count, dtype=np.uint64)
    return np.argsort(uniform(*address, index, "order"), kind="stable")
