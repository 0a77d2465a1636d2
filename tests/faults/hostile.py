"""Model folders that a stranger could send, and what loading them costs."""

import json
import os
import pathlib
import pickle
import time

from speechbrain_ssl.errors import UserError
from speechbrain_ssl.publishing.calibration_file import read_calibration
from speechbrain_ssl.publishing.export import load_encoder
from speechbrain_ssl.publishing.record import read_record


def edited(section, key, value):
    """Return an attack that changes a setting of ``config.json``."""

    def attack(folder):
        path = folder / "config.json"
        about = json.loads(path.read_text())
        settings = about[section]
        settings.get("arguments", settings)[key] = value
        if key == "n_mels":
            about["encoder"]["arguments"]["input_size"] = value
        path.write_text(json.dumps(about))

    return attack


def written(name, text):
    """Return an attack that writes a file."""
    return lambda folder: (folder / name).write_text(text)


def by_yaml(text):
    """Return an attack in a folder that is described by YAML alone."""

    def attack(folder):
        (folder / "config.json").unlink()
        (folder / "hyperparams.yaml").write_text(text)

    return attack


def huge(name):
    """Return an attack by a file of 8 GB, all of it a hole."""

    def attack(folder):
        with open(folder / name, "wb") as stream:
            stream.truncate(2**33)

    return attack


class _Runs:
    def __reduce__(self):
        return os.mkdir, ("ran",)


def _pickled(folder):
    (folder / "model.safetensors").unlink(missing_ok=True)
    (folder / "embedding_model.ckpt").write_bytes(pickle.dumps(_Runs()))


_BOMB = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"] + [
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)
]
_MANY = 10**6

#: Name -> function that turns a copy of a model folder into the attack.
ATTACKS = {
    "alias bomb": by_yaml("\n".join(_BOMB)),
    "YAML of a megabyte": by_yaml("a:\n" + "- 1\n" * 250000),
    "YAML nested 10 000 deep": by_yaml("[" * 10000 + "]" * 10000),
    "YAML that is not UTF-8": lambda f: (
        (f / "config.json").unlink(),
        (f / "hyperparams.yaml").write_bytes(b"a: \xff\xfe"),
    ),
    "YAML that calls a function": by_yaml("x: !apply:os.mkdir [ran]\n"),
    "JSON nested 100 000 deep": written("config.json", "[" * 10**5),
    "config.json of 8 GB": huge("config.json"),
    "results.json of 8 GB": huge("results.json"),
    "weights of 8 GB": huge("model.safetensors"),
    "pickle that calls a function": _pickled,
    "channels of a million": edited("encoder", "channels", [_MANY] * 5),
    "a million channels": edited("encoder", "channels", [8] * _MANY),
    "res2net_scale of a million": edited("encoder", "res2net_scale", _MANY),
    "lin_neurons of 10^30": edited("encoder", "lin_neurons", 10**30),
    "lin_neurons that are NaN": edited("encoder", "lin_neurons", float("nan")),
    "n_mels of a million": edited("features", "n_mels", _MANY),
    "n_fft of 2^20": edited("features", "n_fft", 2**20),
    "sample_rate that is a text": edited("features", "sample_rate", "16000"),
    "sample_rate of -1": edited("features", "sample_rate", -1),
    "calibration with NaN": written(
        "calibration.json", '{"scale": NaN, "offset": 0}'
    ),
    "calibration of 400 digits": written(
        "calibration.json", '{"scale": 1' + "0" * 400 + ', "offset": 0}'
    ),
    "evaluations that are a text": written(
        "results.json", '{"evaluations": "all"}'
    ),
    "EER that is a list": written(
        "results.json",
        '{"evaluations": [{"list": "x", "scoring": "y", "eer_percent": [1]}]}',
    ),
}


def load(folder):
    """Read all of a model folder, as the command line and publishing do."""
    load_encoder(folder)
    read_calibration(folder)
    if (folder / "results.json").is_file():
        read_record(folder / "results.json")


def memory(key):
    """Return an entry of this process's memory (MB)."""
    text = pathlib.Path("/proc/self/status").read_text()
    return int(text.split(f"{key}:")[1].split()[0]) / 1024


def attempt(folder):
    """Load a folder in a fork.

    Returns
    -------
    list
        What became of it, seconds of wall time, seconds of CPU, and megabytes
        beyond those at the start.
    """
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.chdir(folder)
        # Lets the peak begin at the present size.
        pathlib.Path("/proc/self/clear_refs").write_text("5")
        before = memory("VmRSS")
        start, begin = time.process_time(), time.monotonic()
        try:
            load(folder)
            outcome = "loaded"
        except UserError as error:
            outcome = f"refused: {error}"
        except BaseException as error:
            outcome = f"{type(error).__name__}: {error}"
        took = [time.monotonic() - begin, time.process_time() - start]
        found = [outcome[:300], *took, memory("VmHWM") - before]
        os.write(write, json.dumps(found).encode())
        os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    text = os.read(read, 2**16)
    os.close(read)
    return json.loads(text) if text else ["the process has died", 0.0, 0.0, 0.0]
