"""A folder that stock SpeechBrain loads.

``EncoderClassifier.from_hparams(folder)`` and ``SpeakerRecognition`` need a
``hyperparams.yaml`` with ``modules`` and a ``pretrainer``, and a checkpoint.
The YAML names stock classes only: nothing of ours has to be installed where the
model is used.
"""

import contextlib
import json
import pathlib
import pickle
import re

import torch
from speechbrain.inference.speaker import EncoderClassifier
from speechbrain.lobes.features import Fbank
from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN

from speechbrain_ssl.encoders.ecapa import FastECAPA
from speechbrain_ssl.encoders.features import LogMel
from speechbrain_ssl.errors import CheckpointError, ConfigError, UserError
from speechbrain_ssl.files import atomic_write

_REMEDY = (
    "give the output folder of a finished training run, its `model` folder, or "
    "the name of a published model"
)

_YAML = """\
# Speaker embeddings, trained without labels by speechbrain-ssl.
# Load it with stock SpeechBrain:
#   from speechbrain.inference.speaker import EncoderClassifier
#   model = EncoderClassifier.from_hparams("this/folder")

sample_rate: {sample_rate}

compute_features: !new:speechbrain.lobes.features.Fbank
    n_mels: {n_mels}
    sample_rate: {sample_rate}

mean_var_norm: !new:speechbrain.processing.features.InputNormalization
    norm_type: sentence
    std_norm: False

embedding_model: !new:speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN
{arguments}

modules:
    compute_features: !ref <compute_features>
    mean_var_norm: !ref <mean_var_norm>
    embedding_model: !ref <embedding_model>

# The file embedding_model.ckpt beside this one.
pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
    loadables:
        embedding_model: !ref <embedding_model>
"""


def export_encoder(folder, encoder, features):
    """Writes encoder and features as a folder of stock SpeechBrain.

    Arguments
    ---------
    folder : str or pathlib.Path
        Where to write ``hyperparams.yaml`` and ``embedding_model.ckpt``.
    encoder : speechbrain_ssl.encoders.ecapa.FastECAPA
        The encoder.
    features : speechbrain_ssl.encoders.features.LogMel
        Its input features.

    Returns
    -------
    pathlib.Path
        The folder.

    Raises
    ------
    ConfigError
        If the stock features cannot be those.
    """
    if not features.mean_norm:
        raise ConfigError(
            "an encoder of features without mean_norm cannot be exported: "
            "stock SpeechBrain has no such normalisation"
        )
    folder = pathlib.Path(folder)
    arguments = "\n".join(
        f"    {name}: {_yaml_value(value)}"
        for name, value in encoder.arguments.items()
    )
    state = {k: v.detach().cpu() for k, v in encoder.state_dict().items()}
    with atomic_write(folder / "embedding_model.ckpt", "wb") as stream:
        torch.save(state, stream)
    with atomic_write(folder / "hyperparams.yaml") as stream:
        stream.write(
            _YAML.format(
                sample_rate=features.sample_rate,
                n_mels=features.n_mels,
                arguments=arguments,
            )
        )
    return folder


def _yaml_value(value):
    """A constructor's argument as HyperPyYAML."""
    if isinstance(value, type):
        return f"!name:{value.__module__}.{value.__qualname__}"
    # JSON's numbers and lists are YAML's.
    return json.dumps(value)


def load_encoder(folder, device="cpu"):
    """Loads such a folder into our own, faster classes.

    Arguments
    ---------
    folder : str
        A folder written by ``export_encoder``, or the name of a published
        model of the same make-up.
    device : str
        Where to put the encoder.

    Returns
    -------
    tuple
        ``FastECAPA`` in evaluation mode and ``LogMel``.

    Raises
    ------
    ConfigError
        If the folder is none, or holds another kind of model, or if a published
        model cannot be had.
    CheckpointError
        If the weights are not those of the model.
    """
    path = pathlib.Path(folder)
    if path.is_dir() and (path / "model" / "hyperparams.yaml").is_file():
        # The output folder of a training run was given.
        path = path / "model"
    if path.exists():
        for name in ("hyperparams.yaml", "embedding_model.ckpt"):
            if not (path / name).is_file():
                raise ConfigError(
                    f"{folder} is no model: {name} is missing; {_REMEDY}"
                )
    elif path.is_absolute() or not re.fullmatch(r"\w[^/]*/[^/]+", str(folder)):
        # Not even the form of a name on the hub.
        raise ConfigError(
            f"{folder} is no model: there is no such folder; {_REMEDY}"
        )
    weights = path / "embedding_model.ckpt"
    stock, state = _load_stock(folder, path, weights, device)
    model = getattr(stock.mods, "embedding_model", None)
    fbank = getattr(stock.mods, "compute_features", None)
    if not isinstance(model, ECAPA_TDNN) or not isinstance(fbank, Fbank):
        raise ConfigError(
            f"{folder} holds another kind of model: this needs SpeechBrain's "
            f"ECAPA_TDNN on Fbank features, not {type(model).__name__} on "
            f"{type(fbank).__name__}"
        )
    if state is not None:
        with _weights_error(weights):
            model.load_state_dict(state)
    filters = fbank.compute_fbanks
    features = LogMel(n_mels=filters.n_mels, sample_rate=filters.sample_rate)
    return FastECAPA.from_stock(model), features.to(device)


def _load_stock(folder, path, weights, device):
    """SpeechBrain's model and, where it is a local one, its weights."""
    state = None
    try:
        if weights.is_file():
            with _weights_error(weights):
                state = torch.load(
                    weights, map_location="cpu", weights_only=True
                )
        stock = EncoderClassifier.from_hparams(
            source=str(path), run_opts={"device": str(device)}
        )
    except UserError:
        raise
    except Exception as error:
        # Of YAML, of the hub, of the network: there is no common class.
        why = f"{type(error).__name__}: {error}".splitlines()[0]
        if path.exists():
            what = f"holds no ECAPA-TDNN in SpeechBrain's layout ({why})"
        else:
            what = f"is no folder, and could not be had from the hub ({why})"
        raise ConfigError(f"{folder} {what}; {_REMEDY}") from error
    return stock.eval(), state


@contextlib.contextmanager
def _weights_error(path):
    """SpeechBrain only warns about weights that are missing or unknown."""
    try:
        yield
    except (OSError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
        raise CheckpointError(
            f"{path} does not hold the weights of the encoder beside it; "
            f"export or fetch the model again ({error})"
        ) from error


def initialise(encoder, folder):
    """Gives an encoder the weights of an exported model of the same shape.

    Arguments
    ---------
    encoder : speechbrain_ssl.encoders.ecapa.FastECAPA
        Changed in place.
    folder : str
        See ``load_encoder``.

    Raises
    ------
    ConfigError
        If the model is of another shape, or none.
    """
    try:
        other, _ = load_encoder(folder)
    except ConfigError as error:
        raise ConfigError(f"initial_model: {error}") from error
    mine, theirs = encoder.state_dict(), other.state_dict()
    for name, tensor in mine.items():
        if name not in theirs or theirs[name].shape != tensor.shape:
            raise ConfigError(
                f"initial_model {folder} does not fit the encoder of this "
                f"configuration: {name} is {tuple(tensor.shape)} here and "
                f"{tuple(theirs[name].shape) if name in theirs else 'absent'} "
                "there; choose the same encoder block"
            )
    encoder.load_state_dict(theirs)
