"""Compute one embedding of each utterance's face, from all of its pictures."""

import logging

import numpy as np
import torch

from speechbrain_ssl.data.images import read_image
from speechbrain_ssl.embedding.rows import unit_or_zero
from speechbrain_ssl.errors import ImageError
from speechbrain_ssl.interruption import init_loader_worker
from speechbrain_ssl.progress import open_bar

logger = logging.getLogger(__name__)


class _Reader(torch.utils.data.Dataset):
    """Read pictures in loader workers."""

    def __init__(self, faces, size):
        self.faces = faces
        self.size = size

    def __len__(self):
        return int(self.faces.offsets[-1] - self.faces.offsets[0])

    def __getitem__(self, number):
        """Return number, picture or None, and reason or None."""
        path = self.faces.images[int(self.faces.offsets[0]) + number]
        try:
            picture = read_image(path, self.size)
        except ImageError as error:
            return number, None, str(error)
        return number, torch.from_numpy(picture), None


@torch.no_grad()
def embed_faces(
    encoder,
    features,
    faces,
    device="cpu",
    batch_size=64,
    precision=None,
    num_workers=0,
    progress=False,
):
    """Average the embeddings of each utterance's pictures.

    The embedding of a picture is the mean of its own and of its mirror image's,
    both of length one, and that of an utterance the mean over its pictures.

    Arguments
    ---------
    encoder : torch.nn.Module
        Maps pictures ``[n, 3, height, width]`` to ``[n, 1, size]``.
    features : speechbrain_ssl.encoders.face.PixelNormalization
        Its input.
    faces : speechbrain_ssl.data.faces.FaceManifest
        The pictures of ``N`` utterances.
    device : str
        Where to compute.
    batch_size : int
        Pictures per batch.
    precision : torch.dtype, optional
        Type for autocast; fp32 if not given.
    num_workers : int
        Number of loader processes.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    tuple
        Embeddings, float32 ``[N, size]``: rows of length one, and zeros for an
        utterance without a readable picture; and which utterances have one, bool
        ``[N]``. The log names pictures that cannot be read.
    """
    loader = torch.utils.data.DataLoader(
        _Reader(faces, features.settings["size"]),
        batch_size=batch_size,
        collate_fn=list,
        num_workers=num_workers,
        # The loader must not draw from the global generator.
        generator=torch.Generator(),
        worker_init_fn=init_loader_worker,
    )
    encoder, features = encoder.to(device).eval(), features.to(device)
    size = encoder(features(features.example()[None])).shape[-1]
    sums = np.zeros((len(faces), size), np.float32)
    has_face = np.zeros(len(faces), dtype=bool)
    owner = np.repeat(np.arange(len(faces)), np.diff(faces.offsets))
    bad = []
    with open_bar(
        total=len(owner), unit="picture", disable=not progress
    ) as bar:
        for samples in loader:
            bar.update(len(samples))
            bad += [why for _, _, why in samples if why]
            read = [(n, picture) for n, picture, why in samples if not why]
            if read:
                numbers, pictures = zip(*read, strict=True)
                rows = owner[list(numbers)]
                pictures = torch.stack(pictures).to(device)
                found = _embed(encoder, features, pictures, precision)
                np.add.at(sums, rows, found)
                has_face[rows] = True
    if bad:
        logger.warning(
            "%d of %d pictures cannot be read and are left out: %s",
            len(bad),
            len(owner),
            "; ".join(bad[:5]),
        )
    return unit_or_zero(sums), has_face


def _embed(encoder, features, pictures, precision):
    """Embed pictures and their mirror images, float32 ``[batch, size]``."""
    both = torch.cat([pictures, pictures.flip(-1)]) / 255
    with torch.autocast(
        both.device.type, precision, enabled=precision is not None
    ):
        output = encoder(features(both))
    rows = unit_or_zero(output.squeeze(1).float().cpu().numpy())
    return unit_or_zero(rows[: len(pictures)] + rows[len(pictures) :])
