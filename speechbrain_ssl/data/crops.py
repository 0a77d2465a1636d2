"""Plan the crops of an utterance: how many, how long, and where.

A ``CropPlan`` gives the number and the length of a sample's crops. Crops of
equal length form a *group*, which goes through the encoder in one pass. The
first group is the "global" one, which the target branch (a teacher, for
instance) sees; all others are "local". The plan also makes the data sets that
cut them, so that the plan of another modality (``face_dataset.FaceViews``) can
take its place.
"""

import dataclasses

import numpy as np

from speechbrain_ssl.data.dataset import CropDataset
from speechbrain_ssl.data.draws import cached_uniform
from speechbrain_ssl.data.halves import HalvesDataset
from speechbrain_ssl.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class CropPlan:
    """Number, length and position of a sample's crops.

    Arguments
    ---------
    global_crops : int
        Number of crops for both branches (DINO: 2).
    global_seconds : float
        Their length in seconds.
    local_crops : int
        Number of shorter crops for the online branch alone (DINO: 4; 0 for
        two-view objectives).
    local_seconds : float
        Their length in seconds.
    disjoint : bool
        Whether the crops of the two branches must not overlap, so that they
        share no word. The utterance is cut in two at a random point that
        leaves room for a crop on either side. With local crops, global ones
        come from one side and local ones from the other (an option of
        hyperion's later recipes; the objective then has to leave out the pairs
        of global crops). Without local crops, each of two global crops comes
        from its own side, as in Loss-Gated Learning. An utterance that is too
        short is cropped as if the option were off.
    chunk_seconds : float
        Of a longer utterance only a random part of this length is read, so
        that an hour-long file costs no more than a short one.
    sample_rate : int
        Hz.

    Raises
    ------
    ConfigError
        If a count or a length makes no sense.

    Example
    -------
    >>> plan = CropPlan(global_crops=2, global_seconds=3.0)
    >>> plan.groups
    ((2, 48000),)
    """

    global_crops: int = 2
    global_seconds: float = 3.0
    local_crops: int = 0
    local_seconds: float = 2.0
    disjoint: bool = False
    chunk_seconds: float = 20.0
    sample_rate: int = 16000

    def __post_init__(self):
        if self.global_crops < 1 or self.local_crops < 0:
            raise ConfigError(
                "a crop plan needs at least one global crop and no negative "
                f"number of local ones; got {self.global_crops} and "
                f"{self.local_crops}"
            )
        longest = max(self.global_seconds, self.local_seconds)
        if min(self.global_seconds, self.local_seconds) < 0.1:
            raise ConfigError("crops must be at least 0.1 s long")
        if self.chunk_seconds < longest:
            raise ConfigError(
                f"chunk_seconds ({self.chunk_seconds}) must be at least the "
                f"longest crop ({longest} s)"
            )
        if self.disjoint and not self.local_crops and self.global_crops != 2:
            raise ConfigError(
                "disjoint crops are either global against local ones "
                "(local_crops above 0) or exactly two global ones"
            )

    @property
    def groups(self):
        """Return (number of crops, samples per crop), global ones first."""
        groups = ((self.global_crops, self._samples(self.global_seconds)),)
        if self.local_crops:
            groups += ((self.local_crops, self._samples(self.local_seconds)),)
        return groups

    @property
    def num_crops(self):
        """Return the number of crops of a sample."""
        return self.global_crops + self.local_crops

    def _samples(self, seconds):
        return round(seconds * self.sample_rate)

    def select(self, manifest):
        """Return the utterances that can be trained on: all of them."""
        return manifest

    def train_set(self, manifest, seed, reference_seconds, reference_from):
        """Return the data set that training reads; see ``CropDataset``."""
        return CropDataset(
            manifest, self, seed, reference_seconds, reference_from
        )

    def valid_set(self, manifest, seconds):
        """Return the data set of label-free validation.

        Arguments
        ---------
        manifest : speechbrain_ssl.data.manifest.Manifest
            Held-out utterances, or those that may be held out.
        seconds : float
            Length of its crops.

        Returns
        -------
        HalvesDataset
        """
        return HalvesDataset(manifest, seconds, sample_rate=self.sample_rate)

    def chunk(self, num_samples, draw):
        """Choose the part of an utterance that is read.

        Arguments
        ---------
        num_samples : int
            Length of the utterance.
        draw : float
            In [0, 1).

        Returns
        -------
        tuple of int
            First sample and number of samples.
        """
        most = self._samples(self.chunk_seconds)
        if num_samples <= most:
            return 0, num_samples
        return int(draw * (num_samples - most + 1)), most

    def starts(self, num_samples, address):
        """Draw the first sample of every crop.

        Arguments
        ---------
        num_samples : int
            Length of what the crops are cut from, at least the longest crop.
        address : tuple
            Address of the draws (seed, epoch, utterance key).

        Returns
        -------
        list of numpy.ndarray
            One int64 array of starts for each group.
        """
        draws = cached_uniform(*address, "crop", size=self.num_crops + 2)
        sides = [(0, num_samples)] * len(self._sides)
        if self.disjoint:
            sides = self._cut(num_samples, draws[-2:])
        starts = []
        for (begin, end), (count, length) in zip(
            sides, self._sides, strict=True
        ):
            room = end - begin - length + 1
            part, draws = draws[:count], draws[count:]
            starts.append(begin + np.floor(part * room).astype(np.int64))
        if len(self._sides) > len(self.groups):
            return [np.concatenate(starts)]
        return starts

    @property
    def _sides(self):
        """Return (crops, samples) of the two sides of a disjoint cut."""
        if self.disjoint and not self.local_crops:
            ((_, length),) = self.groups
            return ((1, length), (1, length))
        return self.groups

    def _cut(self, num_samples, draws):
        """Cut an utterance in two, each side long enough for its crops."""
        (_, long), (_, short) = self._sides
        slack = num_samples - long - short
        if slack < 0:
            return [(0, num_samples)] * 2
        cut = int(draws[1] * (slack + 1))
        # A coin decides which side comes first.
        if draws[0] < 0.5:
            cut += long
            return [(0, cut), (cut, num_samples)]
        cut += short
        return [(cut, num_samples), (0, cut)]
