"""What the prepare scripts do with their command lines."""

import logging
import sys

from speechbrain_ssl.errors import UserError


def run_parsed(prepare, parser, argv=None):
    """Calls a prepare function with what a parser makes of the command line.

    Arguments
    ---------
    prepare : callable
        Takes the parser's arguments by name.
    parser : argparse.ArgumentParser
        The parser.
    argv : list of str, optional
        The arguments; those of this process if not given.

    Returns
    -------
    int
        The exit status: 1 where the user has to mend something.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        prepare(**vars(parser.parse_args(argv)))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
