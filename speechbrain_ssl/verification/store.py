"""Embeddings of a training set, in shards on disk.

A folder of shards of some thousand utterances each, in the order of the
manifest, written whole or not at all: what is killed goes on at the shard it
was in. Several processes make different shards. ``index.json`` says of which
model and which manifest they are; those of another are refused and never
mixed.
"""

import dataclasses
import hashlib
import json
import logging
import pathlib
import zipfile

import numpy as np
from speechbrain.utils.distributed import ddp_barrier, if_main_process
from tqdm import tqdm

from speechbrain_ssl import distributed
from speechbrain_ssl.errors import AudioError, CheckpointError
from speechbrain_ssl.files import atomic_write
from speechbrain_ssl.verification.cache import fingerprint
from speechbrain_ssl.verification.extract import embed_files

logger = logging.getLogger(__name__)

INDEX = "index.json"

# Of the utterances, as many may be unreadable before the corpus is at fault.
_MOST_BAD = 0.02


@dataclasses.dataclass(frozen=True)
class EmbeddingStore:
    """A folder of embeddings, and what they have to be of.

    Arguments
    ---------
    folder : str or pathlib.Path
        Where the shards lie.
    manifest : speechbrain_ssl.data.manifest.Manifest
        The utterances.
    shard_utterances : int
        Utterances in a shard.
    """

    folder: pathlib.Path
    manifest: object
    shard_utterances: int = 16384

    @property
    def shards(self):
        """First utterance and the one after the last, for each shard."""
        total, size = len(self.manifest), self.shard_utterances
        return [(b, min(b + size, total)) for b in range(0, total, size)]

    def _path(self, number):
        return pathlib.Path(self.folder) / f"shard_{number:05d}.npz"

    def make(self, encoder, features, precision=None, progress=True, **options):
        """Embeds what is not embedded yet; call it in all processes.

        Arguments
        ---------
        encoder, features, precision, **options
            Those of ``speechbrain_ssl.verification.extract.embed_files``.
        progress : bool
            Whether the first process shows a bar, over its own shards.

        Raises
        ------
        CheckpointError
            If the folder holds embeddings of another model or manifest.
        AudioError
            If more than 2 % of the files cannot be read. Fewer are logged, and
            their rows left out by ``read``.
        """
        wanted = {
            "model": fingerprint(encoder, features, precision),
            **self._identity(),
        }
        index = pathlib.Path(self.folder) / INDEX
        if index.is_file():
            self._refuse_other(json.loads(index.read_text()), wanted)
        elif if_main_process():
            with atomic_write(index) as stream:
                json.dump(wanted, stream, indent=1)
        ddp_barrier()
        mine = list(enumerate(self.shards))
        mine = mine[distributed.rank() :: distributed.world_size()]
        bar = tqdm(
            total=sum(end - begin for _, (begin, end) in mine),
            unit="utt",
            disable=None if progress and if_main_process() else True,
        )
        with bar:
            for number, (begin, end) in mine:
                if self._load(number) is None:
                    self._make_shard(
                        number,
                        (begin, end),
                        (encoder, features),
                        precision=precision,
                        progress=bar,
                        **options,
                    )
                else:
                    bar.update(end - begin)
        ddp_barrier()
        self._check_bad()

    def _make_shard(self, number, span, model, **options):
        bad, rows = [], range(*span)
        try:
            made = embed_files(
                *model,
                [self.manifest.path(i) for i in rows],
                self.manifest.durations[span[0] : span[1]],
                bad=bad,
                **options,
            )
        except AudioError as error:
            raise AudioError(
                f"{error}. Check that the corpus is where the manifest says"
            ) from error
        bad = [(self.manifest.path(span[0] + i), why) for i, why in bad]
        with atomic_write(self._path(number), "wb") as stream:
            np.savez(
                stream,
                embeddings=made,
                bad=np.frombuffer(json.dumps(bad).encode(), dtype=np.uint8),
            )

    def _identity(self):
        """Names the manifest: its utterances, in their order."""
        digest = hashlib.sha256(self.manifest.keys.tobytes())
        return {
            "manifest": digest.hexdigest(),
            "utterances": len(self.manifest),
            "shard_utterances": self.shard_utterances,
        }

    def _refuse_other(self, found, wanted):
        for key, what in (
            ("model", "another model"),
            ("manifest", "another manifest"),
            ("utterances", "another manifest"),
            ("shard_utterances", "another `shard_utterances`"),
        ):
            if key in wanted and found.get(key) != wanted[key]:
                raise CheckpointError(
                    f"{self.folder} holds embeddings of {what} "
                    f"({found.get(key)} there, {wanted[key]} here); delete "
                    "that folder to embed anew, or name another one"
                )

    def _load(self, number):
        """Embeddings and bad files of a shard, or None."""
        path, (begin, end) = self._path(number), self.shards[number]
        if not path.is_file():
            return None
        try:
            with np.load(path, allow_pickle=False) as kept:
                rows = kept["embeddings"]
                bad = json.loads(kept["bad"].tobytes().decode())
        except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
            logger.warning("%s is made anew: %s", path, error)
            return None
        return (rows, bad) if len(rows) == end - begin else None

    def _check_bad(self):
        bad = self.bad()
        if not bad:
            return
        table = "; ".join(f"{path}: {why}" for path, why in bad[:5])
        if len(bad) > max(10, _MOST_BAD * len(self.manifest)):
            raise AudioError(
                f"{len(bad)} of {len(self.manifest)} files cannot be read "
                f"({table}). Prepare the corpus again with `--check=decode`"
            )
        if if_main_process():
            logger.warning(
                "%d of %d files cannot be read and take no part: %s",
                len(bad),
                len(self.manifest),
                table,
            )

    def bad(self):
        """Files that could not be read.

        Returns
        -------
        list of tuple
            Path and reason.
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
                f"{self._path(number)} is missing: {self.folder} is not "
                "complete; run the stage `embed` again"
            )
        return found

    def read(self, first=0, last=None):
        """Reads a stretch of the embeddings.

        Arguments
        ---------
        first, last : int, optional
            The first utterance and the one after the last; all if not given.

        Returns
        -------
        tuple
            float32 ``[n, size]`` of the files that could be read, and their
            positions in the manifest, int64 ``[n]``.

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
        self._refuse_other(json.loads(index.read_text()), self._identity())
        last = len(self.manifest) if last is None else last
        parts, places = [], []
        for number, (begin, end) in enumerate(self.shards):
            low, high = max(first, begin), min(last, end)
            if low >= high:
                continue
            rows, bad = self._shard(number)
            # An unreadable file has NaN throughout; a network that has
            # diverged has it too, and is clustering's to refuse by name.
            names = {path for path, _ in bad}
            good = [
                self.manifest.path(i) not in names for i in range(low, high)
            ]
            parts.append(rows[low - begin : high - begin][good])
            places.append(np.arange(low, high)[good])
        return np.concatenate(parts), np.concatenate(places)
