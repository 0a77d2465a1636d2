"""Labels of a training set: a table of utterances and classes.

The table is a CSV file with the columns ``ID`` and ``label``, whether the
labels come from clustering or from people. Utterances of the manifest that the
file does not list are left out of training.
"""

import pathlib

import numpy as np
import pandas as pd
from sklearn.metrics.cluster import contingency_matrix

from speechbrain_ssl.errors import ManifestError
from speechbrain_ssl.files import write_csv

COLUMNS = ("ID", "label")


def write_labels(path, manifest, labels):
    """Write the labels of a manifest's utterances.

    Arguments
    ---------
    path : str or pathlib.Path
        The CSV file.
    manifest : speechbrain_ssl.data.manifest.Manifest
        The utterances.
    labels : numpy.ndarray
        int64 ``[N]``; -1 for an utterance without a label, which is left out.
    """
    chosen = np.flatnonzero(labels >= 0)
    table = pd.DataFrame(
        {"ID": [manifest.ids[i] for i in chosen], "label": labels[chosen]}
    )
    write_csv(path, table)


def read_labels(path, manifest, column="label", others=False):
    """Read labels and put them in the order of a manifest.

    Arguments
    ---------
    path : str or pathlib.Path
        A CSV file with ``ID`` and a column of labels, which may be any text.
    manifest : speechbrain_ssl.data.manifest.Manifest
        The utterances.
    column : str
        Name of the column of labels.
    others : bool
        Whether the file may also name utterances that are not in the manifest.

    Returns
    -------
    tuple
        The classes, int64 ``[N]`` from 0 (-1 for an utterance without a
        label), and the sorted list of the classes' names.

    Raises
    ------
    ManifestError
        If the file is missing or empty, lacks a column or a label, names an
        utterance twice, or names one that is not in the manifest (with
        ``others``: names none that is in the manifest).
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise ManifestError(
            f"there are no labels at {path}; give a CSV file with the columns "
            f"ID and {column}"
        )
    try:
        table = pd.read_csv(
            path, usecols=["ID", column], dtype=str, keep_default_na=False
        )
    except ValueError as error:
        raise ManifestError(
            f"{path} holds no labels: the columns ID and {column} are needed "
            f"({error})"
        ) from error
    if not len(table):
        raise ManifestError(f"{path} gives no utterance a label")
    empty = np.flatnonzero((table == "").any(axis=1))
    if len(empty):
        raise ManifestError(
            f"{path}, line {empty[0] + 2}: an empty cell; fill it in or remove "
            "the line"
        )
    twice = np.flatnonzero(table["ID"].duplicated())
    if len(twice):
        raise ManifestError(
            f"{path}, line {twice[0] + 2}: the utterance "
            f"'{table['ID'].iloc[twice[0]]}' has a label already; remove one of "
            "the two lines"
        )
    rows = {manifest.ids[i]: i for i in range(len(manifest))}
    places = table["ID"].map(rows)
    absent = np.flatnonzero(places.isna())
    if others and len(absent) < len(table):
        table, places = table[places.notna()], places.dropna()
    elif len(absent):
        raise ManifestError(
            f"{path}, line {absent[0] + 2}: the utterance "
            f"'{table['ID'].iloc[absent[0]]}' is not in the manifest "
            f"({len(absent)} of {len(table)} are not); the labels belong to "
            "another manifest"
        )
    names, classes = np.unique(table[column].to_numpy(), return_inverse=True)
    numbers = pd.to_numeric(pd.Series(names), errors="coerce").to_numpy()
    if not np.isnan(numbers).any():
        # Sort as numbers, so that cluster 10 is not between 1 and 2. Names that
        # differ as text (01 and 1) remain different classes.
        order = np.argsort(numbers, kind="stable")
        names, classes = names[order], np.argsort(order)[classes]
    labels = np.full(len(manifest), -1)
    labels[places.to_numpy(np.int64)] = classes
    return labels, names.tolist()


def keep_sizes(labels, least, most=None):
    """Remove the labels of small and large clusters; renumber the others.

    Arguments
    ---------
    labels : numpy.ndarray
        int64 ``[N]``, -1 for none.
    least : int
        Smallest number of members of a cluster that is kept.
    most : int, optional
        Largest number of members of a cluster that is kept; no limit if not
        given.

    Returns
    -------
    numpy.ndarray
        int64 ``[N]``, classes from 0 without gaps, -1 for none.

    Raises
    ------
    ManifestError
        If fewer than two clusters are left.

    Example
    -------
    >>> keep_sizes(np.array([5, 5, 2, 7, 7, -1]), least=2).tolist()
    [0, 0, -1, 1, 1, -1]
    """
    names, inverse, counts = np.unique(
        labels, return_inverse=True, return_counts=True
    )
    kept = (names >= 0) & (counts >= least)
    limits = f"at least {least}"
    if most is not None:
        kept &= counts <= most
        limits = f"from {least} to {most}"
    if kept.sum() < 2:
        raise ManifestError(
            f"of {int((names >= 0).sum())} clusters only {int(kept.sum())} "
            f"have {limits} members: there is nothing to tell apart; set "
            "another number of clusters or another threshold, lower "
            "`min_cluster_size`, or raise `max_cluster_size`"
        )
    numbers = np.where(kept, np.cumsum(kept) - 1, -1)
    return numbers[inverse]


def majority_classes(labels, speakers):
    """Find the right class of each utterance. For monitoring only.

    A class represents the speaker that most of its members belong to. If
    several classes represent the same speaker, the largest of them is the right
    one.

    Arguments
    ---------
    labels : numpy.ndarray
        int64 ``[N]`` classes, none negative.
    speakers : numpy.ndarray
        int64 ``[N]``, -1 where the speaker is not known.

    Returns
    -------
    tuple of numpy.ndarray
        The right class of each utterance, int64 ``[N]``, -1 if there is none;
        and whether its own class represents its speaker, bool ``[N]``.

    Example
    -------
    >>> labels, speakers = np.array([0, 0, 0, 1]), np.array([7, 7, 8, 8])
    >>> majority_classes(labels, speakers)[0].tolist()
    [0, 0, 1, 1]
    """
    known = speakers >= 0
    if not known.any():
        return np.full(len(labels), -1), known
    classes, rows = np.unique(labels[known], return_inverse=True)
    table = contingency_matrix(rows, speakers[known], sparse=True)
    # The columns of the table are the speakers that occur, sorted.
    stands_for = np.unique(speakers[known])[np.asarray(table.argmax(1)).ravel()]
    speaker_of = np.full(labels.max() + 1, -1)
    speaker_of[classes] = stands_for
    # Assign smaller classes first, so that the largest one (of equally large
    # ones, the first) is the one that remains.
    order = np.lexsort((-classes, table.max(1).toarray().ravel()))
    class_of = np.full(speakers.max() + 1, -1)
    class_of[stands_for[order]] = classes[order]
    own = known & (speaker_of[labels] == speakers)
    # An utterance's own class is right if it represents the speaker, even if a
    # larger class does too.
    right = np.where(known, class_of[speakers], -1)
    return np.where(own, labels, right), own
