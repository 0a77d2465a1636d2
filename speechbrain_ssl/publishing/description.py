"""Describe a model as plain data, so that nothing is executed to load it.

A ``hyperparams.yaml`` is a program: ``!apply:os.system`` in it runs when
SpeechBrain loads it. Our exports therefore name their encoder and features in a
``config.json`` beside it, and this library reads only that.
A folder without a ``config.json``, such as a model that SpeechBrain published,
is supported if its YAML describes an ``ECAPA_TDNN`` on an ``Fbank`` with the
mean subtracted, with plain values as arguments. The YAML is parsed, never run.
"""

import inspect
import json
import pathlib
import re

import torch
import yaml
from speechbrain.lobes.features import Fbank
from speechbrain.processing.features import InputNormalization

from speechbrain_ssl.encoders.ecapa import FastECAPA
from speechbrain_ssl.encoders.face import FaceResNet, PixelNormalization
from speechbrain_ssl.encoders.features import LogMel, Waveform
from speechbrain_ssl.encoders.mhfa import MHFA, AdapterMFA, WeightedECAPA
from speechbrain_ssl.encoders.pretrained import PretrainedFrontEnd
from speechbrain_ssl.encoders.resnet import FastResNet34, ResNet34
from speechbrain_ssl.errors import ConfigError

FILE_NAME = "config.json"
YAML_NAME = "hyperparams.yaml"

_FORMAT = "speechbrain-ssl encoder"
# Raised whenever a key of the description changes its name or meaning.
_VERSION = 2
_ENCODERS = {
    kind.__name__: kind
    for kind in (
        FastECAPA,
        ResNet34,
        FastResNet34,
        MHFA,
        AdapterMFA,
        WeightedECAPA,
        FaceResNet,
    )
}

# A description is from a stranger, and must not exhaust the machine that reads
# it: the largest file, the longest list, and the largest numbers.
_MOST_BYTES = 2**21
_MOST_BYTES_OF_YAML = 10**5  # it is parsed a hundred times more slowly
_LONGEST_LIST = 16
_MOST = {
    "n_mels": 512,
    "res2net_scale": 32,
    "blocks": 128,
    "n_fft": 2**13,
    "num_hidden_layers": 128,
}
_MOST_OF_OTHERS = 10**6


def describe(encoder, features):
    """Describe an encoder and its features.

    Arguments
    ---------
    encoder : torch.nn.Module
        ``FastECAPA``, ``ResNet34``, ``FastResNet34``, one with a pre-trained
        front end, or ``FaceResNet``.
    features : torch.nn.Module
        Its ``LogMel`` or ``Waveform``, or ``PixelNormalization`` for pictures.

    Returns
    -------
    dict
        Plain values; a class among the arguments is its name in ``torch.nn``.

    Raises
    ------
    ConfigError
        If ``build`` could not rebuild them from the description.

    Example
    -------
    >>> about = describe(ResNet34(channels=2), LogMel())
    >>> about["encoder"]["class"], about["features"]["n_mels"]
    ('ResNet34', 80)
    """
    arguments = {}
    for name, value in encoder.arguments.items():
        if isinstance(value, type):
            if _activation(value.__name__) is not value:
                raise ConfigError(
                    f"an encoder with {value.__qualname__} as its {name} "
                    "cannot be described: it is not an activation of torch.nn"
                )
            value = value.__name__
        arguments[name] = value
    return {
        "format": _FORMAT,
        "version": _VERSION,
        "encoder": {"class": type(encoder).__name__, "arguments": arguments},
        "features": dict(features.settings),
    }


def read_description(folder):
    """Read the description of a model folder without executing anything.

    Arguments
    ---------
    folder : str or pathlib.Path
        A folder with ``config.json``, or with ``hyperparams.yaml`` only.

    Returns
    -------
    dict
        As returned by ``describe``.

    Raises
    ------
    ConfigError
        If the folder describes no model that is known here.
    """
    folder = pathlib.Path(folder)
    if not is_described(folder):
        return _from_yaml(folder / YAML_NAME)
    path = folder / FILE_NAME
    about = read_json(path)
    if about.get("version") != _VERSION:
        raise ConfigError(
            f"{path} is of version {about.get('version')!r}, and this "
            f"speechbrain-ssl reads version {_VERSION}: install an older or "
            "newer one, or export the model again"
        )
    return about


def is_described(folder):
    """Tell whether a folder has a description that this library wrote.

    Arguments
    ---------
    folder : pathlib.Path
        The folder.

    Returns
    -------
    bool

    Raises
    ------
    ConfigError
        If its ``config.json`` is broken.
    """
    path = folder / FILE_NAME
    return path.is_file() and read_json(path).get("format") == _FORMAT


def read_json(path):
    """Read a JSON object from a file.

    Arguments
    ---------
    path : pathlib.Path
        The file.

    Returns
    -------
    dict

    Raises
    ------
    ConfigError
        If the file cannot be read or holds no JSON object.
    """
    try:
        found = json.loads(_read_text(path))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{path} holds no JSON object")
    return found


def _read_text(path, most=_MOST_BYTES):
    """Return the text of a file of a sensible size."""
    if path.stat().st_size > most:
        raise ValueError(f"it has more than {most} bytes")
    return path.read_text(encoding="utf-8")


def build(about, where):
    """Build the features and the encoder, whose weights are undefined.

    Arguments
    ---------
    about : dict
        From ``read_description``.
    where : str or pathlib.Path
        File or folder to name in an error.

    Returns
    -------
    tuple
        The encoder on torch's meta device, so that a description alone takes
        no memory, and its ``LogMel`` or ``PixelNormalization``.

    Raises
    ------
    ConfigError
        If the description names a class or setting that is not known here.
    """
    try:
        kind = _ENCODERS[about["encoder"]["class"]]
        arguments = dict(about["encoder"]["arguments"])
        settings = dict(about["features"])
        _check_sizes({**settings, **arguments})
        if "front_end" in arguments:
            return _build_pretrained(kind, arguments, settings)
        front, size = LogMel, "n_mels"
        if kind is FaceResNet:
            front, size = PixelNormalization, "size"
        elif settings["normalize"] == "none":
            raise ValueError("features that are not normalised")
        if "activation" in arguments:
            name = arguments["activation"]
            arguments["activation"] = _activation(name)
            if arguments["activation"] is None:
                raise ValueError(f"{name!r} is not an activation of torch.nn")
        if settings[size] != arguments["input_size"]:
            raise ValueError(f"{size} is not the encoder's input_size")
        with torch.device("meta"):
            encoder = kind(**arguments)
        return encoder, front(**settings)
    except (
        ArithmeticError,
        AssertionError,
        AttributeError,
        ConfigError,
        IndexError,
        KeyError,
        MemoryError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        raise ConfigError(
            f"{where} describes no model that is known here "
            f"({type(error).__name__}: {error})"
        ) from error


def _build_pretrained(kind, arguments, settings):
    """Build an encoder with a pre-trained front end, and its features."""
    with torch.device("meta"):
        front_end = PretrainedFrontEnd.described(**arguments["front_end"])
        encoder = kind(**{**arguments, "front_end": front_end})
    return encoder, Waveform(**settings)


def _check_sizes(values, name=None):
    """Raise a ValueError for numbers and lists that would take much memory."""
    if isinstance(values, dict):
        for key, value in values.items():
            _check_sizes(value, key)
    elif isinstance(values, (list, tuple)):
        if len(values) > _LONGEST_LIST:
            raise ValueError(f"{name} has {len(values)} entries")
        for value in values:
            _check_sizes(value, name)
    elif isinstance(values, (int, float)):
        most = _MOST.get(name, _MOST_OF_OTHERS)
        if not 0 <= values <= most:  # nor is NaN
            raise ValueError(f"{name} is not between 0 and {most}")


def _activation(name):
    """Return a class of ``torch.nn`` that is an activation, or None."""
    kind = getattr(torch.nn.modules.activation, str(name), None)
    own = getattr(kind, "__module__", None) == "torch.nn.modules.activation"
    return kind if own and issubclass(kind, torch.nn.Module) else None


# ------------------------------------------------------- SpeechBrain's own YAML


class _Loader(yaml.SafeLoader):
    """YAML loader that keeps the tags of objects without acting on them.

    It refuses aliases, since a few lines of them can stand for billions of
    nodes.
    """

    def compose_node(self, parent, index):
        """Compose a node that is no alias."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it has aliases (*name), which are not read")
        return super().compose_node(parent, index)


def _keep(loader, suffix, node):
    if isinstance(node, yaml.MappingNode):
        return {"!": suffix, **loader.construct_mapping(node, deep=True)}
    if isinstance(node, yaml.SequenceNode):
        # Positional arguments: no supported object has them.
        return f"!{suffix} [...]"
    return f"!{suffix} {loader.construct_scalar(node)}"


_Loader.add_multi_constructor("!", _keep)


def _read_yaml(path):
    """Read the keys of a HyperPyYAML file without creating any object."""
    try:
        plain = yaml.load(_read_text(path, _MOST_BYTES_OF_YAML), Loader=_Loader)
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(plain, dict):
        raise ConfigError(f"{path} holds no keys")
    return plain


def _from_yaml(path):
    """Describe a model in SpeechBrain's layout."""
    plain = _read_yaml(path)
    try:
        modules = plain["modules"]
        fbank = _made(plain, modules["compute_features"], Fbank)
        norm = _made(plain, modules["mean_var_norm"], InputNormalization)
        encoder = _made(plain, modules["embedding_model"], FastECAPA)
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{path} holds no ECAPA-TDNN on Fbank features that is understood "
            f"without executing it ({error}). If you trust who wrote it, have "
            "it executed (--trust)"
        ) from error
    if norm["norm_type"] != "sentence" or norm["std_norm"]:
        raise ConfigError(
            f"{path} normalises its features in another way than by the mean "
            "of the utterance, which is the only way supported here"
        )
    replaced = [
        key
        for key, value in plain.items()
        if str(value).startswith("!apply:torch.nn.Module.add_module")
    ]
    if replaced:
        # An export does so where a stock Fbank has no argument for a setting.
        raise ConfigError(
            f"{path} replaces parts of its features ({', '.join(replaced)}), "
            f"which only the {FILE_NAME} that was exported with it describes: "
            "copy or fetch the whole folder"
        )
    # The settings that our own features have.
    names = ("n_mels", "sample_rate", "n_fft", "f_min", "f_max")
    settings = {name: fbank.pop(name) for name in names}
    plain_fbank = _defaults(Fbank)
    others = sorted(k for k in fbank if fbank[k] != plain_fbank[k])
    if others:
        raise ConfigError(
            f"{path} sets {', '.join(others)} of Fbank, which is not "
            "supported here"
        )
    if "activation" in encoder:
        encoder["activation"] = str(encoder["activation"]).rsplit(".", 1)[-1]
    return {
        "encoder": {"class": "FastECAPA", "arguments": encoder},
        "features": {**settings, "normalize": "mean"},
    }


_STOCK_NAMES = {
    Fbank: "speechbrain.lobes.features.Fbank",
    InputNormalization: "speechbrain.processing.features.InputNormalization",
    FastECAPA: "speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN",
}


def _defaults(kind):
    """Return the default values of the arguments of a class."""
    return {
        name: parameter.default
        for name, parameter in inspect.signature(kind).parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }


def _made(plain, value, kind):
    """Return the arguments of a YAML object that must be of this class."""
    value = _resolved(plain, value)
    wanted = _STOCK_NAMES[kind]
    found = value.pop("!", None) if isinstance(value, dict) else value
    if found != f"new:{wanted}":
        raise ValueError(f"{wanted} expected, not {found}")
    if kind is FastECAPA:
        return value
    unknown = sorted(set(value) - set(_defaults(kind)))
    if unknown:
        raise ValueError(f"unknown argument {unknown[0]}")
    return {**_defaults(kind), **value}


def _resolved(plain, value, depth=0):
    """Follow the references of a value to other keys, without computing any."""
    if depth > 20:
        raise ValueError("references go round in circles")
    if isinstance(value, dict):
        return {k: _resolved(plain, v, depth + 1) for k, v in value.items()}
    if isinstance(value, list):
        return [_resolved(plain, v, depth + 1) for v in value]
    if not isinstance(value, str) or not value.startswith("!"):
        return value
    tag, _, rest = value[1:].partition(" ")
    if tag == "ref" and (match := re.fullmatch(r"<(\w+)>", rest.strip())):
        return _resolved(plain, plain[match.group(1)], depth + 1)
    if tag.startswith("name:torch.nn.") and not rest.strip():
        return tag.removeprefix("name:")
    if tag.startswith("new:") and not rest.strip():
        return {"!": tag}
    raise ValueError(f"'{value.strip()}' would have to be computed")
