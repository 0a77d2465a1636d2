"""The checkpoints of one run: found, checked, loaded and written."""

import logging

from speechbrain.core import INTRA_EPOCH_CKPT_FLAG

from speechbrain_ssl.settings import refuse_other

logger = logging.getLogger(__name__)


class RunCheckpoints:
    """Goes on from the newest checkpoint of a run, and saves new ones.

    Arguments
    ---------
    checkpointer : AtomicCheckpointer or None
        None: nothing is saved, and nothing is resumed.

    Attributes
    ----------
    found : speechbrain.utils.checkpoints.Checkpoint or None
        What the run goes on from. Looked for once, before anything is loaded: a
        resumed run begins with no other weights.
    """

    def __init__(self, checkpointer):
        self.checkpointer, self.found = checkpointer, None
        if checkpointer is not None:
            self.found = checkpointer.find_checkpoint()

    def load(self, recoverables, identity):
        """Register all state, and load it where there is a checkpoint.

        Arguments
        ---------
        recoverables : dict
            Name -> object with state.
        identity : dict
            What must be the same for a checkpoint to make sense.

        Raises
        ------
        CheckpointError
            If the checkpoint is of another configuration.
        """
        if self.checkpointer is None:
            return
        self.checkpointer.add_recoverables(recoverables)
        if self.found is not None:
            refuse_other(
                f"{self.found.path} is a checkpoint",
                self.found.meta.get("identity", {}),
                identity,
            )
            self.checkpointer.load_checkpoint(self.found)
            logger.info("Going on from %s", self.found.path.name)

    def save(self, identity, epoch, end_of_epoch):
        """Write a checkpoint in the place of the one before.

        Arguments
        ---------
        identity : dict
            See ``load``.
        epoch : int
            The last epoch that was begun.
        end_of_epoch : bool
            Whether that epoch is done.
        """
        meta = {"identity": identity, "epoch": epoch}
        if end_of_epoch:
            self.checkpointer.save_and_keep_only(meta=meta, num_to_keep=1)
            return
        self.checkpointer.save_and_keep_only(
            meta={**meta, INTRA_EPOCH_CKPT_FLAG: True},
            end_of_epoch=False,
            num_to_keep=1,
            ckpt_predicate=lambda c: INTRA_EPOCH_CKPT_FLAG in c.meta,
            verbosity=logging.DEBUG,
        )
