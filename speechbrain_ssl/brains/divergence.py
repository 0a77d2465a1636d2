"""Recognise a diverged run before its weights are saved; explain it or go back.

Each divergence is noted beside the checkpoints. With ``on_divergence: retreat``
the run then goes on from its last checkpoint with half the learning rate. With
``stop`` it ends, and may be started again with ``retreat``.
"""

import json
import logging

import numpy as np
import torch

from speechbrain_ssl import distributed
from speechbrain_ssl.errors import (
    CheckpointError,
    ConfigError,
    DivergenceError,
)
from speechbrain_ssl.files import atomic_write

logger = logging.getLogger(__name__)

#: Beside the checkpoints: at which steps and rates the run has diverged.
FILE_NAME = "divergences.json"

#: What the learning rate is multiplied by where a run goes back, and how often
#: it may do so. Both are ours.
FACTOR, MOST_RETREATS = 0.5, 3

#: Number of consecutive skipped steps after which a run has diverged.
MAX_SKIPPED = 20


def fit_or_retreat(brain, fit, *args, **kwargs):
    """Train; after a divergence go back and on, or raise.

    Arguments
    ---------
    brain : speechbrain_ssl.brains.training_brain.TrainingBrain
        The run.
    fit : callable
        Trains the Brain, from its newest checkpoint on.
    *args, **kwargs
        Passed to ``fit``.

    Raises
    ------
    DivergenceError
        If the run may not go back: because of ``on_divergence``, without a
        checkpoint, or after ``MOST_RETREATS`` of them.
    """
    while True:
        try:
            return fit(*args, **kwargs)
        except DivergenceError as error:
            brain.skip_step()
            retreats = note_divergence(brain)
            if (
                brain.hparams.on_divergence == "stop"
                or brain.checkpointer is None
                or brain.checkpointer.newest_whole() is None
                or retreats >= MOST_RETREATS
            ):
                raise
            logger.warning("%s", error)


def note_divergence(brain):
    """Note where and at which rate the run has diverged.

    Returns
    -------
    int
        How often the run has gone back before.
    """
    retreats = _retreats(brain)
    first = first_step(brain)
    rate = brain.scheduled("lr", first)
    brain.divergences = [*retreats, {"step": first + 1, "lr": rate}]
    _write(brain)
    return len(retreats)


def lower_rate(brain):
    """Set the schedules, with half the learning rate wherever the run goes back.

    Arguments
    ---------
    brain : speechbrain_ssl.brains.training_brain.TrainingBrain
        The run, about to go on from ``optimizer_step``. Its ``configured``
        schedules become its ``schedules``. If it has diverged there, and may
        go back, this is noted.

    Raises
    ------
    ConfigError
        If ``on_divergence`` is neither ``stop`` nor ``retreat``.
    """
    choice = brain.hparams.on_divergence
    if choice not in ("stop", "retreat"):
        raise ConfigError(
            f"`on_divergence` must be stop or retreat, got {choice!r}"
        )
    brain.divergences = distributed.object_from_rank_0(_read(brain))
    noted = bool(brain.divergences)
    if choice == "stop":
        # Where it goes on at the full rate, an earlier divergence is past.
        brain.divergences = _retreats(brain)
    rates = brain.configured["lr"].copy()
    brain.peak_lr = float(rates.max())
    for found in brain.divergences:
        found.setdefault("continued_from", brain.optimizer_step)
        rates[found["continued_from"] :] *= FACTOR
        brain.peak_lr *= FACTOR
        logger.warning("%s", _sentence(found))
    if noted:
        _write(brain)
    brain.schedules = {**brain.configured, "lr": rates}


def results(brain):
    """Return what ``results.json`` says of divergences; empty without any."""
    texts = [_sentence(d) for d in _retreats(brain)]
    return {"divergences": "; ".join(texts)} if texts else {}


def _retreats(brain):
    """Return the divergences from which the run went on at half the rate."""
    return [d for d in brain.divergences if "continued_from" in d]


def _sentence(found):
    return (
        f"diverged at step {found['step']} at a learning rate of "
        f"{found['lr']:.3g}, continued from step {found['continued_from']} "
        "with half the rate"
    )


def _path(brain):
    return brain.checkpointer.checkpoints_dir.parent / FILE_NAME


def _read(brain):
    """Return the divergences that were noted, on rank 0."""
    if brain.checkpointer is None or not _path(brain).is_file():
        return []
    try:
        return json.loads(_path(brain).read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(
            f"{_path(brain)}, which says where the run has diverged, is damaged "
            f"({error}): restore it, or delete it to go on at the full rate"
        ) from error


def _write(brain):
    if brain.checkpointer is not None and distributed.rank() == 0:
        with atomic_write(_path(brain)) as stream:
            json.dump(brain.divergences, stream)


def count_skipped(brain):
    """Count a step whose gradient was not finite.

    Raises
    ------
    DivergenceError
        If it is one too many.
    """
    brain.state.values["skipped"] += 1
    logger.warning(
        "step %d skipped: its gradient is not finite", brain.optimizer_step
    )
    if brain.state.values["skipped"] >= MAX_SKIPPED:
        raise diverged(brain, "the gradient is not finite")


def weights_are_finite(modules):
    """Tell whether all parameters of modules are finite numbers."""
    norms = torch._foreach_norm(list(modules.parameters()))
    return bool(torch.isfinite(torch.stack(norms).sum()))


def refuse(brain, embeddings=None):
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
        If one of them is not finite, in all processes.
    """
    if distributed.on_any_rank(not weights_are_finite(brain.modules)):
        raise diverged(brain, "the weights are not finite")
    finite = all(np.isfinite(rows).all() for rows in embeddings or [])
    if distributed.on_any_rank(not finite):
        raise diverged(
            brain, "the embeddings of held-out utterances are not finite"
        )


def first_step(brain):
    """Return the step after which the first gradient was not finite."""
    return brain.optimizer_step - max(brain.state.values["skipped"], 1)


def diverged(brain, what):
    """Return the error that says since when, at which rate, and the remedy."""
    first = first_step(brain)
    skipped = brain.state.values["skipped"]
    since = f"step {first + 1}" if skipped else f"epoch {brain.epoch}"
    saved = "No checkpoint was saved before"
    found = brain.checkpointer and brain.checkpointer.find_checkpoint()
    if found:
        saved = (
            f"The last checkpoint before is {found.path}, of epoch "
            f"{found.meta.get('epoch', '?')}"
        )
    return DivergenceError(
        f"training has diverged: {what} since {since}, at a learning rate of "
        f"{brain.scheduled('lr', first):.3g}. Nothing was saved after that. {saved}. "
        "Start the same command again with --on_divergence=retreat, which "
        "halves the rate from that checkpoint on; another `lr` or a longer "
        "warm-up needs another `output_folder`. "
        "--precision=fp32 tells whether the precision is to blame"
    )
