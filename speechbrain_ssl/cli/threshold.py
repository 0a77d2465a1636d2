"""The command ``speechbrain-ssl threshold folder``."""

import dataclasses

from speechbrain_ssl.cli.common import check_source
from speechbrain_ssl.errors import counted


def run(options):
    """Make a threshold from recordings whose speakers are not known.

    Arguments
    ---------
    options : argparse.Namespace
        See ``speechbrain_ssl.cli.parser``.

    Returns
    -------
    tuple
        The object that ``--json`` prints: the fields of ``Threshold`` and
        ``left_out``; and the lines for a reader.

    Raises
    ------
    AudioError
        If no file can be used.
    ConfigError
        If there are too few, or the number of names is not positive.
    """
    files, model = check_source(options)
    found = model.threshold(files, options, options.names)
    lines = [
        files.count(),
        f"one speaker if above  {found.threshold:.4f}",
        *(
            f"{'of ' + counted(count, 'name'):<22}{value:.4f}"
            for count, value in found.of_many.items()
        ),
        "Give the first to verify, and that of your number of names to "
        "identify, with --threshold.",
        *found.notes,
    ]
    return {**dataclasses.asdict(found), "left_out": files.left_out}, lines
