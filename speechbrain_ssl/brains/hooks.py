"""The methods a subclass of ``TrainingBrain`` may override.

Read this file to write a Brain of your own; ``ssl_brain`` and
``pseudo_label_brain`` are the two that exist.
"""

from speechbrain_ssl.brains.batch_loop import BatchLoop


class TrainingHooks(BatchLoop):
    """The hooks that ``TrainingBrain`` calls, with defaults that do nothing.

    A subclass overrides those it needs. It must also define SpeechBrain's own
    ``compute_forward`` and ``compute_objectives``.
    """

    #: Which speaker labels training used, for ``results.json``.
    labels_seen = "none"

    #: Short name of what is trained, for error messages.
    objective_name = "this Brain"

    #: Names of the schedules that the configuration must give, and no others.
    wanted_schedules = ("lr", "weight_decay")

    #: Whether batch norms see the batch of all processes.
    synchronises_batch_norms = True

    #: Whether biases and the weights of norms get weight decay.
    decay_vectors = False

    def loader_options(self):
        """Return additional keyword arguments for ``make_loaders``."""
        return {}

    def set_up(self):
        """Create what depends on the device, before a checkpoint is loaded."""

    def recoverables(self):
        """Return name -> object whose state is saved in every checkpoint.

        Encoder, optimiser, epoch counter and random generators are saved
        anyway.
        """
        return {}

    def extra_results(self):
        """Return additional entries for ``results.json``."""
        return {}

    def extra_metrics(self, scores):
        """Return additional metrics of the trials, after training.

        Arguments
        ---------
        scores : numpy.ndarray
            Scores of the trials by the encoder, ``[T]``.

        Returns
        -------
        dict
            Name -> number, for ``results.json``.
        """
        return {}

    def checkpoint_fingerprint(self):
        """Return name -> plain value that a checkpoint must have in common.

        A run with other values than those in the checkpoint does not resume
        from it.
        """
        return {}

    def before_epoch(self, epoch):
        """Prepare an epoch, in all processes, before its first step.

        Also called when a run resumes in the middle of an epoch, after the
        checkpoint has been loaded; ``self.step`` is above 0 then.
        """

    def frozen_parameters(self):
        """Return the parameters that this step must not change."""
        return []

    def no_weight_decay_parameters(self):
        """Return parameters without weight decay, besides exempt vectors."""
        return []

    def constant_lr_parameters(self):
        """Return parameters that keep the highest value of the schedule."""
        return []

    def unclipped_parameters(self):
        """Return the parameters whose gradient is not clipped."""
        return []

    def averaged_modules(self):
        """Return name -> module whose weights of the last epochs are averaged.

        The averages are loaded into these modules before the export.
        """
        return {"encoder": self.evaluated_encoder}

    def after_step(self):
        """Update state that follows the weights, such as a teacher or a queue.

        Called after every optimiser step that was not skipped.
        """

    def skip_step(self):
        """Discard what the batches of a skipped step have left.

        Called instead of ``after_step``.
        """

    def after_epoch(self):
        """Finish an epoch, in all processes, after its validation.

        Not before, so that a run that is stopped in validation can save the
        state after the last step.

        Returns
        -------
        dict
            Name -> scalar, added to the log line of the epoch.
        """
        return {}

    def held_out(self, embeddings):
        """Return scalars of a validation batch, for the log.

        Arguments
        ---------
        embeddings : torch.Tensor
            Embeddings of held-out crops, ``[batch, crops, size]``.

        Returns
        -------
        dict
            Name -> scalar.
        """
        return {}

    @property
    def encoder(self):
        """The encoder that is trained."""
        return self.modules.encoder

    @property
    def evaluated_encoder(self):
        """The encoder that is evaluated and exported."""
        return self.encoder

    @property
    def has_pretrained_init(self):
        """Whether the encoder starts with the weights of another run."""
        return bool(self.hparams.initial_model)
