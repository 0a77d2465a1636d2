"""Read utterances and cut crops, in the processes of the data loader.

A worker opens each utterance once, reads the part that its crops lie in, and
cuts them. Noise, reverberation and features are computed later, on whole
batches and on the training device.

The workers are started once and live as long as the run, so a data set must not
depend on anything that changes meanwhile: what a sample depends on is in the
item that the sampler sends.
"""

import dataclasses
import os

import numpy as np
import pandas as pd
import torch

from speechbrain_ssl.data.audio import AudioFile, fit_length
from speechbrain_ssl.data.draws import cached_uniform, uniform
from speechbrain_ssl.data.packed import file_of
from speechbrain_ssl.data.pcm16 import pack, unpack
from speechbrain_ssl.errors import AudioError
from speechbrain_ssl.files import write_csv
from speechbrain_ssl.shared_memory import share


@dataclasses.dataclass
class CropBatch:
    """A batch of samples, each with its crops.

    Attributes
    ----------
    crops : list of torch.Tensor
        One tensor for each group of the crop plan,
        ``[batch, crops, samples]``: as a loader makes it, int16 if that loses
        nothing (``data.pcm16``) and otherwise float32; after ``to``, float32.
    index : torch.Tensor
        Position of each utterance in the manifest, int64 ``[batch]``.
    keys : numpy.ndarray
        Utterance keys, uint64 ``[batch]``, which address all further draws.
    epoch : int
        The epoch the batch belongs to.
    bad : list of tuple
        (path, reason) of utterances that could not be used; another utterance
        stands in their place.
    reference : torch.Tensor, optional
        One crop of each utterance for SSPS, never augmented,
        ``[batch, samples]``, of the same types; None unless the data set cuts
        it.
    """

    crops: list
    index: torch.Tensor
    keys: np.ndarray
    epoch: int
    bad: list
    reference: torch.Tensor | None = None

    _unpack = staticmethod(unpack)

    def to(self, device):
        """Move the crops to a device and make them float32.

        The Brain calls it, not the workers.
        """
        return self._map(
            lambda c: self._unpack(c.to(device, non_blocking=True))
        )

    def pin_memory(self):
        """Copy the tensors to pinned memory; the loader calls it if asked to."""
        self.index = self.index.pin_memory()
        return self._map(lambda c: c.pin_memory())

    @property
    def nbytes(self):
        """Bytes of all crops."""
        crops = [*self.crops, self.reference]
        return sum(c.nbytes for c in crops if c is not None)

    def _map(self, function):
        self.crops = [function(c) for c in self.crops]
        if self.reference is not None:
            self.reference = function(self.reference)
        return self


class CropDataset(torch.utils.data.Dataset):
    """Crops of utterances, addressed by (epoch, index) or by (epoch, index, sources).

    Arguments
    ---------
    manifest : speechbrain_ssl.data.manifest.Manifest
        The utterances.
    plan : speechbrain_ssl.data.crops.CropPlan
        How crops are cut.
    seed : int
        Seed of all draws.
    reference_seconds : float, optional
        Length of one more crop of the anchor, for ``CropBatch.reference``
        (SSPS). By default there is none.
    reference_from : int
        First epoch in which the reference crop is cut.

    Notes
    -----
    With cluster-aware sampling an item also names the utterance that each crop
    is cut from, ``sources``. The crop is cut where it would be if the anchor (the
    utterance at ``index``) were as long as its source.

    An utterance that cannot be used (unreadable, cut since it was prepared, NaN)
    is replaced by another one, drawn at the address of the bad one, and reported
    in the batch; all of its crops are its own. If a pseudo-positive cannot be
    used, its crops are cut from the anchor. The Brain lists such files and stops
    a run that has too many (``brains.bad_audio``).
    """

    #: How many replacements are tried before the worker gives up.
    max_replacements = 10

    #: The error that means that an utterance cannot be used, and what to do if
    #: there are many.
    unusable = AudioError
    remedy = (
        "Check that the corpus is where the manifest says, or delete "
        "prepare.json in its folder and prepare again with `--check=decode`, "
        "which sorts out bad files beforehand"
    )
    #: CSV file that names what is missing if the worker gives up, or None.
    table = None

    def __init__(
        self,
        manifest,
        plan,
        seed,
        reference_seconds=None,
        reference_from=1,
    ):
        self.manifest = manifest
        self.plan = plan
        self.seed = seed
        self.reference_seconds = reference_seconds
        self.reference_from = reference_from

    def __len__(self):
        return len(self.manifest)

    def __getitem__(self, item):
        """Read one sample.

        Arguments
        ---------
        item : tuple
            Epoch, position in the manifest and, optionally, the position of the
            utterance that each crop is cut from, int64 ``[crops]``; by default
            all come from the one at ``position``.

        Returns
        -------
        tuple
            Epoch, position, list of crops per group (the reference crop as a
            last group, where it is asked for), list of bad files.

        Raises
        ------
        AudioError
            If none of ``max_replacements`` utterances in a row can be read.
        """
        epoch, index, *sources = item
        bad = []
        for attempt in range(self.max_replacements):
            key = self.manifest.keys[index]
            try:
                crops = self._crops(index, epoch, key, bad, *sources)
                return epoch, index, crops, bad
            except self.unusable as error:
                bad.append((self.manifest.path(index), str(error)))
                draw = uniform(self.seed, epoch, key, "replace", attempt)
                index, sources = int(draw * len(self.manifest)), []
        self._list(bad)
        listed = ""
        if self.table:
            listed = f"; {self.table} lists them and all that are missing"
        raise self.unusable(
            f"{self.max_replacements} utterances in a row cannot be used, the "
            f"last one: {bad[-1][1]}{listed}. {self.remedy}"
        )

    def _list(self, bad):
        """Write the table of utterances that cannot be used or are missing."""
        if self.table is None:
            return
        found = dict(bad)
        for index in range(len(self.manifest)):
            for path in self._files(index):
                if path not in found and not os.path.isfile(file_of(path)):
                    found[path] = "missing"
        rows = pd.DataFrame(found.items(), columns=["wav", "reason"])
        write_csv(self.table, rows)

    def _files(self, index):
        """Return the paths of what an utterance is read from."""
        return [self.manifest.path(index)]

    def _crops(self, index, epoch, key, bad, sources=None):
        """Cut the crops of a sample, one array per group.

        Pseudo-positives that cannot be used are added to ``bad``.

        Raises
        ------
        AudioError
            If the anchor itself cannot be used.
        """
        plan = self.plan
        address = (self.seed, epoch, key)
        if sources is None:
            sources = np.full(plan.num_crops, index)
        else:
            sources = sources.copy()  # the bad ones are replaced below
        crops = [None] * plan.num_crops
        # Each utterance is opened once. The anchor comes last: it steps in for
        # a pseudo-positive that cannot be used.
        for source in np.unique(sources[sources != index]).tolist():
            wanted = np.flatnonzero(sources == source)
            try:
                self._cut(source, address, wanted, crops)
            except AudioError as error:
                bad.append((self.manifest.path(source), str(error)))
                sources[wanted] = index
        wanted = np.flatnonzero(sources == index)
        reference = self._wants_reference(epoch)
        if reference:
            crops.append(None)
            wanted = np.append(wanted, plan.num_crops)
        if len(wanted):
            self._cut(index, address, wanted, crops)
        ends = np.cumsum([count for count, _ in plan.groups])
        groups = [
            np.stack(crops[end - count : end])
            for end, (count, _) in zip(ends, plan.groups, strict=True)
        ]
        return groups + crops[plan.num_crops :]

    def _cut(self, index, address, wanted, crops):
        """Cut the wanted crops of an utterance, into the list ``crops``.

        Of the file only the part that these crops lie in is read.
        """
        with AudioFile(
            self.manifest.path(index),
            self.plan.sample_rate,
            float(self.manifest.durations[index]),
        ) as audio:
            chunk, count = self.plan.chunk(
                audio.num_samples, float(cached_uniform(*address, "chunk"))
            )
            places = self._places(count, address, len(crops))
            places = [places[number] for number in wanted]
            begin = min(start for start, _ in places)
            end = max(start + length for start, length in places)
            if end > count:  # An utterance that is repeated is read as a whole.
                begin = 0
            wave = audio.read(chunk + begin, min(end, count) - begin)
        # A lossy file may also end some samples before its announced length.
        wave = fit_length(wave, end - begin)
        for number, (start, length) in zip(wanted, places, strict=True):
            crops[number] = wave[start - begin : start - begin + length]

    def _places(self, count, address, crops):
        """Return (start, length) of the crops of ``count`` samples.

        If there is one crop more than in the plan, it is the reference crop,
        at a position of its own.
        """
        plan = self.plan
        longest = max(length for _, length in plan.groups)
        places = [
            (start, length)
            for (_, length), starts in zip(
                plan.groups,
                plan.starts(max(count, longest), address),
                strict=True,
            )
            for start in starts.tolist()
        ]
        if crops > len(places):
            length = round(self.reference_seconds * plan.sample_rate)
            draw = float(uniform(*address, "reference"))
            places.append((int(draw * (max(count - length, 0) + 1)), length))
        return places

    def _wants_reference(self, epoch):
        """Return whether the samples of an epoch have a reference crop."""
        return self.reference_seconds is not None and (
            epoch >= self.reference_from
        )

    def collate(self, samples):
        """Make a ``CropBatch`` of what ``__getitem__`` returned."""
        epochs, index, crops, bad = zip(*samples, strict=True)
        index = np.array(index, dtype=np.int64)
        groups = [share(pack(group)) for group in zip(*crops, strict=True)]
        reference = None
        if self._wants_reference(epochs[0]):
            reference = groups.pop()
        return CropBatch(
            crops=groups,
            index=torch.from_numpy(index),
            keys=self.manifest.keys[index],
            epoch=epochs[0],
            bad=[entry for entries in bad for entry in entries],
            reference=reference,
        )
