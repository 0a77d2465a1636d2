"""The command ``speechbrain-ssl cluster folder``: group files by speaker.

Every file is assumed to be of one speaker; a note names long files that may not
be.
"""

import csv

import numpy as np

from speechbrain_ssl.cli.common import check_output, check_source
from speechbrain_ssl.clustering.speakers import find_speakers
from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.files import atomic_write


def run(options):
    """Group the files below a folder by voice.

    Arguments
    ---------
    options : argparse.Namespace
        See ``speechbrain_ssl.cli.main``.

    Returns
    -------
    tuple
        The object that ``--json`` prints: ``speakers`` (how many), ``guessed``
        (whether that number was estimated), ``files`` (file to speaker,
        numbered from 1, most files first), ``unusable``, ``left_out``, ``notes``; and the
        lines for a reader.

    Raises
    ------
    ConfigError
        If there are fewer files than speakers, or too few to estimate their
        number.
    AudioError
        If no file can be used.
    """
    if options.output is not None:
        check_output(options.output, (".csv",))
    wanted = options.speakers
    if wanted is not None and wanted < 1:
        raise ConfigError(f"--speakers={wanted} must be at least 1")
    files, model = check_source(options)
    labels = by_size(find_speakers(files.embed(model, options), wanted))
    if wanted is None:
        wanted = int(labels.max())
        files.notes.append(
            f"{wanted} speakers is a guess from the embeddings (best "
            "silhouette), and groups of similar voices can look like "
            "speakers; give the number with --speakers if you know it"
        )
    found = {
        "speakers": wanted,
        "guessed": options.speakers is None,
        "files": dict(zip(files.names, labels.tolist(), strict=True)),
        "unusable": files.unusable,
        "left_out": files.left_out,
        "notes": files.notes,
    }
    if options.output is not None:
        with atomic_write(options.output, newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["file", "speaker"])
            writer.writerows(found["files"].items())
        lines = [f"{files.count()}, {wanted} speakers: {options.output}"]
    else:
        order = sorted(found["files"].items(), key=lambda item: item[::-1])
        lines = [f"speaker {number}\t{name}" for name, number in order]
    return found, lines + files.notes


def by_size(labels):
    """Number clusters from 1, the largest first.

    Example
    -------
    >>> by_size(np.array([7, 3, 3, 5])).tolist()
    [2, 1, 1, 3]
    """
    values, first, inverse, sizes = np.unique(
        labels, return_index=True, return_inverse=True, return_counts=True
    )
    # Clusters of one size are ordered by their first file.
    order = np.lexsort((first, -sizes))
    rank = np.empty(len(values), dtype=int)
    rank[order] = np.arange(1, len(values) + 1)
    return rank[inverse]
