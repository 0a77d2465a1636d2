"""Names of models on the Hugging Face hub, and errors of the hub's client.

``speechbrain_ssl.publishing.hub`` fetches and uploads our models, and
``speechbrain_ssl.encoders.pretrained`` fetches pre-trained encoders; both use
these names and errors.
"""

import contextlib
import errno
import re

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

#: What a user writes before the name of a model on the hub.
HUB_PREFIX = "hf:"


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


@contextlib.contextmanager
def hub_explained(name, pushing=False):
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
