#!/usr/bin/env python3
"""Improve encoders of voices and of faces with common rounds of pseudo-labels.

    python train.py hparams/joint_ecapa_512.yaml --data_folder=/path/to/corpora \\
        --initial_model=../SSL/results/dino_ecapa/1 \\
        --initial_face_model=/path/to/a/run/on/faces
    torchrun --nproc_per_node=8 train.py hparams/joint_ecapa_512.yaml ...

Each round embeds voices and faces, clusters them together, and trains both
encoders on the clusters. One command runs all rounds; after an interruption the
same command resumes. To run one stage at a time, add --stop_after=embed, cluster
or train; the next call, with another --stop_after or none, continues from there.

Every key of the YAML can be set on the command line; --print_config prints all
keys and exits. The script is the same for all corpora: the YAML names the
prepare function. What faces add to the rounds is in
speechbrain_ssl/brains/audio_visual_rounds.py.
"""

from speechbrain_ssl.runtime import set_up_process

set_up_process()  # before torch is imported

from speechbrain_ssl.brains.audio_visual_rounds import AudioVisualRounds
from speechbrain_ssl.config import load_config, run
from speechbrain_ssl.run_folder import begin_run

# Keys that this script and the loop read. Any other key of a YAML is an error,
# unless another key refers to it.
KEYS = set(
    """
    seed output_folder stage_folder prepare train_manifest data_folder initial_model
    rounds round start_from final_stage stop_after stop_agreement stop_gain
    labels_from min_cluster_size max_cluster_size other_models shard_utterances
    embed_batch_seconds embed_most_seconds silhouette_sample monitor_labels
    monitor_column valid_utterances valid_seconds crops batch_size num_workers
    number_of_epochs epoch_counter encoder classifier initial_classifier
    centers_from_embeddings frozen_encoder_epochs loss_gate label_correction label_correction_epoch
    loss_reduction features augmentation optimizer schedules
    lr_reference_batch decay_vectors clip_per_tensor average_last log_every train_logger collapse_alarm
    on_divergence checkpointer trials trials_folder trials_speaker_component trials_every
    initial_face_model face_encoder face_classifier face_features
    face_augmentation trials_faces faces_root
    """.split()
)


def main(argv):
    """Prepare the data and run all rounds."""

    def load(**changes):
        path, _, overrides, hparams = load_config(argv, KEYS, changes)
        return path, overrides, hparams

    path, run_opts, overrides, hparams = load_config(argv, KEYS)
    begin_run(path, run_opts, overrides, hparams)
    AudioVisualRounds(load, run_opts).run()


if __name__ == "__main__":
    run(main)
