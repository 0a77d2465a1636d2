"""Read face manifests, which list pictures of the utterances' speakers.

A face manifest is a CSV file with the columns ``ID`` and ``image`` and one row
for each picture. ``ID`` is that of the utterance, which may have several rows
(frames of its video) or none. Paths are written as in a manifest
(``speechbrain_ssl.data.manifest``): absolute, beginning with ``$data_root``, or
relative to the folder of the CSV file. No other column is read, so that a
column that names the person cannot leak into training.
"""

import pathlib

import numpy as np
import pandas as pd

from speechbrain_ssl.data.manifest import StringColumn, full_paths
from speechbrain_ssl.errors import ManifestError
from speechbrain_ssl.files import write_csv

COLUMNS = ("ID", "image")


class FaceManifest:
    """Holds the pictures of a manifest's utterances, as columns.

    Arguments
    ---------
    images : StringColumn
        Paths of the pictures, those of an utterance one after the other.
    offsets : numpy.ndarray
        int64 ``[N + 1]``; utterance ``i`` has the pictures from ``offsets[i]``
        to ``offsets[i + 1]``.

    Attributes
    ----------
    has_face : numpy.ndarray
        Whether an utterance has a picture, bool ``[N]``.

    Example
    -------
    >>> images = StringColumn.from_strings(["/x/1.png", "/x/2.png"])
    >>> faces = FaceManifest(images, np.array([0, 2, 2]))
    >>> faces.paths(0), faces.count(1), faces.has_face.tolist()
    (['/x/1.png', '/x/2.png'], 0, [True, False])
    """

    def __init__(self, images, offsets):
        self.images = images
        self.offsets = np.asarray(offsets, dtype=np.int64)
        self.has_face = np.diff(self.offsets) > 0

    @classmethod
    def read(cls, path, manifest, data_root=None):
        """Read a face manifest and align it with a manifest of utterances.

        Rows of other utterances are left out, since one face manifest may serve
        several manifests (training and trials).

        Arguments
        ---------
        path : str or pathlib.Path
            The CSV file.
        manifest : speechbrain_ssl.data.manifest.Manifest
            The utterances.
        data_root : str, optional
            What ``$data_root`` in the ``image`` column stands for.

        Returns
        -------
        FaceManifest
            Of ``len(manifest)`` utterances, whose pictures have the order of
            the file.

        Raises
        ------
        ManifestError
            If the file is missing, malformed or empty, if it lists a picture of
            an utterance twice, or if it has no picture of any of the
            utterances.
        """
        path = pathlib.Path(path)
        table = _read_table(path, data_root)
        ids = pd.Index([manifest.ids[i] for i in range(len(manifest))])
        rows = ids.get_indexer(table["ID"])
        known = np.flatnonzero(rows >= 0)
        if len(known) == 0:
            raise ManifestError(
                f"the face manifest {path} has no picture of any of the "
                f"{len(manifest)} utterances: its first ID is "
                f"'{table['ID'].iloc[0]}', and the first of the utterances is "
                f"'{ids[0]}'; give the face manifest of this corpus"
            )
        order = known[np.argsort(rows[known], kind="stable")]
        counts = np.bincount(rows[order], minlength=len(manifest))
        return cls(
            StringColumn.from_strings(table["image"].iloc[order]),
            np.concatenate([[0], np.cumsum(counts)]),
        )

    def __len__(self):
        return len(self.offsets) - 1

    def count(self, i):
        """Return the number of pictures of utterance ``i``."""
        return int(self.offsets[i + 1] - self.offsets[i])

    def paths(self, i):
        """Return the paths of the pictures of utterance ``i``."""
        return [self.images[j] for j in range(*self.offsets[i : i + 2])]


def _read_table(path, data_root):
    """Read the two known columns, and check them."""
    if not path.is_file():
        raise ManifestError(
            f"there is no face manifest {path}; run the prepare script of the "
            "recipe first, or correct the key that names it"
        )
    try:
        table = pd.read_csv(
            path, usecols=list(COLUMNS), dtype=str, keep_default_na=False
        )
    except (ValueError, OSError) as error:
        raise ManifestError(
            f"{path} is not a face manifest: the columns {', '.join(COLUMNS)} "
            f"are needed ({error})"
        ) from error
    if len(table) == 0:
        raise ManifestError(f"the face manifest {path} lists no picture")
    for column in COLUMNS:
        empty = np.flatnonzero(table[column] == "")
        if len(empty):
            raise ManifestError(
                f"{path}, line {empty[0] + 2}: the column {column} is empty; "
                "fill it in or remove the line"
            )
    again = np.flatnonzero(table.duplicated())
    if len(again):
        raise ManifestError(
            f"{path}, line {again[0] + 2}: the picture "
            f"{table['image'].iloc[again[0]]} of utterance "
            f"'{table['ID'].iloc[again[0]]}' has occurred before; remove one of "
            "the lines"
        )
    table["image"] = full_paths(table["image"], path, data_root)
    return table


def write_faces(path, table):
    """Write a face manifest atomically.

    Arguments
    ---------
    path : str or pathlib.Path
        The CSV file.
    table : pandas.DataFrame
        A table with the columns ``ID`` and ``image``. Any other column is
        rejected, so that no name of a person gets into it by accident.

    Raises
    ------
    ManifestError
        If the columns are not exactly the two.
    """
    if sorted(table.columns) != sorted(COLUMNS):
        raise ManifestError(
            f"a face manifest has the columns {', '.join(COLUMNS)} and no "
            f"other; got {', '.join(map(str, table.columns))}"
        )
    write_csv(path, table[list(COLUMNS)])
