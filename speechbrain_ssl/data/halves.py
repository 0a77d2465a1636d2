"""Cut crops of held-out utterances, for label-free validation.

The metrics are in ``speechbrain_ssl.verification.label_free``. The start rule
of SSPS compares halves of utterances, too, with ``ReadableHalves``.
"""

import logging

import numpy as np
import torch

from speechbrain_ssl.data.audio import AudioFile, fit_length
from speechbrain_ssl.data.dataset import CropBatch, CropDataset
from speechbrain_ssl.data.draws import uniform
from speechbrain_ssl.data.pcm16 import pack
from speechbrain_ssl.errors import AudioError
from speechbrain_ssl.shared_memory import share

logger = logging.getLogger(__name__)


class HalvesDataset(torch.utils.data.Dataset):
    """Cuts the same number of crops from both halves of an utterance.

    The crops are the same in every epoch, so that epochs are comparable.

    Arguments
    ---------
    manifest : speechbrain_ssl.data.manifest.Manifest
        Held-out utterances.
    seconds : float
        Length of a crop.
    crops_per_half : int
        Crops drawn from each half.
    seed : int
        Seed of the draws.
    sample_rate : int
        Hz.
    """

    #: Validation draws belong to no epoch of training.
    EPOCH = 0

    #: This many unusable files in a row mean that the corpus has been moved.
    MAX_UNUSABLE = 10

    #: As in ``CropDataset``.
    unusable = CropDataset.unusable
    remedy = CropDataset.remedy

    def __init__(
        self, manifest, seconds=2.0, crops_per_half=2, seed=0, sample_rate=16000
    ):
        self.manifest = manifest
        self.samples = round(seconds * sample_rate)
        self.crops_per_half = crops_per_half
        self.seed = seed
        self.sample_rate = sample_rate
        self._unusable = 0

    def __len__(self):
        return len(self.manifest)

    def __getitem__(self, index):
        """Return position and crops ``[2 * crops_per_half, samples]``.

        Raises
        ------
        AudioError
            If the utterance cannot be read. It is not replaced, because
            epochs could not be compared on different utterances.
        """
        draws = uniform(
            self.seed,
            self.manifest.keys[index],
            "halves",
            size=2 * self.crops_per_half,
        )
        with AudioFile(
            self.manifest.path(index),
            self.sample_rate,
            float(self.manifest.durations[index]),
        ) as audio:
            if audio.num_samples < 2:
                raise AudioError(f"{audio.path} is too short to have halves")
            middle = audio.num_samples // 2
            halves = [(0, middle), (middle, audio.num_samples - middle)]
            crops = [
                self._crop(audio, *halves[number // self.crops_per_half], draw)
                for number, draw in enumerate(draws)
            ]
        return index, np.stack(crops)

    def _crop(self, audio, begin, length, draw):
        """Read one crop of a half, and not the whole file, which may be long.

        Arguments
        ---------
        audio : AudioFile
            The open file.
        begin : int
            First sample of the half.
        length : int
            Samples of the half.
        draw : float
            In [0, 1), which crop of the half.

        Returns
        -------
        numpy.ndarray
            float32 ``[samples]``.
        """
        room = max(0, length - self.samples)
        start = begin + int(draw * (room + 1))
        wave = audio.read(start, min(length, self.samples))
        # Repeat a half that is shorter than a crop, or a lossy file that ends
        # some samples before the length in its header.
        return fit_length(wave, self.samples)

    def usable(self, index):
        """Return whether the crops of an utterance can be read.

        The log names an utterance that cannot be read.

        Arguments
        ---------
        index : int
            Position in the manifest.

        Returns
        -------
        bool

        Raises
        ------
        AudioError
            After ``MAX_UNUSABLE`` utterances in a row that cannot be read,
            instead of trying a million of them.
        """
        try:
            self[index]
        except self.unusable as error:
            self._unusable += 1
            if self._unusable == self.MAX_UNUSABLE:
                raise self.unusable(
                    f"{self._unusable} utterances in a row cannot be used for "
                    f"validation, the last one: {error}. {self.remedy}"
                ) from error
            logger.warning("Not used for validation: %s", error)
            return False
        self._unusable = 0
        return True

    def collate(self, samples):
        """Make a ``CropBatch`` with one group of crops."""
        index, crops = zip(*samples, strict=True)
        index = np.array(index, dtype=np.int64)
        return CropBatch(
            crops=[share(pack(crops))],
            index=torch.from_numpy(index),
            keys=self.manifest.keys[index],
            epoch=self.EPOCH,
            bad=[],
        )


class ReadableHalves(HalvesDataset):
    """Like ``HalvesDataset``, but without the utterances that cannot be read.

    They are left out of their batch, which may then be empty, and reported in
    ``CropBatch.bad``.
    """

    def __getitem__(self, index):
        """Return position and crops, or position and the reason as text."""
        try:
            return super().__getitem__(index)
        except AudioError as error:
            return index, str(error)

    def collate(self, samples):
        """Make a ``CropBatch`` of what could be read."""
        good = [s for s in samples if not isinstance(s[1], str)]
        if good:
            batch = super().collate(good)
        else:
            batch = CropBatch(
                crops=[torch.zeros(0, 2 * self.crops_per_half, self.samples)],
                index=torch.zeros(0, dtype=torch.int64),
                keys=self.manifest.keys[:0],
                epoch=self.EPOCH,
                bad=[],
            )
        batch.bad = [
            (self.manifest.path(index), reason)
            for index, reason in samples
            if isinstance(reason, str)
        ]
        return batch
