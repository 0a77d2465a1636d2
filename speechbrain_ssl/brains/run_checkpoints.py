"""Find, check, load and save the checkpoints of one run.

``checkpointing`` defines how a single checkpoint is written.
"""

import logging

from speechbrain_ssl.run_folder import check_folder, refuse_other

logger = logging.getLogger(__name__)


class RunCheckpoints:
    """Resumes a run from its newest checkpoint, and saves new ones.

    Arguments
    ---------
    checkpointer : AtomicCheckpointer or None
        If None, nothing is saved and nothing is resumed.

    Attributes
    ----------
    found : speechbrain.utils.checkpoints.Checkpoint or None
        The checkpoint that the run resumes from, or None. It is looked up at
        once, because a run that resumes must not load ``initial_model``.
    """

    def __init__(self, checkpointer):
        self.checkpointer, self.found = checkpointer, None
        if checkpointer is not None:
            self.found = checkpointer.newest_whole()

    def load(self, recoverables, fingerprint):
        """Register all objects with state, and load the checkpoint, if any.

        Arguments
        ---------
        recoverables : dict
            Name -> object whose state is saved.
        fingerprint : dict
            Values that a checkpoint must have in common with this run.

        Raises
        ------
        CheckpointError
            If the checkpoint belongs to another configuration.
        """
        if self.checkpointer is None:
            return
        self.checkpointer.add_recoverables(recoverables)
        if self.found is not None:
            refuse_other(
                f"{self.found.path} is a checkpoint",
                self.found.meta.get("fingerprint", {}),
                fingerprint,
            )
            self.checkpointer.load_checkpoint(self.found)
            logger.info("Resuming from %s", self.found.path.name)

    def save(self, fingerprint, epoch, end_of_epoch):
        """Write a checkpoint; keep the one before, should this be damaged.

        Arguments
        ---------
        fingerprint : dict
            See ``load``.
        epoch : int
            The last epoch that was started.
        end_of_epoch : bool
            Whether that epoch is finished.
        """
        check_folder(self.checkpointer.checkpoints_dir)
        meta = {"fingerprint": fingerprint, "epoch": epoch}
        self.checkpointer.save_and_keep_only(
            meta=meta,
            end_of_epoch=end_of_epoch,
            num_to_keep=2,
            verbosity=logging.DEBUG,
        )
