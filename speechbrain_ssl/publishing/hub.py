"""Fetch model folders from the Hugging Face hub, and upload them.

Only the known files of a model are fetched, by name, and none of them is
executed or unpickled here. ``HF_ENDPOINT``, ``HF_HOME``, ``HF_HUB_OFFLINE`` and
``HF_TOKEN`` are environment variables of the hub's client and keep their
meaning.
"""

import pathlib

import huggingface_hub
from huggingface_hub.errors import (
    EntryNotFoundError,
    LocalEntryNotFoundError,
)

from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.hub_errors import (
    HUB_PREFIX,
    HubError,
    hub_explained,
    is_name,
)
from speechbrain_ssl.publishing.description import is_described

SAFE_WEIGHTS = "model.safetensors"
STOCK_WEIGHTS = "embedding_model.ckpt"

#: The files that a model folder may hold; no others are uploaded.
FILES = (
    "hyperparams.yaml",
    "config.json",
    STOCK_WEIGHTS,
    SAFE_WEIGHTS,
    "model.onnx",
    "calibration.json",
    "results.json",
    "README.md",
)


def pull(name, revision=None):
    """Fetch a model by name, unless it was fetched before.

    Arguments
    ---------
    name : str
        ``owner/model``.
    revision : str, optional
        A branch, a tag or a commit.

    Returns
    -------
    pathlib.Path
        A folder with the model's files, all of one commit. The checkpoint
        for SpeechBrain is left out if the model has our description.

    Raises
    ------
    HubError
        If there is no such model, access to it is refused, or it was never
        fetched before and there is no network.
    """

    def fetch(filename):
        return pathlib.Path(
            huggingface_hub.hf_hub_download(name, filename, revision=revision)
        )

    with hub_explained(name):
        folder = fetch("hyperparams.yaml").parent
        # snapshots/<commit>/<file>: fetch the other files of the same commit.
        revision = folder.name
        for filename in ("config.json", "calibration.json", "results.json"):
            _optional(fetch, name, filename, revision)
        fetch(SAFE_WEIGHTS if is_described(folder) else STOCK_WEIGHTS)
    return folder


def _optional(fetch, name, filename, revision):
    """Fetch a file, or return None where the model has none."""
    try:
        return fetch(filename)
    except LocalEntryNotFoundError:
        # The hub cannot be reached, but an earlier call may have found that
        # the model has no such file.
        known = huggingface_hub.try_to_load_from_cache(
            name, filename, revision=revision
        )
        if known is huggingface_hub._CACHED_NO_EXIST:
            return None
        raise
    except EntryNotFoundError:
        return None


def push(folder, name, public=False, message="Model folder"):
    """Upload a model folder as one commit.

    An interrupted upload can be started again: files that have arrived are not
    sent twice, and nothing is visible before the commit at the end.

    Arguments
    ---------
    folder : str or pathlib.Path
        A model folder, of which only ``FILES`` are uploaded.
    name : str
        ``owner/model``; created if it does not exist.
    public : bool
        Whether a newly created model is public. The visibility of an existing
        one is not changed.
    message : str
        Message of the commit.

    Returns
    -------
    dict
        ``url`` of the model and ``private``, whether it is private.

    Raises
    ------
    HubError
        If there is no token, the token does not permit it, the hub cannot be
        reached, or the upload is interrupted.
    ConfigError
        If the folder is not a model folder, or the name is not valid.
    """
    folder = pathlib.Path(folder)
    if not is_name(name):
        raise ConfigError(
            f"'{name}' is not a name on the hub; give owner/model, such as "
            "my-name/my-model"
        )
    for filename in ("hyperparams.yaml", STOCK_WEIGHTS):
        if not (folder / filename).is_file():
            raise ConfigError(
                f"{folder} is not a model folder: {filename} is missing"
            )
    token = huggingface_hub.get_token()
    if not token:
        raise HubError(
            f"there is no token to push {name} with; make one that may write "
            "at https://huggingface.co/settings/tokens and set HF_TOKEN to it"
        )
    api = huggingface_hub.HfApi(token=token)
    with hub_explained(name, pushing=True):
        api.create_repo(name, private=not public, exist_ok=True)
        private = bool(api.repo_info(name).private)
        api.upload_folder(
            repo_id=name,
            folder_path=str(folder),
            allow_patterns=list(FILES),
            commit_message=message,
        )
    return {"url": f"{api.endpoint}/{name}", "private": private}


def find_model(model, revision=None):
    """Find the folder of a model that the user has named.

    Arguments
    ---------
    model : str or pathlib.Path
        A model folder, the output folder of a training run, or
        ``hf:owner/model`` for a model on the hub.
    revision : str, optional
        A branch, a tag or a commit of a model on the hub.

    Returns
    -------
    pathlib.Path
        A folder with a description of the model, and weights.

    Raises
    ------
    ConfigError
        If it is neither a model folder nor ``hf:`` and a name. The hub is not
        asked for a name without ``hf:``, which may be a folder misspelt.
    HubError
        As ``pull``.
    """
    remedy = (
        "give the output folder of a finished training run, its `model` "
        "folder, or hf:owner/model for a model on the hub"
    )
    if str(model).startswith(HUB_PREFIX):
        name = str(model).removeprefix(HUB_PREFIX)
        if not is_name(name):
            raise ConfigError(f"{model} names no model on the hub; {remedy}")
        return pull(name, revision)
    path = pathlib.Path(model)
    if path.exists():
        if _has_description(path / "model"):
            path = path / "model"
        missing = None
        if not _has_description(path):
            missing = "hyperparams.yaml"
        elif not any(
            (path / weights).is_file()
            for weights in (SAFE_WEIGHTS, STOCK_WEIGHTS)
        ):
            missing = STOCK_WEIGHTS
        if missing:
            raise ConfigError(
                f"{model} is not a model: {missing} is missing; {remedy}"
            )
        return path
    raise ConfigError(
        f"{model} is not a model: there is no such folder; {remedy}"
    )


def _has_description(path):
    """Return whether a folder says what model it holds.

    An encoder of pictures has no YAML for stock SpeechBrain.
    """
    return (path / "hyperparams.yaml").is_file() or is_described(path)


def find_record(model, name):
    """Find a file in a model folder, or beside it in a run's output.

    Arguments
    ---------
    model : str or pathlib.Path
        The model as the user named it.
    name : str
        Name of the file.

    Returns
    -------
    pathlib.Path or None
    """
    folder = find_model(model)
    places = [folder]
    if folder.name == "model":
        places.append(folder.parent)
    for place in places:
        if (place / name).is_file():
            return place / name
    return None
