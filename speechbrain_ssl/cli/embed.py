"""The command ``speechbrain-ssl embed folder --output=embeddings.npz``."""

import importlib.util
import pathlib

import numpy as np
import pandas as pd

from speechbrain_ssl.cli.common import check_output, embed_below
from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.files import atomic_write


def run(options):
    """Embed all files below a folder.

    Arguments
    ---------
    options : argparse.Namespace
        See ``speechbrain_ssl.cli.main``.

    Returns
    -------
    tuple
        The object that ``--json`` prints: ``output``, ``embedded`` and ``size``
        (numbers), ``unusable`` (file to reason), ``notes``; and the lines for
        a reader.

    Raises
    ------
    ConfigError
        If the format named by the output's extension cannot be written.
    AudioError
        If no file can be used.
    """
    check_output(options.output, (".npz", ".parquet"))
    parquet = pathlib.Path(options.output).suffix == ".parquet"
    if parquet and importlib.util.find_spec("pyarrow") is None:
        raise ConfigError(
            f"--output={options.output} needs pyarrow, which is not installed: "
            "pip install pyarrow, or write .npz"
        )
    files, rows = embed_below(options)
    with atomic_write(options.output, "wb") as stream:
        if parquet:
            table = {
                "file": files.names,
                "seconds": files.seconds,
                "embedding": list(rows),
            }
            pd.DataFrame(table).to_parquet(stream, index=False)
        else:
            np.savez(
                stream,
                files=np.array(files.names),
                seconds=np.array(files.seconds),
                embeddings=rows,
            )
    found = {
        "output": options.output,
        "embedded": len(rows),
        "size": rows.shape[1],
        "unusable": files.unusable,
        "notes": files.notes,
    }
    lines = [
        f"{len(rows)} of {files.total} files embedded, {rows.shape[1]} "
        f"dimensions: {options.output}",
        *files.notes,
    ]
    return found, lines
