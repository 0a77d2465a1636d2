"""Write checkpoints atomically, and define the small objects saved in them.

Stock SpeechBrain writes the meta file of a checkpoint first and everything else
after it. A run that is killed in between leaves a folder that passes for the
newest checkpoint but cannot be loaded. ``AtomicCheckpointer`` writes a
checkpoint under a temporary name and renames it once it is complete. A digest
of each file is saved with it, because a disk may return other bytes than were
written, and weights with one wrong bit load like any others.

``Generators`` and ``RunState`` are recoverables that every run saves;
``run_checkpoints`` decides when to load and save.
"""

import hashlib
import json
import logging
import os
import random
import shutil
import socket
import tempfile
import time
import zipfile

import numpy as np
import torch
from speechbrain.utils.checkpoints import (
    CKPT_PREFIX,
    Checkpoint,
    Checkpointer,
    mark_as_loader,
    mark_as_saver,
    register_checkpoint_hooks,
)
from speechbrain.utils.distributed import (
    ddp_barrier,
    if_main_process,
    main_process_only,
)

from speechbrain_ssl import distributed
from speechbrain_ssl.errors import CheckpointError, full_disk
from speechbrain_ssl.files import file_digest

logger = logging.getLogger(__name__)

_PARTIAL = "partial-"
_DAMAGED = "damaged-"
_DIGESTS = "digests.json"

# Seconds that another host may need to see the files that rank 0 has seen.
_SHARED_FOLDER_LAG = 60


class AtomicCheckpointer(Checkpointer):
    """SpeechBrain's ``Checkpointer``, safe against kills and full disks.

    Arguments
    ---------
    *args, **kwargs
        Passed to ``speechbrain.utils.checkpoints.Checkpointer``.
    """

    def _new_checkpoint_dirpath(self):
        # SpeechBrain looks for folders called "CKPT...": with this prefix it
        # does not find a checkpoint that is still being written.
        final = super()._new_checkpoint_dirpath()
        return final.with_name(_PARTIAL + final.name)

    def _custom_checkpoint_dirpath(self, name):
        final = super()._custom_checkpoint_dirpath(name)
        return final.with_name(_PARTIAL + final.name)

    def save_checkpoint(
        self, meta=None, end_of_epoch=True, name=None, verbosity=logging.INFO
    ):
        """Save a checkpoint; see ``Checkpointer.save_checkpoint``.

        Raises
        ------
        CheckpointError
            If the disk is full or a quota is used up. Earlier checkpoints are
            untouched.
        """
        if if_main_process():
            self._clear_partial()
        ddp_barrier()
        try:
            saved = super().save_checkpoint(
                meta=meta or {},
                end_of_epoch=end_of_epoch,
                name=name,
                verbosity=logging.DEBUG,
            )
        except (OSError, RuntimeError) as error:
            if not _no_space(error, self.checkpoints_dir):
                raise
            self._clear_partial()
            raise CheckpointError(
                f"no space is left for a checkpoint in {self.checkpoints_dir} "
                f"({error}). Earlier checkpoints are intact: make room "
                "and start the same command again"
            ) from error
        # No process may still be writing when the folder is renamed.
        ddp_barrier()
        if saved is not None:
            saved = self._publish(saved)
            logger.log(verbosity, "Saved a checkpoint in %s", saved.path)
        ddp_barrier()
        return saved

    def newest_whole(self):
        """Find the newest checkpoint whose files are as they were written.

        A newer checkpoint with a damaged file is reported and renamed, so that
        it is not considered again; an older one is cleared away. Rank 0 decides
        for all processes.

        Returns
        -------
        speechbrain.utils.checkpoints.Checkpoint or None
            None if there is no checkpoint.

        Raises
        ------
        CheckpointError
            If there are checkpoints and all are damaged, or if this process
            does not see the one that rank 0 has found.
        """
        name = None
        if distributed.rank() == 0:
            name = self._set_damaged_aside()
        name = distributed.object_from_rank_0(name)
        if isinstance(name, CheckpointError):
            raise name
        if name is None:
            return None
        folder = self.checkpoints_dir / name
        end = time.monotonic() + _SHARED_FOLDER_LAG
        while not (folder / _DIGESTS).is_file():
            if time.monotonic() > end:
                raise CheckpointError(
                    f"process {distributed.rank()} on {socket.gethostname()} "
                    f"does not see {folder}, from which the run continues: the "
                    "output folder must be shared by all hosts"
                )
            time.sleep(0.5)
        (found,) = self._construct_checkpoint_objects([folder])
        return found

    def _set_damaged_aside(self):
        """Return the name of the newest whole checkpoint, None, or an error."""
        whole, reports = [], []
        for folder in self.checkpoints_dir.glob(f"{CKPT_PREFIX}*"):
            damage = damaged_files(folder)
            if damage:
                reports.append((folder, ", ".join(damage)))
            else:
                whole.append(folder)
        if reports and not whole:
            return CheckpointError(
                f"no checkpoint in {self.checkpoints_dir} is whole: "
                + "; ".join(f"{f.name}: {why}" for f, why in reports)
                + ". Restore the files from a backup, or delete the output "
                "folder to train from the beginning"
            )
        if not whole:
            return None
        newest = max(
            self._construct_checkpoint_objects(whole),
            key=lambda found: found.meta["unixtime"],
        )
        for folder, why in reports:
            if folder.name < newest.path.name:
                # Such as one whose deletion was interrupted: nothing is lost.
                # The next checkpoint clears it away.
                folder.rename(folder.with_name(_PARTIAL + folder.name))
                continue
            logger.warning(
                "%s is damaged (%s): it is kept as %s, and the run continues "
                "from %s, saved in epoch %s; what came after it is trained "
                "again",
                folder,
                why,
                _DAMAGED + folder.name,
                newest.path.name,
                newest.meta.get("epoch", "?"),
            )
            folder.rename(folder.with_name(_DAMAGED + folder.name))
        return newest.path.name

    def _publish(self, saved):
        digests = {p.name: file_digest(p) for p in saved.path.iterdir()}
        with open(saved.path / _DIGESTS, "w", encoding="utf-8") as stream:
            json.dump(digests, stream, indent=1, sort_keys=True)
        for path in saved.path.iterdir():
            with open(path, "rb") as stream:
                os.fsync(stream.fileno())
        final = saved.path.with_name(saved.path.name[len(_PARTIAL) :])
        suffix = 0
        while final.exists():
            # The name has a resolution of one second; two checkpoints may share
            # it.
            suffix += 1
            final = final.with_name(f"{final.name[:-2]}{suffix:02d}")
        os.rename(saved.path, final)
        files = {k: final / v.name for k, v in saved.paramfiles.items()}
        return Checkpoint(final, saved.meta, files)

    def save_and_keep_only(self, *args, importance_keys=None, **kwargs):
        """Save a checkpoint and delete old ones, as the base class does.

        The base class appends to its mutable default ``importance_keys``, so
        that the list grows at every call; here each call gets a new list.
        """
        super().save_and_keep_only(
            *args, importance_keys=list(importance_keys or []), **kwargs
        )

    def _clear_partial(self):
        if if_main_process():
            for path in self.checkpoints_dir.glob(_PARTIAL + "*"):
                shutil.rmtree(path, ignore_errors=True)


def damaged_files(folder):
    """Compare the files of a checkpoint with their digests.

    Arguments
    ---------
    folder : pathlib.Path
        The checkpoint.

    Returns
    -------
    list of str
        One text for each file that is missing or has changed; empty if the
        checkpoint is whole.
    """
    try:
        with open(folder / _DIGESTS, encoding="utf-8") as stream:
            digests = json.load(stream).items()
    except (OSError, ValueError, AttributeError):
        return [f"{_DIGESTS} is missing or damaged"]
    damage = []
    for name, digest in digests:
        path = folder / name
        try:
            if not path.is_file():
                damage.append(f"{name} is missing")
            elif file_digest(path) != digest:
                damage.append(f"{name} is not what was written")
        except OSError as error:
            damage.append(f"{name} cannot be read ({error.strerror})")
    return damage


def load_tensors(path, device="cpu"):
    """Load tensors that ``torch.save`` has written, if none of them has changed.

    ``torch.load`` does not compare them with the checksums in the file.

    Arguments
    ---------
    path : str or pathlib.Path
        The file.
    device : str
        The device of the tensors.

    Returns
    -------
    dict
        What was saved.

    Raises
    ------
    CheckpointError
        If the file is missing or damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is None:
            return torch.load(path, map_location=device, weights_only=True)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        # Where the directory of the zip is damaged, it may be any.
        damaged = error
    raise CheckpointError(f"{path} is damaged ({damaged})")


def _no_space(error, folder):
    """Return whether an error means that no more can be written.

    ``torch.save`` reports a full disk as a ``RuntimeError`` without an
    ``errno``; whether it is one is found out by writing.
    """
    if isinstance(error, OSError):
        return full_disk(error) is not None
    try:
        with tempfile.TemporaryFile(dir=folder) as stream:
            stream.write(bytes(2**20))
    except OSError as probe:
        return full_disk(probe) is not None
    return False


@register_checkpoint_hooks
class Generators:
    """Saves the states of the random generators of torch, numpy and Python.

    Crops, augmentation and sampling do not use these generators (see
    ``speechbrain_ssl.data.draws``), but an encoder or objective may, for
    dropout. With their states in the checkpoint such a run resumes exactly.
    Only rank 0 is restored; on the other ranks torch's generator is seeded
    again, with ``seed + rank``.
    """

    def __init__(self, seed, rank):
        self.seed = seed
        self.rank = rank

    @mark_as_saver
    @main_process_only
    def save(self, path):
        """Write the states of the main process."""
        name, keys, *rest = np.random.get_state()
        version, words, gauss = random.getstate()
        torch.save(
            {
                "torch": torch.get_rng_state(),
                "cuda": torch.cuda.get_rng_state_all(),
                # weights_only loading accepts only tensors and plain Python.
                "numpy": [name, torch.from_numpy(keys.astype(np.int64)), *rest],
                "python": [version, list(words), gauss],
            },
            path,
        )

    @mark_as_loader
    def load(self, path, end_of_epoch):
        """Restore the states on rank 0; seed torch again on the others."""
        del end_of_epoch
        if self.rank > 0:
            torch.manual_seed(self.seed + self.rank)
            return
        states = torch.load(path, weights_only=True)
        torch.set_rng_state(states["torch"])
        if len(states["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(states["cuda"])
        name, keys, *rest = states["numpy"]
        np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
        version, words, gauss = states["python"]
        random.setstate((version, tuple(words), gauss))


@register_checkpoint_hooks
class RunState:
    """Keeps small values that must survive a restart, saved as JSON.

    Attributes
    ----------
    values : dict
        Name -> value that JSON can represent.
    """

    def __init__(self, **values):
        self.values = values

    @mark_as_saver
    @main_process_only
    def save(self, path):
        """Write the values."""
        with open(path, "w", encoding="utf-8") as stream:
            json.dump(self.values, stream)

    @mark_as_loader
    def load(self, path, end_of_epoch):
        """Update ``values`` with those of the checkpoint."""
        del end_of_epoch
        with open(path, encoding="utf-8") as stream:
            self.values.update(json.load(stream))


def shapes_digest(module):
    """Return a digest of the names and shapes of a module's tensors."""
    shapes = [
        (name, tuple(tensor.shape))
        for name, tensor in module.state_dict().items()
    ]
    return hashlib.sha256(repr(shapes).encode()).hexdigest()[:16]


def schedules_digest(schedules):
    """Return a digest of scheduled values (name -> array)."""
    digest = hashlib.sha256()
    for name in sorted(schedules):
        digest.update(name.encode() + schedules[name].tobytes())
    return digest.hexdigest()[:16]
