"""TrainingBrain: the training loop of SSLBrain and PseudoLabelBrain.

Read this file from top to bottom to follow a run. ``on_fit_start`` prepares it.
For each batch ``fit_batch`` (``batch_loop``) then calls ``compute_forward`` and
``compute_objectives`` (both defined by a subclass), the backward pass,
``optimizers_step`` and ``on_fit_batch_end``. ``on_stage_end`` validates and
saves after each epoch, and ``finish`` exports and evaluates the encoder.

The details are in neighbouring files: ``hooks`` (what a subclass may override),
``encoding`` (crops to embeddings), ``optimisation`` (schedules and the
optimiser step), ``evaluation`` (trials and weight averaging), ``bad_audio``
(unreadable files), ``run_log`` (logs), ``run_checkpoints`` (checkpoints) and
``finish`` (the end of a run). The subclasses are in ``ssl_brain`` and
``pseudo_label_brain``.

Where stock ``speechbrain.Brain`` would do harm, a method overrides it, and its
docstring says why.
"""

import copy
import logging
import time

import numpy as np
import speechbrain as sb
import torch
from speechbrain.utils.distributed import if_main_process

from speechbrain_ssl import distributed, interruption
from speechbrain_ssl.brains import divergence
from speechbrain_ssl.brains.bad_audio import BadAudioReport
from speechbrain_ssl.brains.checkpointing import (
    Generators,
    RunState,
    schedules_digest,
    shapes_digest,
)
from speechbrain_ssl.brains.encoding import (
    check_rows,
    compile_encoder,
    crop_features,
)
from speechbrain_ssl.brains.evaluation import (
    RecentWeights,
    TrialMonitor,
    average_weights,
    keep_initial_encoder,
)
from speechbrain_ssl.brains.finish import conclude
from speechbrain_ssl.brains.hooks import TrainingHooks
from speechbrain_ssl.brains.means import RunningMeans
from speechbrain_ssl.brains.optimisation import (
    BatchNormStatistics,
    apply_lr_ratios,
    compute_schedules,
    keep_lr_constant,
    parameter_groups,
    scale_learning_rate,
    take_step,
)
from speechbrain_ssl.brains.progress_line import name_bars
from speechbrain_ssl.brains.run_checkpoints import RunCheckpoints
from speechbrain_ssl.brains.run_log import RunLog
from speechbrain_ssl.data.loaders import fit_to_corpus, make_loaders
from speechbrain_ssl.publishing.export import initialise
from speechbrain_ssl.sync_batch_norm import prepare_modules
from speechbrain_ssl.verification.label_free import label_free_scores

logger = logging.getLogger(__name__)


class TrainingBrain(TrainingHooks):
    """Trains an encoder; a subclass defines how a batch becomes a loss.

    ``TrainingHooks`` lists what else a subclass may override.

    ``modules`` holds ``encoder`` and whatever else is trained. The
    hyper-parameters it reads are ``features``, ``augmentation``, ``crops``,
    ``schedules`` (name -> schedule: ``lr``, ``weight_decay`` and what the
    subclass adds), ``lr_reference_batch``, ``clip_per_tensor``,
    ``average_last``, ``log_every``, ``seed``, ``number_of_epochs``,
    ``batch_size``, ``num_workers``, ``train_logger``, ``valid_utterances``, ``valid_seconds``,
    ``epoch_counter``, ``output_folder``, ``initial_model`` (an exported encoder
    to start from, or None), ``collapse_alarm``, ``on_divergence`` and, for evaluation only,
    ``trials``, ``trials_folder``, ``trials_speaker_component`` and
    ``trials_every`` (see ``speechbrain_ssl.brains.evaluation``).
    """

    #: Whether what does not depend on a checkpoint has been set up.
    is_prepared = False

    # -- set-up ------------------------------------------------------------

    @property
    def is_resuming(self):
        """Whether this run resumes from a checkpoint of its own."""
        return self.checkpoints.found is not None

    @property
    def epoch_reached(self):
        """Number of the last epoch that was started."""
        return int(self.hparams.epoch_counter.current)

    @property
    def steps_per_epoch(self):
        """Optimiser steps in an epoch."""
        return len(self.train_sampler) // self.grad_accumulation_factor

    @property
    def effective_batch(self):
        """Utterances per optimiser step, over all processes."""
        return (
            self.hparams.batch_size
            * distributed.world_size()
            * self.grad_accumulation_factor
        )

    def make_loaders(self, manifest, seed=None):
        """Split off a validation set and make both data loaders.

        Arguments
        ---------
        manifest : speechbrain_ssl.data.manifest.Manifest
            All utterances.
        seed : int, optional
            Seed of the order and the crops; the seed of the run by default.

        Returns
        -------
        tuple
            Loaders for training and for validation, to be passed to ``fit``.
            ``self.train_manifest`` and ``self.held_out_manifest`` are their
            manifests.
        """
        batches = distributed.world_size() * self.grad_accumulation_factor
        fit_to_corpus(vars(self.hparams), manifest, batches)
        train_loader, self.train_sampler, valid_loader = make_loaders(
            manifest,
            self.hparams.crops,
            self.hparams.seed if seed is None else seed,
            self.hparams.batch_size,
            self.hparams.num_workers,
            self.hparams.valid_utterances,
            self.hparams.valid_seconds,
            self.grad_accumulation_factor,
            pin_memory=self.device_type == "cuda",
            **self.loader_options(),
        )
        dataset = train_loader.dataset
        self.train_manifest = dataset.manifest
        self.held_out_manifest = valid_loader.dataset.manifest
        table = f"{self.hparams.output_folder}/missing_audio.csv"
        getattr(dataset, "audio", dataset).table = table
        return train_loader, valid_loader

    def fit(self, *args, **kwargs):
        """Train; after a divergence do as ``on_divergence`` says."""
        divergence.fit_or_retreat(self, super().fit, *args, **kwargs)

    def on_fit_start(self):
        """Prepare everything that depends on device and ranks, and resume."""
        self.checkpoints = RunCheckpoints(self.checkpointer)
        if not self.is_prepared:
            self._prepare()
            self.is_prepared = True
        self._set_up_logs()
        # Each rank draws different numbers from torch's generator (dropout).
        torch.manual_seed(self.hparams.seed + distributed.rank())
        self._resume()
        self.statistics = BatchNormStatistics(
            [*self.modules.values(), *self.recoverables().values()]
        )
        self._clock = time.monotonic()

    def _prepare(self):
        """Prepare what a divergence leaves as it is.

        The order matters: the encoder is initialised before it is copied to a
        teacher (in ``set_up``), and all objects with state must exist before
        the checkpoint is loaded.
        """
        if self.optimizer_step_limit is not None:
            # SpeechBrain passes the value from the command line as a string.
            self.optimizer_step_limit = int(self.optimizer_step_limit)
        check_rows(
            self.encoder,
            self.hparams.crops,
            self.hparams.batch_size,
            self.synchronises_batch_norms,
        )
        self.configured = compute_schedules(
            self.hparams.schedules,
            self.wanted_schedules,
            self.hparams.number_of_epochs,
            self.steps_per_epoch,
            self.objective_name,
        )
        scale_learning_rate(
            self.configured,
            self.hparams.batch_size,
            self.grad_accumulation_factor,
            self.hparams.lr_reference_batch,
        )
        self._set_up_trials()
        if self.hparams.initial_model and not self.is_resuming:
            initialise(
                self.encoder, self.hparams.initial_model, self.hparams.features
            )
        self.hparams.features.check_encoder(self.encoder)
        self.features = self.hparams.features.to(self.device)
        self.augmentation = self.hparams.augmentation
        self.augmentation.load()
        self.augmentation.to(self.device)
        compile_encoder(self)
        self._wrap_distributed()
        self.set_up()
        if self.trials is not None and self.has_pretrained_init:
            self.trials.initial = keep_initial_encoder(
                self.evaluated_encoder,
                self.hparams.output_folder,
                self.is_resuming,
                self.device,
            )
        self.init_optimizers()
        self.stop_request = distributed.SameStep()
        self.save_request = distributed.SameStep()

    def _set_up_trials(self):
        """Load the trials, so that a missing file fails before training."""
        self.trials = None
        if self.hparams.trials and if_main_process():
            self.trials = TrialMonitor(
                self.hparams.trials,
                self.hparams.trials_folder,
                self.hparams.trials_speaker_component,
                untrained=copy.deepcopy(self.encoder),
            )

    def _set_up_logs(self):
        """Create the state of the run, its logs, and its record of weights."""
        folder = self.hparams.output_folder
        self.state = RunState(
            seconds=0.0, skipped=0, bad_in_epoch=0, signs={}, means={}
        )
        epochs = self.hparams.number_of_epochs
        self.log = RunLog(folder, epochs, self.hparams.train_logger)
        self.recent_weights = RecentWeights(folder, self.hparams.average_last)
        self.bad_audio = BadAudioReport(
            folder,
            len(self.train_sampler) * self.hparams.batch_size,
            self.state,
        )

    def _wrap_distributed(self):
        """Synchronise batch norms and parameters, without DDP wrappers.

        SpeechBrain's DDP wrappers fail with batch norm on gloo, and with two
        forward passes before a backward pass.
        """
        prepare_modules(
            self.modules, self.device, self.synchronises_batch_norms
        )

    def init_optimizers(self):
        """Create the optimiser and its groups; see ``optimisation``."""
        self.trained = [p for p in self.modules.parameters() if p.requires_grad]
        groups = parameter_groups(
            self.trained,
            self.no_weight_decay_parameters(),
            self.decay_vectors,
        )
        keep_lr_constant(groups, self.constant_lr_parameters())
        apply_lr_ratios(groups, self.encoder)
        self.optimizer = self.opt_class(groups, lr=0.0)
        self.optimizers_dict = {"optimizer": self.optimizer}

    # -- a step --------------------------------------------------------------

    def on_fit_batch_start(self, batch, should_step):
        """Record the audio files of the batch that could not be read."""
        self.bad_audio.add(batch.bad, self.epoch)

    def scheduled(self, name, step):
        """Return a scheduled value at an optimiser step."""
        return float(self.schedules[name][step])

    def to_features(self, crops):
        """Return the features of crops ``[batch, crops, samples]``."""
        return crop_features(self.features, crops)

    def inputs(self, batch):
        """Augment the crops of a batch and compute their features.

        Arguments
        ---------
        batch : speechbrain_ssl.data.dataset.CropBatch
            The crops, on the device.

        Returns
        -------
        list of torch.Tensor
            Features ``[batch, crops, frames, features]``, one tensor for each
            group of crops of equal length.
        """
        address = (self.hparams.seed, batch.epoch, batch.keys)
        inputs, seen = [], 0
        for crops in batch.crops:
            noisy = self.augmentation(crops, address, first_crop=seen)
            seen += crops.shape[1]
            inputs.append(self.to_features(noisy))
        return inputs

    def optimizers_step(self):
        """Take one optimiser step, or skip it; see ``take_step``."""
        for parameter in self.frozen_parameters():
            parameter.grad = None
        norm = take_step(
            self.optimizer,
            self.scaler,
            self.trained,
            lr=self.scheduled("lr", self.optimizer_step),
            peak_lr=self.peak_lr,
            weight_decay=self.scheduled("weight_decay", self.optimizer_step),
            max_norm=self.hparams.clip_per_tensor,
            unclipped=self.unclipped_parameters(),
        )
        # A skipped step counts, so that schedules and data stay in step.
        self.optimizer_step += 1
        self.stepped = norm is not None
        if self.stepped:
            self.log.add(grad_norm=norm)
            self.state.values["skipped"] = 0
        else:
            divergence.count_skipped(self)

    def on_fit_batch_end(self, batch, outputs, loss, should_step):
        """Update what follows the weights (a teacher, say), and log."""
        if not should_step:
            return
        if self.stepped:
            self.after_step()
            self.statistics.keep()
        else:
            self.skip_step()
            self.statistics.restore()
        if self.optimizer_step % self.hparams.log_every == 0:
            self._log_steps()

    def _log_steps(self):
        last = self.optimizer_step - 1
        scheduled = {n: self.scheduled(n, last) for n in self.schedules}
        self.log.write_steps(self.epoch, self.optimizer_step, scheduled)

    # -- epochs --------------------------------------------------------------

    def on_stage_start(self, stage, epoch=None):
        """Start an epoch of training, or a validation."""
        name_bars(stage, epoch, self.hparams.number_of_epochs)
        if stage == sb.Stage.TRAIN:
            self.epoch = epoch
            self.train_sampler.set_epoch(epoch)
            self.train_sampler.seek(self.step)
            self.augmentation.begin_epoch(epoch)
            if self.step == 0:
                self.log.begin_epoch()
                self.bad_audio.begin_epoch()
            self.before_epoch(epoch)
            # From here on a signal must not interrupt a step or a checkpoint.
            interruption.defer(True)
        else:
            self._collected, self._held_out = [], RunningMeans()

    def on_stage_end(self, stage, stage_loss, epoch=None):
        """After validation, write the logs, check for collapse, and save."""
        if stage == sb.Stage.TRAIN:
            self._log_steps()
            return
        divergence.refuse(self, self._collected)
        after_epoch = self.after_epoch()
        scalars = label_free_scores(np.concatenate(self._collected))
        held_out = self._held_out.read()
        scalars.update({f"held_out_{k}": v for k, v in held_out.items()})
        scalars |= after_epoch | {"minutes": self.seconds() / 60}
        trained = self.log.epoch_means()
        self.log.write_epoch(
            epoch,
            self.optimizer_step,
            trained.get("loss", float("nan")),
            self.scheduled("lr", self.optimizer_step - 1),
            scalars,
        )
        if if_main_process():
            self._evaluate_trials(epoch)
            self.log.write_page(self.schedules)
            self.recent_weights.save(self.averaged_modules(), epoch)
        # The alarm needs both training and validation metrics.
        self.state.values["signs"] = self.hparams.collapse_alarm.check(
            epoch,
            {**trained, **held_out, **scalars},
            self.state.values["signs"],
        )
        self._save_checkpoint(end_of_epoch=True)
        if distributed.on_any_rank(interruption.requested()):
            self._stop()
        interruption.defer(False)

    def _stop(self):
        """End the run after a signal; a checkpoint has been saved."""
        distributed.leave()
        who = interruption.requested() or "a signal to another process"
        raise interruption.Interrupted(
            f"{who} in epoch {self.epoch}, after {self.optimizer_step} steps"
        )

    def _evaluate_trials(self, epoch):
        """Log the EER on the trial list every ``trials_every`` epochs."""
        every = self.hparams.trials_every
        if self.trials is None or every <= 0 or epoch % every:
            return
        # It may take minutes, and only the log would lack the result.
        with interruption.may_be_skipped():
            if not interruption.requested():
                eer = self.trials.eer(
                    self.evaluated_encoder, self.features, self.device
                )
                self.log.write_trials(
                    epoch, self.optimizer_step, self.trials.name, eer
                )

    def finish(self):
        """Average the last weights, export, evaluate, and write the report.

        Returns
        -------
        dict
            The content of ``results.json`` (empty on all but the main
            process).
        """
        if not if_main_process():
            return {}
        average_weights(self.averaged_modules(), self.recent_weights.files())
        return conclude(self)

    # -- checkpoints -----------------------------------------------------------

    def _resume(self):
        """Register all objects with state, and load the newest checkpoint."""
        self.checkpoints.load(
            {
                "encoder": self.encoder,
                "optimizer": self.optimizer,
                "counter": self.hparams.epoch_counter,
                "generators": Generators(self.hparams.seed, distributed.rank()),
                "state": self.state,
                **self.recoverables(),
            },
            self._fingerprint(),
        )
        divergence.lower_rate(self)
        means, epoch = None, 0
        if self.is_resuming:
            means, epoch = self.state.values["means"], self.epoch_reached
            logger.info("Resuming after %d steps", self.optimizer_step)
        self.log.resume(means, self.optimizer_step)
        if if_main_process():
            self.recent_weights.drop_after(epoch)

    def _fingerprint(self):
        """Return the values that a checkpoint must share with this run."""
        return {
            "utterances": int(self.train_sampler.num_samples),
            "effective_batch": int(self.effective_batch),
            # A checkpoint counts batches, so this must not change either.
            "accumulated": int(self.grad_accumulation_factor),
            "epochs": int(self.hparams.number_of_epochs),
            "seed": int(self.hparams.seed),
            **self.checkpoint_fingerprint(),
            "model": shapes_digest(self.modules),
            "schedules": schedules_digest(self.configured),
        }

    def _save_checkpoint(self, end_of_epoch):
        if self.checkpointer is None:
            return
        self.state.values.update(seconds=self.seconds(), means=self.log.state())
        self._clock = time.monotonic()
        self.checkpoints.save(
            self._fingerprint(), self.epoch_reached, end_of_epoch
        )

    def _save_intra_epoch_ckpt(self):
        divergence.refuse(self)
        self._save_checkpoint(end_of_epoch=False)
        if self.stopping:
            self._stop()

    def _should_save_intra_epoch_ckpt(self, last_ckpt_time, steps_since_ckpt):
        """Return whether to save now: after a while, or to stop after a signal.

        Stock SpeechBrain broadcasts a pickled decision after every batch, and
        saves in the middle of accumulated gradients, which are lost then.
        """
        if (
            self.step % self.grad_accumulation_factor
            or self.step >= len(self.train_sampler)  # saved in on_stage_end
        ):
            return False
        signalled = interruption.requested() is not None
        minutes = (time.time() - last_ckpt_time) / 60
        late = 0 < self.ckpt_interval_minutes < minutes
        self.stopping = self.stop_request.ask(signalled, self.optimizer_step)
        due = self.save_request.ask(late, self.optimizer_step)
        due |= 0 < self.ckpt_interval_steps <= steps_since_ckpt
        return due or self.stopping

    def seconds(self):
        """Return the wall time of the run in seconds, over all its starts."""
        return self.state.values["seconds"] + time.monotonic() - self._clock
