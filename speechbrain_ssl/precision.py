"""Choose the floating-point type of a run, in one place.

bf16 is fast only on hardware that multiplies it. Other CPUs (most laptops, AMD
before Zen 4, Intel before 2020) emulate it, several times slower than they
compute fp32; other GPUs have fp16 instead. ``precision: auto`` and
``eval_precision: auto`` choose accordingly.

``speechbrain_ssl.config.load_config`` calls ``settle``, which decides. The
choice is saved with ``keep``, so that a run resumes in the precision it started
with, and shown by ``announce`` and ``describe``.
"""

import json
import logging
import os
import pathlib
import platform

import torch
from speechbrain.utils.distributed import infer_device

from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.files import atomic_write

logger = logging.getLogger(__name__)

#: Name of a precision -> dtype for autocast (None: no autocast).
DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}

#: The keys of a configuration that name a precision.
KEYS = ("precision", "eval_precision")

#: File in the output folder that keeps the precision of a run.
FILE_NAME = "save/precision.json"

#: Prefix of the reason of an automatic choice.
_AUTO = "auto"

#: Environment variable that overrides the detection of bf16 on a CPU (1: yes,
#: 0: no), for tests and timings.
VARIABLE = "SPEECHBRAIN_SSL_NATIVE_BF16"


def cpu_has_bf16():
    """Return whether this CPU multiplies bf16 in hardware.

    Returns
    -------
    bool
        Also False if torch cannot tell.

    Raises
    ------
    ConfigError
        If the environment variable ``VARIABLE`` is neither 0 nor 1.
    """
    forced = os.environ.get(VARIABLE)
    if forced is not None:
        if forced not in ("0", "1"):
            raise ConfigError(f"{VARIABLE} is {forced!r}; it must be 0 or 1")
        return forced == "1"
    try:
        supported = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    except (AttributeError, RuntimeError):
        return False
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return supported
    # On x86 oneDNN also reports support for AVX512 without bf16, where it
    # emulates bf16.
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return supported and any(
        getattr(torch.cpu, check, lambda: False)() for check in checks
    )


def best_precision(device):
    """Choose the fastest precision that trains well on a device.

    Arguments
    ---------
    device : str
        A device such as ``cpu`` or ``cuda:0``.

    Returns
    -------
    tuple of str
        A key of ``DTYPES``, and the reason in a few words.
    """
    if device == "cpu":
        if cpu_has_bf16():
            return "bf16", "this CPU multiplies bf16 in hardware"
        return "fp32", "this CPU would emulate bf16, several times slower"
    if device.startswith("cuda"):
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16", "this GPU multiplies bf16 in hardware"
        return "fp16", "this GPU has fp16 but no bf16"
    return "fp32", f"bf16 has not been tried on {device}"


def settle(hparams, run_opts):
    """Decide the precisions that a configuration names.

    The command line takes precedence over the YAML; ``auto`` stands for the
    ``best_precision`` of the device.

    Arguments
    ---------
    hparams : dict
        The hyper-parameters, changed in place: ``precision`` and
        ``eval_precision`` become keys of ``DTYPES``, and ``precision_reasons``
        is added, with a reason for each. Without one of the two keys, that one
        stays away unless the command line names it.
    run_opts : speechbrain.utils.run_opts.RunOptions
        The run options.

    Raises
    ------
    ConfigError
        If a precision does not exist, or the device cannot compute in it.
    """
    device = run_opts["device"] or infer_device()
    hparams["precision_reasons"] = {}
    for key in KEYS:
        if key in run_opts.overridden_args:
            name, reason = run_opts[key], "as the command line says"
        elif key in hparams:
            name, reason = hparams[key], "as configured"
        else:
            continue
        if name == "auto":
            name, reason = best_precision(device)
            reason = f"{_AUTO}: {reason}"
        if name not in DTYPES:
            raise ConfigError(
                f"`{key}` is {name!r}; it must be auto or one of "
                f"{', '.join(DTYPES)}"
            )
        if name == "fp16" and device == "cpu":
            raise ConfigError(
                f"`{key}` is fp16, which a CPU does not compute in; set it to "
                "auto"
            )
        hparams[key], hparams["precision_reasons"][key] = name, reason


def keep(hparams):
    """Save the precisions of a run that has not begun yet.

    Arguments
    ---------
    hparams : dict
        The hyper-parameters after ``settle``. Their output folder holds a run
        if it has a checkpoint or, for rounds of pseudo-labels, which write
        embeddings first, the folder of a round.
    """
    folder = pathlib.Path(hparams["output_folder"])
    path = folder / FILE_NAME
    begun = any((folder / "save").rglob("CKPT*"))
    if path.is_file() and (begun or (folder / "round_1").is_dir()):
        return
    with atomic_write(path) as stream:
        json.dump(describe(hparams), stream)


def resume(hparams, run_opts):
    """Replace automatic choices by the precisions that the run began with.

    All processes of a run call it after one has called ``keep``, so that they
    agree, whatever their processors are.

    Arguments
    ---------
    hparams : dict
        The hyper-parameters after ``settle``, changed in place.
    run_opts : speechbrain.utils.run_opts.RunOptions
        The run options.

    Raises
    ------
    ConfigError
        If the run began in fp16 on a GPU, and this is a CPU.
    """
    path = pathlib.Path(hparams["output_folder"]) / FILE_NAME
    if not path.is_file():
        return
    reasons = hparams["precision_reasons"]
    for key, began in json.loads(path.read_text(encoding="utf-8")).items():
        name = began.split()[0]
        if not reasons.get(key, "").startswith(_AUTO) or name == hparams[key]:
            continue
        if name == "fp16" and (run_opts["device"] or infer_device()) == "cpu":
            raise ConfigError(
                f"{path.parents[1]} holds a run with `{key}` fp16, which a CPU "
                f"does not compute in: resume it on a GPU, or add --{key}=fp32"
            )
        hparams[key], reasons[key] = name, f"{_AUTO}: the run began in {began}"


def describe(hparams):
    """Describe the precisions of a run with their reasons.

    Arguments
    ---------
    hparams : dict
        The hyper-parameters after ``settle``.

    Returns
    -------
    dict
        Key -> text, such as ``bf16 (auto: this CPU multiplies bf16 in
        hardware)``.
    """
    reasons = hparams["precision_reasons"]
    return {key: f"{hparams[key]} ({reasons[key]})" for key in reasons}


def announce(hparams, run_opts):
    """Log the precisions of a run, and warn if one is emulated.

    Arguments
    ---------
    hparams : dict
        The hyper-parameters after ``settle``.
    run_opts : speechbrain.utils.run_opts.RunOptions
        The run options.
    """
    choices = describe(hparams)
    for key, choice in choices.items():
        logger.info("%s: %s", key, choice)
    device = run_opts["device"] or infer_device()
    emulated = device == "cpu" and not cpu_has_bf16()
    if emulated and "bf16" in [hparams[key] for key in choices]:
        logger.warning(
            "this CPU emulates bf16: a step of ECAPA-TDNN took 4 times (64 "
            "channels) to 11 times (512) as long as in fp32 where it was "
            "measured"
        )
