"""EmotionBrain: fine-tune an encoder and a classifier in two steps.

In the first ``affine_epochs`` epochs only the classifier and the last affine
layer of the encoder are trained, after that all weights. This file holds the
training loop; ``speechbrain_ssl.downstream.finetune`` supplies the data, the
labels and the learning rates of each fold, and predicts its test side.
"""

import logging

import speechbrain as sb
import torch
import torch.nn.functional as F

from speechbrain_ssl import interruption
from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.run_folder import refuse_other

logger = logging.getLogger(__name__)


def make_classifier(size, classes, seed):
    """Return a classifier: batch norm without parameters, then an affine layer.

    The batch norm standardises the embeddings, so that one learning rate suits
    embeddings of any scale.

    Arguments
    ---------
    size : int
        Size of an embedding.
    classes : int
        Number of classes.
    seed : int
        Seed of the initial weights; the state of torch's global generator is
        not changed.

    Returns
    -------
    torch.nn.Sequential
        ``[batch, size]`` -> logits ``[batch, classes]``.

    Example
    -------
    >>> make_classifier(4, 3, seed=1)(torch.rand(2, 4)).shape
    torch.Size([2, 3])
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return torch.nn.Sequential(
            torch.nn.BatchNorm1d(size, affine=False),
            torch.nn.Linear(size, classes),
        )


class EmotionBrain(sb.Brain):
    """Trains a classifier and, after ``affine_epochs``, the whole encoder.

    ``modules`` holds ``encoder`` (with a method ``last_affine``) and
    ``classifier``. The hyper-parameters it reads are ``features``,
    ``augmentation``, ``seed``, ``affine_epochs``, ``weight_decay``,
    ``fingerprint`` (what a checkpoint must agree with) and ``epoch_counter``.

    Attributes
    ----------
    labels : torch.Tensor
        Class of every training utterance, int64 ``[N]``. Set it before calling
        ``fit``, as well as ``rates`` and ``train_sampler``.
    rates : numpy.ndarray
        Learning rate of every step of the run.
    train_sampler : speechbrain_ssl.data.sampling.EpochBatchSampler
        Sampler of the training loader.
    last_loss : float or None
        Mean loss of the last epoch; None if none was trained.
    """

    def on_fit_start(self):
        """Move data to the device, and resume from a checkpoint of this run.

        Raises
        ------
        CheckpointError
            If the checkpoint belongs to another configuration.
        """
        self.features = self.hparams.features.to(self.device)
        self.augmentation = self.hparams.augmentation.to(self.device)
        self.labels = self.labels.to(self.device)
        self.last_loss = None
        self.checkpointer.add_recoverables(
            {
                "encoder": self.modules.encoder,
                "classifier": self.modules.classifier,
                "counter": self.hparams.epoch_counter,
            }
        )
        found = self.checkpointer.newest_whole()
        if found is not None:
            refuse_other(
                f"{found.path} is a checkpoint",
                found.meta["fingerprint"],
                self.hparams.fingerprint,
            )
            self.last_loss = found.meta["loss"]
        if self.optimizer_step_limit is not None:
            # SpeechBrain passes the value from the command line as a string.
            self.optimizer_step_limit = int(self.optimizer_step_limit)
        super().on_fit_start()

    def init_optimizers(self):
        """Make the optimiser, with all parameters in a single group.

        The stock optimiser step clips the gradients of the first group only.
        """
        self.optimizer = self.opt_class(
            self.modules.parameters(),
            lr=0.0,
            weight_decay=self.hparams.weight_decay,
        )
        self.optimizers_dict = {"optimizer": self.optimizer}
        self.checkpointer.add_recoverable("optimizer", self.optimizer)

    @property
    def affine_only(self):
        """Whether only the last affine layers are trained in this epoch."""
        return self.epoch <= self.hparams.affine_epochs

    def on_stage_start(self, stage, epoch=None):
        """Freeze or unfreeze the encoder below its last affine layer."""
        self.epoch = epoch
        self.train_sampler.set_epoch(epoch)
        self.train_sampler.seek(self.step)
        self.augmentation.begin_epoch(epoch)
        encoder = self.modules.encoder
        encoder.requires_grad_(not self.affine_only)
        encoder.last_affine().requires_grad_(True)
        # From here on a signal must not interrupt a step or a checkpoint.
        interruption.defer(True)

    def on_fit_batch_start(self, batch, should_step):
        """Set the learning rate; keep the statistics of frozen batch norms.

        In evaluation mode a frozen batch norm does not update its running
        statistics either.
        """
        if self.affine_only:
            self.modules.encoder.eval()
        for group in self.optimizer.param_groups:
            group["lr"] = float(self.rates[self.optimizer_step])
        if batch.bad:
            logger.warning(
                "unusable audio, replaced by another utterance: %s",
                "; ".join(f"{path} ({why})" for path, why in batch.bad),
            )

    def compute_forward(self, batch, stage):
        """Return the logits ``[batch, classes]`` of the chunks of a batch."""
        batch.to(self.device)
        (chunks,) = batch.crops
        address = (self.hparams.seed, batch.epoch, batch.keys)
        waves = self.augmentation(chunks, address).flatten(0, 1)
        embeddings = self.modules.encoder(self.features(waves)).squeeze(1)
        return self.modules.classifier(embeddings.float())

    def compute_objectives(self, predictions, batch, stage):
        """Return the mean cross entropy, in nats."""
        index = batch.index.to(self.device, non_blocking=True)
        return F.cross_entropy(predictions.float(), self.labels[index])

    def _should_save_intra_epoch_ckpt(self, last_ckpt_time, steps_since_ckpt):
        # An epoch takes minutes: its end, or a signal, are occasions enough.
        return (
            interruption.requested() is not None
            and self.step % self.grad_accumulation_factor == 0
            and self.step < len(self.train_sampler)  # saved in on_stage_end
        )

    def _save_intra_epoch_ckpt(self):
        self._save_checkpoint(end_of_epoch=False)

    def _save_checkpoint(self, end_of_epoch):
        """Save a checkpoint; end the run if a signal has asked for it."""
        self.checkpointer.save_and_keep_only(
            meta={
                "fingerprint": self.hparams.fingerprint,
                "loss": self.last_loss,
                "epoch": self.epoch,
            },
            end_of_epoch=end_of_epoch,
            num_to_keep=2,
        )
        if interruption.requested():
            raise interruption.Interrupted(
                f"{interruption.requested()} in epoch {self.epoch}, after "
                f"{self.optimizer_step} steps"
            )

    def check_loss_isfinite(self, loss):
        """Stop at the first loss that is not finite.

        The stock check tolerates three of them, but a single step with such a
        loss already ruins all weights.

        Raises
        ------
        ConfigError
            If the loss is NaN or infinite.
        """
        if not torch.isfinite(loss):
            raise ConfigError(
                f"the loss of epoch {self.epoch} is not finite; lower "
                "`affine_lr` and `lr`, or train in fp32 (--precision=fp32)"
            )

    def on_stage_end(self, stage, stage_loss, epoch=None):
        """Log the loss of the epoch and save a checkpoint."""
        self.last_loss = float(stage_loss)
        logger.info(
            "epoch %d (%s): loss %.4f",
            epoch,
            "last affine layers" if self.affine_only else "everything",
            self.last_loss,
        )
        # Stock SpeechBrain resets these two only after this method. A
        # checkpoint with the old values would make a resumed run believe that
        # it has reached the end of its next epoch already.
        self.step, self.avg_train_loss = 0, 0.0
        self._save_checkpoint(end_of_epoch=True)
        interruption.defer(False)
