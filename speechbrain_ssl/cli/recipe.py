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
import shlex
import sys

from hyperpyyaml import resolve_references

import speechbrain_ssl
from speechbrain_ssl.cli.choice import SMALL, choose
from speechbrain_ssl.config_base import merge, parse_plain
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
    >>> "dlg_lc_ecapa_mini" in configurations("rounds")
    True
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


def default_of(command):
    """Return the configuration that a command takes where nothing else counts.

    Arguments
    ---------
    command : str
        A key of ``TASKS``.

    Returns
    -------
    str
    """
    return SMALL if command == "train" else "dlg_lc_ecapa_mini"


def run(options):
    """Train, or run rounds of pseudo-labels.

    Arguments
    ---------
    options : argparse.Namespace
        ``command``, ``folder``, ``config`` (None: ``choose`` it), ``quiet``
        (of ``choose``) and ``keys``, further arguments of the script, where
        ``key=value`` may stand for ``--key=value``.

    Returns
    -------
    tuple
        An empty result, and lines that name the next commands. What the run
        has to say the script has printed.

    Raises
    ------
    ConfigError
        If there is no such folder or configuration, or too little audio. For
        other errors the script exits by itself.
    """
    if not os.path.exists(options.folder):
        raise ConfigError(f"there is no folder or list {options.folder}")
    name, lines = options.config or default_of(options.command), []
    if options.config is None and options.command == "train":
        name, lines = choose(options)
    path = named(name, [options.command])
    lines.append(
        f"`speechbrain-ssl {options.command} --config={name} --help` explains "
        "its keys."
    )
    # Not stdout, where `--print_config` prints YAML.
    print("\n".join(lines), file=sys.stderr, flush=True)
    folder = yaml_text(os.path.abspath(options.folder))
    run_script(
        path.parents[1] / "train.py",
        [str(path), f"--data_folder={folder}"],
        options.keys,
    )
    return {}, _next_commands(options)


def yaml_text(text):
    """Quote a text for a value of the command line, which is read as YAML."""
    return json.dumps(text, ensure_ascii=False)


def run_script(script, arguments, keys):
    """Run a script of ``recipes/`` as its own process would.

    Arguments
    ---------
    script : pathlib.Path
        The script.
    arguments : list of str
        Its first arguments.
    keys : list of str
        Further ones, where ``key=value`` may stand for ``--key=value``.
    """
    keys = [re.sub(r"^(?=\w+=)", "--", key) for key in keys]
    sys.argv = [str(script), *arguments, *keys]
    runpy.run_path(str(script), run_name="__main__")


def _next_commands(options):
    """Name the commands that use the model of the run that has ended."""
    # torch has been imported by the script.
    from speechbrain.utils.run_opts import RunOptions

    from speechbrain_ssl.config import take_auto

    argv, _ = take_auto(sys.argv[1:], None)
    path, _, overrides = RunOptions.from_command_line_args(argv)
    resolved = resolve_references(merge(path).open(), overrides)
    plain = parse_plain(resolved)
    folder = plain["output_folder"]
    if not os.path.isdir(os.path.join(folder, "model")):
        return []
    run, audio = shlex.quote(folder), shlex.quote(options.folder)
    speakers = shlex.quote(os.path.join(folder, "speakers"))
    commands = [
        f"cluster {audio} --model={run} --output={speakers}.csv "
        f"--page={speakers}.html",
        f"enrol NAME a.wav b.wav --model={run} --database={speakers}",
    ]
    if options.command == "train":
        manifest = pathlib.Path(plain["train_manifest"])
        files = len(manifest.read_text(encoding="utf-8").splitlines()) - 1
        # The configuration tries up to 400.
        few = f" clusters={max(files // 10, 2)}" if files < 4000 else ""
        commands.append(f"rounds {audio} --initial_model={run}{few}")
    else:
        commands.append(f"identify c.wav --model={run} --database={speakers}")
    return ["What next:", *(f"  speechbrain-ssl {c}" for c in commands)]
