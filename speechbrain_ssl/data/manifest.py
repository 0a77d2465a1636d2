"""Read and write manifests, the lists of utterances.

A manifest on disk is a CSV file with at least SpeechBrain's columns ``ID``,
``duration`` (seconds) and ``wav``. A path in ``wav`` is absolute, or begins
with ``$data_root`` (replaced by the folder given at reading, SpeechBrain's
convention), or is relative to the folder of the CSV file.

No other column is read, so that a column with speaker labels cannot leak into
training.

In memory a manifest is six numpy arrays. A million VoxCeleb utterances take
about 100 MB, and twice that while validation is split off; reading the CSV file
needs some 470 MB for a moment. Forked loader workers share the memory of these
arrays, because reading them changes no reference counts.
"""

import hashlib
import itertools
import os
import pathlib

import numpy as np
import pandas as pd

from speechbrain_ssl.errors import ManifestError
from speechbrain_ssl.files import write_csv

COLUMNS = ("ID", "duration", "wav")


class StringColumn:
    """Strings packed into one byte buffer.

    Arguments
    ---------
    blob : numpy.ndarray
        All strings in UTF-8, one after the other (uint8).
    offsets : numpy.ndarray
        ``[N + 1]``; string ``i`` is ``blob[offsets[i]:offsets[i + 1]]``.

    Example
    -------
    >>> column = StringColumn.from_strings(["a", "bcd"])
    >>> column[1], len(column)
    ('bcd', 2)
    """

    #: Strings gathered at once; bounds the index arrays of ``take``.
    BLOCK = 65536

    def __init__(self, blob, offsets):
        self.blob = blob
        self.offsets = offsets

    @classmethod
    def from_strings(cls, strings):
        """Pack an iterable of ``str``."""
        encoded = [s.encode("utf-8") for s in strings]
        offsets = np.zeros(len(encoded) + 1, dtype=np.int64)
        np.cumsum([len(e) for e in encoded], out=offsets[1:])
        return cls(np.frombuffer(b"".join(encoded), dtype=np.uint8), offsets)

    def __len__(self):
        return len(self.offsets) - 1

    def __getitem__(self, i):
        begin, end = self.offsets[i], self.offsets[i + 1]
        return self.blob[begin:end].tobytes().decode("utf-8")

    def take(self, indices):
        """Return a new column with the strings at ``indices`` (int array).

        The bytes are copied as they are: decoding and encoding a million
        strings would take seconds.
        """
        indices = np.asarray(indices, dtype=np.int64)
        begins = self.offsets[indices]
        lengths = self.offsets[indices + 1] - begins
        offsets = np.zeros(len(indices) + 1, dtype=np.int64)
        np.cumsum(lengths, out=offsets[1:])
        blob = np.empty(offsets[-1], dtype=np.uint8)
        for first in range(0, len(indices), self.BLOCK):
            last = min(first + self.BLOCK, len(indices))
            # Source position of each byte minus its target position.
            shift = np.repeat(
                begins[first:last] - offsets[first:last], lengths[first:last]
            )
            to = np.arange(offsets[first], offsets[last])
            blob[offsets[first] : offsets[last]] = self.blob[to + shift]
        return StringColumn(blob, offsets)


def utterance_key(utterance_id):
    """Compute a 64-bit key that depends on the utterance's ID alone.

    All random draws of an utterance are keyed by it, so that they stay the same
    in another order, in another split, and when the corpus has grown.

    Arguments
    ---------
    utterance_id : str
        The ``ID`` column.

    Returns
    -------
    int
        In ``[0, 2**64)``.
    """
    digest = hashlib.blake2b(utterance_id.encode("utf-8"), digest_size=8)
    return int.from_bytes(digest.digest(), "little")


def _utterance_keys(ids):
    """Compute the ``utterance_key`` of every ID, ``[N]`` uint64."""
    data = ids.blob.tobytes()
    offsets = ids.offsets.tolist()
    digests = b"".join(
        hashlib.blake2b(data[begin:end], digest_size=8).digest()
        for begin, end in itertools.pairwise(offsets)
    )
    # A copy in native order, which can be written to.
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


class Manifest:
    """Holds a list of utterances, as columns.

    Arguments
    ---------
    ids : StringColumn
        Unique utterance IDs.
    wavs : StringColumn
        Paths of the audio files.
    durations : numpy.ndarray
        Seconds, float32 ``[N]``.

    Attributes
    ----------
    keys : numpy.ndarray
        ``utterance_key`` of every ID, uint64 ``[N]``.

    Raises
    ------
    ManifestError
        If an ID occurs twice.

    Example
    -------
    >>> manifest = Manifest(
    ...     StringColumn.from_strings(["u1", "u2"]),
    ...     StringColumn.from_strings(["/x/1.wav", "/x/2.wav"]),
    ...     np.array([3.0, 4.5], dtype=np.float32),
    ... )
    >>> len(manifest), manifest.path(1), float(manifest.durations[1])
    (2, '/x/2.wav', 4.5)
    """

    def __init__(self, ids, wavs, durations):
        self.ids = ids
        self.wavs = wavs
        self.durations = np.asarray(durations, dtype=np.float32)
        self.keys = _utterance_keys(ids)
        unique, counts = np.unique(self.keys, return_counts=True)
        if len(unique) < len(self.keys):
            twice = unique[counts > 1][0]
            name = ids[int(np.flatnonzero(self.keys == twice)[0])]
            raise ManifestError(
                f"the utterance ID '{name}' occurs more than once; IDs must be "
                "unique over all manifests that are used together"
            )

    @classmethod
    def _with_keys(cls, ids, wavs, durations, keys):
        """Make a manifest from columns whose keys are known to be unique."""
        manifest = cls.__new__(cls)
        manifest.ids = ids
        manifest.wavs = wavs
        manifest.durations = durations
        manifest.keys = keys
        return manifest

    @classmethod
    def read(cls, paths, data_root=None):
        """Read one or several CSV files.

        Arguments
        ---------
        paths : str or list of str
            CSV files; several are read as one manifest.
        data_root : str, optional
            What ``$data_root`` in the ``wav`` column stands for.

        Returns
        -------
        Manifest

        Raises
        ------
        ManifestError
            If a file is missing, empty or lacks a column, if a cell is empty,
            a duration is not positive or an ID not unique, or if
            ``$data_root`` occurs and is not given.
        """
        if isinstance(paths, (str, os.PathLike)):
            paths = [paths]
        tables = [_read_table(pathlib.Path(p), data_root) for p in paths]
        # Index: number of the file, row in it.
        table = pd.concat(tables, keys=range(len(tables)))
        again = np.flatnonzero(table["ID"].duplicated())
        if len(again):
            file, row = table.index[again[0]]
            raise ManifestError(
                f"{paths[file]}, line {row + 2}: the utterance ID "
                f"'{table['ID'].iloc[again[0]]}' has occurred before; IDs must "
                "be unique over all manifests that are read together, so "
                "remove one or rename it"
            )
        ids = StringColumn.from_strings(table.pop("ID"))
        wavs = StringColumn.from_strings(table.pop("wav"))
        seconds = table["duration"].to_numpy(np.float32)
        # Free the strings: otherwise two copies would be in memory while the
        # keys are computed.
        del table, tables
        return cls(ids, wavs, seconds)

    def __len__(self):
        return len(self.ids)

    def path(self, i):
        """Return the path of the audio file of utterance ``i``."""
        return self.wavs[i]

    def select(self, indices):
        """Return a manifest of the utterances at ``indices``.

        Arguments
        ---------
        indices : numpy.ndarray
            Positions, in any order, each at most once (not checked).

        Returns
        -------
        Manifest
        """
        indices = np.asarray(indices, dtype=np.int64)
        return Manifest._with_keys(
            self.ids.take(indices),
            self.wavs.take(indices),
            self.durations[indices],
            self.keys[indices],
        )

    def hours(self):
        """Return the sum of the durations in hours."""
        return float(self.durations.sum(dtype=np.float64)) / 3600

    def hold_out(self, count, min_seconds=0.0, usable=None):
        """Split off utterances for label-free validation.

        The choice depends on the IDs alone (the smallest keys go) and on which
        of them are usable, so that it is the same in every run, on every rank
        and after every resume.

        Arguments
        ---------
        count : int
            How many to hold out.
        min_seconds : float
            Only utterances at least this long are held out.
        usable : callable, optional
            ``usable(position)`` returns whether that utterance can be held out.
            It is called in the order of the keys until ``count`` are found.
            The others remain for training, whose loader replaces and reports
            what it cannot read.

        Returns
        -------
        tuple of Manifest
            The part for training, and the part held out.

        Raises
        ------
        ManifestError
            If there are no more than ``count`` utterances, or fewer than
            ``count`` are long enough and usable.

        Example
        -------
        >>> names = StringColumn.from_strings(["u1", "u2", "u3"])
        >>> manifest = Manifest(names, names, [3.0, 3.0, 3.0])
        >>> train, valid = manifest.hold_out(1, 2.0, lambda i: i == 1)
        >>> train.path(0), train.path(1), valid.path(0)
        ('u1', 'u3', 'u2')
        """
        eligible = np.flatnonzero(self.durations >= min_seconds)
        if count >= len(self) or count > len(eligible):
            raise ManifestError(
                f"cannot hold out {count} utterances of at least "
                f"{min_seconds} s: the manifest has {len(self)}, of which "
                f"{len(eligible)} are that long; lower `valid_utterances`"
            )
        candidates = eligible[np.argsort(self.keys[eligible])]
        if usable is not None:
            found = (i for i in candidates.tolist() if usable(i))
            candidates = np.fromiter(
                itertools.islice(found, count), dtype=np.int64
            )
        chosen = candidates[:count]
        if len(chosen) < count:
            raise ManifestError(
                f"cannot hold out {count} utterances: of the {len(eligible)} "
                f"of at least {min_seconds} s only {len(chosen)} are usable "
                "(the log names the others); repair or remove those, or lower "
                "`valid_utterances`"
            )
        keep = np.ones(len(self), dtype=bool)
        keep[chosen] = False
        return self.select(np.flatnonzero(keep)), self.select(np.sort(chosen))


def rows_of(part, whole):
    """Return where the utterances of a part are in the whole manifest.

    Arguments
    ---------
    part, whole : Manifest
        A manifest, and one that contains its utterances.

    Returns
    -------
    numpy.ndarray
        Positions in ``whole``, int64 ``[len(part)]``.
    """
    order = np.argsort(whole.keys)
    return order[np.searchsorted(whole.keys, part.keys, sorter=order)]


def _read_table(path, data_root):
    """Read the three known columns of one CSV file, and check them."""
    if not path.is_file():
        raise ManifestError(
            f"there is no manifest {path}; run the prepare script of the "
            "recipe first, or correct the key that names it"
        )
    try:
        table = pd.read_csv(
            path,
            usecols=list(COLUMNS),
            dtype={"ID": str, "wav": str},
            keep_default_na=False,
        )
    except ValueError as error:
        raise ManifestError(
            f"{path} is not a manifest: the columns {', '.join(COLUMNS)} are "
            f"needed ({error})"
        ) from error
    if len(table) == 0:
        raise ManifestError(f"the manifest {path} lists no utterance")
    seconds = pd.to_numeric(table["duration"], errors="coerce")
    bad = ~((seconds > 0) & (seconds < np.inf))
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise ManifestError(
            f"{path}, line {row + 2}: the duration "
            f"'{table['duration'].iloc[row]}' is not a positive number of "
            "seconds; correct it or remove the line"
        )
    table["duration"] = seconds
    for column in ("ID", "wav"):
        empty = np.flatnonzero(table[column] == "")
        if len(empty):
            raise ManifestError(
                f"{path}, line {empty[0] + 2}: the column {column} is empty; "
                "fill it in or remove the line"
            )
    table["wav"] = full_paths(table["wav"], path, data_root)
    return table


def full_paths(column, path, data_root):
    """Complete the paths of a manifest's column.

    Arguments
    ---------
    column : pandas.Series
        The paths as they are written in the file.
    path : pathlib.Path
        The CSV file; other relative paths start from its folder.
    data_root : str, optional
        What ``$data_root`` stands for.

    Returns
    -------
    pandas.Series

    Raises
    ------
    ManifestError
        If ``$data_root`` occurs and is not given.
    """
    with_root = column.str.startswith("$data_root")
    if with_root.any():
        if not data_root:
            raise ManifestError(
                f"{path} uses $data_root; give the corpus folder (data_folder)"
            )
        column = column.where(
            ~with_root, str(data_root) + column.str.slice(len("$data_root"))
        )
    # A path of Windows begins with its drive.
    relative = ~(column.map(os.path.isabs) | with_root)
    folder = str(path.parent.resolve()) + "/"
    return column.where(~relative, folder + column)


def write_manifest(path, table):
    """Write a manifest atomically.

    Arguments
    ---------
    path : str or pathlib.Path
        The CSV file.
    table : pandas.DataFrame
        A table with the columns ``ID``, ``duration`` and ``wav``. Any other
        column is rejected, so that no speaker label gets into a training
        manifest by accident.

    Raises
    ------
    ManifestError
        If the columns are not exactly the three.
    """
    if sorted(table.columns) != sorted(COLUMNS):
        raise ManifestError(
            f"a manifest has the columns {', '.join(COLUMNS)} and no other; "
            f"got {', '.join(map(str, table.columns))}"
        )
    write_csv(path, table[list(COLUMNS)])
