"""Show progress: a bar on a terminal, elsewhere a line of text now and then.

A bar redraws itself with carriage returns, which fill a log file or the output
of a batch job with thousands of copies of it.
"""

import sys
import time

from tqdm import tqdm

#: Seconds between two lines of a process, whatever they are about.
INTERVAL = 30.0


def open_bar(*arguments, **options):
    """Open a progress bar on stderr.

    Arguments
    ---------
    *arguments, **options
        As for ``tqdm.tqdm``; ``disable`` (default False) shows nothing.

    Returns
    -------
    tqdm.tqdm or ProgressLines
        ``ProgressLines`` if stderr is not a terminal.

    Example
    -------
    >>> list(open_bar(range(3), desc="count", disable=True))
    [0, 1, 2]
    """
    if sys.stderr.isatty():
        return tqdm(*arguments, **{"dynamic_ncols": True, **options})
    return ProgressLines(*arguments, **options)


class ProgressLines:
    """Prints a line if the last one was ``INTERVAL`` seconds ago.

    The last one may be that of another object, so that many short epochs print
    as rarely as a long one does. An object that has printed also prints where it
    ended. It has the methods of a ``tqdm`` bar that this library and SpeechBrain
    call.

    Arguments
    ---------
    iterable : iterable, optional
        What to count through; without it, call ``update``.
    desc : str
        What the line begins with.
    total : float, optional
        Number of steps; that of the iterable by default, if it has one.
    unit : str
        What is counted.
    initial : float
        Where to begin.
    disable : bool
        Whether to print nothing.
    **_
        Further options of ``tqdm`` concern how a bar looks.
    """

    #: When any object printed the last line.
    last_line = time.monotonic()

    def __init__(
        self,
        iterable=None,
        desc="progress",
        total=None,
        unit="steps",
        initial=0,
        disable=False,
        **_,
    ):
        if total is None and hasattr(iterable, "__len__"):
            total = len(iterable)
        self.iterable, self.total = iterable, total
        self.desc, self.unit, self.disable = desc, unit.strip(), disable
        self.n = self.initial = initial
        self.postfix = ""
        self.started = time.monotonic()
        self.printed = None  # how far it was when it last printed

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __iter__(self):
        with self:
            for element in self.iterable:
                yield element
                self.update()

    def update(self, n=1):
        """Count ``n`` more steps."""
        self.n += n
        if time.monotonic() - ProgressLines.last_line >= INTERVAL:
            self._print()

    def set_postfix(self, **values):
        """Add values to the end of the lines that follow."""
        self.postfix = "".join(f", {k} {v:.4g}" for k, v in values.items())

    def close(self):
        """Print the last line if there was a line before."""
        if self.printed not in (None, self.n):
            self._print()
        self.disable = True

    def _print(self):
        if self.disable:
            return
        self.printed, ProgressLines.last_line = self.n, time.monotonic()
        elapsed = ProgressLines.last_line - self.started
        text = f"{self.desc}: {self.n:.0f} {self.unit}"
        left = ""
        if self.total:
            text = (
                f"{self.desc}: {self.n:.0f} of {self.total:.0f} {self.unit} "
                f"({self.n / self.total:.0%})"
            )
            done = self.n - self.initial
            if done > 0 and self.n < self.total:
                seconds = elapsed * (self.total - self.n) / done
                left = f", {tqdm.format_interval(seconds)} left"
        sys.stderr.write(
            f"{text}, {tqdm.format_interval(elapsed)} elapsed{left}"
            f"{self.postfix}\n"
        )
        sys.stderr.flush()
