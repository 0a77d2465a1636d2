"""Fetch model folders from the Hugging Face hub, and upload them.

Only the known files of a model are fetched, by name, and none of them is
executed or unpickled here. ``HF_ENDPOINT``, ``HF_HOME``, ``HF_HUB_OFFLINE`` and
``HF_TOKEN`` are environment variables of the hub's client and keep their
meaning.
"""

import contextlib
import errno
import pathlib
import re

import huggingface_hub
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from speechbrain_ssl.errors import ConfigError, UserError
from speechbrain_ssl.publishing.description import is_described

#: What a user writes before the name of a model on the hub.
HUB_PREFIX = "hf:"

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


class HubError(ConfigError):
    """Raised if the hub refuses, cannot be reached, or lacks the model."""


def is_name(text):
    """Tell whether a text has the form of a name on the hub, ``owner/model``.

    Arguments
    ---------
    text : str
        The model as the user named it.

    Returns
    -------
    bool

    Example
    -------
    >>> is_name("me/model"), is_name("../model"), is_name("results/a/1")
    (True, False, False)
    """
    return re.fullmatch(r"\w[^/\\\s]*/[^/\\\s]+", str(text)) is not None


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

    with _explained(name):
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
    with _explained(name, pushing=True):
        api.create_repo(name, private=not public, exist_ok=True)
        private = bool(api.repo_info(name).private)
        api.upload_folder(
            repo_id=name,
            folder_path=str(folder),
            allow_patterns=list(FILES),
            commit_message=message,
        )
    return {"url": f"{api.endpoint}/{name}", "private": private}


@contextlib.contextmanager
def _explained(name, pushing=False):
    """Turn an error of the hub's client into a ``UserError`` with a remedy."""
    again = (
        "; files already sent are kept, and the model does not change before "
        "all have arrived: start the same command again"
        if pushing
        else "; try again"
    )
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        # The client raises errors of the hub, of HTTP and of the operating
        # system, and wraps those of an upload in a RuntimeError.
        causes = list(_causes(error))
        for kind, text in _remedies(name, error):
            if any(isinstance(cause, kind) for cause in causes):
                raise HubError(text) from error
        status = next(
            (
                cause.response.status_code
                for cause in causes
                if isinstance(cause, HfHubHTTPError)
                and cause.response is not None
            ),
            None,
        )
        if status in (401, 403):
            raise HubError(
                f"the hub does not let this token access {name} ({status}); "
                "set HF_TOKEN to one that may write there"
            ) from error
        for cause in causes:
            if isinstance(cause, OSError) and cause.errno == errno.ENOSPC:
                # A full disk is not an error of the hub; run() explains it.
                raise cause from error
        what = "push of" if pushing else "fetching"
        raise HubError(
            f"the {what} {name} failed ({_first_line(causes[-1])}){again}"
        ) from error


def _remedies(name, error):
    """List the hub's errors with their messages, subclasses first."""
    return (
        (
            HFValidationError,
            f"'{name}' is not a name on the hub; give owner/model",
        ),
        (
            GatedRepoError,
            f"request access to {name} on its page on the hub; then set "
            "HF_TOKEN",
        ),
        (
            RepositoryNotFoundError,
            f"there is no model {name} on the hub, or it is private and "
            "HF_TOKEN does not open it; correct the name or set HF_TOKEN",
        ),
        (
            RevisionNotFoundError,
            f"{name} has no such revision",
        ),
        (
            LocalEntryNotFoundError,
            f"the hub cannot be reached, and {name} was not fetched before; "
            "check the network and HF_HUB_OFFLINE, or give a folder",
        ),
        (
            OfflineModeIsEnabled,
            "HF_HUB_OFFLINE keeps the client from the hub; unset it",
        ),
        (
            EntryNotFoundError,
            f"{name} is on the hub, but holds no model of this kind "
            # All lines: the address in them names the file.
            f"({' '.join(str(error).split())})",
        ),
    )


def _causes(error):
    """Yield the error and its causes."""
    seen = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _first_line(error):
    text = str(error).strip().splitlines()
    return (
        f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
    )


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
