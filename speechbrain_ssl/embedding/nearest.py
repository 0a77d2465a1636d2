"""Find the nearest of many stored embeddings, without reading them into memory.

``speechbrain-ssl embed`` writes them, as columns of an ``.npz`` file.
"""

import struct
import zipfile

import numpy as np

from speechbrain_ssl.errors import ConfigError

# Rows that are compared at a time.
_CHUNK = 2048


def open_columns(path):
    """Open the columns of an ``.npz`` file as memory maps.

    Arguments
    ---------
    path : str or pathlib.Path
        A file that ``numpy.savez`` wrote, and so without compression.

    Returns
    -------
    dict
        Name -> numpy.ndarray, read only.

    Raises
    ------
    ConfigError
        If the file is missing, or is no such file.

    Example
    -------
    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp(), "a.npz")
    >>> np.savez(path, rows=np.eye(2))
    >>> open_columns(path)["rows"].tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    try:
        with zipfile.ZipFile(path) as archive, open(path, "rb") as stream:
            return {
                member.filename.removesuffix(".npy"): _map(stream, path, member)
                for member in archive.infolist()
            }
    except (OSError, ValueError, struct.error, zipfile.BadZipFile) as error:
        raise ConfigError(
            f"{path} holds no embeddings that `speechbrain-ssl embed` wrote as "
            f".npz ({error})"
        ) from error


def _map(stream, path, member):
    """Map one array of an archive, which lies behind its local header."""
    if member.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{member.filename} is compressed")
    stream.seek(member.header_offset + 26)
    stream.seek(sum(struct.unpack("<HH", stream.read(4))), 1)
    version = np.lib.format.read_magic(stream)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in read:
        raise ValueError(f"{member.filename} has version {version}")
    shape, fortran, dtype = read[version](stream)
    if fortran or dtype.hasobject:
        raise ValueError(f"{member.filename} is not a plain array")
    if 0 in shape:
        return np.empty(shape, dtype)
    return np.memmap(path, dtype, "r", stream.tell(), shape)


def nearest(rows, query, count):
    """Find the rows with the highest cosines.

    Arguments
    ---------
    rows : numpy.ndarray
        float32 ``[N, size]`` of any norm, which may be a memory map.
    query : numpy.ndarray
        ``[size]``, of any norm but 0.
    count : int
        How many to return, at most.

    Returns
    -------
    tuple of numpy.ndarray
        Positions int64 and cosines float32 ``[min(count, N)]``, the highest
        cosine first. A row that is zero has the cosine 0.

    Example
    -------
    >>> rows = np.array([[2, 0], [0, 3], [1, 1]], np.float32)
    >>> places, cosines = nearest(rows, np.array([0, 1.0]), 2)
    >>> places.tolist(), cosines.round(3).tolist()
    ([1, 2], [1.0, 0.7070000171661377])
    """
    query = np.float32(query / np.linalg.norm(query))
    cosines = np.empty(len(rows), np.float32)
    for begin in range(0, len(rows), _CHUNK):
        part = rows[begin : begin + _CHUNK]
        norms = np.sqrt(np.einsum("ij,ij->i", part, part))
        cosines[begin : begin + _CHUNK] = (
            part @ query / np.maximum(norms, 1e-12)
        )
    count = min(count, len(rows))
    highest = np.argpartition(-cosines, count - 1)[:count]
    order = highest[np.argsort(-cosines[highest], kind="stable")]
    return order, cosines[order]
