"""Write the tables of files that cannot be used, and of those that are odd."""

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
    return _table(rows, "reason")


def notes_table(rows):
    """Make a table of usable files that are odd from (wav, note, detail) rows.

    Example
    -------
    >>> notes_table([("a.wav", "mostly silent", "")]).columns.to_list()
    ['wav', 'note', 'detail']
    """
    return _table(rows, "note")


def _table(rows, what):
    # A name that is not UTF-8 is written with escapes.
    rows = [
        [text.encode("utf-8", "backslashreplace").decode() for text in row]
        for row in rows
    ]
    return pd.DataFrame(rows, columns=["wav", what, "detail"])


def write_rejected(path, table):
    """Write a table of files atomically, sorted, even if it is empty.

    Arguments
    ---------
    path : str or pathlib.Path
        The CSV file.
    table : pandas.DataFrame
        What ``rejected_table`` or ``notes_table`` returned.
    """
    write_csv(path, table.sort_values(list(table.columns[:2]), kind="stable"))


def reasons(table):
    """Count files by reason or by note, most frequent first.

    Example
    -------
    >>> reasons(rejected_table([("a", "silent", ""), ("b", "silent", "")]))
    {'silent': 2}
    """
    counts = collections.Counter(table.iloc[:, 1])
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def describe_reasons(counts):
    """Format the result of ``reasons`` for a log.

    Example
    -------
    >>> describe_reasons({"silent": 2, "too short": 1}), describe_reasons({})
    ('2 silent, 1 too short', 'none')
    """
    return ", ".join(f"{n} {reason}" for reason, n in counts.items()) or "none"
