"""Human labels for fine-tuning: all of them, or a part.

A few labels can improve a self-supervised encoder considerably: CA-DINO
fine-tuned on a tenth of VoxCeleb2's labels is reported to be better than a
supervised system trained on all of them (Han, Chen and Qian, 2023). Training
with this class uses labels, and every result records that.
"""

import dataclasses

import numpy as np

from speechbrain_ssl.checks import check_choice, check_number
from speechbrain_ssl.data.draws import permutation
from speechbrain_ssl.pseudo_labels.labels import read_labels

UNITS = ("speakers", "utterances")


@dataclasses.dataclass(frozen=True)
class GivenLabels:
    """Select a fraction of the labels in a file.

    Arguments
    ---------
    path : str
        A CSV file with ``ID`` and a column of labels.
    column : str
        Name of the column of labels.
    fraction : float
        The fraction that is used, above 0 and at most 1.
    of : str
        ``"speakers"``: all utterances of this fraction of the speakers.
        ``"utterances"``: this fraction of every speaker's utterances, but at
        least one.

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
        """Describe for ``results.json`` which labels were used."""
        return f"{100 * self.fraction:g} % of the {self.of}"

    def read(self, manifest, seed):
        """Read the labels, and keep the selected fraction.

        Arguments
        ---------
        manifest : speechbrain_ssl.data.manifest.Manifest
            The utterances.
        seed : int
            Seed of the selection.

        Returns
        -------
        numpy.ndarray
            int64 ``[N]``, -1 for an utterance without a selected label.

        Raises
        ------
        ManifestError
            As in ``read_labels``.
        """
        labels, _ = read_labels(self.path, manifest, self.column)
        if self.of == "speakers":
            speakers = labels.max() + 1
            order = permutation(int(speakers), seed, "few labels")
            count = max(1, round(self.fraction * speakers))
            return np.where(np.isin(labels, order[:count]), labels, -1)
        # Shuffle within each speaker, and keep the first utterances.
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
