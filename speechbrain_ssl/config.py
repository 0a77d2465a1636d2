"""Reading a configuration, and refusing what nobody asked for.

HyperPyYAML takes any key; a misspelt one is carried along and the default stays.
Here every top-level key must be one that the script reads, one of SpeechBrain's
run options, or one that another key refers to; and what is given to a building
block (``!include:``) must be a key of its file. All of it looks at the merged
configuration (``config_base``).
"""

import difflib
import errno
import logging
import os
import pathlib
import re
import sys

import ruamel.yaml
import yaml
from hyperpyyaml import load_hyperpyyaml
from speechbrain.utils.run_opts import RunOptions

from speechbrain_ssl import precision
from speechbrain_ssl.config_base import merge, read_plain
from speechbrain_ssl.errors import ConfigError, UserError

logger = logging.getLogger(__name__)

#: The flag of every script that shows the configuration, and does no more.
PRINT_CONFIG = "--print_config"


def _suggest(key, candidates):
    near = difflib.get_close_matches(key, sorted(candidates), n=1)
    return f"; did you mean `{near[0]}`?" if near else ""


def _may_be_number(value):
    """Whether a value of the command line can stand for a number."""
    if not isinstance(value, str):
        return True
    try:
        float(value)  # 1e-3, which only YAML 1.2 takes for a number
    except ValueError:
        return False
    return True


def check_keys(merged, overrides, known):
    """Refuses keys that nothing reads.

    Arguments
    ---------
    merged : Merged
        The configuration.
    overrides : dict
        Keys and values of the command line.
    known : set of str
        Keys that the script reads.

    Raises
    ------
    ConfigError
        If a key is neither known, nor a run option, nor referred to; if a
        known key is missing; or if the command line has a word for a number.
    """
    options = set(RunOptions().as_dict())
    plain, where = merged.plain(), merged.path
    for key, value in overrides.items():
        if key not in plain:
            raise ConfigError(
                f"--{key} on the command line: {where} has no such key"
                + _suggest(key, plain)
            )
        if type(plain[key]) in (int, float) and not _may_be_number(value):
            raise ConfigError(
                f"--{key}={value} on the command line: {where} has a number "
                f"there, {plain[key]}"
            )
    # The text has no comments: a key that only they mention is not referred to.
    referred = set(re.findall(r"<(\w+)[\[\]\w]*>", merged.text))
    for key in plain:
        if key.startswith("__") or key in known | options | referred:
            continue
        source = merged.sources[key]
        remedy = _suggest(key, known | options)
        if source != str(pathlib.Path(where)):
            remedy += f"; without use for it, write `drop: [{key}]` in {where}"
        raise ConfigError(
            f"the key `{key}` in {source} is read by nothing{remedy}"
        )
    missing = sorted(known - set(plain))
    if missing:
        raise ConfigError(
            f"{where} lacks the key(s) {', '.join(f'`{k}`' for k in missing)}"
        )


def check_filled_in(merged, overrides):
    """Refuse a configuration in which a placeholder was left.

    Arguments
    ---------
    merged : Merged
        The configuration.
    overrides : dict
        Keys and values of the command line.

    Raises
    ------
    ConfigError
        If a placeholder was left in.
    """
    for key, value in merged.plain().items():
        if str(value).startswith("!PLACEHOLDER") and key not in overrides:
            raise ConfigError(
                f"`{key}` in {merged.sources[key]} is to be filled in by you: "
                f"add --{key}=... to the command line"
            )


def check_blocks(merged, overrides):
    """Refuses keys that an included building block does not have.

    Arguments
    ---------
    merged : Merged
        The configuration.
    overrides : dict
        Keys and values of the command line.

    Raises
    ------
    ConfigError
        If a block is missing, or lacks a key that is given to it.
    """
    for key, value in merged.plain().items():
        given = value if isinstance(value, dict) else {"!": str(value)}
        tag = str(given.get("!", "")).lstrip("!")
        if not tag.startswith("include:"):
            continue
        block = merged.folder / tag.removeprefix("include:").strip()
        source = merged.sources[key]
        if not block.is_file():
            raise ConfigError(
                f"{source}: `{key}` includes {block}, which is not there"
            )
        known = read_plain(block)
        more = overrides.get(key)
        sources = [(f"`{key}` in {source}", given)]
        if isinstance(more, dict):
            sources.append((f"--{key} on the command line", more))
        for where, names in sources:
            for name in sorted(names.keys() - {"!"} - known.keys()):
                raise ConfigError(
                    f"{where} sets `{name}`, which {block} has not"
                    + _suggest(name, known)
                )


def _read_overrides(overrides):
    """The command line's keys, from the text SpeechBrain makes of it."""
    try:
        given = yaml.safe_load(overrides) if overrides else {}
    except yaml.YAMLError as error:
        raise ConfigError(
            f"the command line is not understood: {error}. A key is set with "
            "--key=value; a value with a colon or brackets wants quotes"
        ) from error
    if not isinstance(given, dict):
        raise ConfigError(
            f"the command line is not understood: '{overrides}' sets no key; "
            "write --key=value"
        )
    return given


def check_device(run_opts):
    """Refuses a device that is not there.

    Arguments
    ---------
    run_opts : speechbrain.utils.run_opts.RunOptions
        The run options.

    Raises
    ------
    ConfigError
        If a GPU is asked for that does not exist, also by ``torchrun``.
    """
    import torch

    count = torch.cuda.device_count()
    device = run_opts["device"]
    local_rank = os.environ.get("LOCAL_RANK")
    if device and device.startswith("cuda"):
        index = device.partition(":")[2] or "0"
        if not index.isdigit() or int(index) >= count:
            raise ConfigError(
                f"--device={device}: this machine has {count} GPU(s)"
                + ("; use --device=cpu" if count == 0 else "")
            )
    if local_rank is not None and device == "cpu":
        if run_opts["distributed_backend"] == "nccl":
            raise ConfigError(
                "--device=cpu under torchrun wants --distributed_backend=gloo"
            )
    if local_rank is not None and run_opts["distributed_backend"] == "nccl":
        if int(local_rank) >= count:
            raise ConfigError(
                f"torchrun started process {local_rank} but this machine has "
                f"{count} GPU(s): lower --nproc_per_node, or train on CPUs "
                "with --device=cpu --distributed_backend=gloo"
            )


def load_config(argv, known, changes=None):
    """Parses a command line and builds the configuration.

    With ``--print_config`` the merged configuration with the overrides of the
    command line is printed instead, and the process ends.

    Arguments
    ---------
    argv : list of str
        The configuration file, run options and overrides.
    known : set of str
        Keys that the script reads.
    changes : dict, optional
        Further overrides, which win over those of the command line: how one
        stage of a run differs from another.

    Returns
    -------
    tuple
        File name, run options, overrides (YAML text) and hyper-parameters.

    Raises
    ------
    ConfigError
        With the key at fault and the remedy.
    """
    argv, changes = _take_auto(argv, changes)
    printing = PRINT_CONFIG in argv
    path, run_opts, overrides = RunOptions.from_command_line_args(
        [flag for flag in argv if flag != PRINT_CONFIG]
    )
    merged = merge(path)
    given = _read_overrides(overrides)
    if changes:
        given |= changes
        overrides = yaml.safe_dump(given)
    check_keys(merged, given, known)
    check_blocks(merged, given)
    if printing:
        sys.stdout.write(merge(path, overrides).text)
        sys.exit(0)
    check_filled_in(merged, given)
    check_device(run_opts)
    # The recipe's own modules (its prepare script) are importable by name.
    recipe = pathlib.Path(path).resolve().parent.parent
    for folder in (recipe.parent, recipe):
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
    try:
        hparams = load_hyperpyyaml(merged.open(), overrides)
    except UserError:
        raise
    except (
        AttributeError,
        ImportError,
        KeyError,
        OSError,
        TypeError,
        ValueError,
        ruamel.yaml.YAMLError,
        yaml.YAMLError,
    ) as error:
        cause = error
        while cause is not None:
            if isinstance(cause, UserError):
                raise cause from error
            cause = cause.__cause__ or cause.__context__
        raise ConfigError(f"{path}: {error}") from error
    precision.settle(hparams, run_opts)
    return path, run_opts, overrides, hparams


def _take_auto(argv, changes):
    """Takes out ``--precision=auto``, which SpeechBrain's parser refuses."""
    autos = {f"--{key}=auto": key for key in precision.KEYS}
    changes = {
        **{autos[flag]: "auto" for flag in argv if flag in autos},
        **(changes or {}),
    }
    return [flag for flag in argv if flag not in autos], changes


def run(main):
    """Runs the ``main(argv)`` of a script; a user's error is one line.

    Arguments
    ---------
    main : callable
        Takes the command-line arguments.
    """
    try:
        main(sys.argv[1:])
    except UserError as error:
        logger.debug("where it happened", exc_info=True)
        # A loader worker's error arrives with the worker's traceback in its
        # text; what the user needs is the last of it.
        text = str(error).strip().split(f"{type(error).__name__}: ")[-1]
        sys.stderr.write(f"\nError: {text}\n")
        sys.exit(1)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        sys.stderr.write(
            f"\nError: no space is left ({error}). What was written before is "
            "whole: make room and start the same command again\n"
        )
        sys.exit(1)
