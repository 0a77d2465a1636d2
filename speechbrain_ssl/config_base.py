"""Read configurations that are written as differences from another one.

    base: ../../../../hparams/ssl.yaml    # relative to this file
    drop: [margin, margin_kind]           # keys of the base to leave out
    number_of_epochs: 120                 # anything else overrides the base

HyperPyYAML has no inheritance: its ``!include:`` works only below a key.
Therefore the files are merged first, as YAML with its tags, and HyperPyYAML
reads the result. Comments are removed, because those of a base may no longer be
true. ``config`` checks the merged configuration.
"""

import io
import os
import pathlib
import re
import urllib.parse
from typing import NamedTuple

import ruamel.yaml
import yaml
from ruamel.yaml.comments import Comment, CommentedMap, TaggedScalar
from ruamel.yaml.representer import RoundTripRepresenter

from speechbrain_ssl.errors import ConfigError

#: A file may have a base, which may have a base; more would be hard to follow.
LEVELS = 2

_INCLUDE = "!include:"


class _Representer(RoundTripRepresenter):
    """Writes null as a word, since an empty value looks like a mistake."""


_Representer.add_representer(
    type(None),
    lambda self, _: self.represent_scalar("tag:yaml.org,2002:null", "null"),
)


class _PlainLoader(yaml.SafeLoader):
    """Reads a HyperPyYAML file as plain YAML, without acting on its tags."""


def _ignore_tag(loader, suffix, node):
    if isinstance(node, yaml.MappingNode):
        return {"!": suffix, **loader.construct_mapping(node, deep=True)}
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return "!" + suffix + " " + loader.construct_scalar(node)


_PlainLoader.add_multi_constructor("!", _ignore_tag)


def parse_plain(stream):
    """Parse HyperPyYAML without creating any object.

    Arguments
    ---------
    stream : str or file
        The YAML.

    Returns
    -------
    dict
        A tagged scalar becomes a string that begins with its tag; a tagged
        mapping has its tag under the key ``!``.
    """
    return yaml.load(stream, Loader=_PlainLoader)


class Merged(NamedTuple):
    """A configuration merged with its bases.

    Arguments
    ---------
    path : str
        The configuration file.
    text : str
        The merged configuration, as YAML without comments. An ``!include:`` is
        relative to the folder of ``path``.
    sources : dict
        Key -> the file that sets it, or the last one to change it.
    """

    path: str
    text: str
    sources: dict

    @property
    def folder(self):
        """Return the folder that relative includes start from."""
        return pathlib.Path(self.path).resolve().parent

    def open(self):
        """Return the text as a stream, for the functions of HyperPyYAML."""
        stream = io.StringIO(self.text)
        # HyperPyYAML resolves relative includes by the name of the stream.
        stream.name = str(self.path)
        return stream

    def plain(self):
        """Return the keys and values; see ``parse_plain``."""
        return parse_plain(self.text)


def merge(path, overrides=""):
    """Read a configuration and merge it with its bases.

    A mapping without a tag overrides single keys of the mapping below it, or of
    the arguments of an ``!include:``. Any other value, and also ``{}``,
    replaces what was there. Keys keep the order of the base, and new ones
    follow, except that every key is moved below those that it refers to.

    Arguments
    ---------
    path : str or pathlib.Path
        The configuration file.
    overrides : str, optional
        YAML that is merged over the result.

    Returns
    -------
    Merged

    Raises
    ------
    ConfigError
        If a file is missing, not valid YAML, or not a mapping; if `base` or
        `drop` is malformed; if the bases form a circle, or are too many.
    """
    tree, sources = _merge_files(pathlib.Path(path), [])
    if overrides:
        _lay_over(tree, _yaml().load(overrides))
    text = io.StringIO()
    _yaml().dump(_definitions_first(tree), text)
    return Merged(path, text.getvalue(), sources)


def read_plain(path):
    """Read the keys of a configuration, without creating any object.

    Arguments
    ---------
    path : str or pathlib.Path
        The configuration file.

    Returns
    -------
    dict
        The keys, bases included; for the values see ``parse_plain``.

    Raises
    ------
    ConfigError
        See ``merge``.
    """
    return merge(path).plain()


def read_hyperparams(folder):
    """Read the resolved configuration that a run has left in its folder.

    Arguments
    ---------
    folder : pathlib.Path
        The output folder.

    Returns
    -------
    dict
        See ``parse_plain``; empty if there is no ``hyperparams.yaml``.
    """
    path = folder / "hyperparams.yaml"
    return parse_plain(path.read_text("utf-8")) if path.is_file() else {}


def _yaml():
    """Return a YAML parser and writer that keeps tags, order and numbers."""
    parser = ruamel.yaml.YAML()
    parser.Representer = _Representer
    parser.width = 10**6
    parser.indent(mapping=4)
    return parser


def _merge_files(path, above):
    """Merge a file with its bases; ``above`` are the files leading to it."""
    files = [*above, path]
    shown = " -> ".join(map(str, files))
    if any(path.resolve() == other.resolve() for other in above):
        raise ConfigError(f"the bases form a circle: {shown}; remove a `base`")
    if len(above) > LEVELS:
        raise ConfigError(
            f"{shown}: a configuration may have a base, and that one another, "
            f"but no more; move the content of {above[-1]} into {above[-2]}"
        )
    tree = _load(path)
    _move_includes(tree, path, files[0])
    if "base" not in tree:
        base, sources = CommentedMap(), {}
    else:
        base, sources = _merge_files(_base_path(path, tree.pop("base")), files)
    for key in _dropped(path, tree.pop("drop", [])):
        if key not in base:
            raise ConfigError(
                f"`drop` in {path} names `{key}`, which its base does not have; "
                "remove it there"
            )
        del base[key], sources[key]
    _lay_over(base, tree)
    return base, {**sources, **dict.fromkeys(tree, str(path))}


def _load(path):
    """Load one file, and remove its comments."""
    if not path.is_file():
        raise ConfigError(f"there is no configuration file {path}")
    try:
        with open(path, encoding="utf-8") as stream:
            tree = _yaml().load(stream)
    except ruamel.yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} holds no keys")
    for node in _nodes(tree):
        if hasattr(node, Comment.attrib):
            delattr(node, Comment.attrib)
    return tree


def _nodes(node):
    """Yield all nodes that can have a tag: mappings, lists, tagged scalars."""
    if isinstance(node, (dict, list, TaggedScalar)):
        yield node
    if isinstance(node, (dict, list)):
        for child in node.values() if isinstance(node, dict) else node:
            yield from _nodes(child)


def _move_includes(tree, path, to):
    """Rewrite the includes of a file, relative to the folder of another."""
    here, there = (p.resolve().parent for p in (path, to))
    for node in filter(_is_include, _nodes(tree)):
        name = node.tag.value.removeprefix(_INCLUDE)
        if here != there:
            name = os.path.relpath(here / name, there)
        if not name.isascii():
            raise ConfigError(
                f"{path} includes {name}, as seen from {to}: the path of an "
                "!include: must be ASCII for HyperPyYAML; move both files into "
                "one folder, or rename it"
            )
        # A YAML tag cannot contain a space.
        tag = _INCLUDE + urllib.parse.quote(name)
        node.yaml_set_ctag(ruamel.yaml.Tag(suffix=tag))


def _is_include(node):
    return hasattr(node, "tag") and (node.tag.value or "").startswith(_INCLUDE)


def _base_path(path, base):
    if not isinstance(base, str):
        raise ConfigError(
            f"`base` in {path} is not a path; write the name of a file, relative "
            "to this one, as in `base: other.yaml`"
        )
    found = (path.resolve().parent / base).resolve()
    if not found.is_file():
        raise ConfigError(
            f"`base` in {path} is {base}, which does not exist: it was looked "
            f"for at {found}, relative to the file that names it"
        )
    return found


def _dropped(path, keys):
    if not isinstance(keys, list):
        raise ConfigError(
            f"`drop` in {path} is not a list of keys; write `drop: [{keys}]`"
        )
    return keys


def _lay_over(base, differences):
    """Merge differences into a mapping, in place; see ``merge``."""
    for key, value in differences.items():
        below = base.get(key)
        if not isinstance(value, dict) or not value or value.tag.value:
            base[key] = value
        elif isinstance(below, dict):
            _lay_over(below, value)
        elif _is_include(below):
            # The block has no arguments yet: add some to its tag.
            value.yaml_set_ctag(below.tag)
            base[key] = value
        else:
            base[key] = value


def _definitions_first(tree):
    """Move every key above the keys that refer to it.

    HyperPyYAML resolves references from top to bottom, and a reference into a
    block is not valid above its ``!include:``. Otherwise the order is kept.
    """
    waiting, ordered = set(tree), CommentedMap()

    def put(key):
        if key in waiting:
            waiting.remove(key)
            for node in _nodes(tree[key]):
                if isinstance(node, TaggedScalar):
                    for name in re.findall(r"<(\w+)", node.value):
                        put(name)
            ordered[key] = tree[key]

    for key in tree:
        put(key)
    return ordered
