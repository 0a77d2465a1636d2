#!/usr/bin/env python3
"""Train a speaker encoder without labels.

    python train.py hparams/dino_ecapa.yaml --data_folder=/path/to/voxceleb
    torchrun --nproc_per_node=8 train.py hparams/dino_ecapa.yaml ...
    python train.py hparams/dino_ecapa.yaml --device=cpu ...

Every key of the merged YAML, which --print_config prints, can be set on the
command line (--batch_size=32), and a key of a building block through the block
(--simclr='{margin: 0.2}'). A key that does not exist is an error. The same
command resumes a run that was interrupted. recipes/VoxCeleb/SSL/README.md
describes the outputs.

The script is the same for all corpora: the YAML names the prepare function.
The training loop is in speechbrain_ssl/brains/training_brain.py.
"""

from speechbrain_ssl.runtime import set_up_process

set_up_process()  # before torch is imported

from speechbrain_ssl.brains.ssl_brain import SSLBrain
from speechbrain_ssl.config import load_config, run
from speechbrain_ssl.data.manifest import Manifest
from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.run_folder import begin_run

# Keys that this script and the Brain read. Any other key of a YAML is an error,
# unless another key refers to it.
KEYS = set(
    """
    seed output_folder prepare train_manifest data_folder valid_utterances valid_seconds
    crops batch_size num_workers number_of_epochs epoch_counter encoder initial_model
    initial_checkpoint objective positives features augmentation optimizer schedules
    lr_reference_batch clip_per_tensor freeze_last_layer_epochs average_last log_every train_logger
    collapse_alarm on_divergence checkpointer trials trials_folder trials_speaker_component
    trials_every expected_pseudo_eer
    """.split()
)


# Counts that must not be zero.
AT_LEAST_ONE = """
    number_of_epochs batch_size log_every average_last valid_utterances
    lr_reference_batch
""".split()


def check_values(hparams):
    """Validate values that would otherwise fail, or be ignored, hours later.

    Arguments
    ---------
    hparams : dict
        The hyper-parameters.

    Raises
    ------
    ConfigError
        If a value is wrong; the message names the key and the remedy.
    """
    for key in AT_LEAST_ONE:
        if not hparams[key] >= 1:
            raise ConfigError(f"`{key}` must be at least 1, got {hparams[key]}")
    plan, both = (
        hparams["crops"],
        hparams["objective"].student_sees_global_crops,
    )
    if plan.disjoint and plan.local_crops and both:
        raise ConfigError(
            "disjoint crops with local ones need an objective that does not "
            "compare global crops with each other: with `disjoint: True` set "
            "`global_pairs: False`, or leave out the local crops"
        )
    if not (plan.local_crops or both):
        raise ConfigError(
            "an objective that does not compare global crops with each other "
            "needs local ones: raise `local_crops`, or set `global_pairs: True`"
        )
    objective, positives = hparams["objective"], hparams["positives"]
    if (
        objective.stores_first_crop_embedding
        and getattr(positives, "rule", "") == "all"
    ):
        raise ConfigError(
            f"{type(objective).__name__} stores the embedding of an utterance's "
            "first crop, but cluster-aware sampling with the rule all cuts it "
            "from another utterance: set its `rule` to locals, and some "
            "`local_crops`"
        )


def main(argv):
    """Prepare the data, train the encoder, and evaluate it."""
    path, run_opts, overrides, hparams = load_config(argv, KEYS)
    check_values(hparams)
    begin_run(path, run_opts, overrides, hparams)
    brain = SSLBrain(
        modules={
            "encoder": hparams["encoder"],
            "objective": hparams["objective"],
        },
        opt_class=hparams["optimizer"],
        hparams=hparams,
        run_opts=run_opts,
        checkpointer=hparams["checkpointer"],
    )
    train_loader, valid_loader = brain.make_loaders(
        Manifest.read(hparams["train_manifest"], hparams["data_folder"])
    )
    brain.fit(hparams["epoch_counter"], train_loader, valid_loader)
    brain.finish()


if __name__ == "__main__":
    run(main)
