"""SSLBrain: self-supervised training with any objective.

The way of a batch: crops -> augmentation -> features -> encoder (and teacher)
-> heads -> objective -> loss -> step -> teacher, centre. What is particular to
an objective is in ``speechbrain_ssl.objectives``; what every training run has
in common is in ``training_brain``.
"""

import torch

from speechbrain_ssl.brains.training_brain import TrainingBrain, encode
from speechbrain_ssl.objectives.base import Branch
from speechbrain_ssl.objectives.teacher import MomentumTeacher


class SSLBrain(TrainingBrain):
    """Trains an encoder without labels.

    ``modules`` holds ``encoder`` and ``objective``. Beside the
    hyper-parameters of every run (see ``TrainingBrain``) it reads
    ``freeze_last_layer_epochs``; ``schedules`` has ``momentum`` for an
    objective with a teacher, and the objective's own knobs.
    """

    # -- what the objective decides ------------------------------------------

    @property
    def objective(self):
        """The objective with its heads and state."""
        return self.modules.objective

    @property
    def evaluated_encoder(self):
        """The encoder that counts: the teacher's where there is one."""
        return self.encoder if self.teacher is None else self.teacher.encoder

    @property
    def subject(self):
        """The objective's name."""
        return type(self.objective).__name__

    @property
    def wanted_schedules(self):
        """Learning rate, weight decay, momentum, and the objective's knobs."""
        momentum = ("momentum",) if self.objective.momentum else ()
        return (
            *TrainingBrain.wanted_schedules,
            *momentum,
            *self.objective.knobs,
        )

    def knobs(self, step):
        """The objective's scheduled values at an optimiser step."""
        return {name: self.knob(name, step) for name in self.objective.knobs}

    def set_up(self):
        """Makes the teacher, and the objective's state."""
        self.teacher = None
        if self.objective.momentum:
            self.teacher = MomentumTeacher(self.encoder, self.objective.head)
            self.teacher.to(self.device)
            if self.compile:
                self.teacher.encoder.compile(mode=self.compile_mode)
        self.objective.set_up(self.train_sampler.num_samples, self.hparams.seed)
        self.objective.to(self.device)

    def recoverables(self):
        """The objective and the teacher."""
        state = {"objective": self.objective}
        if self.teacher is not None:
            state["teacher"] = self.teacher
        return state

    def identity(self):
        """The objective's name."""
        return {"objective": self.subject}

    def frozen(self):
        """DINO's last layer, say, during the first epochs."""
        if self.epoch <= self.hparams.freeze_last_layer_epochs:
            return self.objective.last_layer()
        return []

    # -- a step --------------------------------------------------------------

    def before_epoch(self, epoch):
        """Lets the objective prepare the epoch."""
        if self.step == 0:
            self.objective.before_epoch(epoch)

    def on_fit_batch_start(self, batch, should_step):
        """Puts the teacher in its mode (nothing of SpeechBrain's touches it)."""
        super().on_fit_batch_start(batch, should_step)
        if self.teacher is not None:
            self.teacher.train()

    def compute_forward(self, batch, stage):
        """Both branches of a batch."""
        batch.to(self.device)
        inputs, index = self.inputs(batch), batch.index.to(self.device)
        head = self.objective.head
        skipped = 0 if self.objective.first_sees_global else 1
        frames = None
        if self.objective.needs_frames:
            embeddings, frames = encode_with_frames(self.encoder, inputs)
        else:
            embeddings = encode(self.encoder, inputs[skipped:])
        first = Branch(
            embeddings, project(head, embeddings), head, index, frames
        )
        if self.teacher is not None:
            with torch.no_grad():
                embeddings = encode(self.teacher.encoder, inputs[:1])
                vectors = project(self.teacher.head, embeddings)
            return first, Branch(embeddings, vectors, self.teacher.head, index)
        globals_ = inputs[0].shape[1]
        return first, Branch(
            first.embeddings[:, :globals_],
            first.vectors[:, :globals_],
            head,
            index,
        )

    def compute_objectives(self, predictions, batch, stage):
        """The loss; its scalars are kept on the device until logged."""
        loss, scalars = self.objective(
            *predictions, **self.knobs(self.optimizer_step)
        )
        self._add(loss=loss.detach(), **scalars)
        return loss

    def after_step(self):
        """Moves the teacher and the objective's state."""
        if self.teacher is not None:
            self.teacher.update(
                self.encoder,
                self.objective.head,
                self.knob("momentum", self.optimizer_step - 1),
            )
        self.objective.after_step()

    def skip_step(self):
        """Lets the objective forget the step."""
        self.objective.skip_step()

    def held_out(self, embeddings):
        """What the teacher says of held-out crops."""
        if self.teacher is None:
            return {}
        head = self.teacher.head.eval()
        branch = Branch(embeddings, project(head, embeddings), head)
        # The knobs of the step that has just been taken.
        return self.objective.held_out(
            branch, **self.knobs(self.optimizer_step - 1)
        )


def encode_with_frames(encoder, inputs):
    """As ``encode``, with the frames; all crops are of one length."""
    (x,) = inputs
    embeddings, frames = encoder.with_frames(x.flatten(0, 1))
    return (
        embeddings.squeeze(1).unflatten(0, x.shape[:2]),
        frames.unflatten(0, x.shape[:2]),
    )


def project(head, embeddings):
    """Applies a head to ``[batch, crops, size]``."""
    vectors = head(embeddings.flatten(0, 1))
    return vectors.unflatten(0, embeddings.shape[:2])
