"""EmotionBrain: an encoder and a classifier, fine-tuned in two steps.

Who wants what to be learned, and from which files, is decided in
``speechbrain_ssl.downstream.finetune``; this file conducts.
"""

import logging

import speechbrain as sb
import torch
import torch.nn.functional as F

from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.run_folder import refuse_other

logger = logging.getLogger(__name__)


def make_classifier(size, classes, seed):
    """Batch norm without parameters, and an affine layer.

    The norm is what standardisation is to a probe: embeddings of any scale
    meet the same learning rate.

    Arguments
    ---------
    size : int
        Of the embedding.
    classes : int
        Number of classes.
    seed : int
        Of the weights; the global generator is left as it is.

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
    """Trains a classifier and, after ``affine_epochs``, all of the encoder.

    ``modules`` holds ``encoder`` (with a last affine layer ``fc``) and
    ``classifier``. The hyper-parameters it reads are ``features``,
    ``augmentation``, ``seed``, ``affine_epochs``, ``weight_decay``,
    ``identity`` (what a checkpoint must agree with) and ``epoch_counter``.

    Attributes
    ----------
    labels : torch.Tensor
        Class of every training utterance, int64 ``[N]``. To be set before
        ``fit``, as the next two.
    rates : numpy.ndarray
        Learning rate of every step of the run.
    train_sampler : speechbrain_ssl.data.sampling.EpochBatchSampler
        The order of the data.
    last_loss : float or None
        Mean loss of the last epoch; None if none was trained.
    """

    def on_fit_start(self):
        """Prepares the rest; goes on from a checkpoint of the same run."""
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
        found = self.checkpointer.find_checkpoint()
        if found is not None:
            refuse_other(
                f"{found.path} is a checkpoint",
                found.meta["identity"],
                self.hparams.identity,
            )
            self.last_loss = found.meta["loss"]
        if self.optimizer_step_limit is not None:
            # From the command line SpeechBrain hands it on as a string.
            self.optimizer_step_limit = int(self.optimizer_step_limit)
        super().on_fit_start()

    def init_optimizers(self):
        """One group for all: the stock step clips the first group only."""
        self.optimizer = self.opt_class(
            self.modules.parameters(),
            lr=0.0,
            weight_decay=self.hparams.weight_decay,
        )
        self.optimizers_dict = {"optimizer": self.optimizer}
        self.checkpointer.add_recoverable("optimizer", self.optimizer)

    @property
    def affine_only(self):
        """Whether this is the first step."""
        return self.epoch <= self.hparams.affine_epochs

    def on_stage_start(self, stage, epoch=None):
        """Freezes, or thaws, all but the last affine layers."""
        self.epoch = epoch
        self.train_sampler.set_epoch(epoch)
        encoder = self.modules.encoder
        encoder.requires_grad_(not self.affine_only)
        encoder.fc.requires_grad_(True)

    def on_fit_batch_start(self, batch, should_step):
        """A frozen layer's running statistics stay as they are, too."""
        if self.affine_only:
            self.modules.encoder.eval()
        for group in self.optimizer.param_groups:
            group["lr"] = float(self.rates[self.optimizer_step])
        if batch.bad:
            logger.warning(
                "cannot be used, another utterance took its place: %s",
                "; ".join(f"{path} ({why})" for path, why in batch.bad),
            )

    def compute_forward(self, batch, stage):
        """Logits ``[batch, classes]`` of the chunks of a batch."""
        batch.to(self.device)
        (chunks,) = batch.crops
        address = (self.hparams.seed, batch.epoch, batch.keys)
        waves = self.augmentation(chunks, address).flatten(0, 1)
        embeddings = self.modules.encoder(self.features(waves)).squeeze(1)
        return self.modules.classifier(embeddings.float())

    def compute_objectives(self, predictions, batch, stage):
        """Cross entropy, in nats."""
        index = batch.index.to(self.device)
        return F.cross_entropy(predictions.float(), self.labels[index])

    def _should_save_intra_epoch_ckpt(self, last_ckpt_time, steps_since_ckpt):
        # An epoch is minutes: a run goes on from the last whole one.
        return False

    def check_loss_isfinite(self, loss):
        """Stops at the first loss that is not finite.

        The stock check counts three of them and goes on; one such step has
        spoilt all weights already.
        """
        if not torch.isfinite(loss):
            raise ConfigError(
                f"the loss of epoch {self.epoch} is not finite; lower "
                "`affine_lr` and `lr`, or train in fp32 (--precision=fp32)"
            )

    def on_stage_end(self, stage, stage_loss, epoch=None):
        """Logs, and saves."""
        self.last_loss = float(stage_loss)
        logger.info(
            "epoch %d (%s): loss %.4f",
            epoch,
            "last affine layers" if self.affine_only else "everything",
            self.last_loss,
        )
        # Stock SpeechBrain resets them after this, and a checkpoint would tell a
        # resumed run that it stands at the end of its next epoch.
        self.step, self.avg_train_loss = 0, 0.0
        self.checkpointer.save_and_keep_only(
            meta={"identity": self.hparams.identity, "loss": self.last_loss},
            num_to_keep=1,
        )
