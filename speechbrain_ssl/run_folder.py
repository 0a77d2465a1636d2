"""Start a run, and make sure that its output folder belongs to it.

A checkpoint of another configuration may load without an error and still make
no sense, if crops, noise or optimiser differ. The settings of a run are
therefore saved beside its checkpoints. A later start with other settings raises
an error before any file of the folder is touched. Training scripts call
``begin_run``.
"""

import atexit
import contextlib
import datetime
import errno
import json
import logging
import os
import pathlib
import socket

import speechbrain as sb
from hyperpyyaml import resolve_references
from speechbrain.utils.distributed import (
    ddp_init_group,
    if_main_process,
    run_on_main,
)

from speechbrain_ssl import heartbeat, precision
from speechbrain_ssl.config_base import merge, parse_plain
from speechbrain_ssl.distributed import renew_store, world_size
from speechbrain_ssl.errors import CheckpointError, differences
from speechbrain_ssl.files import atomic_write

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

logger = logging.getLogger(__name__)

FILE_NAME = "settings.json"
LOCK_NAME = "lock"
LOG_CONFIG = str(pathlib.Path(__file__).with_name("log_config.yaml"))
PROCESSES = "number of processes"

# The locks that this process holds: path -> open file.
_locks = {}

#: Keys that may change when a run is resumed: where files are, how often
#: something is logged or saved, and what is evaluated without affecting
#: training.
MAY_CHANGE = set(
    """
    output_folder manifest_folder data_folder vox1_folder vox2_folder
    musan_folder rirs_folder noise_folder train_manifest prepare skip_prep
    num_workers log_every train_logger average_last collapse_alarm checkpointer
    epoch_counter faces_folder trials trials_faces trials_folder trials_speaker_component trials_every
    expected_pseudo_eer on_divergence
    rounds stop_after stop_agreement stop_gain silhouette_sample
    embed_batch_seconds monitor_labels monitor_column
    ckpt_interval_minutes ckpt_interval_steps eval_precision __set_seed
    """.split()
)

#: What differs where somebody trains on, for more epochs or on more audio.
_LENGTH = ("number_of_epochs", "epochs", "utterances")
_GO_ON = (
    ". For more epochs or other audio, give the new run another "
    "`output_folder`, and the old one as `initial_model`"
)

#: Keys of building blocks that affect the log only, and may change, too.
WATCHING = {"monitor_labels"}


def begin_run(path, run_opts, overrides, hparams):
    """Do what every training script does first.

    Claim the output folder, join the processes, save the configuration, and
    prepare the data in one process.

    Arguments
    ---------
    path, run_opts, overrides, hparams
        What ``load_config`` returned. Of the hyper-parameters,
        ``output_folder``, ``prepare`` (a function, or None) and the precisions
        are used.

    Raises
    ------
    CheckpointError
        If the folder holds a run with other settings.
    """
    # First of all, since the folder may belong to another run.
    claim_folder(hparams["output_folder"], settings_of(path, overrides))
    if int(os.environ.get("RANK", 0)) == 0:
        precision.keep(hparams)
    renew_store()
    ddp_init_group(run_opts)
    heartbeat.start()
    make_run_folder(hparams["output_folder"])
    write_hyperparams(hparams["output_folder"], path, overrides)
    resume_batch(hparams)
    precision.resume(hparams, run_opts)
    precision.announce(hparams, run_opts)
    if hparams["prepare"] is not None:
        run_on_main(hparams["prepare"])


class Quiet:
    """Filters messages of SpeechBrain's own modules below a warning."""

    def filter(self, record):
        """Return whether a record is printed."""
        ours = record.name.split(".")[0] != "speechbrain"
        return ours or record.levelno >= logging.WARNING


def make_run_folder(folder):
    """Make an output folder and its ``log.txt``, with a quiet console.

    Arguments
    ---------
    folder : str or pathlib.Path
        The folder.
    """
    sb.create_experiment_directory(str(folder), log_config=LOG_CONFIG)


def write_hyperparams(folder, path, overrides):
    """Write ``hyperparams.yaml``, which stock HyperPyYAML reads anywhere.

    SpeechBrain's ``create_experiment_directory`` would copy the given file,
    which may hold only the differences from a base. This function writes what
    SpeechBrain would write for the merged configuration.

    Arguments
    ---------
    folder : str or pathlib.Path
        The output folder, which must exist.
    path : str
        The configuration file.
    overrides : str
        Overrides of the command line, as YAML.
    """
    if not if_main_process():
        return
    resolved = resolve_references(merge(path).open(), overrides)
    with atomic_write(pathlib.Path(folder) / "hyperparams.yaml") as stream:
        stream.write(
            f"# Generated {datetime.date.today()} from:\n"
            f"# {os.path.abspath(path)}\n# yamllint disable\n"
        )
        stream.write(resolved.getvalue())


def settings_of(path, overrides):
    """Return the settings that affect the course of a run.

    Arguments
    ---------
    path : str
        The configuration file.
    overrides : str
        Overrides of the command line, as YAML.

    Returns
    -------
    dict
        Key -> value in plain Python, with all references resolved, and the
        number of processes. Keys of ``MAY_CHANGE`` are left out. Every path is replaced by the same text,
        since data may be moved.
    """
    plain = parse_plain(resolve_references(merge(path).open(), overrides))
    settings = {
        key: _without_paths(value)
        for key, value in plain.items()
        if key not in MAY_CHANGE
    }
    return settings | {PROCESSES: int(os.environ.get("WORLD_SIZE", 1))}


def _without_paths(value):
    if isinstance(value, dict):
        return {
            str(k): _without_paths(v)
            for k, v in value.items()
            if k not in WATCHING
        }
    if isinstance(value, list):
        return [_without_paths(v) for v in value]
    if isinstance(value, str) and os.sep in value:
        return "a path"
    return value


def claim_folder(output_folder, settings):
    """Claim an output folder for a run, unless another run occupies it.

    Arguments
    ---------
    output_folder : str
        The output folder.
    settings : dict
        What ``settings_of`` returned.

    Raises
    ------
    CheckpointError
        If the folder holds a run with other settings, or if another process
        uses it.

    Example
    -------
    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> claim_folder(folder, {"lr": 0.1})
    >>> claim_folder(folder, {"lr": 0.1})
    """
    save = pathlib.Path(output_folder) / "save"
    if int(os.environ.get("RANK", 0)) == 0:
        lock_folder(save)
    path = save / FILE_NAME
    held = any((save / "checkpoints").glob("CKPT*"))
    # Rounds of pseudo-labels have their checkpoints in subfolders.
    held = held or (save.parent / "rounds.json").is_file()
    if path.is_file() and held:
        before = json.loads(path.read_text(encoding="utf-8"))
        same = {}
        if _global_batch(before, settings) is not None:
            same = {key: before[key] for key in ("batch_size", PROCESSES)}
        settings = settings | same
        refuse_other(f"{output_folder} holds a run", before, settings)
    if int(os.environ.get("RANK", 0)) == 0:
        with atomic_write(path) as stream:
            json.dump(settings, stream, indent=1, sort_keys=True)


def _global_batch(before, now):
    """Return the batch of all processes, if two settings mean the same one.

    They do if the same command is started with another number of processes, as
    by ``torchrun`` when it has lost a host, and if the product is the same.
    """
    batches = [found.get("batch_size") for found in (before, now)]
    if None in batches or PROCESSES not in before:
        return None
    total = batches[0] * before[PROCESSES]
    same = batches[0] == batches[1] or total == batches[1] * now[PROCESSES]
    return total if same else None


def resume_batch(hparams):
    """Share the batch that a run began with among the processes of today.

    Arguments
    ---------
    hparams : dict
        The hyper-parameters, whose ``batch_size`` is changed in place. The
        folder in ``output_folder`` was claimed before.

    Raises
    ------
    CheckpointError
        If the processes cannot have equal shares.
    """
    path = pathlib.Path(hparams["output_folder"]) / "save" / FILE_NAME
    began = json.loads(path.read_text(encoding="utf-8"))
    if "batch_size" not in began:
        return
    total, processes = began["batch_size"] * began[PROCESSES], world_size()
    if total % processes:
        raise CheckpointError(
            f"the run in {hparams['output_folder']} began with a batch of "
            f"{total} in {began[PROCESSES]} processes, which {processes} "
            "processes cannot share equally: start another number"
        )
    if hparams["batch_size"] != total // processes:
        hparams["batch_size"] = total // processes
        logger.info(
            "The run began with %d processes: batch_size is now %d, so that "
            "the batch of all is still %d",
            began[PROCESSES],
            hparams["batch_size"],
            total,
        )


def lock_folder(save):
    """Lock a folder that only one process may write.

    The system releases the lock when the process ends, however it ends. Where
    it offers no such locks (on Windows, or on some network file systems), the
    folder is not locked.

    Arguments
    ---------
    save : pathlib.Path
        The folder of a run's checkpoints, or of manifests; it is created if
        necessary.

    Returns
    -------
    bool
        Whether this call has locked it; False if this process had before.

    Raises
    ------
    CheckpointError
        If another process has locked it. The message names host, process and
        time.
    """
    if fcntl is None:
        return False
    save.mkdir(parents=True, exist_ok=True)
    path = save / LOCK_NAME
    # Opened once in a process: closing any file object of it releases the lock.
    if path.resolve() in _locks:
        return False
    stream = open(path, "a+", encoding="utf-8")
    try:
        fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            logger.warning("%s cannot be locked: %s", path, error)
            return False
        stream.seek(0)
        raise CheckpointError(
            f"{save} is in use by another run ({stream.read()}). Wait until it "
            "has ended, or choose another `output_folder` or `save_folder`"
        ) from error
    stream.seek(0)
    before = stream.read()
    if before:
        logger.info("Taking over %s, left by %s", save, before)
    stream.truncate(0)
    now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    stream.write(
        f"process {os.getpid()} on {socket.gethostname()}, started {now}"
    )
    stream.flush()
    # Only a process that was killed leaves its name behind.
    atexit.register(stream.truncate, 0)
    _locks[path.resolve()] = stream
    return True


@contextlib.contextmanager
def locked(save):
    """Lock a folder, as ``lock_folder`` does, for the length of a block."""
    ours = lock_folder(save)
    try:
        yield
    finally:
        if ours:
            unlock_folder(save)


def unlock_folder(save):
    """Release the lock of a folder before the process ends."""
    stream = _locks.pop((save / LOCK_NAME).resolve())
    atexit.unregister(stream.truncate)
    stream.truncate(0)
    stream.close()


def _was_deleted(stream):
    return os.fstat(stream.fileno()).st_nlink == 0


def forget_deleted():
    """Forget folders of earlier runs of this process that were deleted since."""
    for path in [p for p, stream in _locks.items() if _was_deleted(stream)]:
        del _locks[path]


def check_folder(folder="/"):
    """Raise if an output folder was deleted while this process used it.

    Arguments
    ---------
    folder : str or pathlib.Path
        The output folder, or one inside it; by default all that are locked.

    Raises
    ------
    CheckpointError
        If so: what is written from now on would be incomplete.
    """
    folder = pathlib.Path(folder).resolve()
    for path, stream in _locks.items():
        output = path.parent.parent
        related = (
            folder in (output, *output.parents) or output in folder.parents
        )
        if related and _was_deleted(stream):
            raise CheckpointError(
                f"{output} was deleted while the run was writing to it. "
                "Restore it from a backup and start the same command again, or "
                "train from the beginning"
            )


def refuse_other(subject, before, now):
    """Raise if something was left by another configuration.

    Arguments
    ---------
    subject : str
        What was found, and where; the message begins with it.
    before, now : dict
        Key -> value of what was found, and of this run.

    Raises
    ------
    CheckpointError
        If they differ. The message names each key, with both values.
    """
    differing = differences(before, now)
    if differing:
        longer = any(before.get(k) != now.get(k) for k in _LENGTH)
        raise CheckpointError(
            f"{subject} of another configuration: {', '.join(differing)}. "
            "Choose another `output_folder` for this run, or restore the "
            "configuration to resume that one" + (_GO_ON if longer else "")
        )
