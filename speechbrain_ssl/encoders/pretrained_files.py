"""Find the files of a pre-trained model, and load them or say what is wrong."""

import contextlib
import json
import pathlib
import pickle

import huggingface_hub
import safetensors
import torch

from speechbrain_ssl.errors import CheckpointError, ConfigError
from speechbrain_ssl.hub_errors import HUB_PREFIX, hub_explained, is_name

CONFIG, FEATURES = "config.json", "preprocessor_config.json"
#: Weights in one file: tensors alone, or a pickle that is read as such.
WEIGHTS, PICKLED = "model.safetensors", "pytorch_model.bin"


def find_pretrained(source):
    """Find the folder of a pre-trained model, or fetch it from the hub.

    Arguments
    ---------
    source : str
        A folder, or ``hf:owner/model``.

    Returns
    -------
    pathlib.Path
        A folder with ``config.json`` and one file of weights.

    Raises
    ------
    ConfigError
        If there is no such folder, or it lacks a file.
    HubError
        If the hub cannot be reached or has no such model.
    """
    source = str(source)
    if source.startswith(HUB_PREFIX):
        return _fetch(source.removeprefix(HUB_PREFIX))
    folder = pathlib.Path(source)
    if not folder.is_dir():
        raise ConfigError(
            f"there is no folder {source} with a pre-trained model; give the "
            "folder, or hf:owner/model for one on the hub"
        )
    if not (folder / CONFIG).is_file():
        raise ConfigError(
            f"{folder} is not a pre-trained model: {CONFIG} is missing; fetch "
            "the whole folder"
        )
    if not _weights(folder):
        raise ConfigError(
            f"{folder} is not a pre-trained model: neither {WEIGHTS} nor "
            f"{PICKLED} is there; fetch the whole folder"
        )
    return folder


def _weights(folder):
    """Return the file of weights in a folder, or None."""
    for name in (WEIGHTS, PICKLED):
        if (folder / name).is_file():
            return folder / name
    return None


def _fetch(name):
    """Fetch a model from the hub by name, unless it was fetched before."""
    if not is_name(name):
        raise ConfigError(
            f"'{name}' is not a name on the hub; give hf:owner/model"
        )
    with hub_explained(name):
        folder = pathlib.Path(
            huggingface_hub.snapshot_download(
                name, allow_patterns=[CONFIG, FEATURES, WEIGHTS]
            )
        )
        if not (folder / WEIGHTS).is_file():
            huggingface_hub.hf_hub_download(name, PICKLED, revision=folder.name)
    return find_pretrained(folder)


def read_normalization(folder):
    """Return whether the model takes normalised waveforms.

    Arguments
    ---------
    folder : pathlib.Path
        Its ``preprocessor_config.json`` tells; the models of transformers take
        normalised ones without that file.

    Returns
    -------
    bool
    """
    path = folder / FEATURES
    if not path.is_file():
        return True
    try:
        return bool(json.loads(path.read_text("utf-8"))["do_normalize"])
    except KeyError:
        return True  # w2v-BERT, which normalises its features anyway
    except ValueError as error:
        raise ConfigError(f"{path} is not valid JSON: {error}") from error


def load_pretrained(transformers, folder, kinds):
    """Load a model with all its weights.

    Arguments
    ---------
    transformers : module
        The package.
    folder : pathlib.Path
        From ``find_pretrained``.
    kinds : tuple of str
        The supported values of ``model_type``.

    Returns
    -------
    transformers.PreTrainedModel
        In evaluation mode, in fp32.

    Raises
    ------
    ConfigError
        If the model is of another kind.
    CheckpointError
        If its weights are missing, do not fit, or hold more than tensors.
    """
    path = _weights(folder)
    with _explained(folder / CONFIG, "describes no model of transformers"):
        about = json.loads((folder / CONFIG).read_text("utf-8"))
        kind = about.get("model_type")
    if kind not in kinds:
        raise ConfigError(
            f"{folder} holds a model of the kind {kind!r}; those that can be "
            f"used are {', '.join(kinds)}"
        )
    with _explained(path, f"holds no weights of a {kind} model"):
        model, found = transformers.AutoModel.from_pretrained(
            folder,
            local_files_only=True,
            output_loading_info=True,
            dtype=torch.float32,
        )
    lacking = {name for name, *_ in map(_as_tuple, found["mismatched_keys"])}
    # Only used to mask spans in pre-training; some checkpoints lack it.
    lacking |= set(found["missing_keys"]) - {"masked_spec_embed"}
    if lacking:
        raise CheckpointError(
            f"{path} does not fit {folder / CONFIG}: {len(lacking)} weights of "
            f"a {kind} model are missing or of another shape, such as "
            f"{min(lacking)}; fetch both from one place"
        )
    return model


def _as_tuple(key):
    return key if isinstance(key, tuple) else (key,)


@contextlib.contextmanager
def _explained(path, what):
    """Turn an error of reading a file into a ``CheckpointError``."""
    try:
        yield
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is a pickle that holds more than tensors, which is not "
            f"loaded, because it could run any program; take a model with "
            f"{WEIGHTS}"
        ) from error
    except (
        AttributeError,
        EOFError,
        KeyError,
        OSError,
        RuntimeError,
        TypeError,
        ValueError,
        safetensors.SafetensorError,
    ) as error:
        first = str(error).strip().splitlines()[:1]
        raise CheckpointError(
            f"{path} {what} ({type(error).__name__}: {''.join(first)}); fetch "
            "the model again"
        ) from error
