"""Labels that people gave: all of them, or a part.

A few labels turn a self-supervised encoder into a better one: CA-DINO
fine-tuned on a tenth of VoxCeleb2's labels is reported better than a
supervised system on all of them (Han, Chen and Qian, 2023). Whoever uses this
trains on labels, and every result says so.
"""

import dataclasses

import numpy as np

from speechbrain_ssl.checks import check_choice, check_number
from speechbrain_ssl.data.draws import permutation
from speechbrain_ssl.pseudo_labels.labels import read_labels

UNITS = ("speakers", "utterances")


@dataclasses.dataclass(frozen=True)
class GivenLabels:
    """A fraction of the labels of a file.

    Arguments
    ---------
    path : str
        A CSV file with ``ID`` and a column of labels.
    column : str
        That column.
    fraction : float
        How much is used, above 0 and at most 1.
    of : str
        ``"speakers"``: all utterances of so many speakers. ``"utterances"``:
        so many utterances of every speaker, at least one.

    Raises
    ------
    ConfigError
        If an argument is out of its range.
    """

    path: str
    column: str = "spk_id"
    fraction: float = 1.0
    of: str = "speakers"

    def __post_init__(self):
        check_number("GivenLabels", "fraction", self.fraction, above=0, most=1)
        check_choice("GivenLabels", "of", self.of, UNITS)

    @property
    def labels_seen(self):
        """Say for ``results.json`` what labels were used."""
        return f"{100 * self.fraction:g} % of the {self.of}"

    def read(self, manifest, seed):
        """Read the labels that are used.

        Arguments
        ---------
        manifest : speechbrain_ssl.data.manifest.Manifest
            The utterances.
        seed : int
            Of the choice.

        Returns
        -------
        numpy.ndarray
            int64 ``[N]``, -1 for an utterance without a label.

        Raises
        ------
        ManifestError
            As ``read_labels``.
        """
        labels, _ = read_labels(self.path, manifest, self.column)
        if self.of == "speakers":
            speakers = labels.max() + 1
            order = permutation(int(speakers), seed, "few labels")
            count = max(1, round(self.fraction * speakers))
            return np.where(np.isin(labels, order[:count]), labels, -1)
        # A random order within each speaker, of which the first part is kept.
        draws = permutation(len(labels), seed, "few labels")
        order = draws[np.argsort(labels[draws], kind="stable")]
        sizes = np.bincount(labels + 1)
        place = np.arange(len(labels)) - np.repeat(
            np.cumsum(sizes) - sizes, sizes
        )
        most = np.maximum(1, np.rint(self.fraction * sizes))
        kept = order[place < np.repeat(most, sizes)]
        chosen = np.full(len(labels), -1)
        chosen[kept] = labels[kept]
        return chosen
