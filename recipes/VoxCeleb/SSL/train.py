#!/usr/bin/env python3
"""Trains a speaker encoder without labels.

    python train.py hparams/dino_ecapa.yaml --data_folder=/path/to/voxceleb
    torchrun --nproc_per_node=8 train.py hparams/dino_ecapa.yaml ...
    python train.py hparams/dino_ecapa.yaml --device=cpu ...

Every key of the YAML can be set on the command line (--batch_size=32); a key
that does not exist is an error. The same command goes on where a run was
interrupted. What comes out, and where, is in the README beside this file.

The script is the same for all corpora: the YAML names the prepare function.
"""

from speechbrain_ssl.runtime import set_up_process

set_up_process()  # before torch is imported

import speechbrain as sb
import torch
from speechbrain.utils.distributed import run_on_main

from speechbrain_ssl import distributed
from speechbrain_ssl.brains.ssl_brain import SSLBrain
from speechbrain_ssl.config import load_config, run
from speechbrain_ssl.data.dataset import CropDataset
from speechbrain_ssl.data.halves import HalvesDataset
from speechbrain_ssl.data.manifest import Manifest
from speechbrain_ssl.data.sampling import EpochBatchSampler

# What this script and the Brain read; anything else in a YAML must be referred
# to by another key, or it is an error.
KEYS = set(
    """
    seed output_folder prepare train_manifest data_folder valid_utterances
    valid_seconds crops batch_size num_workers number_of_epochs epoch_counter
    encoder initial_model objective features augmentation optimizer schedules
    lr_reference_batch clip_per_tensor freeze_last_layer_epochs average_last
    log_every checkpointer trials trials_folder trials_speaker_component
    trials_every
    """.split()
)


def dataio_prep(hparams, grad_accumulation_factor):
    """Makes the loaders of training and of label-free validation.

    Arguments
    ---------
    hparams : dict
        The hyper-parameters.
    grad_accumulation_factor : int
        Batches per optimiser step.

    Returns
    -------
    tuple
        Training loader, its sampler, validation loader.
    """
    manifest = Manifest.read(hparams["train_manifest"], hparams["data_folder"])
    train, valid = manifest.hold_out(
        hparams["valid_utterances"], 2 * hparams["valid_seconds"]
    )
    seed, plan = hparams["seed"], hparams["crops"]
    train_set = CropDataset(train, plan, seed)
    sampler = EpochBatchSampler(
        len(train),
        hparams["batch_size"],
        seed,
        distributed.rank(),
        distributed.world_size(),
        grad_accumulation_factor,
    )
    valid_set = HalvesDataset(
        valid, hparams["valid_seconds"], sample_rate=plan.sample_rate
    )
    options = {
        "num_workers": hparams["num_workers"],
        "pin_memory": torch.cuda.is_available(),
        # Its own generator: the loader must not draw from the global one.
        "generator": torch.Generator().manual_seed(seed),
    }
    train_loader = torch.utils.data.DataLoader(
        train_set,
        batch_sampler=sampler,
        collate_fn=train_set.collate,
        **options,
    )
    valid_loader = torch.utils.data.DataLoader(
        valid_set, batch_size=32, collate_fn=valid_set.collate, **options
    )
    return train_loader, sampler, valid_loader


def main(argv):
    """Prepares, trains, evaluates."""
    path, run_opts, overrides, hparams = load_config(argv, KEYS)
    sb.utils.distributed.ddp_init_group(run_opts)
    sb.create_experiment_directory(
        experiment_directory=hparams["output_folder"],
        hyperparams_to_save=path,
        overrides=overrides,
    )
    if hparams["prepare"] is not None:
        run_on_main(hparams["prepare"])
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
    train_loader, brain.train_sampler, valid_loader = dataio_prep(
        hparams, brain.grad_accumulation_factor
    )
    brain.fit(hparams["epoch_counter"], train_loader, valid_loader)
    brain.finish()


if __name__ == "__main__":
    run(main)
