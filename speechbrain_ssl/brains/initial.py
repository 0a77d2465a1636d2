"""Initialise a run with the encoder, heads and teacher of another run.

The key ``initial_model`` loads an encoder only, and the heads start at random.
A method that is switched on late in training, such as SSPS, needs all of its
baseline's state: a DINO with a new last layer would first have to learn its
prototypes again. ``initial_checkpoint`` loads this state.
"""

import pathlib

import torch
from speechbrain.utils.checkpoints import Checkpointer

from speechbrain_ssl.brains.checkpointing import damaged_files
from speechbrain_ssl.errors import ConfigError, UserError
from speechbrain_ssl.publishing.hub import find_record
from speechbrain_ssl.publishing.record import read_record
from speechbrain_ssl.report.results import FILE_NAME as RESULTS


def labels_of_model(model):
    """Return which labels a model that training starts from has seen.

    Arguments
    ---------
    model : str or None
        The model, or the output folder of a run.

    Returns
    -------
    str
        What its ``results.json`` says. ``"none"`` if there is no model;
        ``"unknown"`` if there is no such file, or the model is no longer
        there, which must not end a run that has begun with it.
    """
    if not model:
        return "none"
    try:
        path = find_record(model, RESULTS)
        seen = read_record(path).get("labels_seen") if path else None
    except UserError:
        return "unknown"
    return {True: "yes", False: "none", None: "unknown"}.get(seen, seen)


def strongest(*labels_seen):
    """Return what a run has seen that several things pass labels to.

    Arguments
    ---------
    *labels_seen : str
        What each of them has seen.

    Returns
    -------
    str
        The first that names labels; else the first that is unknown; else
        ``"none"``.

    Example
    -------
    >>> strongest("none", "unknown: no record", "people")
    'people'
    """

    def strength(seen):
        if seen.startswith("unknown"):
            return 1
        return 0 if seen == "none" else 2

    return max(labels_seen, key=strength)


def begin_with_checkpoint(folder, objective, modules):
    """Load the last checkpoint of another run into modules.

    Optimiser, schedules and the count of epochs start afresh.

    Arguments
    ---------
    folder : str
        Output folder of the other run, which must still hold checkpoints.
    objective : str
        Class name of the objective; the other run must have used the same.
    modules : dict
        Name in the checkpoint -> ``torch.nn.Module``, changed in place.

    Raises
    ------
    ConfigError
        If there is no checkpoint, or if it is damaged, or has another objective
        or other shapes.
    """
    checkpoints = pathlib.Path(folder) / "save" / "checkpoints"
    found = None
    if checkpoints.is_dir():
        found = Checkpointer(checkpoints).find_checkpoint()
    if found is None:
        raise ConfigError(
            f"initial_checkpoint: there is no checkpoint in {checkpoints}; name "
            "the output folder of a run that still has its checkpoints, or give "
            "its encoder alone as `initial_model`"
        )
    damage = damaged_files(found.path)
    if damage:
        raise ConfigError(
            f"initial_checkpoint: {found.path} is damaged ({', '.join(damage)}); "
            "start that run again, which repairs it, or name another one"
        )
    trained_with = found.meta.get("fingerprint", {}).get(
        "objective", "pseudo labels"
    )
    if trained_with != objective:
        raise ConfigError(
            f"initial_checkpoint: {folder} was trained with {trained_with}, but this "
            f"run uses {objective}; give its encoder alone as "
            "`initial_model`"
        )
    for name, module in modules.items():
        # An objective without state (SimCLR) is not saved in checkpoints.
        state, path = {}, found.paramfiles.get(name)
        if path is not None:
            state = torch.load(path, map_location="cpu", weights_only=True)
        try:
            module.load_state_dict(state)
        except RuntimeError as error:
            raise ConfigError(
                f"initial_checkpoint: the {name} of {folder} does not fit this "
                f"configuration; take its encoder and objective blocks ({error})"
            ) from error
