"""Embed the training set with the model that a distillation learns from."""

import pathlib

import torch
from speechbrain.utils.distributed import run_on_main

from speechbrain_ssl.embedding.cache import embed_cached
from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.publishing.export import load_encoder


def teacher_embeddings(brain):
    """Embed every training utterance, or read what an earlier start embedded.

    Arguments
    ---------
    brain : speechbrain_ssl.brains.ssl_brain.SSLBrain
        Its objective names the teacher.

    Returns
    -------
    torch.Tensor
        float32 ``[utterances, size]``, in the order of the training manifest.

    Raises
    ------
    ConfigError
        If no teacher is named, or it is no model.
    AudioError
        If a file cannot be read.
    """
    if brain.objective.teacher is None:
        raise ConfigError(
            "there is no `teacher` to distil: give the output folder of a "
            "training run, a model folder, or hf:owner/model"
        )
    encoder, features = load_encoder(brain.objective.teacher, brain.device)
    manifest, found = brain.train_manifest, []

    def embed():
        rows, _ = embed_cached(
            pathlib.Path(brain.hparams.output_folder) / "teacher.npz",
            encoder,
            features,
            [manifest.path(i) for i in range(len(manifest))],
            manifest.durations.tolist(),
            device=str(brain.device),
            num_workers=brain.hparams.num_workers,
        )
        found.append(torch.from_numpy(rows))

    # One process writes the file, and all read it.
    run_on_main(embed)
    embed()
    return found[-1].to(brain.device)
