"""Recognise a diverged run before its weights are saved, and explain it."""

import numpy as np
import torch

from speechbrain_ssl.errors import DivergenceError


def weights_are_finite(modules):
    """Tell whether all parameters of modules are finite numbers."""
    norms = torch._foreach_norm(list(modules.parameters()))
    return bool(torch.isfinite(torch.stack(norms).sum()))


def refuse_divergence(brain, embeddings=None):
    """Raise if the weights, or the embeddings of held-out crops, are not finite.

    Arguments
    ---------
    brain : speechbrain_ssl.brains.training_brain.TrainingBrain
        The run, after a step that is about to be saved.
    embeddings : list of numpy.ndarray, optional
        Embeddings of held-out crops.

    Raises
    ------
    DivergenceError
        If one of them is not finite.
    """
    if not weights_are_finite(brain.modules):
        raise diverged(brain, "the weights are not finite")
    if not all(np.isfinite(rows).all() for rows in embeddings or []):
        raise diverged(
            brain, "the embeddings of held-out utterances are not finite"
        )


def diverged(brain, what):
    """Return the error that says since when, at which rate, and the remedy."""
    skipped = brain.state.values["skipped"]
    first = brain.optimizer_step - max(skipped, 1)
    since = f"step {first + 1}" if skipped else f"epoch {brain.epoch}"
    saved = "No checkpoint was saved before"
    found = brain.checkpointer and brain.checkpointer.find_checkpoint()
    if found:
        saved = (
            f"The last checkpoint before is {found.path}, of epoch "
            f"{found.meta.get('epoch', '?')}"
        )
    remedy = "start again in another `output_folder`"
    if found and hasattr(brain.hparams, "initial_checkpoint"):
        remedy += (
            ", from there if you like "
            f"(--initial_checkpoint={brain.hparams.output_folder})"
        )
    return DivergenceError(
        f"training has diverged: {what} since {since}, at a learning rate of "
        f"{brain.scheduled('lr', first):.3g}. Nothing was saved after that. {saved}. "
        f"Lower `lr`, or raise `warmup_epochs` where there is one, and {remedy}; "
        "--precision=fp32 tells whether the precision is to blame"
    )
