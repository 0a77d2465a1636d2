"""Rounds of pseudo-labels with two modalities, voice and face.

    round r:  embed     voices and faces with the two models of round r - 1
              cluster   both embeddings, side by side: one label
              train     both encoders on it, behind a joint loss gate

The loop is that of ``rounds``; this file adds faces to its stages. How
utterances without a face are clustered is in ``clustering.views``, how they are
trained on in ``audio_visual_brain``. The folder of a round has in addition
``faces/``, the embeddings of the faces, and ``model/face/``, their encoder.
"""

import pathlib
import shutil

import numpy as np

from speechbrain_ssl.brains.audio_visual_brain import (
    FACE_FOLDER,
    AudioVisualBrain,
)
from speechbrain_ssl.brains.initial import labels_of_model, strongest
from speechbrain_ssl.brains.rounds import Rounds
from speechbrain_ssl.brains.stages import Names, Stages
from speechbrain_ssl.brains.verdict import (
    compare_modalities,
    embed_exported,
    embed_held_out,
    enough,
    with_face,
)
from speechbrain_ssl.clustering.views import join_views, reassign
from speechbrain_ssl.data.face_dataset import FaceHalves
from speechbrain_ssl.data.manifest import rows_of
from speechbrain_ssl.embedding.face_store import FaceStore
from speechbrain_ssl.errors import ConfigError, EmbeddingError
from speechbrain_ssl.pseudo_labels.centers import set_centers
from speechbrain_ssl.publishing.export import initialise, load_encoder
from speechbrain_ssl.publishing.hub import find_model
from speechbrain_ssl.verification.label_free_comparison import (
    compare_label_free,
)

# Embeddings of unit length that differ by less are equal.
_SAME = 1e-4


class AudioVisualStages(Stages):
    """Implements the stages of a round with voices and faces."""

    brain_class = AudioVisualBrain
    module_names = (
        "encoder",
        "classifier",
        "face_encoder",
        "face_classifier",
    )

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.faces = self.hparams["crops"].views.read(self.manifest)

    @property
    def labels_seen(self):
        """Which labels were seen, those of the initial face model, too."""
        return strongest(
            super().labels_seen,
            labels_of_model(self.hparams["initial_face_model"]),
        )

    def face_model(self, model):
        """Return the folder of the face encoder beside an audio model.

        Arguments
        ---------
        model : str or pathlib.Path or None
            The initial model, the folder of a round, or None.

        Returns
        -------
        str or None
        """
        if model is None:
            return None
        if str(model) == str(self.hparams["initial_model"]):
            return self.hparams["initial_face_model"]
        return str(pathlib.Path(model) / "model" / FACE_FOLDER)

    def face_store(self, number):
        """Return the store of the face embeddings that a round clusters."""
        return FaceStore(
            self.round_folder(number) / "faces",
            self.manifest,
            self.hparams["shard_utterances"],
            self.faces,
        )

    def embed(self, number):
        """Embed voices and faces with the models of the previous round."""
        metrics = super().embed(number)
        if not self.needs_embeddings:
            return metrics
        encoder, features = load_encoder(
            self.face_model(self._model_before(number)),
            self.device,
            pictures=True,
        )
        store = self.face_store(number)
        store.make(
            encoder,
            features,
            **self.embed_options,
            device=self.device,
            num_workers=self.hparams["num_workers"],
            progress=not self.run_opts["noprogressbar"],
        )
        rows, _ = store.read()
        if len(rows) > 1 and np.ptp(rows, axis=0).max() < _SAME:
            raise EmbeddingError(
                f"the pictures of all {len(rows)} utterances have the same "
                "embedding: check that the face manifest does not show one "
                "face for all, and that `initial_face_model` is trained"
            )
        return {**metrics, "faces": len(rows)}

    def _read(self, number, first, last):
        """Return the views of utterances, that of the face zero without one."""
        voices, places = super()._read(number, first, last)
        rows, where = self.face_store(number).read(first, last)
        there = np.isin(places, where, assume_unique=True)
        faces = np.zeros((len(places), rows.shape[1]), rows.dtype)
        faces[there] = rows[np.isin(where, places, assume_unique=True)]
        joined = join_views(
            {"audio": voices, "face": faces},
            Names(self.manifest.ids, places),
            there={"face": there},
        )
        return joined.numpy(), places

    def _settle(self, number, rows, places, labels):
        """Assign utterances without a face to the nearest voice of a cluster."""
        first, last = int(places[0]), int(places[-1]) + 1
        voices, _ = super()._read(number, first, last)
        lacking = ~rows[:, voices.shape[1] :].any(axis=1)
        return reassign(voices, labels, lacking)

    def _set_centers(self, hparams, initial_model, number, labels):
        """Initialise the classes of both modalities with mean embeddings."""
        super()._set_centers(hparams, initial_model, number, labels)
        # The first round whose embeddings are by the same model.
        past = next(
            r
            for r in range(1, number + 1)
            if str(self._model_before(r)) == str(initial_model)
        )
        embedded = self.face_store(past).read()
        set_centers(hparams["face_classifier"], *embedded, labels)

    def _train(
        self, folder, labels_csv, number, start, initial_model, **changes
    ):
        """Train once, from the face encoder that belongs to the model."""
        return super()._train(
            folder,
            labels_csv,
            number,
            start,
            initial_model,
            initial_face_model=self.face_model(initial_model),
            **changes,
        )

    def _verdict(self, start, folder, brain):
        """Compare both encoders with their start; see ``compare_modalities``."""
        found = embed_exported(
            start,
            folder,
            self.manifest,
            brain.train_manifest.keys,
            self.hparams,
            brain.augmentation,
            brain.device,
        )
        if found is None:
            return {}
        held_out, rows = found
        pictures = FaceHalves(
            self.manifest, self.faces, self.hparams["crops"].image_size
        )
        places = with_face(pictures, held_out)
        if not enough(len(places), "faces"):
            return compare_label_free(*rows)
        models = [
            load_encoder(self.face_model(m), brain.device, pictures=True)
            for m in (start, folder)
        ]
        faces = embed_held_out(
            models,
            pictures,
            brain.face_augmentation,
            self.hparams["seed"],
            brain.device,
            places,
        )
        own = rows_of(held_out, self.manifest)
        return compare_modalities(rows, faces, np.isin(own, places))


class AudioVisualRounds(Rounds):
    """Runs all rounds of an audio-visual configuration, and resumes them.

    Arguments and errors are those of ``Rounds``.
    """

    stages_class = AudioVisualStages

    def _check(self):
        """Validate the settings of both modalities."""
        super()._check()
        if not self.stages.needs_embeddings:
            return
        if not self.hparams["initial_face_model"]:
            raise ConfigError(
                "`initial_face_model` is needed: the output folder of a "
                "self-supervised training run on faces, whose embeddings are "
                "clustered"
            )

    def _look_ahead(self):
        """Check the inputs of later stages, those of faces as well."""
        super()._look_ahead()
        # Of all utterances; the clustering may leave out some more.
        train, _ = self.manifest.hold_out(
            self.hparams["valid_utterances"], 2 * self.hparams["valid_seconds"]
        )
        places = rows_of(train, self.manifest)
        if not self.stages.faces.has_face[places].any():
            raise ConfigError(
                "all utterances with a picture are held out, so that no face "
                "is left to train on: add pictures to the face manifest, or "
                "lower `valid_utterances`"
            )
        initial = self.stages.face_model(self.stages.initial_model)
        if self.stages.needs_embeddings:
            model = self.hparams["initial_face_model"]
            self.stages.face_store(1).check(
                *load_encoder(model, pictures=True),
                **self.stages.embed_options,
            )
        if initial is not None:
            initialise(
                self.hparams["face_encoder"],
                initial,
                self.hparams["face_features"],
            )

    def _finish(self, last):
        """Finish as the base class does, with an encoder of faces always."""
        results = super()._finish(last)
        face = self.folder / "model" / FACE_FOLDER
        if results and not face.is_dir():
            # No round was kept.
            shutil.copytree(
                find_model(self.hparams["initial_face_model"]), face
            )
        return results
