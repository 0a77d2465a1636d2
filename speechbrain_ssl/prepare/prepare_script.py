"""Run a prepare script from the command line."""

import argparse
import logging
import sys

from speechbrain_ssl import interruption
from speechbrain_ssl.errors import UserError, explain
from speechbrain_ssl.prepare.probe import CHECKS


def make_parser(description, data_help):
    """Build a parser with the arguments of every script that scans audio.

    Arguments
    ---------
    description : str
        Its first line is shown by ``--help``.
    data_help : str
        Help text of ``--data_folder``.

    Returns
    -------
    argparse.ArgumentParser
        With ``data_folder``, ``save_folder``, ``min_duration``, ``check``,
        ``num_workers`` and ``pack``.
    """
    parser = argparse.ArgumentParser(description=description.split("\n")[0])
    add = parser.add_argument
    add("--data_folder", required=True, help=data_help)
    add("--save_folder", required=True, help="Folder for the manifests.")
    add(
        "--min_duration",
        type=float,
        default=1.0,
        help="Reject training files shorter than this many seconds "
        "(default 1.0).",
    )
    add(
        "--check",
        choices=CHECKS,
        default="header",
        help="Read headers only, or decode all audio to find damaged files.",
    )
    add(
        "--num_workers",
        type=int,
        help="Number of processes (default: one per core).",
    )
    add(
        "--pack",
        nargs="+",
        metavar="FOLDER",
        help="Copy the audio into few large files in these folders, one for "
        "each disk (default: no).",
    )
    return parser


def run_parsed(prepare, parser, argv=None):
    """Parse the command line and call a prepare function with the result.

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
        The exit status: 1 after an error that the user can correct, and
        ``interruption.EXIT_CODE`` if a signal stopped the preparation.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = vars(parser.parse_args(argv))
    try:
        with interruption.handled():
            prepare(**options)
    except interruption.Interrupted as stop:
        return interruption.report(stop)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        explanation = explain(error)
        if explanation is None:
            raise
        print(f"error: {explanation}", file=sys.stderr)
        return 1
    return 0
