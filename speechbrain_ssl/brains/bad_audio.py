"""Record files that cannot be read, and stop a run that has too many.

The data set (``speechbrain_ssl.data.dataset``) replaces such an utterance by
another one and reports it in the batch; ``TrainingBrain`` passes the report on
to ``BadAudioReport``.
"""

import csv
import logging
import pathlib

from speechbrain_ssl import distributed
from speechbrain_ssl.errors import AudioError

logger = logging.getLogger(__name__)


class BadAudioReport:
    """Lists the files that were replaced by another utterance.

    Arguments
    ---------
    output_folder : str or pathlib.Path
        Where ``bad_audio.csv`` is written. Each process writes its own table,
        because each reads different files.
    utterances : int
        Number of utterances that this process reads in an epoch. The run stops
        when more than 2 % of them (and more than ten) cannot be read.
    state : speechbrain_ssl.brains.checkpointing.RunState
        Holds ``bad_in_epoch``, so that a resumed epoch continues the count.
    """

    def __init__(self, output_folder, utterances, state):
        suffix = f"_{distributed.rank()}" if distributed.rank() else ""
        self.path = pathlib.Path(output_folder) / f"bad_audio{suffix}.csv"
        self.limit = max(10, utterances // 50)
        self.state = state
        self._listed = None

    def begin_epoch(self):
        """Set the count of the epoch to zero."""
        self.state.values["bad_in_epoch"] = 0

    def add(self, bad, epoch):
        """Count and record the bad files of a batch.

        Arguments
        ---------
        bad : list of tuple of str
            Path and reason of each file.
        epoch : int
            The current epoch, named in the error message.

        Raises
        ------
        AudioError
            If more files of the epoch were bad than ``utterances`` allows.
        """
        self.state.values["bad_in_epoch"] += len(bad)
        if bad:
            self._list(bad)
        if self.state.values["bad_in_epoch"] > self.limit:
            raise AudioError(
                f"more than 2 % of the utterances of epoch {epoch} cannot "
                f"be used; they are listed in {self.path}. Prepare the corpus "
                "again, recordings with `--check=decode`"
            )

    def _list(self, bad):
        """Append the files that are not in the table yet."""
        if self._listed is None:
            # A run that was resumed may have listed some before it stopped.
            self._listed = set()
            if self.path.is_file():
                with open(self.path, encoding="utf-8", newline="") as stream:
                    self._listed = {row[0] for row in csv.reader(stream) if row}
        new = [entry for entry in bad if entry[0] not in self._listed]
        if not new:
            return
        self._listed.update(name for name, _ in new)
        with open(
            self.path,
            "a",
            encoding="utf-8",
            errors="backslashreplace",
            newline="",
        ) as stream:
            writer = csv.writer(stream)
            if stream.tell() == 0:
                writer.writerow(["wav", "reason"])
            writer.writerows(new)
        logger.warning("%d unusable files: see %s", len(new), self.path)
