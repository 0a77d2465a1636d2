"""Cache embeddings in a file, without ever mixing up models.

The file holds the fingerprint of the model that computed the embeddings, and
for each row the audio file with its size and modification time. With another
fingerprint nothing is reused. Files that are new or have changed are embedded,
all others are reused.
"""

import hashlib
import json
import logging
import os
import pathlib
import time
import zipfile

import numpy as np
import torch

from speechbrain_ssl.data.packed import file_of
from speechbrain_ssl.embedding.crops import embed_crops
from speechbrain_ssl.embedding.extract import MOST_SECONDS, embed_files
from speechbrain_ssl.files import atomic_write

logger = logging.getLogger(__name__)


def fingerprint(encoder, features, precision=None):
    """Compute a hash of everything that an embedding depends on, except audio.

    Arguments
    ---------
    encoder : torch.nn.Module
        The encoder; its structure and its weights enter the hash.
    features : speechbrain_ssl.encoders.features.LogMel
        The features; their settings enter the hash.
    precision : torch.dtype, optional
        The precision, as in ``embed_files``.

    Returns
    -------
    str
        A SHA-256 hash, as hexadecimal digits.

    Example
    -------
    >>> import torch
    >>> from speechbrain_ssl.encoders.features import LogMel
    >>> a, b = torch.nn.Linear(80, 2), torch.nn.Linear(80, 2)
    >>> fingerprint(a, LogMel()) == fingerprint(a, LogMel())
    True
    >>> fingerprint(a, LogMel()) == fingerprint(b, LogMel())
    False
    """
    # The structure is part of the hash: dilations, for example, are not visible
    # in the weights.
    text = [repr(encoder), repr(features), str(precision)]
    digest = hashlib.sha256("\n".join(text).encode("utf-8"))
    for name, value in sorted(encoder.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        # As bytes, since numpy does not support every torch type.
        value = value.detach().cpu().contiguous().reshape(-1)
        digest.update(value.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def embed_cached(
    cache,
    encoder,
    features,
    paths,
    seconds=None,
    precision=None,
    grid=None,
    most_seconds=MOST_SECONDS,
    **kwargs,
):
    """Embed files, but reuse embeddings that this model has already computed.

    Arguments
    ---------
    cache : str or pathlib.Path
        The ``.npz`` file. It is created, extended, or replaced if it belongs to
        another model.
    encoder, features, paths, seconds, precision, **kwargs
        As in ``speechbrain_ssl.embedding.extract.embed_files``. A path must not
        occur twice.
    grid : speechbrain_ssl.embedding.crops.CropGrid, optional
        If given, the rows are those of ``embed_crops``. Give them a cache file
        of their own.
    most_seconds : float
        As in ``embed_files``; has no effect on crops.

    Returns
    -------
    tuple
        The embeddings (float32 ``[files, size]``), and how many of them this
        call has computed.
    """
    cache = pathlib.Path(cache)
    key = fingerprint(encoder, features, precision)
    key += f" most_seconds={most_seconds}" if grid is None else f" {grid}"
    stamps = [_stamp(path) for path in paths]
    known, rows = _read(cache, key)
    missing = [i for i, stamp in enumerate(stamps) if stamp not in known]
    start = time.perf_counter()
    if missing:
        lost = [paths[i] for i in missing]
        if grid is not None:
            made = embed_crops(
                encoder, features, lost, grid, precision=precision, **kwargs
            )
        else:
            known_seconds = None
            if seconds is not None:
                known_seconds = [seconds[i] for i in missing]
            made = embed_files(
                encoder,
                features,
                lost,
                known_seconds,
                most_seconds,
                precision=precision,
                **kwargs,
            )
        first = len(known)
        known.update((stamps[i], first + n) for n, i in enumerate(missing))
        rows = made if first == 0 else np.concatenate([rows, made])
        names = json.dumps(list(known)).encode("utf-8")
        with atomic_write(cache, "wb") as stream:
            np.savez(
                stream,
                model=np.array(key),
                files=np.frombuffer(names, dtype=np.uint8),
                embeddings=rows,
            )
    logger.info(
        "%d utterances: %d embedded in %.1f s, %d reused from an earlier call",
        len(paths),
        len(missing),
        time.perf_counter() - start,
        len(paths) - len(missing),
    )
    return rows[[known[stamp] for stamp in stamps]], len(missing)


def _stamp(path):
    """Identify a file by its path, size and modification time."""
    status = os.stat(file_of(path))
    return f"{os.path.abspath(path)} {status.st_size} {status.st_mtime_ns}"


def _read(cache, key):
    """Read this model's cached rows: a map from stamp to row, and the rows."""
    if not cache.is_file():
        return {}, None
    try:
        with np.load(cache, allow_pickle=False) as kept:
            if str(kept["model"]) != key:
                logger.info("%s belongs to another model: not used", cache)
                return {}, None
            files = json.loads(kept["files"].tobytes().decode("utf-8"))
            rows = kept["embeddings"]
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        logger.warning("%s cannot be read and is recreated: %s", cache, error)
        return {}, None
    if len(files) != len(rows):
        return {}, None
    return {stamp: row for row, stamp in enumerate(files)}, rows
