#!/usr/bin/env python3
"""Run rounds of pseudo-labels on faces alone.

    python face_rounds.py face_rounds.yaml --data_folder=/path/to/minivox \\
        --manifest_folder=/path/to/manifests --initial_model=/path/to/a/run/on/faces

The loop, the Brain, the gate and the correction are those of the rounds of
voices. Utterances without a face have no label.
"""

from speechbrain_ssl.brains.rounds import Rounds
from speechbrain_ssl.brains.stages import Stages
from speechbrain_ssl.config import load_config, run
from speechbrain_ssl.embedding.face_store import FaceStore
from speechbrain_ssl.publishing.export import load_encoder
from speechbrain_ssl.run_folder import begin_run

# Keys that the loop reads, beside those that other keys refer to.
KEYS = set(
    """
    seed output_folder stage_folder prepare train_manifest data_folder initial_model
    rounds round start_from final_stage stop_after stop_agreement stop_gain
    labels_from min_cluster_size max_cluster_size other_models shard_utterances
    embed_batch_seconds embed_most_seconds silhouette_sample monitor_labels
    monitor_column valid_utterances valid_seconds crops batch_size num_workers
    number_of_epochs epoch_counter encoder classifier initial_classifier
    centers_from_embeddings frozen_encoder_epochs loss_gate label_correction
    label_correction_epoch loss_reduction features augmentation optimizer schedules
    lr_reference_batch decay_vectors clip_per_tensor average_last log_every
    train_logger collapse_alarm checkpointer trials trials_folder
    trials_speaker_component trials_every
    """.split()
)


class FaceStages(Stages):
    """The stages of a round, by faces."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.faces = self.hparams["crops"].read(self.manifest)

    def stores(self, number):
        """Return model -> store of the embeddings of faces."""
        store = FaceStore(
            self.round_folder(number) / "faces",
            self.manifest,
            self.hparams["shard_utterances"],
            self.faces,
        )
        return {str(self._model_before(number)): store}

    def embed(self, number):
        """Embed the faces with the model of the previous round."""
        ((model, store),) = self.stores(number).items()
        store.make(
            *load_encoder(model, self.device, pictures=True),
            **self.embed_options,
            device=self.device,
        )
        return {"faces": len(store.read()[0])}

    def _verdict(self, start, folder, brain):
        """Judge no round, so that all systems have two."""
        return {}


class FaceRounds(Rounds):
    """Rounds by faces."""

    stages_class = FaceStages

    def _look_ahead(self):
        """Check nothing ahead: the embeddings are not those of voices."""


def main(argv):
    """Run all rounds."""

    def load(**changes):
        path, _, overrides, hparams = load_config(argv, KEYS, changes)
        return path, overrides, hparams

    path, run_opts, overrides, hparams = load_config(argv, KEYS)
    begin_run(path, run_opts, overrides, hparams)
    FaceRounds(load, run_opts).run()


if __name__ == "__main__":
    run(main)
