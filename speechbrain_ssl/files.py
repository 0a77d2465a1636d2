"""Write files so that a reader never sees an incomplete one."""

import contextlib
import csv
import hashlib
import os
import pathlib
import tempfile


@contextlib.contextmanager
def atomic_write(path, mode="w", **kwargs):
    """Open a temporary file beside ``path``, and rename it at the end.

    If the block raises (a full disk, an interrupt), the file at ``path`` is
    left as it was, and the temporary file is deleted.

    Arguments
    ---------
    path : str or pathlib.Path
        The file to write. Its folder is created if necessary.
    mode : str
        ``"w"`` (UTF-8; a lone surrogate, as in a file name that is not UTF-8,
        is written as an escape) or ``"wb"``.
    **kwargs : dict
        Passed to ``open``.

    Yields
    ------
    file
        The open temporary file.

    Example
    -------
    >>> import tempfile, pathlib
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> with atomic_write(folder / "a.txt") as f:
    ...     _ = f.write("whole")
    >>> (folder / "a.txt").read_text()
    'whole'
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if "b" not in mode:
        kwargs.setdefault("encoding", "utf-8")
        kwargs.setdefault("errors", "backslashreplace")
    handle, temporary = tempfile.mkstemp(
        dir=path.parent, prefix=f".{path.name}."
    )
    os.close(handle)
    try:
        with open(temporary, mode, **kwargs) as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        # mkstemp creates files that only their owner can read.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def file_digest(path):
    """Compute the SHA-256 of a file's content.

    Arguments
    ---------
    path : str or pathlib.Path
        The file.

    Returns
    -------
    str
        64 hexadecimal digits.

    Example
    -------
    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "empty"
    >>> path.touch()
    >>> file_digest(path)[:8]
    'e3b0c442'
    """
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def write_csv(path, table):
    r"""Write a table atomically as CSV, whatever its texts contain.

    Arguments
    ---------
    path : str or pathlib.Path
        The file to write.
    table : pandas.DataFrame
        The table; its index is not written.

    Example
    -------
    >>> import tempfile, pathlib
    >>> import pandas as pd
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "a.csv"
    >>> write_csv(path, pd.DataFrame({"ID": ["a\rb"], "duration": [1.5]}))
    >>> path.read_bytes()
    b'"ID","duration"\n"a\rb",1.5\n'
    """
    # Before Python 3.13 a carriage return is not quoted where lines end in a
    # newline, and every reader takes it for the end of a line.
    broken = any(
        "\r" in value
        for name in table.columns
        for value in table[name]
        if isinstance(value, str)
    )
    quoting = csv.QUOTE_NONNUMERIC if broken else csv.QUOTE_MINIMAL
    with atomic_write(path, newline="") as stream:
        table.to_csv(stream, index=False, quoting=quoting)
