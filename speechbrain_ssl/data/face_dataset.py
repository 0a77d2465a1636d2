"""Read pictures of faces for training, in the place of crops of audio.

Name ``FaceViews`` as ``crops`` in a configuration: where ``CropPlan`` cuts
crops of an utterance's audio, it takes views of an utterance's pictures. The
Brains, the objectives and the positives do not know the difference.
"""

import dataclasses

import numpy as np
import torch

from speechbrain_ssl.checks import check_int
from speechbrain_ssl.data.dataset import CropBatch, CropDataset
from speechbrain_ssl.data.draws import permutation
from speechbrain_ssl.data.faces import FaceManifest
from speechbrain_ssl.data.halves import HalvesDataset
from speechbrain_ssl.data.images import read_image
from speechbrain_ssl.errors import ImageError
from speechbrain_ssl.shared_memory import share

_REMEDY = (
    "Check that the pictures are where the face manifest says, or prepare the "
    "faces again"
)


@dataclasses.dataclass
class FaceBatch(CropBatch):
    """A batch of samples, each with views of its utterance's pictures.

    Attributes
    ----------
    crops : list of torch.Tensor
        One tensor for each group of views, ``[batch, views, 3, height,
        width]``: as a loader makes it, uint8; after ``to``, float32 from 0 to 1.
    index, keys, epoch, bad
        As in ``CropBatch``.
    reference : torch.Tensor, optional
        As in ``CropBatch``, ``[batch, 3, height, width]``.
    present : torch.Tensor
        Whether an utterance has a picture that can be read, bool ``[batch]``.
        The views of the others are zero.
    """

    present: torch.Tensor | None = None

    def to(self, device):
        """Move views and presence to a device; see ``CropBatch.to``."""
        self.present = self.present.to(device, non_blocking=True)
        return super().to(device)

    def pin_memory(self):
        """Copy views and presence to pinned memory."""
        self.present = self.present.pin_memory()
        return super().pin_memory()

    @staticmethod
    def _unpack(views):
        return views / 255 if views.dtype == torch.uint8 else views


class FaceDataset(CropDataset):
    """Views of utterances' pictures, addressed by (epoch, index).

    The first view of a sample shows a picture of its utterance that is drawn,
    the second one another picture, and so on; where there are fewer pictures
    than views, pictures are shown again.

    Arguments
    ---------
    manifest : speechbrain_ssl.data.manifest.Manifest
        The utterances.
    faces : speechbrain_ssl.data.faces.FaceManifest
        Their pictures.
    plan : FaceViews
        Number and size of the views.
    seed : int
        Seed of all draws.
    reference_seconds : float, optional
        As in ``CropDataset``: any number asks for a reference view (SSPS).
    reference_from : int
        First epoch with a reference view.
    allow_missing : bool
        What happens to an utterance without a readable picture. False: another
        one takes its place, and it is reported in the batch. True: its views
        are zero, and ``FaceBatch.present`` says so.

    Notes
    -----
    A picture that cannot be read is reported, and another one of the utterance
    is shown.
    """

    unusable = ImageError
    remedy = _REMEDY

    def __init__(
        self,
        manifest,
        faces,
        plan,
        seed,
        reference_seconds=None,
        reference_from=1,
        allow_missing=False,
    ):
        super().__init__(
            manifest, plan, seed, reference_seconds, reference_from
        )
        self.faces = faces
        self.allow_missing = allow_missing

    def _files(self, index):
        """Return the pictures of an utterance."""
        return self.faces.paths(index)

    def __getitem__(self, item):
        """Read one sample.

        Arguments
        ---------
        item : tuple
            Epoch and position in the manifest.

        Returns
        -------
        tuple
            Epoch, position, list of views per group (the reference view as a
            last group, where it is asked for), list of bad files, and whether
            the views show a face.

        Raises
        ------
        ImageError
            If none of ``max_replacements`` utterances in a row has a readable
            picture, and none may be missing.
        """
        if not self.allow_missing:
            return *super().__getitem__(item), True
        (epoch, index), bad = item, []
        try:
            views = self._crops(index, epoch, self.manifest.keys[index], bad)
            return epoch, index, views, bad, True
        except ImageError as error:
            if self.faces.has_face[index]:
                bad.append((self.faces.paths(index)[0], str(error)))
        size = self.plan.size
        views = [
            np.zeros((count, 3, size, size), np.uint8)
            for count, _ in self.plan.groups
        ]
        if self._wants_reference(epoch):
            views.append(views[0][0])
        return epoch, index, views, bad, False

    def _crops(self, index, epoch, key, bad):
        """Return the views of a sample, one array per group.

        Pictures that cannot be read are added to ``bad``.

        Raises
        ------
        ImageError
            If none of the utterance's pictures can be read.
        """
        paths = self.faces.paths(index)
        order = permutation(len(paths), self.seed, epoch, key, "picture")
        count = self.plan.num_crops + self._wants_reference(epoch)
        shown, failed = [], []
        for i in order:
            if len(shown) == count:
                break
            try:
                shown.append(read_image(paths[i], self.plan.size))
            except ImageError as error:
                failed.append((paths[i], str(error)))
        if not shown:
            why = failed[0][1] if failed else "the face manifest has none"
            raise ImageError(
                f"no picture of the utterance '{self.manifest.ids[index]}' can "
                f"be used: {why}"
            )
        bad += failed
        views = np.stack([shown[i % len(shown)] for i in range(count)])
        ends = np.cumsum([count for count, _ in self.plan.groups])
        groups = np.split(views, ends)
        rest = groups.pop()
        return [*groups, *rest]

    def collate(self, samples):
        """Make a ``FaceBatch`` of what ``__getitem__`` returned."""
        epochs, index, views, bad, present = zip(*samples, strict=True)
        groups = [_tensor(group) for group in zip(*views, strict=True)]
        index = np.array(index, dtype=np.int64)
        return FaceBatch(
            crops=groups[: len(self.plan.groups)],
            index=torch.from_numpy(index),
            keys=self.manifest.keys[index],
            epoch=epochs[0],
            bad=[entry for entries in bad for entry in entries],
            reference=groups[-1] if self._wants_reference(epochs[0]) else None,
            present=torch.tensor(present),
        )


class FaceHalves(HalvesDataset):
    """Shows the same number of views of both halves of an utterance's pictures.

    An utterance with a single picture shows it in all views, which then differ
    by their augmentation alone. Validation needs no label, as with
    ``HalvesDataset``.

    Arguments
    ---------
    manifest : speechbrain_ssl.data.manifest.Manifest
        Held-out utterances.
    faces : speechbrain_ssl.data.faces.FaceManifest
        Their pictures.
    size : int
        Pixels on a side of a view.
    views_per_half : int
        Views of each half.
    """

    unusable = ImageError
    remedy = _REMEDY

    def __init__(self, manifest, faces, size=112, views_per_half=2):
        super().__init__(manifest, crops_per_half=views_per_half)
        self.faces = faces
        self.size = size

    def __getitem__(self, index):
        """Return position and views ``[2 * views_per_half, 3, size, size]``.

        Raises
        ------
        ImageError
            If the utterance has no picture, or one of those needed cannot be
            read.
        """
        paths = self.faces.paths(index)
        if not paths:
            raise ImageError(
                f"the face manifest has no picture of the utterance "
                f"'{self.manifest.ids[index]}'"
            )
        middle = len(paths) // 2
        views = []
        for number, half in enumerate(
            (paths[:middle] or paths, paths[middle:])
        ):
            order = permutation(
                len(half),
                self.seed,
                self.manifest.keys[index],
                number,
                "halves",
            )
            views += [
                read_image(half[order[i % len(half)]], self.size)
                for i in range(self.crops_per_half)
            ]
        return index, np.stack(views)

    def collate(self, samples):
        """Make a ``FaceBatch`` with one group of views."""
        index, views = zip(*samples, strict=True)
        index = np.array(index, dtype=np.int64)
        return FaceBatch(
            crops=[_tensor(views)],
            index=torch.from_numpy(index),
            keys=self.manifest.keys[index],
            epoch=self.EPOCH,
            bad=[],
            present=torch.ones(len(index), dtype=torch.bool),
        )


def _tensor(views):
    return share(torch.from_numpy(np.stack(views)))


@dataclasses.dataclass(frozen=True)
class FaceViews:
    """Number and size of a sample's views; a crop plan for pictures.

    SSPS works with it, unless its start rule is asked for (which embeds
    halves of audio); ``ClusterAware`` and ``GivenClusters`` do not.

    Arguments
    ---------
    faces : str
        The face manifest. Utterances without a picture are left out of
        training.
    data_root : str, optional
        What ``$data_root`` in it stands for.
    global_crops : int
        Number of views for both branches.
    local_crops : int
        Number of views for the online branch alone, which the augmentation cuts
        to smaller pictures (DINO: 4).
    size : int
        Pixels on a side of the pictures that are read.

    Raises
    ------
    ConfigError
        If a number makes no sense.

    Example
    -------
    >>> FaceViews("faces.csv", local_crops=4).groups
    ((2, 112), (4, 112))
    """

    faces: str
    data_root: str | None = None
    global_crops: int = 2
    local_crops: int = 0
    size: int = 112

    #: Pictures have no time to share.
    disjoint = False

    def __post_init__(self):
        for name, least in (
            ("global_crops", 1),
            ("local_crops", 0),
            ("size", 8),
        ):
            check_int("FaceViews", name, getattr(self, name), least)

    @property
    def groups(self):
        """Return (number of views, pixels on a side), global ones first."""
        groups = ((self.global_crops, self.size),)
        if self.local_crops:
            groups += ((self.local_crops, self.size),)
        return groups

    @property
    def num_crops(self):
        """Return the number of views of a sample."""
        return self.global_crops + self.local_crops

    def read(self, manifest):
        """Read the face manifest for the utterances of a manifest."""
        return FaceManifest.read(self.faces, manifest, self.data_root)

    def select(self, manifest):
        """Return the manifest of the utterances that have a picture."""
        return manifest.select(np.flatnonzero(self.read(manifest).has_face))

    def train_set(self, manifest, seed, reference_seconds, reference_from):
        """Return the data set that training reads."""
        return FaceDataset(
            manifest,
            self.read(manifest),
            self,
            seed,
            reference_seconds,
            reference_from,
        )

    def valid_set(self, manifest, seconds):
        """Return the data set of label-free validation, whatever the seconds."""
        return FaceHalves(manifest, self.read(manifest), self.size)
