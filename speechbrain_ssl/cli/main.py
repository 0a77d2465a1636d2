"""Run the commands of ``speechbrain-ssl``.

Exit codes: 0 everything was done; 1 an error that the user can correct, or some
of many files could not be used (the others are done); 2 wrong usage; 75 a
signal stopped a training run, which the same command continues; 128 and the
number of a signal that stopped another command.
"""

import importlib
import json
import logging
import signal
import sys

from speechbrain_ssl import interruption
from speechbrain_ssl.cli.parser import drop_output, make_parser
from speechbrain_ssl.errors import UserError, explain
from speechbrain_ssl.runtime import set_up_process


def main(argv=None):
    """Run a command.

    Arguments
    ---------
    argv : list of str, optional
        The arguments; those of the process if not given.

    Returns
    -------
    int
        The exit code. Wrong usage raises ``SystemExit(2)``.
    """
    parser = make_parser()
    options, options.keys = parser.parse_known_args(argv)
    module = getattr(options, "module", options.command)
    if options.keys and module not in ("recipe", "verification"):
        parser.error(f"unrecognized arguments: {' '.join(options.keys)}")
    # Before torch is imported, which only the commands do.
    set_up_process()
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    try:
        # A signal must not leave the folder of decoded files behind.
        with interruption.handled():
            command = importlib.import_module(f"speechbrain_ssl.cli.{module}")
            found, lines = command.run(options)
    except UserError as error:
        return _fail(str(error).strip(), options.json)
    except OSError as error:
        text = explain(error)
        if text is None:
            raise
        return _fail(text, options.json)
    except interruption.Interrupted as stop:
        return 128 + signal.Signals[str(stop)]
    try:
        if options.json:
            print(json.dumps(found))
        elif lines:
            print("\n".join(map(printable, lines)))
        sys.stdout.flush()
    except BrokenPipeError:
        drop_output()
    for file, reason in found.get("unusable", {}).items():
        sys.stderr.write(printable(f"not used: {file}: {reason}") + "\n")
    return 1 if found.get("unusable") else 0


def printable(line):
    r"""Escape what would break a line or steer the terminal, as in a name.

    Example
    -------
    >>> print(printable("a\rb.wav"))
    a\rb.wav
    """
    return "".join(
        c if c.isprintable() or c == "\t" else repr(c)[1:-1] for c in line
    )


def _fail(text, as_json):
    sys.stderr.write(f"Error: {text}\n")
    if as_json:
        print(json.dumps({"error": text}))
    return 1


if __name__ == "__main__":
    sys.exit(main())
