"""What has to be set in a process before torch is imported.

On a CPU two things cost more than any line of Python does:

* glibc returns the activations of a step to the system and faults the pages in
  again in the next one. Keeping them (``mallopt``) made an ECAPA-512 step
  1.6 times faster where it was measured.
* OpenMP threads that wait by spinning slow down every neighbour on a shared
  machine. ``OMP_WAIT_POLICY=passive`` makes them sleep.

The first is for glibc on Linux and does nothing elsewhere; the price is that
memory a process has once used is not returned to the system before it ends.
"""

import ctypes
import os
import sys

# Numbers from glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_TOP_PAD = -2
_M_MMAP_MAX = -4


def set_up_process():
    """Sets thread waiting and the allocator; call it before importing torch.

    A variable that the user has set already stays as it is.

    Returns
    -------
    bool
        Whether the allocator took the settings (glibc on Linux only).

    Example
    -------
    >>> from speechbrain_ssl.runtime import set_up_process
    >>> isinstance(set_up_process(), bool)
    True
    """
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
