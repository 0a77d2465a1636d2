"""Tune a process for training on a CPU, before torch is imported.

A character that the console cannot show, as of a file's name under ``LC_ALL=C``,
is printed as an escape, since an error would lose what the work was for.

Two settings matter more for speed on a CPU than any line of Python:

* By default glibc returns the memory of a step's activations to the system, and
  the next step has to fault the pages in again. Keeping the memory
  (``mallopt``) made a step of ECAPA-512 1.6 times faster where it was measured.
  This works with glibc on Linux only; the price is that memory is not returned
  to the system before the process ends.
* OpenMP threads that wait by spinning slow down every other process on a shared
  machine. With ``OMP_WAIT_POLICY=passive`` they sleep.
"""

import ctypes
import os
import sys

# Numbers from glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_TOP_PAD = -2
_M_MMAP_MAX = -4


def set_up_process():
    """Set console, wait policy and allocator; call it before importing torch.

    If the user has set ``OMP_WAIT_POLICY``, it is not changed.

    Returns
    -------
    bool
        Whether the allocator accepted the settings (glibc on Linux only).

    Example
    -------
    >>> from speechbrain_ssl.runtime import set_up_process
    >>> isinstance(set_up_process(), bool)
    True
    """
    # A notebook's stdout has no such method, and shows every character.
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")
    if "torch" not in sys.modules:
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    settings = (
        (_M_MMAP_MAX, 0),
        (_M_TRIM_THRESHOLD, 2**31 - 1),
        (_M_TOP_PAD, 256 * 2**20),
    )
    taken = [mallopt(name, value) == 1 for name, value in settings]
    return all(taken)
