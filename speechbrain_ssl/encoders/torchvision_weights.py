"""Begin an encoder of faces with the weights of a ResNet of torchvision.

torchvision's ResNet-18 and ResNet-34 have the blocks of ``FaceResNet``, and so
have many checkpoints of face recognition. Three parts have no counterpart in one
that was made for pictures of 224 x 224 pixels: its stem is 7 x 7 instead of
3 x 3, its first stage does not halve the sides, and its last layer names
classes. Such a stem and such a layer stay as they are here, and the shortcut of
the first stage begins as the identity that it is there.
"""

import logging

import torch

from speechbrain_ssl.errors import CheckpointError, ConfigError

logger = logging.getLogger(__name__)

_FIRST_SHORTCUT = "stages.0.0.shortcut."

# How many batches a batch norm has seen: the oldest files do not have it, and
# nothing depends on it.
_COUNT = "num_batches_tracked"


def load_torchvision(encoder, weights):
    """Load the weights of a torchvision ResNet into an encoder of faces.

    Arguments
    ---------
    encoder : speechbrain_ssl.encoders.face.FaceResNet
        Changed in place.
    weights : dict
        Names and tensors, as torchvision's ``resnet18().state_dict()``; the
        prefix ``module.`` that parallel training leaves is ignored.

    Returns
    -------
    list of str
        Names of the encoder's tensors that the checkpoint does not have.

    Raises
    ------
    CheckpointError
        If ``weights`` are something else than names and tensors.
    ConfigError
        If a tensor of the four stages is missing, has another shape, or has no
        counterpart in the encoder, which is then as it was.

    Example
    -------
    >>> from speechbrain_ssl.encoders.face import FaceResNet
    >>> encoder = FaceResNet(32, 12, 4, (1, 1, 1, 1))
    >>> load_torchvision(encoder, {})
    Traceback (most recent call last):
    ...
    speechbrain_ssl.errors.ConfigError: the checkpoint has no layer1.0.conv1.weight: it is not of a torchvision ResNet with blocks [1, 1, 1, 1]
    """
    for key, value in weights.items():
        if not (isinstance(key, str) and isinstance(value, torch.Tensor)):
            raise CheckpointError(
                "the checkpoint is no state dict of tensors (it has "
                f"{key!r}: {type(value).__name__}); save model.state_dict() "
                "with torch.save"
            )
    weights = {
        k.removeprefix("module."): v
        for k, v in weights.items()
        if not k.endswith(_COUNT)
    }
    own, loaded, left = encoder.state_dict(), {}, []
    stem = weights.get("conv1.weight")
    if stem is None or stem.shape != own["conv1.weight"].shape:
        # Its batch norm is of no use without the stem.
        weights = {
            k: v
            for k, v in weights.items()
            if not k.startswith(("conv1.", "bn1."))
        }
    for name, value in own.items():
        if name.endswith(_COUNT):
            continue
        there = _torchvision_name(name)
        found = weights.pop(there, None)
        needed = name.startswith("stages.") and _FIRST_SHORTCUT not in name
        if found is not None and found.shape == value.shape:
            loaded[name] = found
        elif not needed:
            left.append(name)
        elif found is None:
            raise ConfigError(
                f"the checkpoint has no {there}: it is not of a torchvision "
                f"ResNet with blocks {list(encoder.arguments['blocks'])}"
            )
        else:
            raise ConfigError(
                f"{there} has the shape {list(found.shape)} in the checkpoint "
                f"and {list(value.shape)} here: set the channels of the encoder "
                "to those of the checkpoint"
            )
    surplus = [name for name in weights if name.startswith("layer")]
    if surplus:
        raise ConfigError(
            f"the checkpoint has {surplus[0]}, and the encoder has not: set its "
            "blocks to those of the checkpoint (ResNet-34: [3, 4, 6, 3])"
        )
    encoder.load_state_dict({**own, **loaded})
    if f"{_FIRST_SHORTCUT}0.weight" in left:
        torch.nn.init.dirac_(encoder.stages[0][0].shortcut[0].weight)
    logger.info("not in the checkpoint: %s", ", ".join(left) or "nothing")
    return left


def _torchvision_name(name):
    """Return torchvision's name of a tensor of ours."""
    if name.startswith("stages."):
        _, stage, rest = name.split(".", 2)
        name = f"layer{int(stage) + 1}.{rest}"
    return name.replace(".shortcut.", ".downsample.")
