"""The command ``speechbrain-ssl identify a.wav --database=FOLDER``."""

import dataclasses

from speechbrain_ssl.cli.common import decision_lines, load_model_of
from speechbrain_ssl.speakers.files import Reading


def run(options):
    """Find who of a database speaks in a recording, or that nobody does.

    Arguments
    ---------
    options : argparse.Namespace
        See ``speechbrain_ssl.cli.parser``.

    Returns
    -------
    tuple
        The object that ``--json`` prints: the fields of ``Identity`` and
        ``file``; and the lines for a reader.

    Raises
    ------
    ConfigError
        If the database is empty, or one of another model.
    AudioError
        If the recording cannot be used.
    """
    found = load_model_of(options).identify(
        options.file,
        options.database,
        options.threshold,
        options.p_target,
        Reading(trim_silence=options.trim_silence),
    )
    decision = None
    if found.threshold is not None:
        decision = found.name or "nobody in the database"
    lines = [
        f"nearest               {found.nearest} of {len(found.scores)}",
        *decision_lines(found, decision),
        *found.notes,
    ]
    return {**dataclasses.asdict(found), "file": options.file}, lines
