"""Write the table of files that cannot be used, with the reason for each."""

import collections

import pandas as pd

from speechbrain_ssl.files import write_csv


def rejected_table(rows):
    """Make a table of rejected files from (wav, reason, detail) rows.

    Example
    -------
    >>> rejected_table([("a.wav", "silent", "")]).columns.to_list()
    ['wav', 'reason', 'detail']
    """
    # A name that is not UTF-8 is written with escapes.
    rows = [
        [text.encode("utf-8", "backslashreplace").decode() for text in row]
        for row in rows
    ]
    return pd.DataFrame(rows, columns=["wav", "reason", "detail"])


def write_rejected(path, table):
    """Write the rejected files atomically, sorted, even if there are none.

    Arguments
    ---------
    path : str or pathlib.Path
        The CSV file.
    table : pandas.DataFrame
        ``wav``, ``reason`` and ``detail``.
    """
    write_csv(path, table.sort_values(["wav", "reason"], kind="stable"))


def reasons(table):
    """Count rejected files by reason, most frequent first.

    Example
    -------
    >>> reasons(rejected_table([("a", "silent", ""), ("b", "silent", "")]))
    {'silent': 2}
    """
    counts = collections.Counter(table["reason"])
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def describe_reasons(counts):
    """Format the result of ``reasons`` for a log.

    Example
    -------
    >>> describe_reasons({"silent": 2, "too short": 1}), describe_reasons({})
    ('2 silent, 1 too short', 'none')
    """
    return ", ".join(f"{n} {reason}" for reason, n in counts.items()) or "none"
