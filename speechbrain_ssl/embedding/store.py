"""Store the embeddings of a training set in shards on disk.

A folder holds shards of several thousand utterances each, in the order of the
manifest. Each shard is written atomically, so a run that was killed resumes
with the shard it was computing. Several processes compute different shards.
``index.json`` records the model and the manifest; embeddings of another model
or manifest are rejected and never mixed.
"""

import dataclasses
import hashlib
import json
import logging
import pathlib
import zipfile

import numpy as np
import pandas as pd
from speechbrain.utils.distributed import ddp_barrier, if_main_process

from speechbrain_ssl import distributed
from speechbrain_ssl.embedding.cache import fingerprint
from speechbrain_ssl.embedding.extract import MOST_SECONDS, embed_files
from speechbrain_ssl.errors import AudioError, CheckpointError
from speechbrain_ssl.files import atomic_write, write_csv
from speechbrain_ssl.progress import open_bar

logger = logging.getLogger(__name__)

INDEX = "index.json"

# Largest share of unreadable utterances that is tolerated.
_MOST_BAD = 0.02


@dataclasses.dataclass(frozen=True)
class EmbeddingStore:
    """Keep the embeddings of a manifest's utterances in a folder.

    Arguments
    ---------
    folder : str or pathlib.Path
        Folder of the shards.
    manifest : speechbrain_ssl.data.manifest.Manifest
        The utterances.
    shard_utterances : int
        Number of utterances per shard.
    """

    folder: pathlib.Path
    manifest: object
    shard_utterances: int = 16384

    @property
    def shards(self):
        """Return (first utterance, last utterance + 1) of each shard."""
        total, size = len(self.manifest), self.shard_utterances
        return [(b, min(b + size, total)) for b in range(0, total, size)]

    def _path(self, number):
        return pathlib.Path(self.folder) / f"shard_{number:05d}.npz"

    def check(
        self, encoder, features, precision=None, most_seconds=MOST_SECONDS
    ):
        """Reject a model or manifest that the folder's embeddings do not match.

        Arguments
        ---------
        encoder, features, precision, most_seconds
            As in ``make``.

        Returns
        -------
        dict
            The content that ``index.json`` has, or must be given.

        Raises
        ------
        CheckpointError
            If the folder holds embeddings of another model or manifest.
        """
        wanted = {
            "model": fingerprint(encoder, features, precision),
            "most_seconds": most_seconds,
            **self._identity(),
        }
        index = pathlib.Path(self.folder) / INDEX
        if index.is_file():
            self._refuse_other(self._read_index(), wanted)
        return wanted

    def make(
        self,
        encoder,
        features,
        precision=None,
        most_seconds=MOST_SECONDS,
        progress=True,
        **options,
    ):
        """Embed the utterances that are missing; call it in all processes.

        Arguments
        ---------
        encoder, features, precision, most_seconds, **options
            As in ``speechbrain_ssl.embedding.extract.embed_files``.
        progress : bool
            Whether rank 0 shows a progress bar over its own shards.

        Raises
        ------
        CheckpointError
            If the folder holds embeddings of another model or manifest.
        AudioError
            If more than 2 % of the files (and more than 10) cannot be read, or
            none can. Fewer unreadable files are logged, and ``read`` leaves
            their rows out.
        """
        wanted = self.check(encoder, features, precision, most_seconds)
        index = pathlib.Path(self.folder) / INDEX
        if if_main_process() and not index.is_file():
            with atomic_write(index) as stream:
                json.dump(wanted, stream, indent=1)
        ddp_barrier()
        mine = list(enumerate(self.shards))
        mine = mine[distributed.rank() :: distributed.world_size()]
        bar = open_bar(
            total=sum(end - begin for _, (begin, end) in mine),
            unit="utt",
            disable=not (progress and if_main_process()),
        )
        with bar:
            for number, (begin, end) in mine:
                if self._load(number) is None:
                    self._make_shard(
                        number,
                        (begin, end),
                        (encoder, features),
                        precision=precision,
                        most_seconds=most_seconds,
                        progress=bar,
                        **options,
                    )
                else:
                    bar.update(end - begin)
        ddp_barrier()
        self._check_bad()

    def _make_shard(self, number, span, model, **options):
        bad = []
        try:
            made = embed_files(
                *model,
                [self.manifest.path(i) for i in range(*span)],
                self.manifest.durations[span[0] : span[1]],
                bad=bad,
                **options,
            )
        except AudioError:
            # No file of the shard can be read, which is tolerable if the shard
            # is small.
            made = np.zeros((span[1] - span[0], 0), np.float32)
        # Store positions and not paths, since the audio may have moved by the
        # time the shard is read.
        bad = [(span[0] + i, why) for i, why in bad]
        # Stop after the first shard if the whole corpus is elsewhere.
        self._refuse_many(bad)
        self._write(number, made, bad)

    def _write(self, number, made, bad):
        """Write a shard's embeddings, and the positions without one."""
        with atomic_write(self._path(number), "wb") as stream:
            np.savez(
                stream,
                embeddings=made,
                bad=np.frombuffer(json.dumps(bad).encode(), dtype=np.uint8),
            )

    def _identity(self):
        """Return the entries of ``index.json`` that identify the manifest."""
        digest = hashlib.sha256(self.manifest.keys.tobytes())
        return {
            "manifest": digest.hexdigest(),
            "utterances": len(self.manifest),
            "shard_utterances": self.shard_utterances,
        }

    def _read_index(self):
        """Read ``index.json``, which a disk may have damaged."""
        try:
            found = json.loads((pathlib.Path(self.folder) / INDEX).read_text())
        except ValueError:
            found = None
        if isinstance(found, dict):
            return found
        raise CheckpointError(
            f"{INDEX} in {self.folder} is damaged; delete that folder to embed "
            "again"
        )

    def _refuse_other(self, found, wanted):
        for key, what in (
            ("model", "another model, or in another precision"),
            ("most_seconds", "another `most_seconds`"),
            ("manifest", "another manifest"),
            ("utterances", "another manifest"),
            ("shard_utterances", "another `shard_utterances`"),
        ):
            if key in wanted and found.get(key) != wanted[key]:
                raise CheckpointError(
                    f"{self.folder} holds embeddings of {what} "
                    f"({found.get(key)} there, {wanted[key]} here); delete "
                    "that folder to embed again, or give another folder"
                )

    def _load(self, number):
        """Load a shard's embeddings and bad files; None if there are none."""
        path, (begin, end) = self._path(number), self.shards[number]
        if not path.is_file():
            return None
        try:
            with np.load(path, allow_pickle=False) as kept:
                rows = kept["embeddings"]
                bad = json.loads(kept["bad"].tobytes().decode())
        except (
            EOFError,
            KeyError,
            OSError,
            ValueError,
            zipfile.BadZipFile,
        ) as error:
            logger.warning(
                "%s cannot be read and is recreated: %s", path, error
            )
            return None
        return (rows, bad) if len(rows) == end - begin else None

    def _refuse_many(self, bad):
        """Raise if too many files are unreadable to continue without them."""
        total = len(self.manifest)
        if len(bad) > max(10, _MOST_BAD * total) or len(bad) == total:
            table = pathlib.Path(self.folder) / "bad_audio.csv"
            rows = [(self.manifest.path(i), why) for i, why in bad]
            write_csv(table, pd.DataFrame(rows, columns=["wav", "reason"]))
            raise AudioError(
                f"{len(bad)} of {total} files cannot be read "
                f"({self._table(bad)}; {table} lists them). Check that the corpus is where the "
                "manifest says, or delete prepare.json in its folder and "
                "prepare again with `--check=decode`"
            )

    def _table(self, bad):
        """List the first bad files and the reasons, for a message."""
        return "; ".join(
            f"{self.manifest.path(i)}: {why}" for i, why in bad[:5]
        )

    def _check_bad(self):
        bad = self.bad()
        self._refuse_many(bad)
        if bad and if_main_process():
            logger.warning(
                "%d of %d files cannot be read and are left out: %s",
                len(bad),
                len(self.manifest),
                self._table(bad),
            )

    def bad(self):
        """Return the files that could not be read.

        Returns
        -------
        list of tuple
            Position in the manifest and reason of each file.
        """
        return [
            tuple(entry)
            for number in range(len(self.shards))
            for entry in self._shard(number)[1]
        ]

    def _shard(self, number):
        found = self._load(number)
        if found is None:
            raise CheckpointError(
                f"{self._path(number)} is missing or damaged; to make it "
                "again, remove the record of this round's stage `embed` from "
                "rounds.json and start the same command"
            )
        return found

    def read(self, first=0, last=None):
        """Read a range of the embeddings.

        Arguments
        ---------
        first, last : int, optional
            The range, from the first utterance to the one after the last; all
            utterances if not given.

        Returns
        -------
        tuple
            The embeddings of the files that could be read, float32 ``[n,
            size]``, and their positions in the manifest, int64 ``[n]``.

        Raises
        ------
        CheckpointError
            If embeddings are missing or of another manifest.
        """
        index = pathlib.Path(self.folder) / INDEX
        if not index.is_file():
            raise CheckpointError(
                f"there are no embeddings in {self.folder}; run the stage "
                "`embed` first"
            )
        self._refuse_other(self._read_index(), self._identity())
        last = len(self.manifest) if last is None else last
        parts, places = [], []
        for number, (begin, end) in enumerate(self.shards):
            low, high = max(first, begin), min(last, end)
            if low >= high:
                continue
            rows, bad = self._shard(number)
            # Leave out the files listed as unreadable, whose rows are NaN. NaN
            # rows of a diverged network stay; clustering rejects them by name.
            chosen = np.zeros(end - begin, dtype=bool)
            chosen[low - begin : high - begin] = True
            chosen[[i - begin for i, _ in bad]] = False
            # A shard without any readable file does not know the row size.
            if chosen.any():
                parts.append(rows[chosen])
                places.append(begin + np.flatnonzero(chosen))
        if not parts:
            raise CheckpointError(
                f"{self.folder}: none of the utterances {first} to {last} has "
                "an embedding; use fewer processes"
            )
        return np.concatenate(parts), np.concatenate(places)
