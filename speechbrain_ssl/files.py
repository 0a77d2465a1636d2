"""Write files so that a reader never sees an incomplete one."""

import contextlib
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
        ``"w"`` or ``"wb"``.
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
