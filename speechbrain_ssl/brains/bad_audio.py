"""Audio that cannot be read in training: a table, and an end where it is much."""

import csv
import logging
import pathlib

from speechbrain_ssl import distributed
from speechbrain_ssl.errors import AudioError

logger = logging.getLogger(__name__)


class BadAudioReport:
    """Lists files that another utterance stood in for.

    Arguments
    ---------
    output_folder : str or pathlib.Path
        Where ``bad_audio.csv`` is written; each process has a table of its own,
        since they see different files.
    utterances : int
        Utterances of an epoch in this process. More than 2 % of them (and more
        than ten) end the run.
    state : speechbrain_ssl.brains.checkpointing.RunState
        Holds ``bad_in_epoch``, so that a resumed epoch counts on.
    """

    def __init__(self, output_folder, utterances, state):
        suffix = f"_{distributed.rank()}" if distributed.rank() else ""
        self.path = pathlib.Path(output_folder) / f"bad_audio{suffix}.csv"
        self.limit = max(10, utterances // 50)
        self.state = state
        self._listed = None

    def begin_epoch(self):
        """Count anew."""
        self.state.values["bad_in_epoch"] = 0

    def add(self, bad, epoch):
        """Note the bad files of a batch.

        Arguments
        ---------
        bad : list of tuple of str
            Path and reason.
        epoch : int
            The epoch they were met in.

        Raises
        ------
        AudioError
            If they are too many.
        """
        self.state.values["bad_in_epoch"] += len(bad)
        if bad:
            self._list(bad)
        if self.state.values["bad_in_epoch"] > self.limit:
            raise AudioError(
                f"more than 2 % of the utterances of epoch {epoch} cannot "
                f"be used; they are listed in {self.path}. Prepare the corpus "
                "again with `--check=decode`"
            )

    def _list(self, bad):
        """Write those that no line names yet."""
        if self._listed is None:
            # An earlier start of this run may have listed some.
            self._listed = set()
            if self.path.is_file():
                with open(self.path, encoding="utf-8", newline="") as stream:
                    self._listed = {row[0] for row in csv.reader(stream) if row}
        new = [entry for entry in bad if entry[0] not in self._listed]
        if not new:
            return
        self._listed.update(name for name, _ in new)
        with open(self.path, "a", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream)
            if stream.tell() == 0:
                writer.writerow(["wav", "reason"])
            writer.writerows(new)
        logger.warning("%d unusable audio files: see %s", len(new), self.path)
