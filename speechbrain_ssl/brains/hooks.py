"""What a Brain of ours says of itself: read this to write another one."""

import speechbrain as sb


class TrainingHooks(sb.Brain):
    """The places where ``TrainingBrain`` asks its subclass.

    Each has a default that says nothing. ``compute_forward`` and
    ``compute_objectives``, SpeechBrain's own, must be written.
    """

    #: Which speaker labels training has seen, for ``results.json``.
    labels_seen = "none"

    #: What is trained, in a word, for error messages.
    objective_name = "this Brain"

    #: Schedules that must be given, and no others.
    wanted_schedules = ("lr", "weight_decay")

    def loader_options(self):
        """Return further arguments for ``make_loaders``."""
        return {}

    def set_up(self):
        """Make what depends on the device; before a checkpoint is read."""

    def recoverables(self):
        """Return name -> object with state, beside what every run saves."""
        return {}

    def extra_results(self):
        """Return further entries for ``results.json``."""
        return {}

    def checkpoint_fingerprint(self):
        """Return further plain values that must agree with a checkpoint's."""
        return {}

    def before_epoch(self, epoch):
        """Prepare an epoch, in all processes, before its first step.

        Called also where an epoch is resumed in its middle, with the state of
        the checkpoint; ``self.step`` is above 0 then.
        """

    def frozen_parameters(self):
        """Return parameters that this step must not move."""
        return []

    def no_weight_decay_parameters(self):
        """Return matrices without weight decay; vectors never have it."""
        return []

    def after_step(self):
        """Move what follows the training; not called for a skipped step."""

    def skip_step(self):
        """Forget the step; called instead of ``after_step``."""

    def after_epoch(self):
        """Finish an epoch, in all processes, after its last step.

        Returns
        -------
        dict
            Scalars for the epoch's line in the log.
        """
        return {}

    def held_out(self, embeddings):
        """Return scalars of held-out crops ``[batch, crops, size]``."""
        return {}
