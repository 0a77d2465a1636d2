"""Beginning where another run has stopped: encoder, heads and teacher.

``initial_model`` gives a run an encoder, with heads that are new. A method that
is switched on late, as SSPS is, goes on from the whole of its baseline; a DINO
whose last layer is drawn anew would have to find its prototypes first.
"""

import pathlib

import torch
from speechbrain.utils.checkpoints import Checkpointer

from speechbrain_ssl.errors import ConfigError


def begin_with_checkpoint(folder, objective, modules):
    """Gives modules their state in the last checkpoint of another run.

    Optimiser, schedules and epochs begin anew.

    Arguments
    ---------
    folder : str
        Output folder of the other run.
    objective : str
        The objective's name, which must be that of the other run.
    modules : dict
        Name in the checkpoint -> ``torch.nn.Module``, changed in place.

    Raises
    ------
    ConfigError
        If there is no checkpoint, or it is of another objective or shape.
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
    theirs = found.meta.get("identity", {}).get("objective", "pseudo labels")
    if theirs != objective:
        raise ConfigError(
            f"initial_checkpoint: {folder} was trained with {theirs}, this run "
            f"is to be with {objective}; give its encoder alone as "
            "`initial_model`"
        )
    for name, module in modules.items():
        # An objective without state is in no checkpoint.
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
