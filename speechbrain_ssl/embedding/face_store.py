"""Store the embeddings of a training set's faces in shards on disk."""

import dataclasses
import hashlib
import logging

import numpy as np
from speechbrain.utils.distributed import if_main_process

from speechbrain_ssl.data.faces import FaceManifest
from speechbrain_ssl.embedding.faces import embed_faces
from speechbrain_ssl.embedding.store import EmbeddingStore
from speechbrain_ssl.errors import ImageError

_MISSING = "no picture that can be read"

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class FaceStore(EmbeddingStore):
    """Keep the face embeddings of a manifest's utterances in a folder.

    It is an ``EmbeddingStore`` but for one thing: any number of utterances may
    lack a face. ``read`` leaves them out.

    Arguments
    ---------
    folder, manifest, shard_utterances
        As in ``EmbeddingStore``.
    faces : speechbrain_ssl.data.faces.FaceManifest
        The pictures of the manifest's utterances.
    """

    faces: FaceManifest | None = None

    def _make_shard(
        self, number, span, model, *, progress, most_seconds, **options
    ):
        begin, end = span
        part = FaceManifest(
            self.faces.images, self.faces.offsets[begin : end + 1]
        )
        # No utterance of the shard may have a face.
        rows = np.zeros((len(part), 0), np.float32)
        there = np.zeros(len(part), bool)
        if part.has_face.any():
            rows, there = embed_faces(*model, part, **options)
        progress.update(len(part))
        self._write(
            number,
            rows,
            [(begin + int(i), _MISSING) for i in np.flatnonzero(~there)],
        )

    def _identity(self):
        """Return the entries of ``index.json`` that identify the pictures."""
        identity = super()._identity()
        digest = hashlib.sha256(identity["manifest"].encode())
        digest.update(self.faces.offsets.tobytes())
        return {**identity, "manifest": digest.hexdigest()}

    def _check_bad(self):
        missing = len(self.bad())
        if missing == len(self.manifest):
            raise ImageError(
                f"none of the {missing} utterances has a picture that can be "
                "read; check that the pictures are where the face manifest "
                "says"
            )
        if missing and if_main_process():
            logger.info(
                "%d of %d utterances have no face",
                missing,
                len(self.manifest),
            )
