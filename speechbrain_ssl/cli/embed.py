"""The command ``speechbrain-ssl embed folder --output=embeddings.npz``.

The output has the name and the length of every file and its embedding, or, with
``--windows``, those of every window and the times at which it starts and ends.
"""

import importlib.util
import pathlib

import numpy as np
import pandas as pd

from speechbrain_ssl.checks import check_number
from speechbrain_ssl.cli.common import check_output, check_source
from speechbrain_ssl.embedding.extract import MIN_SECONDS, MOST_SECONDS
from speechbrain_ssl.errors import ConfigError, counted
from speechbrain_ssl.files import atomic_write
from speechbrain_ssl.speakers.search import identity_columns


def run(options):
    """Embed all files below a folder.

    Arguments
    ---------
    options : argparse.Namespace
        See ``speechbrain_ssl.cli.parser``.

    Returns
    -------
    tuple
        The object that ``--json`` prints: ``output``, ``embedded`` (files),
        ``windows`` (None without ``--windows``) and ``size`` (numbers),
        ``unusable`` (file to reason), ``left_out`` (number of files that
        are not audio, by extension), ``notes``; and the lines for a reader.

    Raises
    ------
    ConfigError
        If the format named by the output's extension cannot be written, or the
        windows are too short.
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
    if options.windows is not None:
        check_number(
            "embed",
            "--windows",
            options.windows,
            MIN_SECONDS,
            most=MOST_SECONDS,
        )
    files, model = check_source(options)
    table = _table(files, model, options)
    rows = table["embeddings"]
    with atomic_write(options.output, "wb") as stream:
        if parquet:
            table["file"] = table.pop("files")
            table["embedding"] = list(table.pop("embeddings"))
            pd.DataFrame(table).to_parquet(stream, index=False)
        else:
            np.savez(
                stream,
                **table,
                **identity_columns(model, options.trim_silence),
            )
    found = {
        "output": options.output,
        "embedded": len(files.names),
        "windows": None if options.windows is None else len(rows),
        "size": rows.shape[1],
        "unusable": files.unusable,
        "left_out": files.left_out,
        "notes": files.notes,
    }
    parts = (
        "" if options.windows is None else f" in {counted(len(rows), 'window')}"
    )
    lines = [
        f"{files.count()} embedded{parts}, "
        f"{rows.shape[1]} dimensions: {options.output}",
        *files.notes,
    ]
    return found, lines


def _table(files, model, options):
    """Embed the files, or their windows; return the columns of the output."""
    if options.windows is None:
        rows = files.embed(model, options)
        return {
            "files": np.array(files.names),
            "seconds": np.array(files.seconds),
            "embeddings": rows,
        }
    found = files.embed_windows(model, options, options.windows)
    return {
        "files": np.array(files.names)[found.files],
        "seconds": np.array(files.seconds)[found.files],
        "start": found.starts,
        "end": found.ends,
        "embeddings": found.embeddings,
    }
