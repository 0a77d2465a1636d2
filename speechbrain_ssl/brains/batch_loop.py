"""A batch of training, without waiting for the device after it.

Stock SpeechBrain copies the loss to the host after every batch, tests whether
it is finite, and averages it there. Each of these waits until the device has
computed all that was queued, which then stands idle until the host has queued
more. ``optimisation.take_step`` waits once a step, for the norm of the gradient.
"""

import math

import speechbrain as sb


class BatchLoop(sb.Brain):
    """Overrides what stock SpeechBrain does for each batch."""

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
