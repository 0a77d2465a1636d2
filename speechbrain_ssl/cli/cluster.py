"""The command ``speechbrain-ssl cluster folder``: group files by speaker.

Every file is assumed to be of one speaker; a note names long files that may not
be.
"""

import csv
import dataclasses

import numpy as np

from speechbrain_ssl.cli.common import check_output, check_source
from speechbrain_ssl.errors import counted
from speechbrain_ssl.files import atomic_write


def run(options):
    """Group the files below a folder by voice.

    Arguments
    ---------
    options : argparse.Namespace
        See ``speechbrain_ssl.cli.parser``.

    Returns
    -------
    tuple
        The object that ``--json`` prints: ``speakers`` (how many), ``guessed``
        (whether that number was estimated), ``files`` (file to speaker,
        numbered from 1, most files first), ``unusable``, ``left_out``,
        ``notes``; and the lines for a reader.

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
    if options.page is not None:
        check_output(options.page, (".html",), "--page")
    files, model = check_source(options)
    embeddings = model.embed(files, options)
    groups = model.cluster(embeddings, options.speakers, options)
    found = {
        **dataclasses.asdict(groups),
        "guessed": options.speakers is None,
        "left_out": files.left_out,
    }
    if options.output is not None:
        with atomic_write(options.output, newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["file", "speaker"])
            writer.writerows(found["files"].items())
        lines = [
            f"{files.count()}, {counted(groups.speakers, 'speaker')}: "
            f"{options.output}"
        ]
    else:
        order = sorted(found["files"].items(), key=lambda item: item[::-1])
        lines = [f"speaker {number}\t{name}" for name, number in order]
    if options.page is not None:
        # Imported here, because it takes a second and only this needs it.
        from speechbrain_ssl.report.listening import write_listening_page

        write_listening_page(
            options.page,
            embeddings.files,
            [files.sources[name] for name in embeddings.files],
            embeddings.rows,
            np.array([groups.files[name] for name in embeddings.files]),
        )
        lines.append(f"listen and name the speakers: {options.page}")
    return found, lines + groups.notes
