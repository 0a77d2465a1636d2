"""Tell where a run is: the line of an epoch, the names of bars, other logs."""

import functools
import pathlib

import speechbrain as sb

from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.progress import open_bar


def epoch_line(epoch, epochs, loss, pseudo_eer, before, minutes):
    """Describe an epoch that has ended.

    Arguments
    ---------
    epoch, epochs : int
        The epoch, from 1, and how many there are.
    loss : float
        Mean loss of the epoch.
    pseudo_eer, before : float
        Pseudo-EER after this epoch and after the one before, in percent;
        ``before`` may be None.
    minutes : float
        Wall time of the run so far.

    Returns
    -------
    str

    Example
    -------
    >>> epoch_line(2, 8, 2.4615, 12.1, 13.4, 1.0)
    'epoch 2 of 8: loss 2.4615, pseudo-EER 12.10 %, was 13.40 (lower is better); 1.0 minutes, about 3.0 left'
    """
    was = "" if before is None else f", was {before:.2f}"
    left = minutes / epoch * (epochs - epoch)
    return (
        f"epoch {epoch} of {epochs}: loss {loss:.4f}, pseudo-EER "
        f"{pseudo_eer:.2f} %{was} (lower is better); {minutes:.1f} minutes"
        + (f", about {left:.1f} left" if left else "")
    )


def name_bars(stage, epoch, epochs):
    """Name the progress bar that ``speechbrain.Brain`` opens next.

    Arguments
    ---------
    stage : speechbrain.Stage
        Training or validation.
    epoch, epochs : int
        The epoch, and how many there are.
    """
    name = f"epoch {epoch} of {epochs}"
    if stage != sb.Stage.TRAIN:
        name = f"validation of {name}"
    sb.core.tqdm = functools.partial(open_bar, desc=name)


def further_logger(name, output_folder):
    """Make a logger of SpeechBrain's that shows curves elsewhere.

    Arguments
    ---------
    name : str
        ``tensorboard`` (writes to ``tensorboard`` in the output folder) or
        ``wandb`` (Weights & Biases, with the account of its environment).
    output_folder : str or pathlib.Path
        The folder of the run.

    Returns
    -------
    speechbrain.utils.train_logger.TrainLogger

    Raises
    ------
    ConfigError
        If there is no such logger, or its package is not installed.
    """
    from speechbrain.utils import train_logger

    folder = pathlib.Path(output_folder)
    try:
        if name == "tensorboard":
            place = str(folder / "tensorboard")
            return train_logger.TensorboardLogger(place)
        if name == "wandb":
            import wandb

            run = "-".join(folder.resolve().parts[-2:])
            return train_logger.WandBLogger(
                wandb.init, dir=str(folder), name=run
            )
    except ImportError as error:
        raise ConfigError(
            f"`train_logger: {name}` needs a package that is not installed: "
            f"pip install {name}"
        ) from error
    raise ConfigError(
        f"`train_logger` is tensorboard, wandb or null; got {name!r}"
    )
