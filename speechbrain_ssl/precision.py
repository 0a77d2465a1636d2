"""The floating-point type a run computes in, decided in one place.

bf16 pays only where the hardware multiplies it. A CPU that does not (most
laptops, AMD before Zen 4, Intel before 2020) emulates it several times slower
than it computes fp32, and a GPU that does not has fp16 instead. ``precision:
auto`` and ``eval_precision: auto`` choose accordingly.
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

#: Name of a precision -> type to autocast to (None: no autocast).
DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}

#: The keys of a configuration that name a precision.
KEYS = ("precision", "eval_precision")

#: Where a run keeps its precision, below its output folder.
FILE_NAME = "save/precision.json"

#: How the reason of a choice begins that was left to us.
_AUTO = "auto"

#: Set to 1 or 0, it overrides what the processor says: for tests and timings.
VARIABLE = "SPEECHBRAIN_SSL_NATIVE_BF16"


def cpu_has_bf16():
    """Tells whether this CPU multiplies bf16 in hardware.

    Returns
    -------
    bool
        False also where torch cannot tell.
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
    # On x86 oneDNN also says yes to AVX512 without bf16, which it emulates.
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return supported and any(
        getattr(torch.cpu, check, bool)() for check in checks
    )


def best_precision(device):
    """Chooses the fastest precision that trains well on a device.

    Arguments
    ---------
    device : str
        Such as ``cpu`` or ``cuda:0``.

    Returns
    -------
    tuple of str
        A name of ``DTYPES``, and the reason in a few words.
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
    """Decides the precisions of a run.

    The command line wins over the YAML. ``auto`` is what the run began with, if
    its output folder holds one, and otherwise ``best_precision`` of the device.

    Arguments
    ---------
    hparams : dict
        The hyper-parameters. ``precision`` and ``eval_precision`` become names
        of ``DTYPES``, and ``precision_reasons`` has a reason for each.
    run_opts : speechbrain.utils.run_opts.RunOptions
        The run options.

    Raises
    ------
    ConfigError
        If there is no such precision, or the device cannot compute in it.
    """
    device = run_opts["device"] or infer_device()
    hparams["precision_reasons"] = {}
    for key in KEYS:
        name, reason = hparams.get(key, run_opts[key]), "as configured"
        if key in run_opts.overridden_args:
            name, reason = run_opts[key], "as the command line says"
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
    resume(hparams)


def resume(hparams):
    """Takes the precisions that a run began with, where ``auto`` left it open.

    Arguments
    ---------
    hparams : dict
        The hyper-parameters after ``settle``, changed in place.
    """
    if not hparams.get("output_folder"):
        return
    folder = pathlib.Path(hparams["output_folder"])
    # Rounds have embeddings before they have a checkpoint.
    begun = (folder / "round_1").is_dir() or any(folder.rglob("CKPT*"))
    path = folder / FILE_NAME
    if not (begun and path.is_file()):
        return
    reasons = hparams["precision_reasons"]
    for key, name in json.loads(path.read_text(encoding="utf-8")).items():
        if reasons[key].startswith(_AUTO) and name != hparams[key]:
            hparams[key] = name
            reasons[key] = f"{_AUTO}: as the run began, on other hardware"


def keep(hparams):
    """Writes the precisions of a run down, for its next start.

    Arguments
    ---------
    hparams : dict
        The hyper-parameters after ``settle``.
    """
    path = pathlib.Path(hparams["output_folder"]) / FILE_NAME
    with atomic_write(path) as stream:
        json.dump({key: hparams[key] for key in KEYS}, stream)


def describe(hparams, keys=KEYS):
    """Names the precisions of a run with their reasons, for its results.

    Arguments
    ---------
    hparams : dict
        The hyper-parameters after ``settle``.
    keys : tuple of str
        Which ones.

    Returns
    -------
    dict
        ``precision``: ``bf16 (auto: this CPU multiplies bf16 in hardware)`` and
        so on.
    """
    reasons = hparams["precision_reasons"]
    return {key: f"{hparams[key]} ({reasons[key]})" for key in keys}


def announce(hparams, run_opts, keys=KEYS):
    """Logs the precisions of a run, and warns where one is emulated.

    Arguments
    ---------
    hparams : dict
        The hyper-parameters after ``settle``.
    run_opts : speechbrain.utils.run_opts.RunOptions
        The run options.
    keys : tuple of str
        Which ones.
    """
    for key, choice in describe(hparams, keys).items():
        logger.info("%s: %s", key, choice)
    device = run_opts["device"] or infer_device()
    emulated = device == "cpu" and not cpu_has_bf16()
    if emulated and "bf16" in [hparams[key] for key in keys]:
        logger.warning(
            "this CPU emulates bf16: a step of ECAPA-TDNN took 4 times (64 "
            "channels) to 11 times (512) as long as in fp32 where it was "
            "measured"
        )
