"""A batch of training, without waiting for the device after it, or of validation.

Stock SpeechBrain copies the loss to the host after every batch, tests whether
it is finite, and averages it there. Each of these waits until the device has
computed all that was queued, which then stands idle until the host has queued
more. ``optimisation.take_step`` waits once a step, for the norm of the gradient.
"""

import math

import numpy as np
import speechbrain as sb
import torch

from speechbrain_ssl import distributed, interruption
from speechbrain_ssl.brains.encoding import encode
from speechbrain_ssl.verification.label_free import label_free_scores


class BatchLoop(sb.Brain):
    """Overrides what stock SpeechBrain does for each batch."""

    def fit(self, epoch_counter, train_set, valid_set=None, **options):
        """Train as ``speechbrain.Brain.fit`` does, after a first validation."""
        self._valid_set = valid_set
        super().fit(epoch_counter, train_set, valid_set, **options)

    def _fit_train(self, train_set, epoch, enable):
        first = epoch == 1 and not self.is_resuming
        if first and self._valid_set is not None:
            self._validate_start()
        super()._fit_train(train_set, epoch, enable)

    def _validate_start(self):
        """Log the label-free metrics of the encoder before its first step."""
        self.on_stage_start(sb.Stage.VALID, 0)
        for batch in self._valid_set:
            self.evaluate_batch(batch, sb.Stage.VALID)
        embeddings = np.concatenate(self._collected)
        # If they are not finite, training will stop and say so.
        if np.isfinite(embeddings).all():
            self.log.write_start(label_free_scores(embeddings))

    def fit_batch(self, batch):
        """Train on a batch; call ``optimizers_step`` if one is due.

        Arguments
        ---------
        batch : speechbrain_ssl.data.dataset.CropBatch
            The batch.

        Returns
        -------
        torch.Tensor
            The loss, on the device and without gradient.
        """
        should_step = self.step % self.grad_accumulation_factor == 0
        self.on_fit_batch_start(batch, should_step)
        with self.training_ctx:
            outputs = self.compute_forward(batch, sb.Stage.TRAIN)
            loss = self.compute_objectives(outputs, batch, sb.Stage.TRAIN)
        share = loss / self.grad_accumulation_factor
        self.scaler.scale(share).backward()
        if should_step:
            self.optimizers_step()
        self.on_fit_batch_end(batch, outputs, loss, should_step)
        return loss.detach()

    def update_average(self, loss, avg_loss):
        """Return the loss that the progress bar shows, that of the log."""
        if math.isnan(self.log.loss):
            # Of the first batch, which alone is waited for.
            self.log.loss = float(loss)
        return self.log.loss

    @torch.no_grad()
    def evaluate_batch(self, batch, stage):
        """Collect embeddings of held-out crops; return 0 in place of a loss."""
        trained = self.optimizer_step > 0
        if trained and distributed.on_any_rank(interruption.requested()):
            # No step of the epoch is left: the next start validates again.
            self.step, self.stopping = len(self.train_sampler), True
            self._save_intra_epoch_ckpt()
        self.evaluated_encoder.eval()
        with self.evaluation_ctx:
            batch.to(self.device)
            embeddings = encode(self.evaluated_encoder, self.inputs(batch))
            self._held_out.add(**self.held_out(embeddings))
        self._collected.append(embeddings.float().cpu().numpy())
        return torch.zeros(())
