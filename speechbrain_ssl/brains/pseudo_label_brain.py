"""PseudoLabelBrain: classification of pseudo labels that are partly wrong.

The second stage of Han, Chen and Qian (2022, arXiv 2208.01928; 2023, arXiv
2304.05754). A batch: one augmented crop an utterance -> encoder -> cosines with
the classes -> loss of each -> the gate keeps those below its threshold -> what
it drops is encoded once more, clean and without gradient, and may come back
under the label the network itself gives it.
"""

import hashlib
import pathlib

import torch
from speechbrain.utils.distributed import if_main_process

from speechbrain_ssl.brains.encoding import encode
from speechbrain_ssl.brains.training_brain import TrainingBrain
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
    """Trains encoder and classifier on labels that a gate may drop.

    ``modules`` holds ``encoder`` and ``classifier`` (an ``AAMSoftmax``). Beside
    the hyper-parameters of every run (see ``TrainingBrain``) it reads
    ``loss_gate``, ``label_correction`` (or None) and its first epoch
    ``label_correction_epoch``, ``loss_reduction``, ``frozen_encoder_epochs``
    (epochs in which of the encoder only its last affine layer moves, as Cho et
    al. found better than all at once), ``initial_classifier`` (or None);
    ``schedules`` has ``margin``.

    ``set_labels`` is to be called before ``fit``.
    """

    objective_name = "training on pseudo labels"
    wanted_schedules = (*TrainingBrain.wanted_schedules, "margin")

    def set_labels(self, labels, truth=None):
        """Give every utterance of the training manifest its class.

        Arguments
        ---------
        labels : numpy.ndarray
            int64 ``[N]``.
        truth : numpy.ndarray, optional
            int64 ``[N]``, the class that would be right, -1 where it is not
            known. For monitoring only: it gets into the log and nowhere else.
        """
        self.labels = torch.from_numpy(labels)
        self.truth = None if truth is None else torch.from_numpy(truth)

    @property
    def classifier(self):
        """The classes."""
        return self.modules.classifier

    def set_up(self):
        """Makes the store of losses; moves the labels to the device."""
        count = self.train_sampler.num_samples
        self.labels = self.labels.to(self.device)
        highest = int(self.labels.max())
        if len(self.labels) != count or highest >= self.classifier.classes:
            raise ConfigError(
                f"{len(self.labels)} labels up to {highest} for {count} "
                f"utterances and {self.classifier.classes} classes: the labels "
                "belong to another manifest"
            )
        self.losses = LossStore(count).to(self.device)
        self.corrections = CorrectionStore(count).to(self.device)
        self.gate = self.hparams.loss_gate.to(self.device)
        self._notes, self._fit = StepNotes(), None
        if self.hparams.initial_classifier:
            load_classifier(self.classifier, self.hparams.initial_classifier)

    def recoverables(self):
        """Classes, losses, corrections and the gate."""
        return {
            "classifier": self.classifier,
            "losses": self.losses,
            "corrections": self.corrections,
            "gate": self.gate,
        }

    def checkpoint_fingerprint(self):
        """The labels."""
        digest = hashlib.sha256(self.labels.cpu().numpy().tobytes())
        return {"labels": digest.hexdigest()[:16]}

    def frozen_parameters(self):
        """All of the encoder but its last layer, during the first epochs."""
        if self.epoch > self.hparams.frozen_encoder_epochs:
            return []
        last = {id(p) for p in self.encoder.last_affine().parameters()}
        return [p for p in self.encoder.parameters() if id(p) not in last]

    # -- epochs --------------------------------------------------------------

    def before_epoch(self, epoch):
        """Sets the gate from the losses of the epoch before."""
        self._fit = self.gate.prepare_epoch(epoch, self.losses.previous)

    def after_epoch(self):
        """Reports and draws what the gate and label correction have done."""
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
        return scalars

    @property
    def _correcting(self):
        """Whether label correction has begun."""
        return (
            self.hparams.label_correction is not None
            and self.epoch >= self.hparams.label_correction_epoch
        )

    # -- a step --------------------------------------------------------------

    def compute_forward(self, batch, stage):
        """Embeddings of the augmented crops, ``[batch, size]``."""
        batch.to(self.device)
        return encode(self.encoder, self.inputs(batch)).flatten(0, 1)

    def compute_objectives(self, predictions, batch, stage):
        """L_DLG + L_LC of a batch."""
        index = batch.index.to(self.device)
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
        return loss

    @torch.no_grad()
    def _encode_clean(self, batch, chosen):
        """The same crops without augmentation, by the running statistics.

        The batch norms' running statistics make the prediction independent of
        which others were dropped; those of a handful would be noise.
        """
        self.encoder.eval()
        inputs = [self.to_features(crops[chosen]) for crops in batch.crops]
        embeddings = encode(self.encoder, inputs).flatten(0, 1)
        self.encoder.train()
        return embeddings

    def after_step(self):
        """Keeps losses and corrections of the step."""
        for index, losses, dropped, correction in self._notes.take():
            self.losses.record(index, losses)
            if correction is not None:
                self.corrections.record(index[dropped], correction)

    def skip_step(self):
        """Forgets the step."""
        self._notes.clear()

    def _save_checkpoint(self, end_of_epoch):
        # The first process writes what all have seen.
        self.losses.synchronise()
        self.corrections.synchronise()
        super()._save_checkpoint(end_of_epoch)

    # -- afterwards ----------------------------------------------------------

    @property
    def labels_seen(self):
        """Which speaker labels training has seen."""
        return self.hparams.labels_seen

    def finish(self):
        """As in every run; also keeps the classes for a further stage.

        Returns
        -------
        dict
            The final figures (on the main process; elsewhere empty).
        """
        figures = super().finish()
        if figures:
            save = pathlib.Path(self.hparams.output_folder) / "save"
            with atomic_write(save / "classifier.pt", "wb") as stream:
                torch.save(self.classifier.state_dict(), stream)
        return figures

    def trusted(self):
        """Utterances the gate has kept in the last epoch.

        Returns
        -------
        numpy.ndarray
            bool ``[N]``.
        """
        return self.gate.mask(self.losses.previous).cpu().numpy()


def load_classifier(classifier, path):
    """Loads the classes of an earlier stage.

    Arguments
    ---------
    classifier : speechbrain_ssl.objectives.margin.AAMSoftmax
        Changed in place.
    path : str
        ``save/classifier.pt`` of a finished stage.

    Raises
    ------
    CheckpointError
        If the file is missing or of other classes.
    """
    if not pathlib.Path(path).is_file():
        raise CheckpointError(
            f"initial_classifier: there is no file {path}; it is written at "
            "the end of a training stage"
        )
    state = torch.load(path, map_location="cpu", weights_only=True)
    try:
        classifier.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(
            f"initial_classifier {path} has other classes than this "
            f"configuration: {error}"
        ) from error
