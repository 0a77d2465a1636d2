"""Copy the audio of a manifest into shards; see ``data.packed``.

A shard is named after a digest of its utterances and of the size and time of
their files, and gets its name when it is whole. So a preparation that is killed
continues with the next shard, and an utterance that has changed is packed again.
Beside each shard a file ``.npz`` holds the first sample of each utterance, which
of them cannot be read and why, and a checksum of each block.
"""

import hashlib
import json
import os
import pathlib
import shutil
import zlib

import numpy as np

from speechbrain_ssl.data.audio import AudioFile
from speechbrain_ssl.data.decoder import UnusableAudio
from speechbrain_ssl.data.packed import RATE, packed_path
from speechbrain_ssl.errors import UserError
from speechbrain_ssl.files import atomic_write
from speechbrain_ssl.prepare.workers import finish_jobs
from speechbrain_ssl.progress import open_bar

#: A shard holds at least so much audio, and there are at most so many of them,
#: since each process keeps all of them open.
_SHARD_SECONDS = 3600.0
_MOST_SHARDS = 512

#: Bytes of a block with a checksum of its own.
_BLOCK = 2**24

#: Files are read in pieces of so many samples.
_PIECE = 60 * RATE


def pack(table, folders, verify=False, num_workers=1, progress=True):
    """Copy the audio of a manifest into shards.

    Audio that is not of 16 bits, of one channel and of 16 kHz is converted, and
    so rounded to 16 bits; all other audio is the same in the shard.

    Arguments
    ---------
    table : pandas.DataFrame
        With the columns ``ID``, ``duration`` and ``wav`` of a manifest; all paths
        absolute.
    folders : str or list of str
        Where to write the shards. With several folders, on as many disks, they
        are dealt out in turn.
    verify : bool
        Whether to compare shards that exist already with their checksums.
    num_workers : int
        Number of processes; each packs a shard.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    wavs : list of str or None
        The new path of each utterance; None if it cannot be read.
    rejected : list of tuple
        (wav, reason, detail) of those that cannot be read.

    Raises
    ------
    UserError
        If a disk has too little space.
    """
    folders = [folders] if isinstance(folders, str) else list(folders)
    folders = [os.path.abspath(folder) for folder in folders]
    wavs = table["wav"].tolist()
    jobs, ids = [], table["ID"].tolist()
    seconds = table["duration"].tolist()
    for turn, part in enumerate(_parts(np.array(seconds))):
        files = [(wavs[i], seconds[i]) for i in part]
        name = _digest([ids[i] for i in part], files)
        folder = folders[turn % len(folders)]
        jobs.append(
            (part, os.path.join(folder, f"{name}.pcm16"), files, verify)
        )
    _check_space([job[1:3] for job in jobs])
    packed, rejected = [None] * len(ids), []
    with open_bar(
        total=len(jobs), desc="pack", unit=" shards", disable=not progress
    ) as bar:
        for (part, shard, _, _), (first, bad) in finish_jobs(
            _pack, jobs, num_workers
        ):
            for place, i in enumerate(part):
                if str(place) in bad:
                    rejected.append((wavs[i], *bad[str(place)]))
                else:
                    count = first[place + 1] - first[place]
                    packed[i] = packed_path(shard, first[place], count)
            bar.update()
    return packed, rejected


def _parts(seconds):
    """Divide utterances into shards; return the positions in each."""
    ends = np.cumsum(seconds)
    size = max(_SHARD_SECONDS, seconds.sum() / _MOST_SHARDS)
    # The middle of an utterance decides, so that durations add up to the size.
    cuts = np.flatnonzero(np.diff((ends - seconds / 2) // size)) + 1
    return [p.tolist() for p in np.split(np.arange(len(ends)), cuts) if len(p)]


def _digest(ids, files):
    """Return a name for a shard with these utterances, as they are now."""
    digest = hashlib.blake2b(digest_size=12)
    for name, (path, _) in zip(ids, files, strict=True):
        try:
            status = os.stat(path)
            stamp = status.st_size, status.st_mtime_ns
        except OSError:
            stamp = None
        # A name need not be UTF-8.
        text = f"{name}\n{path}\n{stamp}\n"
        digest.update(text.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _check_space(shards):
    """Raise if a disk has too little space for the shards that are missing."""
    needed = {}
    for shard, files in shards:
        folder = os.path.dirname(shard)
        os.makedirs(folder, exist_ok=True)
        if not os.path.exists(shard):
            seconds = sum(seconds for _, seconds in files)
            needed[folder] = needed.get(folder, 0) + 2 * RATE * seconds
    for folder, size in needed.items():
        free = shutil.disk_usage(folder).free
        if size > free:
            raise UserError(
                f"packing needs {size / 1e9:.1f} GB in {folder}, whose disk has "
                f"{free / 1e9:.1f} GB left; make room, or name more folders "
                "(`pack`)"
            )


def _pack(part, shard, files, verify):
    """Write a shard, unless it is there.

    Returns
    -------
    list of int
        First sample of each utterance, and the number of samples.
    dict
        Place of an utterance in the shard, as text -> reason and detail why it
        cannot be read.
    """
    index = pathlib.Path(shard).with_suffix(".npz")
    if index.is_file() and os.path.isfile(shard):
        with np.load(index) as found:
            first, sums = found["first"].tolist(), found["checksums"].tolist()
            bad = json.loads(str(found["bad"]))
        if os.path.getsize(shard) == 2 * first[-1]:
            if not verify or _checksums(shard) == sums:
                return first, bad
    first, bad = [0], {}
    with atomic_write(shard, "wb") as stream:
        for place, (path, seconds) in enumerate(files):
            begin = stream.tell()
            try:
                count = _append(stream, path, seconds)
            except UnusableAudio as error:
                stream.seek(begin)
                stream.truncate()
                bad[str(place)], count = [error.reason, error.detail], 0
            first.append(first[-1] + count)
    with atomic_write(index, "wb") as stream:
        np.savez(
            stream,
            first=first,
            bad=json.dumps(bad),
            checksums=_checksums(shard),
        )
    return first, bad


def _append(stream, path, seconds):
    """Append the samples of a file to a shard; return how many there are."""
    with AudioFile(path, RATE, seconds) as audio:
        for start in range(0, audio.num_samples, _PIECE):
            count = min(_PIECE, audio.num_samples - start)
            wave = audio.read(start, count) * 2.0**15
            wave = np.rint(wave).clip(-(2**15), 2**15 - 1).astype("<i2")
            stream.write(wave.tobytes())
        return start + len(wave)


def _checksums(shard):
    """Return the CRC-32 of each block of a shard."""
    with open(shard, "rb") as stream:
        blocks = iter(lambda: stream.read(_BLOCK), b"")
        return [zlib.crc32(block) for block in blocks]
