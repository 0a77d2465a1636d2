"""Run the recipe for any folder of audio, which is installed with the library.

The recipes and their building blocks are at the top of a clone, and within the
package where it is installed. This module and ``config`` find them in both;
torch is imported by the recipe's script, after the checks that are made here.
"""

import json
import os
import pathlib
import re
import runpy
import sys

import speechbrain_ssl
from speechbrain_ssl.cli.choice import choose
from speechbrain_ssl.errors import ConfigError

#: Command -> folder of its task.
TASKS = {"train": "SSL", "rounds": "PseudoLabels"}


def root():
    """Return the folder that contains ``hparams/`` and ``recipes/``.

    Returns
    -------
    pathlib.Path

    Example
    -------
    >>> (root() / "hparams" / "ssl.yaml").is_file()
    True
    """
    package = pathlib.Path(speechbrain_ssl.__file__).resolve().parent
    return package if (package / "recipes").is_dir() else package.parent


def configurations(command):
    """Find the configurations of a command.

    Arguments
    ---------
    command : str
        A key of ``TASKS``.

    Returns
    -------
    dict
        Name -> path of the file, sorted by name.

    Example
    -------
    >>> list(configurations("rounds"))
    ['dlg_lc_ecapa_mini']
    """
    task = root() / "recipes" / "UnlabeledFolder" / TASKS[command]
    return {p.stem: p for p in sorted((task / "hparams").glob("*.yaml"))}


def named(name, commands):
    """Find the file of a configuration.

    Arguments
    ---------
    name : str
        Name of the configuration.
    commands : iterable of str
        Keys of ``TASKS`` whose configurations it may be one of.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    ConfigError
        If there is none of this name. The message lists those that exist.
    """
    found = {}
    for command in commands:
        found.update(configurations(command))
    if name not in found:
        raise ConfigError(
            f"there is no configuration {name}; take one of {', '.join(found)}"
        )
    return found[name]


def run(options):
    """Run the script of the recipe as its own process would.

    Arguments
    ---------
    options : argparse.Namespace
        ``command``, ``folder``, ``config`` (None: ``choose`` it), ``quiet``
        (of ``choose``) and ``keys``, further arguments of the script, where ``key=value`` may stand for
        ``--key=value``.

    Returns
    -------
    tuple
        An empty result and no lines: the script has printed what it has to say.

    Raises
    ------
    ConfigError
        If there is no such folder or configuration, or too little audio. For
        other errors the script exits by itself.
    """
    if not os.path.exists(options.folder):
        raise ConfigError(f"there is no folder or list {options.folder}")
    name, lines = options.config, []
    if name is None and options.command == "train":
        name, lines = choose(options)
    elif name is None:
        (name,) = configurations(options.command)
    path = named(name, [options.command])
    lines.append(
        f"`speechbrain-ssl config {name}` prints the keys of the configuration."
    )
    print("\n".join(lines), flush=True)
    script = path.parents[1] / "train.py"
    # Quoted, since the value is read as YAML.
    folder = json.dumps(os.path.abspath(options.folder), ensure_ascii=False)
    keys = [re.sub(r"^(?=\w+=)", "--", key) for key in options.keys]
    sys.argv = [str(script), str(path), f"--data_folder={folder}", *keys]
    runpy.run_path(str(script), run_name="__main__")
    return {}, []
