"""List the keys of a configuration with the comments that explain them."""

import re

from speechbrain_ssl.config_base import merge

_KEY = re.compile(r"^(\w+):")
#: Objects and building blocks, which are not set on the command line.
_BUILT = re.compile(r"\{|!new:|!include:|!ref <\w+\[")
_COMMENT = re.compile(r"(?:^|\s)#+ ?(.*)$")


def explained_keys(path):
    """List the keys of a configuration, with value and explanation.

    Arguments
    ---------
    path : str or pathlib.Path
        The configuration.

    Returns
    -------
    list of str
        A line for each key that has a plain value; ``...`` where the user
        has to give one.

    Example
    -------
    >>> from speechbrain_ssl.cli.recipe import configurations
    >>> path = configurations("train")["simclr_ecapa_mini"]
    >>> [line for line in explained_keys(path) if line.startswith("log_every")]
    ['log_every=10  # steps']
    """
    merged = merge(path)
    comments = {}
    for source in dict.fromkeys(merged.sources.values()):
        with open(source, encoding="utf-8") as stream:
            comments.update(_comments(stream.read()))
    return [
        f"{key}={_shown(value)}"
        + (f"  # {comments[key]}" if key in comments else "")
        for key, value in merged.plain().items()
        if not _BUILT.match(str(value)) and not key.startswith("__")
    ]


def _shown(value):
    """Show a value as it would be written on the command line."""
    if value is None:
        return "null"
    text = str(value).removeprefix("!ref ")
    return "..." if text.startswith("!PLACEHOLDER") else text


def _comments(text):
    """Return key -> its comment: on its line and those that follow, or above."""
    found, above, last = {}, [], None
    for line in text.splitlines():
        key = _KEY.match(line)
        comment = _COMMENT.search(line)
        said = comment.group(1).strip() if comment else None
        if key:
            last = key.group(1)
            words = [said] if said else above
            if words:
                found[last] = " ".join(words)
            above = []
        elif line.startswith("#"):
            above, last = [*above, said], None
        elif line.strip().startswith("#") and last in found:
            found[last] += f" {said}"
        else:
            above, last = [], None
    return found
