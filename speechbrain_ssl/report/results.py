"""Write the results of a run, with all that is needed to reproduce them."""

import importlib.metadata
import json
import pathlib
import platform
import shlex
import subprocess
import sys

import torch

import speechbrain_ssl
from speechbrain_ssl.files import atomic_write
from speechbrain_ssl.prepare.workers import default_workers
from speechbrain_ssl.report.logbook import plain

FILE_NAME = "results.json"


def write_results(
    output_folder,
    figures,
    seed,
    seconds,
    command=None,
    extra=None,
    labels_seen="none",
    gpu=None,
):
    """Write ``results.json``.

    Arguments
    ---------
    output_folder : str or pathlib.Path
        The folder of the run.
    figures : dict
        Scalars, written at the top level: ``eer`` (percent), ``eer_ci_low``,
        ``eer_ci_high``, ``min_dcf_0.01``, ... A value that is not finite is
        written as ``null``.
    seed : int
        The seed of the run.
    seconds : float
        Wall time of the run.
    command : str, optional
        The command line; that of this process if it is not given.
    extra : dict, optional
        Further entries for the top level, of any type that JSON can hold.
    labels_seen : bool or str
        Whether speaker labels were seen, or which ones.
    gpu : str, optional
        Name of the GPU, if one was used.

    Returns
    -------
    pathlib.Path
        The file written.

    Raises
    ------
    ValueError
        If ``figures`` or ``extra`` use a name that is taken.

    Example
    -------
    >>> import tempfile
    >>> path = write_results(tempfile.mkdtemp(), {"eer": 7.25}, 1, 90.0)
    >>> results = json.loads(path.read_text())
    >>> results["eer"], results["minutes"], results["labels_seen"]
    (7.25, 1.5, 'none')
    """
    record = {
        "seed": plain(seed),
        "minutes": round(float(seconds) / 60, 2),
        "labels_seen": labels_seen,
        "command": shlex.join(sys.argv) if command is None else command,
        "git_revision": git_revision(),
        "machine": describe_machine(gpu),
    }
    extra = extra or {}
    taken = set(figures) & set(extra) | (set(figures) | set(extra)) & set(
        record
    )
    if taken:
        raise ValueError(f"given twice: {', '.join(sorted(taken))}")
    results = {key: plain(value) for key, value in figures.items()}
    results.update(extra)
    results.update(record)
    path = pathlib.Path(output_folder) / FILE_NAME
    with atomic_write(path) as stream:
        json.dump(results, stream, indent=2, ensure_ascii=False)
        stream.write("\n")
    return path


def git_revision(folder=None):
    """Find the revision of the running code.

    Arguments
    ---------
    folder : str or pathlib.Path, optional
        A folder with an ``__init__.py``; that of this package if not given.

    Returns
    -------
    str or None
        The commit, with ``+changes`` where the checkout differs from it;
        ``None`` if the folder does not belong to a checkout.
    """
    if folder is None:
        folder = pathlib.Path(speechbrain_ssl.__file__).parent

    def git(*arguments):
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        return done.stdout.strip()

    try:
        # An installed copy may lie inside the checkout of another project.
        git("ls-files", "--error-unmatch", "__init__.py")
        revision = git("rev-parse", "HEAD")
        changes = git("status", "--porcelain")
    except (OSError, subprocess.SubprocessError):
        return None
    return revision + ("+changes" if changes else "")


def gpu_name(device):
    """Return the name of a GPU, for ``write_results``.

    Arguments
    ---------
    device : str or torch.device
        Device that the run used.

    Returns
    -------
    str or None
        None for a device that is not a CUDA GPU.

    Example
    -------
    >>> gpu_name("cpu")
    """
    if torch.device(device).type != "cuda":
        return None
    return torch.cuda.get_device_name(device)


def describe_machine(gpu=None):
    """Describe the machine and the software of the run.

    Arguments
    ---------
    gpu : str, optional
        Name of the GPU, if one was used.

    Returns
    -------
    dict
        ``cpu``, ``cores`` (those this process may use), ``gpu``, ``system``,
        and the versions of ``python``, ``torch``, ``speechbrain`` and
        ``speechbrain_ssl``.
    """
    return {
        "cpu": _cpu_model(),
        "cores": default_workers(),
        "gpu": gpu,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": _version("torch"),
        "speechbrain": _version("speechbrain"),
        "speechbrain_ssl": speechbrain_ssl.__version__,
    }


def _cpu_model():
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as stream:
            for line in stream:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
