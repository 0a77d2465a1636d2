"""Write a folder that stock SpeechBrain loads; load it without executing it.

``EncoderClassifier.from_hparams(folder)`` and ``SpeakerRecognition`` need a
``hyperparams.yaml`` with ``modules`` and a ``pretrainer``, and a checkpoint.
The YAML names stock classes only, so that this package need not be installed
where the model is used. Beside them lie ``config.json``, the description of the
model, and ``model.safetensors``, the weights of our encoder. This library reads
only these two, so that it never executes a YAML or a pickle from somebody else.
An encoder of pictures is these two alone: stock SpeechBrain has no interface for
it.
"""

import contextlib
import json
import pathlib
import pickle

import numpy as np
import safetensors.torch
import torch
from speechbrain.inference.speaker import EncoderClassifier
from speechbrain.lobes.features import Fbank
from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN
from speechbrain.processing.features import Filterbank

from speechbrain_ssl.data.draws import uniform
from speechbrain_ssl.encoders.ecapa import FastECAPA
from speechbrain_ssl.encoders.face import FaceResNet
from speechbrain_ssl.encoders.features import LogMel
from speechbrain_ssl.errors import (
    CheckpointError,
    ConfigError,
    UserError,
    differences,
)
from speechbrain_ssl.files import atomic_write
from speechbrain_ssl.publishing.description import (
    FILE_NAME,
    YAML_NAME,
    build,
    describe,
    read_description,
)
from speechbrain_ssl.publishing.hub import (
    SAFE_WEIGHTS,
    STOCK_WEIGHTS,
    find_model,
)
from speechbrain_ssl.publishing.stock import (
    stock_encoder,
    waveform_encoder,
)
from speechbrain_ssl.publishing.stock_features import stock_features

_YAML = """\
# Speaker embeddings, trained without labels by speechbrain-ssl.
# Load it with stock SpeechBrain:
#   from speechbrain.inference.speaker import EncoderClassifier
#   model = EncoderClassifier.from_hparams("this/folder")

sample_rate: {sample_rate}
{threshold}
{features}

{encoder}

modules:
    compute_features: !ref <compute_features>
    mean_var_norm: !ref <mean_var_norm>
    embedding_model: !ref <embedding_model>

# The file embedding_model.ckpt beside this one.
pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
    loadables:
        embedding_model: !ref <embedding_model>
"""

_THRESHOLD = """\
# Cosines above it are of one speaker: {why}.
#   model.verify_batch(a, b, threshold=model.hparams.verification_threshold)
verification_threshold: {value!r}
"""


def export_encoder(folder, encoder, features, threshold=None, why=None):
    """Write encoder and features as a folder that stock SpeechBrain loads.

    Arguments
    ---------
    folder : str or pathlib.Path
        Where to write ``hyperparams.yaml``, ``embedding_model.ckpt``,
        ``config.json`` and ``model.safetensors``; only the latter two for an
        encoder of pictures.
    encoder : torch.nn.Module
        ``FastECAPA``, ``ResNet34``, ``FastResNet34`` or ``FaceResNet``.
    features : torch.nn.Module
        Its ``LogMel``, or ``PixelNormalization`` for pictures.
    threshold : float, optional
        The cosine above which two recordings are taken for one speaker;
        written as ``verification_threshold`` into the YAML.
    why : str, optional
        Where the threshold is from, in a few words.

    Returns
    -------
    pathlib.Path
        The folder.

    Raises
    ------
    ConfigError
        If the features or the encoder cannot be expressed in stock classes.
    """
    folder = pathlib.Path(folder)
    # Before anything is written: not every encoder can be expressed.
    if isinstance(encoder, FaceResNet):
        stock = None
    elif getattr(encoder, "takes_waveforms", False):
        encoder = encoder.merged()
        stock = waveform_encoder(encoder)
    else:
        stock = stock_features(features), *stock_encoder(encoder)
    about = describe(encoder, features)
    # Cloned, because safetensors cannot store tensors that share memory.
    own = {
        name: value.detach().cpu().clone().contiguous()
        for name, value in encoder.state_dict().items()
    }
    with atomic_write(folder / SAFE_WEIGHTS, "wb") as stream:
        stream.write(safetensors.torch.save(own))
    with atomic_write(folder / FILE_NAME) as stream:
        json.dump(about, stream, indent=2)
        stream.write("\n")
    if stock is not None:
        _write_stock(folder, *stock, features.sample_rate, threshold, why)
    return folder


def _write_stock(folder, front, text, state, sample_rate, threshold, why):
    """Write the two files that stock SpeechBrain reads."""
    with atomic_write(folder / STOCK_WEIGHTS, "wb") as stream:
        torch.save(state, stream)
    shown = ""
    if threshold is not None:
        shown = "\n" + _THRESHOLD.format(why=why, value=float(threshold))
    with atomic_write(folder / YAML_NAME) as stream:
        stream.write(
            _YAML.format(
                sample_rate=sample_rate,
                features=front,
                encoder=text,
                threshold=shown,
            )
        )


def load_encoder(folder, device="cpu", trust=False, pictures=False):
    """Load an exported folder into our own, faster classes.

    Nothing in the folder is executed: ``config.json`` is read, or, without it,
    the YAML is parsed; the weights are ``model.safetensors``, or, without
    ``config.json``, tensors that torch loads as such (``weights_only``).

    Arguments
    ---------
    folder : str
        A folder written by ``export_encoder``, the output folder of a training
        run, or the name of a published model of the same architecture.
    device : str
        Where to put the encoder.
    trust : bool
        Whether a ``hyperparams.yaml`` that cannot be parsed safely may be
        executed. It can do whatever the user can.
    pictures : bool
        Whether an encoder of pictures is wanted, and not one of audio.

    Returns
    -------
    tuple
        The encoder in evaluation mode and its ``LogMel``, or
        ``PixelNormalization`` for an encoder of pictures.

    Raises
    ------
    ConfigError
        If it is not a model folder, or holds another kind of model, such as one
        of pictures where one of audio is wanted.
    HubError
        If a published model cannot be fetched.
    CheckpointError
        If the weights do not fit the described encoder.
    """
    path = find_model(folder)
    try:
        about = read_description(path)
    except ConfigError:
        if not trust:
            raise
        encoder, features = _load_executed(path)
    else:
        encoder, features = build(about, path)
        # Beside our description lies the stock checkpoint of another network:
        # norms are folded, and a ResNet is a sequence.
        ours = "format" in about
        _load_weights(encoder, path / (SAFE_WEIGHTS if ours else STOCK_WEIGHTS))
    if isinstance(encoder, FaceResNet) != pictures:
        kinds = ("recordings of voices", "pictures of faces")
        raise ConfigError(
            f"{folder} holds an encoder of {kinds[not pictures]}; give a model "
            f"of {kinds[pictures]} here"
        )
    return encoder.to(device).eval(), features.to(device)


def _load_weights(encoder, path):
    """Load the weights of an encoder that is on the meta device."""
    if not path.is_file():
        raise ConfigError(
            f"{path.parent} is not a model: {path.name} is missing; copy or "
            "fetch the whole folder"
        )
    with _weights_error(path):
        if path.suffix == ".safetensors":
            state = safetensors.torch.load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
        # Copied into memory that torch allocates. Tensors of safetensors keep
        # their alignment in the file, and kernels round differently where a
        # matrix is not aligned: equal weights would give embeddings that
        # differ in the last bits.
        state = {
            name: value.to(
                torch.float32 if value.is_floating_point() else value.dtype,
                copy=True,
            )
            for name, value in state.items()
        }
        encoder.load_state_dict(state, assign=True)


def _load_executed(path):
    """Load a folder as SpeechBrain does, which executes its YAML."""
    try:
        stock = EncoderClassifier.from_hparams(source=str(path))
    except UserError:
        raise
    except Exception as error:
        # The YAML may raise any exception: they share no narrower class.
        why = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ConfigError(
            f"{path} holds no model in SpeechBrain's layout ({why})"
        ) from error
    model = getattr(stock.mods, "embedding_model", None)
    fbank = getattr(stock.mods, "compute_features", None)
    if not isinstance(model, ECAPA_TDNN) or not isinstance(fbank, Fbank):
        raise ConfigError(
            f"{path} holds another kind of model: this needs SpeechBrain's "
            f"ECAPA_TDNN on Fbank features, not {type(model).__name__} on "
            f"{type(fbank).__name__}"
        )
    if not isinstance(fbank.compute_fbanks, Filterbank):
        raise ConfigError(
            f"{path} replaces parts of its features; if speechbrain-ssl "
            f"exported it, copy or fetch the whole folder, with {FILE_NAME}"
        )
    bands = fbank.compute_fbanks
    features = LogMel(
        n_mels=bands.n_mels,
        sample_rate=bands.sample_rate,
        n_fft=fbank.compute_STFT.n_fft,
        f_min=bands.f_min,
        f_max=bands.f_max,
    )
    _compare_features(path, stock.mods, features)
    weights = path / STOCK_WEIGHTS
    with _weights_error(weights):
        state = torch.load(weights, map_location="cpu", weights_only=True)
        model.load_state_dict(state)
    return FastECAPA.from_stock(model), features


@torch.no_grad()
def _compare_features(path, modules, features):
    """Reject a model whose features differ from ours."""
    count = features.sample_rate
    draws = uniform("publishing features", size=count) - 0.5
    wave = torch.from_numpy(draws * np.linspace(0, 1, count)).float()[None]
    found = modules.mean_var_norm(modules.compute_features(wave), torch.ones(1))
    wanted = features(wave)
    if found.shape != wanted.shape or not torch.allclose(
        found, wanted, atol=1e-2
    ):
        raise ConfigError(
            f"the features of {path} are not those that are supported here: "
            "log-mel energies less their mean over the utterance"
        )


@contextlib.contextmanager
def _weights_error(path):
    """Turn an error of loading weights into a ``CheckpointError``."""
    try:
        yield
    except (
        AttributeError,
        EOFError,
        KeyError,
        OSError,
        RuntimeError,
        TypeError,
        ValueError,
        pickle.UnpicklingError,
        safetensors.SafetensorError,
    ) as error:
        raise CheckpointError(
            f"{path} does not hold the weights of the encoder beside it; "
            f"export or fetch the model again ({error})"
        ) from error


def initialise(encoder, folder, features):
    """Load the weights of an exported model into an encoder of the same shape.

    Arguments
    ---------
    encoder : torch.nn.Module
        Changed in place.
    folder : str
        See ``load_encoder``.
    features : speechbrain_ssl.encoders.features.LogMel
        The features that the encoder will get.

    Raises
    ------
    ConfigError
        If the folder is not a model, or its shape or its features differ.
    """
    try:
        other, known = load_encoder(
            folder, pictures=isinstance(encoder, FaceResNet)
        )
    except ConfigError as error:
        raise ConfigError(f"initial_model: {error}") from error
    differing = [
        f"{name} is {value} here and {known.settings.get(name)} there"
        for name, value in features.settings.items()
        if value != known.settings.get(name)
    ]
    if differing:
        raise ConfigError(
            f"initial_model {folder} was trained on other features "
            f"({'; '.join(differing)}); include the features block of its "
            "configuration"
        )
    try:
        encoder.load_state_dict(other.state_dict())
    except RuntimeError as error:
        raise ConfigError(
            f"initial_model {folder} does not fit the encoder of this "
            f"configuration: {_how_they_differ(other, encoder, known)}; set "
            "these keys of `encoder_block` as in the configuration of that "
            "model"
        ) from error


#: Arguments of the encoders that have another name in the encoder blocks.
_BLOCK_KEYS = {"lin_neurons": "embedding_size", "input_size": "n_mels"}


def _how_they_differ(there, here, features):
    """Describe by which settings two encoders differ, for an error message."""
    described = []
    for encoder in (there, here):
        about = describe(encoder, features)["encoder"]
        named = {
            _BLOCK_KEYS.get(name, name): value
            for name, value in about["arguments"].items()
        }
        described.append({"class": about["class"], **named})
    return ", ".join(differences(*described))
