"""The command ``speechbrain-ssl enrol NAME a.wav b.wav --database=FOLDER``."""

from speechbrain_ssl.cli.common import load_model_of
from speechbrain_ssl.errors import counted
from speechbrain_ssl.speakers.files import Reading


def run(options):
    """Add a speaker to a database.

    Arguments
    ---------
    options : argparse.Namespace
        See ``speechbrain_ssl.cli.parser``.

    Returns
    -------
    tuple
        The object that ``--json`` prints: ``name``, ``files``, ``database``,
        ``notes``; and the lines for a reader.

    Raises
    ------
    ConfigError
        If the name is taken, or the database is one of another model.
    AudioError
        If one of the files cannot be used; then nothing is written.
    """
    notes = load_model_of(options).enrol(
        options.name,
        options.files,
        options.database,
        options.replace,
        Reading(trim_silence=options.trim_silence),
    )
    found = {
        "name": options.name,
        "files": options.files,
        "database": options.database,
        "notes": notes,
    }
    recordings = counted(len(options.files), "recording")
    line = f"{options.name} enrolled from {recordings}: {options.database}"
    return found, [line, *notes]
