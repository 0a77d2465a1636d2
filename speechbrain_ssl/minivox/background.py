"""Write noises and room responses for those who have no recorded ones."""

import pathlib

import numpy as np

from speechbrain_ssl.minivox import draws
from speechbrain_ssl.minivox.channel import draw_room
from speechbrain_ssl.minivox.corpus import background_sound, write_wav
from speechbrain_ssl.prepare.workers import default_workers, finish_jobs
from speechbrain_ssl.progress import open_bar

#: Number of files of each kind. Music takes a hundred times as long as noise.
NOISES = {"noise": 40, "babble": 20, "music": 10}
ROOMS = 100

_SEED = 1986

#: Least and greatest number of voices in babble.
_VOICES = 3, 8


def write_background(folder, noises=None, rooms=ROOMS):
    """Write noise, babble, music and room responses, or the missing files.

    Arguments
    ---------
    folder : str or pathlib.Path
        Where to write ``noise`` and ``rooms``.
    noises : dict, optional
        Kind (``noise``, ``babble``, ``music``) -> number of files;
        ``NOISES`` by default.
    rooms : int
        Number of room responses.

    Returns
    -------
    int
        The number of files that were written.

    Example
    -------
    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> write_background(folder, {"noise": 1}, rooms=1)
    2
    >>> write_background(folder, {"noise": 1}, rooms=1)
    0
    """
    folder = pathlib.Path(folder)
    tasks = [
        (kind, i, folder / "noise" / f"{kind}{i:03d}.wav")
        for kind, number in (NOISES if noises is None else noises).items()
        for i in range(number)
    ]
    tasks += [
        ("room", i, folder / "rooms" / f"room{i:03d}.wav") for i in range(rooms)
    ]
    tasks = [task for task in tasks if not task[-1].is_file()]
    workers = min(default_workers(), len(tasks))
    with open_bar(
        finish_jobs(_write, tasks, workers if workers > 1 else 0),
        desc="noise and rooms",
        total=len(tasks),
        unit=" files",
    ) as bar:
        for _ in bar:
            pass
    return len(tasks)


def _write(kind, index, path):
    """Write one file."""
    if kind == "room":
        rng = draws.generator(_SEED, draws.ROOM, index)
        sound = 0.9 * draw_room(rng, 0.1, 0.7)
    elif kind == "babble":
        sound = _babble(index)
    else:
        sound = background_sound(kind, index, _SEED)
    write_wav(path, sound)


def _babble(index):
    """Add up several voices of equal power."""
    most = _VOICES[1]
    rng = np.random.default_rng([_SEED, index])
    count = rng.integers(*_VOICES, endpoint=True)
    voices = [
        background_sound("speech", index * most + i, _SEED)
        for i in range(count)
    ]
    length = min(map(len, voices))
    mix = sum(voice[:length] / np.std(voice) for voice in voices)
    return 0.8 * mix / np.abs(mix).max()
