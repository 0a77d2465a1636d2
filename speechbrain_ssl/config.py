"""Read the configuration of a script, and reject keys that nothing reads.

HyperPyYAML accepts any key: a misspelt one is ignored, and the default stays in
force. Here every top-level key must be one that the script reads, one of
SpeechBrain's run options, or one that another key refers to. A key that is set
in a building block (``!include:``) must exist in the file of that block. The
checks are made after the bases of a configuration have been merged
(``config_base``).

``load_config`` is what scripts call; ``run`` wraps their ``main`` and turns a
user's error into one line.
"""

import dataclasses
import difflib
import logging
import os
import pathlib
import re
import sys

import ruamel.yaml
import speechbrain.core
import yaml
from hyperpyyaml import load_hyperpyyaml, resolve_references
from speechbrain.utils.run_opts import RunOptions

from speechbrain_ssl import (
    distributed,
    heartbeat,
    interruption,
    precision,
    shared_memory,
)
from speechbrain_ssl.config_base import merge, parse_plain, read_plain
from speechbrain_ssl.errors import (
    ConfigError,
    DistributedError,
    UserError,
    counted,
    explain,
)
from speechbrain_ssl.progress import open_bar
from speechbrain_ssl.run_folder import check_folder, forget_deleted

logger = logging.getLogger(__name__)

#: The flag of every script that prints the configuration and exits.
PRINT_CONFIG = "--print_config"

#: What SpeechBrain's own ``--help``, which follows, does not know.
_HELP = f"""\
Keys of the configuration are set by --key=value. Besides them and the options
of SpeechBrain below, there are:

  {PRINT_CONFIG}        print the configuration, with its base and the command
                        line, and exit; every key is explained in the files of
                        hparams/
  --precision=auto, --eval_precision=auto
                        bf16 on hardware with bf16 arithmetic, otherwise fp16 on
                        a GPU and fp32 on a CPU; the default of configurations
                        that train

"""


def _suggest(key, candidates):
    near = difflib.get_close_matches(key, sorted(candidates), n=1)
    return f"; did you mean `{near[0]}`?" if near else ""


def _may_be_number(value):
    """Return whether a value from the command line may be a number."""
    if not isinstance(value, str):
        return True
    try:
        float(value)  # 1e-3 is a string in YAML 1.1, a number in YAML 1.2
    except ValueError:
        return False
    return True


def check_keys(merged, overrides, known):
    """Reject keys that nothing reads.

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
        known key is missing; or if the command line replaces a number by text.
    """
    options = set(RunOptions().as_dict())
    plain, where = merged.plain(), merged.path
    for key, value in overrides.items():
        if key not in plain:
            raise ConfigError(
                f"--{key} on the command line: {where} has no such key"
                + _suggest(key, plain)
                + "; a key of a block is set by --block='{key: value}'"
            )
        if type(plain[key]) in (int, float) and not _may_be_number(value):
            raise ConfigError(
                f"--{key}={value} on the command line: {where} has a number "
                f"there, {plain[key]}"
            )
    # The text has no comments, so a key that is only mentioned in one does not
    # count as referred to.
    referred = set(re.findall(r"<(\w+)[\[\]\w]*>", merged.text))
    for key in plain:
        if key.startswith("__") or key in known | options | referred:
            continue
        source = merged.sources[key]
        remedy = _suggest(key, known | options | referred)
        if source != str(pathlib.Path(where)):
            remedy += f"; to leave it out, write `drop: [{key}]` in {where}"
        raise ConfigError(
            f"the key `{key}` in {source} is not read by anything{remedy}"
        )
    missing = sorted(known - set(plain))
    if missing:
        raise ConfigError(
            f"{where} lacks the key{'s'[: len(missing) - 1]} "
            + ", ".join(f"`{k}`" for k in missing)
        )


def check_filled_in(merged, overrides):
    """Reject a configuration whose placeholders are not filled in.

    Arguments
    ---------
    merged : Merged
        The configuration.
    overrides : dict
        Keys and values of the command line.

    Raises
    ------
    ConfigError
        If a placeholder has no value on the command line.
    """
    for key, value in merged.plain().items():
        if str(value).startswith("!PLACEHOLDER") and key not in overrides:
            raise ConfigError(
                f"`{key}` in {merged.sources[key]} needs a value from you: "
                f"add --{key}=... to the command line"
            )


def check_blocks(merged, overrides):
    """Reject keys that an included building block does not have.

    Arguments
    ---------
    merged : Merged
        The configuration.
    overrides : dict
        Keys and values of the command line.

    Raises
    ------
    ConfigError
        If the file of a block is missing, or does not have a key that is set.
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
                f"{source}: `{key}` includes {block}, which does not exist"
            )
        known = read_plain(block)
        more = overrides.get(key)
        sources = [(f"`{key}` in {source}", given)]
        if isinstance(more, dict):
            sources.append((f"--{key} on the command line", more))
        for where, names in sources:
            for name in sorted(names.keys() - {"!"} - known.keys()):
                raise ConfigError(
                    f"{where} sets `{name}`, which {block} does not have"
                    + _suggest(name, known)
                )


def _read_overrides(overrides):
    """Parse the overrides, which SpeechBrain returns as YAML text."""
    try:
        (overrides or "").encode()
    except UnicodeEncodeError as error:
        text = overrides.encode(errors="backslashreplace").decode().strip()
        raise ConfigError(
            f"the command line has bytes that are no text in this locale: "
            f"{text}. Set LC_ALL=C.UTF-8, or rename the file"
        ) from error
    try:
        given = yaml.safe_load(overrides) if overrides else {}
    except yaml.YAMLError as error:
        raise ConfigError(
            f"the command line is not understood: {error}. A key is set with "
            "--key=value; quote a value with a colon or brackets"
        ) from error
    if not isinstance(given, dict):
        raise ConfigError(
            f"the command line is not understood: '{overrides}' sets no key; "
            "write --key=value"
        )
    return given


def check_device(run_opts):
    """Reject a device that does not exist.

    Under ``torchrun`` each process has a GPU of its own, the one with its local
    rank: ``--device=cuda`` would put all of them on the first one.

    Arguments
    ---------
    run_opts : speechbrain.utils.run_opts.RunOptions
        The run options.

    Returns
    -------
    str or None
        The device of this process; None if none was named.

    Raises
    ------
    ConfigError
        If ``--device`` or ``torchrun`` asks for a GPU that does not exist, for
        the same one in several processes, or for the CPU with the nccl backend.
    """
    import torch

    count = torch.cuda.device_count()
    device = run_opts["device"]
    local_rank = os.environ.get("LOCAL_RANK")
    if device and device.startswith("cuda"):
        index = device.partition(":")[2] or "0"
        if local_rank is not None:
            if index != "0":
                raise ConfigError(
                    f"--device={device} under torchrun would be the GPU of all "
                    "processes; leave it out and choose GPUs by the environment "
                    "variable CUDA_VISIBLE_DEVICES"
                )
            index = local_rank
            device = f"cuda:{index}"
        if not index.isdigit() or int(index) >= count:
            raise ConfigError(
                f"--device={device}: this machine has {counted(count, 'GPU')}"
                + ("; use --device=cpu" if count == 0 else "")
            )
    if local_rank is not None and device == "cpu":
        if run_opts["distributed_backend"] == "nccl":
            raise ConfigError(
                "--device=cpu under torchrun needs --distributed_backend=gloo"
            )
    if local_rank is not None and run_opts["distributed_backend"] == "nccl":
        if int(local_rank) >= count:
            raise ConfigError(
                f"torchrun started process {local_rank} but this machine has "
                f"{counted(count, 'GPU')}: lower --nproc_per_node, or train on CPUs "
                "with --device=cpu --distributed_backend=gloo"
            )
    return device


def load_config(argv, known, changes=None):
    """Parse a command line and build the hyper-parameters.

    With ``--print_config`` print the merged configuration, with the overrides
    of the command line, and exit.

    Arguments
    ---------
    argv : list of str
        The configuration file, run options and overrides.
    known : set of str
        Keys that the script reads.
    changes : dict, optional
        Further overrides, which take precedence over those of the command line.
        The stages of a run differ by them.

    Returns
    -------
    tuple
        File name, run options, overrides (YAML text) and hyper-parameters.

    Raises
    ------
    ConfigError
        If the configuration or the command line is wrong. The message names
        the key and the remedy.
    """
    if {"-h", "--help"} & set(argv):
        sys.stdout.write(_HELP)
    argv, changes = take_auto(argv, changes)
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
        # SpeechBrain takes its own options off the command line.
        named = run_opts.overridden_args & merged.plain().keys()
        shown = given | {key: run_opts[key] for key in named}
        sys.stdout.write(
            merge(path, yaml.safe_dump(shown) if shown else "").text
        )
        sys.exit(0)
    check_filled_in(merged, given)
    run_opts = dataclasses.replace(run_opts, device=check_device(run_opts))
    # Make the recipe's own modules (its prepare script) importable by name.
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
        # The checkpointer has made its folder by now, or has failed to.
        key = _key_of(merged, overrides, getattr(error, "filename", None))
        text = explain(error) or f"{path}: {error}"
        if key is not None:
            text = f"`{key}`: {text}"
        raise ConfigError(text) from error
    precision.settle(hparams, run_opts)
    return path, run_opts, overrides, hparams


def _key_of(merged, overrides, filename):
    """Return the key whose value is a path to a file or below it, or None."""
    if filename is None:
        return None
    plain = parse_plain(resolve_references(merged.open(), overrides))
    for key, value in plain.items():
        if f"{value}{os.sep}".startswith(f"{filename}{os.sep}"):
            return key
    return None


def take_auto(argv, changes):
    """Turn ``--precision=auto``, which SpeechBrain rejects, into a change."""
    flags = {f"--{key}=auto": key for key in precision.KEYS}
    asked = {flags[flag]: "auto" for flag in argv if flag in flags}
    return [flag for flag in argv if flag not in flags], asked | (changes or {})


def _run_or_stop(main):
    """Run ``main(argv)``; explain what ends it, here and to other processes."""
    try:
        try:
            main(sys.argv[1:])
        except RuntimeError as error:
            explained = _lost_process()
            if explained is None:
                raise
            raise explained from error
    except BaseException as error:
        stopped = isinstance(error, interruption.Interrupted)
        heartbeat.leave(f"{error}".strip().split("\n")[-1], stopped)
        if not stopped:
            # Whatever it was, a deleted folder explains it.
            check_folder()
        raise
    heartbeat.leave()
    distributed.leave()


def _lost_process():
    """Return the error to raise if a process that has gone broke a collective."""
    if not distributed.is_distributed():
        return None
    lost = heartbeat.lost()
    if stop := interruption.requested():
        return interruption.Interrupted(stop)
    if lost:
        sentence, stopped = lost
        kind = interruption.Interrupted if stopped else DistributedError
        return kind(sentence)
    return None


def run(main):
    """Run the ``main(argv)`` of a script, and print a user's error in one line.

    The exit code is 1 after an error, and ``interruption.EXIT_CODE`` if a
    signal stopped the run.

    Arguments
    ---------
    main : callable
        Takes the command-line arguments.
    """
    forget_deleted()
    # Where the disk is full, each message would become a traceback.
    logging.raiseExceptions = False
    # SpeechBrain's bar of an epoch would be redrawn into a log file, too.
    speechbrain.core.tqdm = open_bar
    try:
        with interruption.handled():
            _run_or_stop(main)
    except interruption.Interrupted as stop:
        sys.exit(interruption.report(stop))
    except UserError as error:
        logger.debug("where it happened", exc_info=True)
        # The text of an error from a loader worker begins with the worker's
        # traceback; the user needs only the end of it.
        text = str(error).strip().split(f"{type(error).__name__}: ")[-1]
        sys.stderr.write(f"\nError: {text}\n")
        sys.exit(1)
    except (OSError, RuntimeError) as error:
        explanation = shared_memory.explain(error) or explain(error)
        if explanation is None:
            raise
        sys.stderr.write(f"\nError: {explanation}\n")
        sys.exit(1)
