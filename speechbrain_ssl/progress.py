"""Show progress: a bar on a terminal, elsewhere a line of text now and then.

A bar redraws itself with carriage returns, which fill a log file or the output
of a batch job with thousands of copies of it.
"""

import sys
import time

from tqdm import tqdm

#: Seconds between two lines; what takes less time prints none.
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
    """Prints a line every ``INTERVAL`` seconds, and one at the end.

    Has the methods of a ``tqdm`` bar that this library and SpeechBrain call.

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

    def __init__(
        self,
        iterable=None,
        desc="progress",
        total=None,
        unit="it",
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
        self.started = self.printed = time.monotonic()

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
        if time.monotonic() - self.printed >= INTERVAL:
            self._print()

    def set_postfix(self, **values):
        """Add values to the end of the lines that follow."""
        self.postfix = "".join(f", {k} {v:.4g}" for k, v in values.items())

    def close(self):
        """Print the last line, unless there was no line before."""
        if self.printed > self.started:
            self._print()
        self.disable = True

    def _print(self):
        if self.disable:
            return
        self.printed = time.monotonic()
        elapsed = self.printed - self.started
        text = f"{self.desc}: {self.n:.0f} {self.unit}"
        left = ""
        if self.total:
            share = self.n / self.total
            text = (
                f"{self.desc}: {self.n:.0f} of {self.total:.0f} {self.unit} "
                f"({share:.0%})"
            )
            done = self.n - self.initial
            if 0 < done and self.n < self.total:
                seconds = elapsed * (self.total - self.n) / done
                left = f", {tqdm.format_interval(seconds)} left"
        sys.stderr.write(
            f"{text}, {tqdm.format_interval(elapsed)} elapsed{left}"
            f"{self.postfix}\n"
        )
        sys.stderr.flush()
