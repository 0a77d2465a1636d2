"""Read the utterances of a downstream task, with their labels and speakers.

A labelled manifest is a CSV file with a manifest's columns (``ID``,
``duration``, ``wav``), a speaker column and any label columns. It is used for
the tasks of this package, never for training without labels: a training
manifest is written by another function, which rejects every further column.
"""

import dataclasses
import logging
import os

import numpy as np
import pandas as pd

from speechbrain_ssl.data.manifest import COLUMNS, Manifest
from speechbrain_ssl.errors import ConfigError, ManifestError
from speechbrain_ssl.files import write_csv

logger = logging.getLogger(__name__)

SPEAKER = "spk_id"


@dataclasses.dataclass(frozen=True)
class Task:
    """Classification task: utterances, speakers and labels.

    Attributes
    ----------
    manifest : speechbrain_ssl.data.manifest.Manifest
        The ``N`` utterances.
    table : pandas.DataFrame
        All columns of the file as text, a row for each utterance.
    speakers : numpy.ndarray
        Name of each utterance's speaker, ``[N]``.
    labels : numpy.ndarray
        Position of each label in ``classes``, int64 ``[N]``.
    classes : list of str
        Names of the labels.
    """

    manifest: Manifest
    table: pd.DataFrame
    speakers: np.ndarray
    labels: np.ndarray
    classes: list

    def __len__(self):
        return len(self.labels)

    def column(self, name):
        """Return a column of the file as text, ``[N]``.

        Raises
        ------
        ManifestError
            If there is no column of that name.
        """
        return _column(self.table, name, "the labelled manifest").to_numpy(str)

    def paths(self, indices):
        """List the audio files of some utterances."""
        return [self.manifest.path(i) for i in indices]


def read_task(
    path,
    label,
    data_root=None,
    speaker_column=SPEAKER,
    classes=None,
    bins=None,
):
    """Read a labelled manifest.

    Arguments
    ---------
    path : str or list of str
        CSV files; several are read as one.
    label : str
        The column to be predicted from the audio. Utterances without a label
        are left out.
    data_root : str, optional
        The folder that ``$data_root`` in the ``wav`` column stands for.
    speaker_column : str
        The column of the speakers.
    classes : list of str, optional
        The labels to be used, in this order; utterances of others are left
        out. By default all labels, sorted.
    bins : list of float, optional
        Groups a column of numbers (an age): ``[18, 40]`` stands for below 18,
        18 to below 40, and 40 or more.

    Returns
    -------
    Task

    Raises
    ------
    ManifestError
        If a column is missing, a speaker is empty, a value to be grouped is
        not a number, or no utterance has a label.
    ConfigError
        If ``classes`` or ``bins`` are invalid, or if fewer than two classes
        are left.

    Example
    -------
    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "labelled.csv"
    >>> _ = path.write_text(
    ...     "ID,duration,wav,spk_id,emotion\\n"
    ...     "a,1.0,a.wav,s1,sad\\nb,1.0,b.wav,s2,angry\\nc,1.0,c.wav,s2,\\n"
    ... )
    >>> task = read_task(path, "emotion")
    >>> task.classes, task.labels.tolist(), task.speakers.tolist()
    (['angry', 'sad'], [1, 0], ['s1', 's2'])
    """
    files = [path] if isinstance(path, (str, os.PathLike)) else list(path)
    manifest = Manifest.read(files, data_root)
    table = pd.concat(
        [pd.read_csv(f, dtype=str, keep_default_na=False) for f in files],
        ignore_index=True,
    ).fillna("")
    where = ", ".join(map(str, files))
    speakers = _column(table, speaker_column, where)
    _refuse_empty(speakers, speaker_column, where)
    names = _column(table, label, where).str.strip()
    if (names == "").all():
        raise ManifestError(
            f"the column `{label}` of {where} is empty throughout; choose "
            "another label"
        )
    order = None
    if bins is not None:
        names, order = _group(names, bins, label, where)
    if classes is None:
        # With bins, the classes are in the order of the numbers.
        there = set(names) - {""}
        classes = [c for c in order or sorted(there) if c in there]
    classes = _check_classes(classes, names, label, where)
    keep = np.flatnonzero(names.isin(classes))
    left_out = len(names) - len(keep)
    if left_out:
        logger.info(
            "left out: %d of %d utterances, whose `%s` is empty or not among "
            "%s",
            left_out,
            len(names),
            label,
            ", ".join(classes),
        )
    index = {name: number for number, name in enumerate(classes)}
    return Task(
        manifest.select(keep),
        table.iloc[keep].reset_index(drop=True),
        speakers.to_numpy(str)[keep],
        names.iloc[keep].map(index).to_numpy(np.int64),
        classes,
    )


def _column(table, name, where):
    if name not in table.columns:
        raise ManifestError(
            f"{where} has no column `{name}`; there are "
            f"{', '.join(map(str, table.columns))}"
        )
    return table[name]


def _refuse_empty(column, name, where):
    empty = np.flatnonzero(column.str.strip() == "")
    if len(empty):
        raise ManifestError(
            f"{where}: the column `{name}` is empty in {len(empty)} rows, "
            f"first in row {empty[0] + 1}; without speakers no folds can be "
            "shown to be disjoint. Fill it in, or name another column as "
            "speaker_column"
        )


def _check_classes(classes, names, label, where):
    classes = [str(name) for name in classes]
    if len(set(classes)) < len(classes):
        raise ConfigError(f"`classes` names one twice: {', '.join(classes)}")
    absent = sorted(set(classes) - set(names))
    if absent:
        raise ConfigError(
            f"`classes`: no utterance has the {label} {', '.join(absent)}; "
            f"{where} has {', '.join(sorted(set(names) - {''}))}"
        )
    if len(classes) < 2:
        raise ConfigError(
            f"the column `{label}` of {where} has one class only "
            f"({', '.join(classes)}); there is nothing to tell apart"
        )
    return classes


def _group(names, bins, label, where):
    """Convert numbers to names of groups; also return these names in order."""
    edges = [float(edge) for edge in bins]
    if not edges or sorted(set(edges)) != edges:
        raise ConfigError(f"`bins` must be rising numbers, got {bins}")
    numbers = pd.to_numeric(names.where(names != ""), errors="coerce")
    wrong = np.flatnonzero(numbers.isna() & (names != ""))
    if len(wrong):
        raise ManifestError(
            f"{where}: the {label} '{names.iloc[wrong[0]]}' in row "
            f"{wrong[0] + 1} is not a number; correct it, or leave `bins` out"
        )
    groups = [f"below {edges[0]:g}"]
    groups += [
        f"{low:g} to below {high:g}"
        for low, high in zip(edges, edges[1:], strict=False)
    ]
    groups += [f"{edges[-1]:g} or more"]
    which = np.searchsorted(edges, numbers.to_numpy(float), side="right")
    grouped = pd.Series(np.array(groups)[which], index=names.index)
    return grouped.where(names != "", ""), groups


def write_labelled(path, table):
    """Write a labelled manifest atomically.

    Arguments
    ---------
    path : str or pathlib.Path
        The CSV file.
    table : pandas.DataFrame
        A manifest's columns, ``spk_id``, and labels.

    Raises
    ------
    ManifestError
        If one of the four columns is missing.
    """
    first = [*COLUMNS, SPEAKER]
    missing = [name for name in first if name not in table.columns]
    if missing:
        raise ManifestError(
            f"a labelled manifest needs the columns {', '.join(first)}; "
            f"{', '.join(missing)} is missing"
        )
    rest = [name for name in table.columns if name not in first]
    write_csv(path, table[[*first, *rest]])
