"""Read the audio of an utterance together with a picture of its speaker."""

import dataclasses

import numpy as np
import torch

from speechbrain_ssl.data.crops import CropPlan
from speechbrain_ssl.data.dataset import CropBatch
from speechbrain_ssl.data.draws import uniform
from speechbrain_ssl.data.face_dataset import FaceBatch, FaceDataset, FaceViews
from speechbrain_ssl.errors import ConfigError


@dataclasses.dataclass
class PairedBatch(CropBatch):
    """A batch of crops, and the pictures of the same utterances.

    Attributes
    ----------
    faces : FaceBatch
        One view of each utterance; ``faces.present`` says whether it is its own.
    """

    faces: FaceBatch | None = None

    def to(self, device):
        """Move crops and pictures to a device; see ``CropBatch.to``."""
        self.faces.to(device)
        return super().to(device)

    def pin_memory(self):
        """Copy crops and pictures to pinned memory."""
        self.faces.pin_memory()
        return super().pin_memory()

    @property
    def nbytes(self):
        """Bytes of all crops and pictures."""
        return super().nbytes + self.faces.nbytes


class PairedDataset(torch.utils.data.Dataset):
    """Crops of utterances, each with a picture, addressed by (epoch, index).

    An utterance without a picture is shown with that of another one, which is
    drawn, and ``FaceBatch.present`` is False for it. All batches then have as
    many pictures, on which batch norms that span several processes depend, and
    no black ones, which would change the statistics of these norms.

    Arguments
    ---------
    audio : speechbrain_ssl.data.dataset.CropDataset
        The crops.
    faces : speechbrain_ssl.data.face_dataset.FaceDataset
        The pictures of the same manifest's utterances, which may be missing.
    """

    def __init__(self, audio, faces):
        self.audio, self.faces = audio, faces
        self._lenders = np.flatnonzero(faces.faces.has_face)

    @property
    def manifest(self):
        """The utterances."""
        return self.audio.manifest

    def __len__(self):
        return len(self.audio)

    def __getitem__(self, item):
        """Return the sample of the audio and that of the face."""
        sample = self.audio[item]
        # If the audio cannot be read, another utterance has taken its place.
        epoch, index = sample[:2]
        *face, present = self.faces[epoch, index]
        if not present:
            key = self.manifest.keys[index]
            draw = float(uniform(self.faces.seed, epoch, key, "lender"))
            lender = int(self._lenders[int(draw * len(self._lenders))])
            face[2] = self.faces[epoch, lender][2]
        return sample, (*face, present)

    def collate(self, samples):
        """Make a ``PairedBatch`` of what ``__getitem__`` returned."""
        audio, faces = zip(*samples, strict=True)
        crops, views = self.audio.collate(audio), self.faces.collate(faces)
        fields = {
            field.name: getattr(crops, field.name)
            for field in dataclasses.fields(crops)
        }
        fields["bad"] = crops.bad + views.bad
        return PairedBatch(**fields, faces=views)


@dataclasses.dataclass(frozen=True)
class PairedCrops(CropPlan):
    """The crops of an utterance and one picture of its speaker.

    Further arguments are those of ``CropPlan``. The validation set has the
    audio alone; ``AudioVisualBrain`` adds the held-out pictures.

    Arguments
    ---------
    faces : str
        The face manifest; utterances without a picture stay in training.
    faces_root : str, optional
        What ``$data_root`` in it stands for.
    image_size : int
        Pixels on a side of the pictures that are read.

    Raises
    ------
    ConfigError
        As ``CropPlan``, and if no face manifest is given.

    Example
    -------
    >>> PairedCrops(global_crops=1, faces="faces.csv").views.groups
    ((1, 112),)
    """

    faces: str | None = None
    faces_root: str | None = None
    image_size: int = 112

    def __post_init__(self):
        super().__post_init__()
        if not self.faces:
            raise ConfigError(
                "audio-visual training needs a face manifest (a CSV file with "
                "the columns ID and image): set `face_csv`"
            )

    @property
    def views(self):
        """The plan of the pictures."""
        return FaceViews(
            self.faces, self.faces_root, global_crops=1, size=self.image_size
        )

    def train_set(self, manifest, seed, reference_seconds, reference_from):
        """Return the data set that training reads."""
        audio = super().train_set(
            manifest, seed, reference_seconds, reference_from
        )
        views = self.views
        faces = views.read(manifest)
        return PairedDataset(
            audio,
            FaceDataset(manifest, faces, views, seed, allow_missing=True),
        )
