"""SSLBrain: self-supervised training with any objective.

A batch of crops is augmented and turned into features. The encoder and the head
of the objective map them to the online branch; the momentum teacher, for an
objective that has one, maps the global crops to the target branch.
``positives`` may replace rows of the target branch by pseudo-positives. The
objective compares the two branches, and after the optimiser step the teacher
and the state of the objective (a centre, say, or a queue) follow.

The objectives are in ``speechbrain_ssl.objectives``. Everything that does not
depend on them, such as the optimiser step, validation and checkpoints, is in
``training_brain``, which calls the methods below; ``hooks`` tells when.
"""

import numpy as np
import torch

from speechbrain_ssl import distributed
from speechbrain_ssl.brains.encoding import encode, encode_with_frames, project
from speechbrain_ssl.brains.initial import (
    begin_with_checkpoint,
    labels_of_model,
    strongest,
)
from speechbrain_ssl.brains.positives import make_positives
from speechbrain_ssl.brains.teacher_embeddings import teacher_embeddings
from speechbrain_ssl.brains.training_brain import TrainingBrain
from speechbrain_ssl.data.draws import permutation
from speechbrain_ssl.encoders.pretrained import with_penalty
from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.objectives.base import Branch
from speechbrain_ssl.objectives.teacher import MomentumTeacher


class SSLBrain(TrainingBrain):
    """Trains an encoder without labels.

    ``modules`` holds ``encoder`` and ``objective``. In addition to the
    hyper-parameters of every run (see ``TrainingBrain``) it reads
    ``freeze_last_layer_epochs``, ``positives`` (``SSPS``, ``ClusterAware``,
    ``GivenClusters`` or None) and ``initial_checkpoint`` (see
    ``speechbrain_ssl.brains.initial``); ``schedules`` also has ``momentum`` for an objective with a teacher, and the
    objective's own scheduled values.

    Attributes
    ----------
    teacher : MomentumTeacher or None
        The momentum teacher; None for an objective without one.
    positives : speechbrain_ssl.brains.positives.OwnPositives
        Supplies pseudo-positives, or leaves the utterance's own.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.positives = make_positives(self)

    # -- what the objective decides ------------------------------------------

    @property
    def objective(self):
        """The objective, with its head and state."""
        return self.modules.objective

    @property
    def synchronises_batch_norms(self):
        """Whether batch norms see the batch of all processes."""
        return not self.objective.shuffles_keys

    @property
    def evaluated_encoder(self):
        """The encoder that is evaluated and exported: teacher or student."""
        if self.objective.evaluate_teacher:
            return self.teacher.encoder
        return self.encoder

    @property
    def objective_name(self):
        """Class name of the objective, such as ``DINO``."""
        return type(self.objective).__name__

    @property
    def wanted_schedules(self):
        """Names of the schedules: the common ones and the objective's own."""
        momentum = ("momentum",) if self.objective.momentum else ()
        return (
            *TrainingBrain.wanted_schedules,
            *momentum,
            *self.objective.scheduled,
        )

    def objective_values(self, step):
        """Return the objective's scheduled values at an optimiser step."""
        return {
            name: self.scheduled(name, step)
            for name in self.objective.scheduled
        }

    @property
    def has_pretrained_init(self):
        """Whether the encoder starts with the weights of another run."""
        return (
            bool(self.hparams.initial_checkpoint) or super().has_pretrained_init
        )

    def loader_options(self):
        """Return the loader arguments that pseudo-positives need."""
        return self.positives.loader_options()

    def recoverables(self):
        """Return the objective, the teacher, and the state of the positives."""
        # SimCLR has no state, and SpeechBrain would warn about it at every
        # checkpoint.
        stateful = bool(self.objective.state_dict())
        state = {"objective": self.objective} if stateful else {}
        state |= self.positives.recoverables()
        if self.teacher is not None:
            state["teacher"] = self.teacher
        return state

    def checkpoint_fingerprint(self):
        """Return the objective's name."""
        return {"objective": self.objective_name}

    def frozen_parameters(self):
        """Return the prototypes (of DINO, say) during the first epochs."""
        if self.epoch <= self.hparams.freeze_last_layer_epochs:
            return self.objective.prototype_parameters()
        return []

    def no_weight_decay_parameters(self):
        """Return what the objective names, such as SDPN's prototypes."""
        return self.objective.no_weight_decay_parameters()

    def constant_lr_parameters(self):
        """Return what the objective names, such as SimSiam's predictor."""
        return self.objective.constant_lr_parameters()

    def unclipped_parameters(self):
        """Return what the objective names, such as SDPN's prototypes."""
        return self.objective.unclipped_parameters()

    @property
    def labels_seen(self):
        """Which labels training used, or a model that it learns from."""
        return strongest(
            self.positives.labels_seen,
            labels_of_model(self.hparams.initial_model),
            labels_of_model(self.hparams.initial_checkpoint),
            labels_of_model(getattr(self.objective, "teacher", None)),
        )

    def extra_results(self):
        """Return the first epoch that used pseudo-positives."""
        return self.positives.results()

    def finish(self):
        """Finish the run; warn if pseudo-positives were never used."""
        self.positives.warn_if_never_active()
        return super().finish()

    # -- set-up ----------------------------------------------------------------

    def set_up(self):
        """Create the teacher, and the state of objective and positives."""
        self.teacher = None
        self._check_frames()
        if self.objective.momentum:
            self.teacher = MomentumTeacher(self.encoder, self.objective.head)
            self.teacher.to(self.device)
            if self.compile:
                self.teacher.encoder.compile(mode=self.compile_mode)
        utterances = self.train_sampler.num_samples
        self.objective.set_up(utterances, self.hparams.seed)
        if self.objective.needs_teacher_embeddings:
            self.objective.set_targets(teacher_embeddings(self))
        batch = self.effective_batch
        self.objective.check_epoch(utterances // batch * batch, batch)
        self.objective.to(self.device)
        self.positives.set_up(*self._sizes())
        if self.hparams.initial_checkpoint and not self.is_resuming:
            self._begin_with_checkpoint()

    def _check_frames(self):
        """Raise if the objective needs frames that it would not get."""
        if not self.objective.needs_frames:
            return
        if self.hparams.crops.local_crops:
            raise ConfigError(
                f"{self.objective_name} needs crops of equal length: "
                "set `local_crops` to 0"
            )
        if not hasattr(self.encoder, "with_frames"):
            raise ConfigError(
                f"{self.objective_name} needs the frames of an encoder, which "
                f"{type(self.encoder).__name__} does not give; take an ECAPA"
            )

    @torch.no_grad()
    def _sizes(self):
        """Return the sizes of an embedding and a projection.

        Both are measured on an empty crop.
        """
        encoder, head = self.encoder.eval(), self.objective.head.eval()
        empty = self.features.example()[None, None]
        embedding = encode(encoder, [self.to_features(empty)])
        size = embedding.shape[-1]
        try:
            return size, project(head, embedding).shape[-1]
        except RuntimeError as error:
            raise ConfigError(
                f"{self.objective_name}'s head does not take embeddings of size "
                f"{size}, which {type(self.encoder).__name__} gives; set "
                f"`embedding_size` to {size} where the objective is made "
                f"({error})"
            ) from error

    def _begin_with_checkpoint(self):
        """Load encoder, objective and teacher from ``initial_checkpoint``."""
        if self.hparams.initial_model:
            raise ConfigError(
                "initial_checkpoint contains an encoder: set "
                "`initial_model` to null"
            )
        modules = {"encoder": self.encoder, "objective": self.objective}
        if self.teacher is not None:
            modules["teacher"] = self.teacher
        begin_with_checkpoint(
            self.hparams.initial_checkpoint, self.objective_name, modules
        )

    # -- a step --------------------------------------------------------------

    def before_epoch(self, epoch):
        """Let objective and positives prepare the epoch."""
        # In an epoch that resumes in its middle, the checkpoint has restored
        # what these two prepare.
        if self.step == 0:
            self.objective.before_epoch(epoch)
            self.positives.before_epoch(epoch)

    def on_fit_batch_start(self, batch, should_step):
        """Put the teacher in training mode.

        SpeechBrain does so for ``modules``, which the teacher is not one of.
        """
        super().on_fit_batch_start(batch, should_step)
        if self.teacher is not None:
            self.teacher.train()

    def after_epoch(self):
        """Let the positives record the epoch."""
        self.positives.after_epoch(self.epoch, self.log.epoch_means())
        return {}

    def compute_forward(self, batch, stage):
        """Compute the online and the target branch of a batch.

        Returns
        -------
        tuple of Branch
            Without a teacher the target branch is that part of the online one
            that belongs to the global crops, with gradient.
        """
        batch.to(self.device)
        inputs = self.inputs(batch)
        index = batch.index.to(self.device, non_blocking=True)
        online = self._online(inputs, index)
        if self.teacher is not None:
            target = self._by_teacher(inputs, index)
        else:
            crops = inputs[0].shape[1]
            target = Branch(
                online.embeddings[:, :crops],
                online.projections[:, :crops],
                online.head,
                index,
            )
        target, scalars = self.positives.replace(batch, target)
        self.log.add(**scalars)
        return online, target

    def _online(self, inputs, index):
        """Compute the online branch, of all crops or only the local ones."""
        head, frames = self.objective.head, None
        if self.objective.needs_frames:
            embeddings, frames = encode_with_frames(self.encoder, inputs)
        else:
            skipped = 0 if self.objective.student_sees_global_crops else 1
            embeddings = encode(self.encoder, inputs[skipped:])
        return Branch(
            embeddings, project(head, embeddings), head, index, frames
        )

    @torch.no_grad()
    def _by_teacher(self, inputs, index):
        """Compute the target branch: the teacher's, of the global crops."""
        crops, back = inputs[0], None
        if self.objective.shuffles_keys and distributed.is_distributed():
            order = permutation(
                len(crops) * distributed.world_size(),
                self.hparams.seed,
                self.epoch,
                self.step,
                "keys",
            )
            crops = distributed.redistribute(crops, order)
            back = np.argsort(order)
        embeddings = encode(self.teacher.encoder, [crops])
        projections = project(self.teacher.head, embeddings)
        if back is not None:
            embeddings = distributed.redistribute(embeddings, back)
            projections = distributed.redistribute(projections, back)
        return Branch(embeddings, projections, self.teacher.head, index)

    def compute_objectives(self, predictions, batch, stage):
        """Compute the loss; its scalars stay on the device until logged."""
        loss, scalars = self.objective(
            *predictions, **self.objective_values(self.optimizer_step)
        )
        self.log.add(loss=loss.detach(), **scalars)
        return with_penalty(loss, self.encoder)

    def after_step(self):
        """Update the teacher, and the state of objective and positives."""
        if not self.synchronises_batch_norms:
            distributed.broadcast_statistics(
                [*self.modules.values(), self.teacher]
            )
        if self.teacher is not None:
            self.teacher.update(
                self.encoder,
                self.objective.head,
                self.scheduled("momentum", self.optimizer_step - 1),
            )
        self.objective.after_step()
        self.positives.after_step()

    def skip_step(self):
        """Discard what objective and positives kept of a skipped step."""
        self.objective.skip_step()
        self.positives.skip_step()

    def held_out(self, embeddings):
        """Return the objective's scalars for held-out crops.

        Only objectives whose teacher is evaluated have any.
        """
        if not self.objective.evaluate_teacher:
            return {}
        head = self.teacher.head.eval()
        branch = Branch(embeddings, project(head, embeddings), head)
        # The scheduled values of the last step.
        return self.objective.held_out(
            branch, **self.objective_values(self.optimizer_step - 1)
        )
