"""AudioVisualBrain: voice and face learn from one pseudo-label.

Han, Chen and Qian (2023, arXiv 2304.05754) extend DLG-LC from one to several
modalities. Of this extension little is public; everything below is our reading.
What happens to a batch:

1. Voice and face have an encoder and a classifier each, and share the
   pseudo-label: every utterance has a loss for each modality that it has.
2. The joint loss gate decides which of these losses count
   (``pseudo_labels.joint_gate``).
3. With label correction, the utterances that it has dropped in some modality
   are encoded once more, without augmentation. Where the mean of the two
   predictions is confident, it is the new label of the modality
   (``pseudo_labels.joint_correction``).

The loss is the sum of both modalities'. As they share no weight, each encoder
learns from the other only which labels to trust, and by which to replace them.
"""

import pathlib

import numpy as np
import torch

from speechbrain_ssl import distributed
from speechbrain_ssl.brains import divergence
from speechbrain_ssl.brains.encoding import crop_features, encode
from speechbrain_ssl.brains.face_trials import FaceTrials
from speechbrain_ssl.brains.pseudo_label_brain import (
    PseudoLabelBrain,
    load_classifier,
)
from speechbrain_ssl.brains.verdict import embed_held_out, with_face
from speechbrain_ssl.encoders.pretrained import with_penalty
from speechbrain_ssl.files import atomic_write
from speechbrain_ssl.pseudo_labels.joint_gate import product
from speechbrain_ssl.pseudo_labels.label_correction import (
    Correction,
    combined_loss,
)
from speechbrain_ssl.pseudo_labels.loss_store import JointLossStore
from speechbrain_ssl.publishing.export import export_encoder, initialise
from speechbrain_ssl.report.gate import write_gate_epoch
from speechbrain_ssl.verification.label_free import label_free_scores
from speechbrain_ssl.verification.label_free_comparison import LOGGED

#: Folder of the face encoder, in the folder of the model.
FACE_FOLDER = "face"


class AudioVisualBrain(PseudoLabelBrain):
    """Trains an encoder of voices and one of faces on common pseudo-labels.

    Beside what ``PseudoLabelBrain`` needs, ``modules`` holds ``face_encoder``
    and ``face_classifier``, and the hyper-parameters ``face_features``,
    ``face_augmentation``, ``initial_face_model`` (or None), ``trials_faces`` (a
    face manifest of the trials, or None) and ``faces_root``. ``loss_gate`` is a
    ``JointLossGate``, ``label_correction`` a ``JointLabelCorrection`` or None,
    and ``crops`` a ``PairedCrops``.
    """

    @property
    def face_encoder(self):
        """The encoder of faces."""
        return self.modules.face_encoder

    @property
    def classifiers(self):
        """The classifiers by modality."""
        return {"audio": self.classifier, "face": self.modules.face_classifier}

    @property
    def encoders(self):
        """Both encoders."""
        return [self.encoder, self.face_encoder]

    def make_loss_store(self, count):
        """Return a new store of the losses of both modalities."""
        return JointLossStore(count, ("audio", "face"))

    def make_loaders(self, manifest, seed=None):
        """Choose the held-out pictures as well; see the base class."""
        loaders = super().make_loaders(manifest, seed)
        self._halves = self.hparams.crops.views.valid_set(manifest, 0.0)
        # Rank 0 decides for all, as it does on held-out voices.
        self._with_face = distributed.object_from_rank_0(
            with_face(self._halves, self.held_out_manifest)
            if distributed.rank() == 0
            else None
        )
        return loaders

    def set_up(self):
        """Initialise and prepare what belongs to faces; see the base class."""
        super().set_up()
        self.face_features = self.hparams.face_features.to(self.device)
        self.face_features.check_encoder(self.face_encoder)
        self.face_augmentation = self.hparams.face_augmentation.to(self.device)
        self.face_augmentation.load()
        if self.hparams.initial_face_model and not self.is_resuming:
            initialise(
                self.face_encoder,
                self.hparams.initial_face_model,
                self.hparams.face_features,
            )
        if self.hparams.initial_classifier:
            beside = pathlib.Path(self.hparams.initial_classifier)
            load_classifier(
                self.modules.face_classifier,
                str(beside.with_name(_FACE_CLASSIFIER)),
            )
        self.face_trials = None
        if self.trials is not None and self.hparams.trials_faces:
            self.face_trials = FaceTrials(
                self.hparams.trials_faces,
                self.trials.trials,
                self.hparams.faces_root,
            )

    def recoverables(self):
        """Return what the base class does, and what belongs to faces."""
        return {
            **super().recoverables(),
            "face_encoder": self.face_encoder,
            "face_classifier": self.modules.face_classifier,
        }

    def averaged_modules(self):
        """Return both encoders and both classifiers."""
        return {
            **super().averaged_modules(),
            "face_encoder": self.face_encoder,
            "face_classifier": self.modules.face_classifier,
        }

    # -- epochs --------------------------------------------------------------

    def before_epoch(self, epoch):
        """Prepare encoders, gates and augmentation."""
        super().before_epoch(epoch)
        self.face_augmentation.begin_epoch(epoch)

    def after_epoch(self):
        """Validate the encoder of faces, too, on the held-out pictures."""
        scalars, rows = super().after_epoch(), []
        if len(self._with_face) > 1:
            self.face_encoder.eval()
            rows = embed_held_out(
                [(self.face_encoder, self.face_features)],
                self._halves,
                self.face_augmentation,
                self.hparams.seed,
                self.device,
                self._with_face,
            )
        divergence.refuse(self, rows)
        if rows:
            found = label_free_scores(*rows)
            scalars |= {f"face_{name}": found[name] for name in LOGGED}
        return scalars

    def _write_gate(self, losses, scalars, correct, known):
        """Write the losses of each modality, and their sum, for the report."""
        folder = pathlib.Path(self.hparams.output_folder)
        drawn = {
            "gate": (losses["audio"], self.gate.gates["audio"], "audio"),
            "gate_face": (losses["face"], self.gate.gates["face"], "face"),
        }
        if self.gate.reading == "sum":
            drawn["gate_sum"] = product(losses), self.gate.sum_gate, "sum"
        for name, (values, gate, key) in drawn.items():
            write_gate_epoch(
                folder / name,
                self.epoch,
                values,
                gate.threshold,
                self._fit[key],
                scalars,
                correct,
                known,
            )

    # -- a step --------------------------------------------------------------

    def compute_forward(self, batch, stage):
        """Return embeddings ``[batch, size]`` of voices and of faces."""
        batch.to(self.device)
        self._set_training_mode()
        address = (self.hparams.seed, batch.epoch, batch.keys)
        views = self.face_augmentation(batch.faces.crops[0], address)
        return {
            "audio": self._embed(self.encoder, self.inputs(batch)),
            "face": self._embed(
                self.face_encoder, [crop_features(self.face_features, views)]
            ),
        }

    @staticmethod
    def _embed(encoder, inputs):
        return encode(encoder, inputs).flatten(0, 1)

    def compute_objectives(self, predictions, batch, stage):
        """Return the loss of a batch: L_DLG + L_LC of voice and of face."""
        index = batch.index.to(self.device, non_blocking=True)
        labels = self.labels[index]
        margin = self.scheduled("margin", self.optimizer_step)
        there = {
            "audio": torch.ones_like(batch.faces.present),
            "face": batch.faces.present,
        }
        cosines, losses = {}, {}
        for m, classifier in self.classifiers.items():
            cosines[m] = classifier.cosines(predictions[m])
            found = classifier.losses(cosines[m], labels, margin)
            losses[m] = torch.where(there[m], found, torch.nan)
        keep = self.gate(losses)
        correction, dropped = {}, []
        if self._correcting:
            wanted = [there[m] & ~keep[m] for m in keep]
            dropped = torch.stack(wanted).any(dim=0).nonzero()[:, 0]
        if len(dropped):
            correction = self.hparams.label_correction(
                self.classifiers,
                {m: cosines[m][dropped] for m in cosines},
                self._clean_logits(batch, dropped),
                {m: keep[m][dropped] for m in keep},
                {m: there[m][dropped] for m in there},
                margin,
            )
        loss = sum(
            combined_loss(
                losses[m],
                keep[m],
                correction.get(m),
                self.hparams.loss_reduction,
                len(labels),
            )
            for m in losses
        )
        self._note(index, losses, dropped, correction)
        self._log_step(loss, losses, keep, cosines, labels)
        return with_penalty(loss, self.encoder)

    def _note(self, index, losses, dropped, correction):
        """Keep for ``after_step`` what the stores record of a batch."""
        merged = None
        if correction:
            audio, face = correction["audio"], correction["face"]
            merged = Correction(
                None, audio.accepted | face.accepted, audio.labels, None
            )
        detached = {m: values.detach() for m, values in losses.items()}
        self._notes.append((index, detached, dropped, merged))

    @torch.no_grad()
    def _log_step(self, loss, losses, keep, cosines, labels):
        """Log the figures of a batch; those of faces are means over its faces.

        They are 0 if the batch has no face. All processes must log the same
        names, which are averaged together.
        """
        self.log.add(loss=loss.detach())
        for m, prefix in (("audio", ""), ("face", "face_")):
            here = ~losses[m].isnan()
            count = here.sum().clamp(min=1)
            right = here & (cosines[m].argmax(1) == labels)
            figures = {
                "label_loss": losses[m].nan_to_num(0.0).sum() / count,
                "label_accuracy": right.sum() / count,
                "kept": keep[m].sum() / count,
            }
            self.log.add(**{prefix + k: v for k, v in figures.items()})

    @torch.no_grad()
    def _clean_logits(self, batch, chosen):
        """Return logits of both modalities without augmentation."""
        audio = self._encode_clean(batch, chosen)
        self.face_encoder.eval()
        views = crop_features(self.face_features, batch.faces.crops[0][chosen])
        face = self._embed(self.face_encoder, [views])
        self._set_training_mode()
        return {
            "audio": self.classifier.logits(audio),
            "face": self.modules.face_classifier.logits(face),
        }

    # -- afterwards ----------------------------------------------------------

    def extra_metrics(self, scores):
        """Return the error rates by face and by both; see ``FaceTrials``."""
        if self.face_trials is None:
            return {}
        return self.face_trials.metrics(
            scores, self.face_encoder, self.face_features, self.device
        )

    def finish(self):
        """Finish as the base class does, and save what belongs to faces.

        Returns
        -------
        dict
            The content of ``results.json`` (empty on all but the main
            process).
        """
        metrics = super().finish()
        if metrics:
            folder = pathlib.Path(self.hparams.output_folder)
            export_encoder(
                folder / "model" / FACE_FOLDER,
                self.face_encoder,
                self.face_features,
            )
            path = folder / "save" / _FACE_CLASSIFIER
            with atomic_write(path, "wb") as stream:
                torch.save(self.modules.face_classifier.state_dict(), stream)
        return metrics

    def trusted(self):
        """Return which utterances are kept in every modality that they have.

        Returns
        -------
        numpy.ndarray
            bool ``[N]``.
        """
        losses = self.losses.previous
        masks = self.gate.mask(losses)
        keep = [masks[m] | losses[m].isnan() for m in masks]
        seen = ~torch.stack(list(losses.values())).isnan().all(dim=0)
        return np.logical_and.reduce([k.cpu() for k in [seen, *keep]])


_FACE_CLASSIFIER = "face_classifier.pt"
