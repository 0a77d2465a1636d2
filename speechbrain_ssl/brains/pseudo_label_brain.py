"""PseudoLabelBrain: train a classifier on pseudo-labels that are partly wrong.

This is the second stage of Han, Chen and Qian (2022, arXiv 2208.01928; 2023,
arXiv 2304.05754). What happens to a batch:

1. One augmented crop of each utterance is encoded, and its cosines with the
   class weights give a loss for each utterance.
2. The loss gate keeps the utterances whose loss is below its threshold.
3. With label correction, the utterances that the gate drops are encoded once
   more, without augmentation and without gradient. They may still be trained
   on, with the label that the network itself predicts.

The gate and label correction are in ``speechbrain_ssl.pseudo_labels``, the
classifier in ``speechbrain_ssl.objectives.margin``. ``stages`` runs this Brain
once for each round of clustering.
"""

import hashlib
import pathlib

import torch
from speechbrain.utils.distributed import if_main_process

from speechbrain_ssl.brains.checkpointing import load_tensors
from speechbrain_ssl.brains.encoding import encode
from speechbrain_ssl.brains.training_brain import TrainingBrain
from speechbrain_ssl.encoders.pretrained import with_penalty
from speechbrain_ssl.errors import CheckpointError, ConfigError
from speechbrain_ssl.files import atomic_write
from speechbrain_ssl.objectives.step_notes import StepNotes
from speechbrain_ssl.pseudo_labels.label_correction import (
    combined_loss,
    correction_report,
)
from speechbrain_ssl.pseudo_labels.loss_store import CorrectionStore, LossStore
from speechbrain_ssl.report.gate import write_gate_epoch


class PseudoLabelBrain(TrainingBrain):
    """Trains encoder and classifier on the labels that a loss gate keeps.

    ``modules`` holds ``encoder`` and ``classifier`` (an ``AAMSoftmax``). Beside
    the hyper-parameters of every run (see ``TrainingBrain``) it reads
    ``loss_gate``, ``label_correction`` (or None) and its first epoch
    ``label_correction_epoch``, ``loss_reduction``, ``frozen_encoder_epochs``
    (number of first epochs in which only the last affine layer of the encoder
    is trained; Cho et al. found this better than training everything at once),
    ``decay_vectors`` (whether biases and norms get weight decay) and
    ``initial_classifier`` (or None). ``schedules`` has ``margin`` in addition.

    Call ``set_labels`` before ``fit``.
    """

    objective_name = "training on pseudo labels"
    wanted_schedules = (*TrainingBrain.wanted_schedules, "margin")

    def set_labels(self, labels, truth=None):
        """Set the class of every utterance of the training manifest.

        Arguments
        ---------
        labels : numpy.ndarray
            Class of each utterance, int64 ``[N]``.
        truth : numpy.ndarray, optional
            The correct class of each utterance, int64 ``[N]``; -1 where it is
            not known. Used for logging only.
        """
        self.labels = torch.from_numpy(labels)
        self.truth = None if truth is None else torch.from_numpy(truth)

    @property
    def classifier(self):
        """The classifier, which holds one or more weight vectors per class."""
        return self.modules.classifier

    @property
    def encoders(self):
        """All encoders that are trained, for a subclass with several."""
        return [self.encoder]

    def make_loss_store(self, count):
        """Return a new store of the losses of ``count`` utterances."""
        return LossStore(count)

    def set_up(self):
        """Create the stores of losses and corrections, and check the labels.

        Raises
        ------
        ConfigError
            If the labels do not fit the manifest or the classifier.
        CheckpointError
            If ``initial_classifier`` cannot be loaded.
        """
        count = self.train_sampler.num_samples
        self.labels = self.labels.to(self.device)
        highest = int(self.labels.max())
        if len(self.labels) != count or highest >= self.classifier.classes:
            raise ConfigError(
                f"{len(self.labels)} labels up to {highest} for {count} "
                f"utterances and {self.classifier.classes} classes: the labels "
                "belong to another manifest"
            )
        self.losses = self.make_loss_store(count).to(self.device)
        self.corrections = CorrectionStore(count).to(self.device)
        self.gate = self.hparams.loss_gate.to(self.device)
        self._notes, self._fit = StepNotes(), None
        if self.hparams.initial_classifier:
            load_classifier(self.classifier, self.hparams.initial_classifier)

    def recoverables(self):
        """Return the classifier, the gate, and the two stores."""
        return {
            "classifier": self.classifier,
            "losses": self.losses,
            "corrections": self.corrections,
            "gate": self.gate,
        }

    def checkpoint_fingerprint(self):
        """Return a digest of the labels."""
        digest = hashlib.sha256(self.labels.cpu().numpy().tobytes())
        return {"labels": digest.hexdigest()[:16]}

    @property
    def decay_vectors(self):
        """Whether biases and norms get weight decay; see ``TrainingHooks``."""
        return self.hparams.decay_vectors

    def averaged_modules(self):
        """Return encoder and classifier; see ``TrainingHooks``."""
        return {**super().averaged_modules(), "classifier": self.classifier}

    # -- epochs --------------------------------------------------------------

    @property
    def is_frozen(self):
        """Whether only last affine layers and classifiers are trained now."""
        return self.epoch <= self.hparams.frozen_encoder_epochs

    def before_epoch(self, epoch):
        """Freeze or unfreeze the encoder; set the gate's threshold.

        The threshold comes from the losses of the previous epoch.
        """
        trained = {id(p) for p in self.trained}
        for encoder in self.encoders:
            for parameter in encoder.parameters():
                # The weights of a frozen front end are not in `trained`.
                if id(parameter) in trained:
                    parameter.requires_grad_(not self.is_frozen)
            encoder.last_affine().requires_grad_(True)
        self._fit = self.gate.prepare_epoch(epoch, self.losses.previous)

    def _set_training_mode(self):
        """Put the encoder in training mode, except for frozen layers.

        In evaluation mode a frozen batch norm does not update its running
        statistics either.
        """
        for encoder in self.encoders:
            encoder.train(not self.is_frozen)
            encoder.last_affine().train()

    def after_epoch(self):
        """Log and plot what the gate and label correction did in this epoch."""
        losses = self.losses.finish_epoch()
        correct = known = None
        if self.truth is not None:
            truth = self.truth.to(self.device)
            correct, known = self.labels == truth, truth >= 0
        scalars = self.gate.report(losses, correct, known)
        predicted = self.corrections.finish_epoch()
        if self._correcting:
            scalars |= correction_report(
                predicted >= 0, predicted, self.labels, self.truth
            )
        if if_main_process():
            self._write_gate(losses, scalars, correct, known)
        return scalars

    def _write_gate(self, losses, scalars, correct, known):
        """Write what the report draws of the gate in this epoch."""
        write_gate_epoch(
            pathlib.Path(self.hparams.output_folder) / "gate",
            self.epoch,
            losses,
            self.gate.threshold,
            self._fit,
            scalars,
            correct,
            known,
        )

    @property
    def _correcting(self):
        """Whether label correction is active in this epoch."""
        return (
            self.hparams.label_correction is not None
            and self.epoch >= self.hparams.label_correction_epoch
        )

    # -- a step --------------------------------------------------------------

    def compute_forward(self, batch, stage):
        """Return embeddings of the augmented crops, ``[batch, size]``."""
        batch.to(self.device)
        self._set_training_mode()
        return encode(self.encoder, self.inputs(batch)).flatten(0, 1)

    def compute_objectives(self, predictions, batch, stage):
        """Return the loss of a batch, L_DLG + L_LC in the papers' terms."""
        index = batch.index.to(self.device, non_blocking=True)
        labels = self.labels[index]
        margin = self.scheduled("margin", self.optimizer_step)
        cosines = self.classifier.cosines(predictions)
        losses = self.classifier.losses(cosines, labels, margin)
        keep = self.gate(losses)
        correction = None
        dropped = (~keep).nonzero()[:, 0] if self._correcting else []
        if len(dropped):
            correction = self.hparams.label_correction(
                self.classifier,
                cosines[dropped],
                self.classifier.logits(self._encode_clean(batch, dropped)),
                keep[dropped],
                margin,
            )
        reduction = self.hparams.loss_reduction
        loss = combined_loss(losses, keep, correction, reduction, len(losses))
        self._notes.append((index, losses.detach(), dropped, correction))
        with torch.no_grad():
            accuracy = (cosines.argmax(1) == labels).float().mean()
        self.log.add(
            loss=loss.detach(),
            label_loss=losses.detach().mean(),
            label_accuracy=accuracy,
            kept=keep.float().mean(),
        )
        return with_penalty(loss, self.encoder)

    @torch.no_grad()
    def _encode_clean(self, batch, chosen):
        """Encode chosen utterances of a batch without augmentation.

        In evaluation mode the batch norms use their running statistics, so that
        a prediction does not depend on which other utterances were dropped;
        statistics of a handful of utterances would be noise.
        """
        self.encoder.eval()
        inputs = [self.to_features(crops[chosen]) for crops in batch.crops]
        embeddings = encode(self.encoder, inputs).flatten(0, 1)
        self._set_training_mode()
        return embeddings

    def after_step(self):
        """Store the losses and corrections of the step."""
        for index, losses, dropped, correction in self._notes.take():
            self.losses.record(index, losses)
            if correction is not None:
                self.corrections.record(index[dropped], correction)

    def skip_step(self):
        """Discard the losses and corrections of a skipped step."""
        self._notes.clear()

    def _save_checkpoint(self, end_of_epoch):
        # Rank 0 writes the checkpoint, so it needs the losses of all ranks.
        self.losses.synchronise()
        self.corrections.synchronise()
        super()._save_checkpoint(end_of_epoch)

    # -- afterwards ----------------------------------------------------------

    @property
    def labels_seen(self):
        """Which speaker labels training used; see ``TrainingHooks``."""
        return self.hparams.labels_seen

    def finish(self):
        """Finish as every run does, and save the classifier for a later stage.

        Returns
        -------
        dict
            The content of ``results.json`` (empty on all but the main
            process).
        """
        metrics = super().finish()
        if metrics:
            save = pathlib.Path(self.hparams.output_folder) / "save"
            with atomic_write(save / "classifier.pt", "wb") as stream:
                torch.save(self.classifier.state_dict(), stream)
        return metrics

    def trusted(self):
        """Return which utterances the gate keeps, by their last losses.

        Returns
        -------
        numpy.ndarray
            bool ``[N]``.
        """
        return self.gate.mask(self.losses.previous).cpu().numpy()


def load_classifier(classifier, path):
    """Load the classifier of an earlier stage.

    Arguments
    ---------
    classifier : speechbrain_ssl.objectives.margin.AAMSoftmax
        Changed in place.
    path : str
        ``save/classifier.pt`` of a finished stage.

    Raises
    ------
    CheckpointError
        If the file is missing or damaged, or the shapes of the classifier
        differ.
    """
    if not pathlib.Path(path).is_file():
        raise CheckpointError(
            f"initial_classifier: there is no file {path}; it is written at "
            "the end of a training stage"
        )
    state = load_tensors(path)
    try:
        classifier.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(
            f"initial_classifier {path} has other classes than this "
            f"configuration: {error}"
        ) from error
