"""TrainingBrain: what every training run of an encoder has in common.

It conducts. The way of a batch is ``fit_batch`` of SpeechBrain's Brain:
``compute_forward`` and ``compute_objectives`` (of a subclass), backward,
``optimizers_step``, ``on_fit_batch_end``. What these need is made in
``on_fit_start`` and lies beside this file: the step in ``optimisation``,
evaluation in ``evaluation``, unreadable audio in ``bad_audio``, the end of a
run in ``finish``.

It differs from stock ``speechbrain.Brain`` where stock behaviour is a trap;
each place says why.
"""

import copy
import logging
import time

import numpy as np
import speechbrain as sb
import torch
from speechbrain.utils.distributed import if_main_process

from speechbrain_ssl import distributed
from speechbrain_ssl.brains.bad_audio import BadAudioReport
from speechbrain_ssl.brains.checkpointing import (
    Generators,
    RunState,
    schedules_digest,
    shapes_digest,
)
from speechbrain_ssl.brains.encoding import crop_features, encode
from speechbrain_ssl.brains.evaluation import (
    RecentWeights,
    TrialMonitor,
    average_weights,
    keep_initial_encoder,
)
from speechbrain_ssl.brains.finish import conclude
from speechbrain_ssl.brains.means import RunningMeans
from speechbrain_ssl.brains.optimisation import (
    BatchNormStatistics,
    compute_schedules,
    parameter_groups,
    scale_learning_rate,
    take_step,
)
from speechbrain_ssl.brains.run_checkpoints import RunCheckpoints
from speechbrain_ssl.brains.run_log import RunLog
from speechbrain_ssl.data.loaders import make_loaders
from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.publishing.export import initialise
from speechbrain_ssl.verification.label_free import label_free_scores

logger = logging.getLogger(__name__)


class TrainingBrain(sb.Brain):
    """Trains an encoder; how a batch becomes a loss is the subclass's.

    ``modules`` holds ``encoder`` and what else is trained. The
    hyper-parameters it reads are ``features``, ``augmentation``, ``crops``,
    ``schedules`` (name -> schedule: ``lr``, ``weight_decay`` and what the
    subclass names), ``lr_reference_batch``, ``clip_per_tensor``,
    ``average_last``, ``log_every``, ``seed``, ``number_of_epochs``,
    ``batch_size``, ``num_workers``, ``valid_utterances``, ``valid_seconds``,
    ``epoch_counter``, ``output_folder``, ``initial_model`` (an exported encoder
    to begin with, or None), ``collapse_alarm`` and, for the reader's eyes only,
    ``trials`` (see ``speechbrain_ssl.brains.evaluation``).
    """

    #: Steps in a row without a finite gradient before the run stops.
    MAX_SKIPPED = 20

    # -- what a subclass says ------------------------------------------------

    #: Which speaker labels training has seen, for ``results.json``.
    labels_seen = "none"

    #: What is trained, in a word, for error messages.
    objective_name = "this Brain"

    #: Schedules that must be given, and no others.
    wanted_schedules = ("lr", "weight_decay")

    def loader_options(self):
        """Return further arguments for ``make_loaders``."""
        return {}

    def set_up(self):
        """Make what depends on the device; before a checkpoint is read."""

    def recoverables(self):
        """Return name -> object with state, beside what every run saves."""
        return {}

    def extra_results(self):
        """Return further entries for ``results.json``."""
        return {}

    def checkpoint_fingerprint(self):
        """Return further plain values that must agree with a checkpoint's."""
        return {}

    def before_epoch(self, epoch):
        """Prepare an epoch, in all processes, before its first step.

        Called also where an epoch is resumed in its middle, with the state of
        the checkpoint; ``self.step`` is above 0 then.
        """

    def frozen_parameters(self):
        """Return parameters that this step must not move."""
        return []

    def no_weight_decay_parameters(self):
        """Return matrices without weight decay; vectors never have it."""
        return []

    def after_step(self):
        """Move what follows the training; not called for a skipped step."""

    def skip_step(self):
        """Forget the step; called instead of ``after_step``."""

    def after_epoch(self):
        """Finish an epoch, in all processes, after its last step.

        Returns
        -------
        dict
            Scalars for the epoch's line in the log.
        """
        return {}

    def held_out(self, embeddings):
        """Return scalars of held-out crops ``[batch, crops, size]``."""
        return {}

    # -- set-up ------------------------------------------------------------

    @property
    def encoder(self):
        """The encoder that is trained."""
        return self.modules.encoder

    @property
    def evaluated_encoder(self):
        """The encoder that is evaluated and exported."""
        return self.encoder

    @property
    def is_resuming(self):
        """Whether this run goes on from a checkpoint of its own."""
        return self.checkpoints.found is not None

    @property
    def has_pretrained_init(self):
        """Whether the encoder begins with the weights of another run."""
        return bool(self.hparams.initial_model)

    @property
    def epoch_reached(self):
        """The last epoch that was begun."""
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
        """Split off validation and make both loaders.

        Arguments
        ---------
        manifest : speechbrain_ssl.data.manifest.Manifest
            All utterances.
        seed : int, optional
            Seed of the order and the crops; that of the run if not given.

        Returns
        -------
        tuple
            Loaders for training and for validation, to be given to ``fit``. The
            manifest of the training part is ``train_manifest`` from here on.
        """
        train_loader, self.train_sampler, valid_loader = make_loaders(
            manifest,
            self.hparams.crops,
            self.hparams.seed if seed is None else seed,
            self.hparams.batch_size,
            self.hparams.num_workers,
            self.hparams.valid_utterances,
            self.hparams.valid_seconds,
            self.grad_accumulation_factor,
            **self.loader_options(),
        )
        self.train_manifest = train_loader.dataset.manifest
        return train_loader, valid_loader

    def on_fit_start(self):
        """Prepare everything that depends on the device or on the ranks."""
        if self.optimizer_step_limit is not None:
            # From the command line SpeechBrain hands it on as a string.
            self.optimizer_step_limit = int(self.optimizer_step_limit)
        self.schedules = compute_schedules(
            self.hparams.schedules,
            self.wanted_schedules,
            self.hparams.number_of_epochs,
            self.steps_per_epoch,
            self.objective_name,
        )
        scale_learning_rate(
            self.schedules,
            self.effective_batch,
            self.hparams.lr_reference_batch,
        )
        self.checkpoints = RunCheckpoints(self.checkpointer)
        self._set_up_trials()
        if self.hparams.initial_model and not self.is_resuming:
            initialise(self.encoder, self.hparams.initial_model)
        self.features = self.hparams.features.to(self.device)
        self.augmentation = self.hparams.augmentation
        self.augmentation.load()
        self.augmentation.to(self.device)
        self._compile()
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
        self._set_up_logs()
        # Ranks differ in what they draw from torch's generator, if anything.
        torch.manual_seed(self.hparams.seed + distributed.rank())
        self._resume()
        self.statistics = BatchNormStatistics(
            [*self.modules.values(), *self.recoverables().values()]
        )
        self._clock = time.monotonic()

    def _set_up_trials(self):
        """Load the trials now: a missing file fails before training."""
        self.trials = None
        if self.hparams.trials and if_main_process():
            self.trials = TrialMonitor(
                self.hparams.trials,
                self.hparams.trials_folder,
                self.hparams.trials_speaker_component,
                untrained=copy.deepcopy(self.encoder),
            )

    def _set_up_logs(self):
        """Make what is written to the output folder, and the run's state."""
        folder = self.hparams.output_folder
        self.state = RunState(
            seconds=0.0, skipped=0, bad_in_epoch=0, signs={}, means={}
        )
        self.log = RunLog(folder)
        self.recent_weights = RecentWeights(folder, self.hparams.average_last)
        self.bad_audio = BadAudioReport(
            folder,
            len(self.train_sampler) * self.hparams.batch_size,
            self.state,
        )

    def _compile(self):
        """Compile the encoder in place (``--compile``).

        Stock SpeechBrain puts a wrapper in its place, whose prefix would get
        into the names of exported weights.
        """
        if self.jit:
            raise ConfigError(
                "--jit: SpeechBrain's ECAPA_TDNN cannot be scripted; take "
                "--compile"
            )
        if self.compile:
            self.encoder.compile(mode=self.compile_mode)

    def _wrap_distributed(self):
        """Batch norms over all ranks; equal parameters. No DDP wrappers.

        SpeechBrain's way fails with batch norm on gloo, and with two forward
        passes before a backward one.
        """
        distributed.prepare_modules(self.modules, self.device, self.device_type)

    def init_optimizers(self):
        """Make the optimiser, with a group that decays and one that does not."""
        self.trained = [p for p in self.modules.parameters() if p.requires_grad]
        groups = parameter_groups(
            self.trained, self.no_weight_decay_parameters()
        )
        self.optimizer = self.opt_class(groups, lr=0.0)
        self.optimizers_dict = {"optimizer": self.optimizer}

    # -- a step --------------------------------------------------------------

    def on_fit_batch_start(self, batch, should_step):
        """Report what could not be read."""
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
            One for each group, ``[batch, crops, frames, features]``.
        """
        address = (self.hparams.seed, batch.epoch, batch.keys)
        inputs, seen = [], 0
        for crops in batch.crops:
            noisy = self.augmentation(crops, address, first_crop=seen)
            seen += crops.shape[1]
            inputs.append(self.to_features(noisy))
        return inputs

    def check_loss_isfinite(self, loss):
        """Do nothing: ``optimizers_step`` looks at the gradients instead.

        The stock check waits for the device at every batch, counts, and then
        steps all the same.
        """

    def optimizers_step(self):
        """Take a step, or count one that is skipped; see ``take_step``."""
        for parameter in self.frozen_parameters():
            parameter.grad = None
        norm = take_step(
            self.optimizer,
            self.scaler,
            self.trained,
            lr=self.scheduled("lr", self.optimizer_step),
            weight_decay=self.scheduled("weight_decay", self.optimizer_step),
            max_norm=self.hparams.clip_per_tensor,
        )
        self.stepped = norm is not None
        if self.stepped:
            self.log.add(grad_norm=norm)
            self.state.values["skipped"] = 0
        else:
            self._count_skipped()
        # A skipped step counts: schedules and data go on together.
        self.optimizer_step += 1

    def _count_skipped(self):
        self.state.values["skipped"] += 1
        logger.warning(
            "step %d skipped: its gradient is not finite", self.optimizer_step
        )
        if self.state.values["skipped"] >= self.MAX_SKIPPED:
            raise ConfigError(
                f"{self.MAX_SKIPPED} steps in a row had a gradient that is not "
                "finite; lower the learning rate, or train in fp32 "
                "(`--precision=fp32`) to see whether the precision is to blame"
            )

    def on_fit_batch_end(self, batch, outputs, loss, should_step):
        """Move what follows the student; log."""
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
        scheduled = {
            name: self.scheduled(name, last) for name in self.schedules
        }
        self.log.write_steps(self.epoch, self.optimizer_step, scheduled)

    # -- epochs --------------------------------------------------------------

    def on_stage_start(self, stage, epoch=None):
        """Find the place in the data; get ready to collect embeddings."""
        if stage == sb.Stage.TRAIN:
            self.epoch = epoch
            self.train_sampler.set_epoch(epoch)
            self.train_sampler.seek(self.step)
            if self.step == 0:
                self.log.begin_epoch()
                self.bad_audio.begin_epoch()
            self.before_epoch(epoch)
        else:
            self._collected, self._held_out = [], RunningMeans()

    @torch.no_grad()
    def evaluate_batch(self, batch, stage):
        """Collect embeddings of held-out crops; there is no loss."""
        self.evaluated_encoder.eval()
        with self.evaluation_ctx:
            batch.to(self.device)
            embeddings = encode(self.evaluated_encoder, self.inputs(batch))
            self._held_out.add(**self.held_out(embeddings))
        self._collected.append(embeddings.float().cpu().numpy())
        return torch.zeros(())

    def on_stage_end(self, stage, stage_loss, epoch=None):
        """Validate without labels, watch for collapse, save."""
        if stage == sb.Stage.TRAIN:
            self._log_steps()
            self._after_epoch = self.after_epoch()
            return
        scalars = label_free_scores(np.concatenate(self._collected))
        held_out = self._held_out.read()
        scalars.update({f"held_out_{k}": v for k, v in held_out.items()})
        scalars.update(self._after_epoch)
        scalars["minutes"] = self.seconds() / 60
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
            self.recent_weights.save(self.evaluated_encoder, epoch)
        # The alarm needs both training and validation metrics.
        self.state.values["signs"] = self.hparams.collapse_alarm.check(
            epoch,
            {**trained, **held_out, **scalars},
            self.state.values["signs"],
        )
        self._save_checkpoint(end_of_epoch=True)

    def _evaluate_trials(self, epoch):
        """Log the EER on the trial list where it is due; it decides nothing."""
        every = self.hparams.trials_every
        if self.trials is not None and every > 0 and epoch % every == 0:
            eer = self.trials.eer(
                self.evaluated_encoder, self.features, self.device
            )
            self.log.write_trials(
                epoch, self.optimizer_step, self.trials.name, eer
            )

    def finish(self):
        """Average, export, evaluate, and write results and report.

        Returns
        -------
        dict
            The final figures (on the main process; elsewhere empty).
        """
        if not if_main_process():
            return {}
        average_weights(self.evaluated_encoder, self.recent_weights.files())
        return conclude(self)

    # -- checkpoints -----------------------------------------------------------

    def _resume(self):
        """Register all state, and go on from the newest checkpoint."""
        self.checkpoints.load(
            {
                "encoder": self.encoder,
                "optimizer": self.optimizer,
                "counter": self.hparams.epoch_counter,
                "generators": Generators(self.hparams.seed, distributed.rank()),
                "state": self.state,
                **self.recoverables(),
            },
            self._identity(),
        )
        means = self.state.values["means"] if self.is_resuming else None
        self.log.resume(means, self.optimizer_step)
        if if_main_process():
            self.recent_weights.drop_after(
                self.epoch_reached if self.is_resuming else 0
            )

    def _identity(self):
        """Return what must be the same for a checkpoint to make sense."""
        return {
            "utterances": int(self.train_sampler.num_samples),
            "effective_batch": int(self.effective_batch),
            # The place in an epoch is counted in batches, not in steps.
            "accumulated": int(self.grad_accumulation_factor),
            "epochs": int(self.hparams.number_of_epochs),
            "seed": int(self.hparams.seed),
            **self.checkpoint_fingerprint(),
            "model": shapes_digest(self.modules),
            "schedules": schedules_digest(self.schedules),
        }

    def _save_checkpoint(self, end_of_epoch):
        if self.checkpointer is None:
            return
        self.state.values.update(seconds=self.seconds(), means=self.log.state())
        self._clock = time.monotonic()
        self.checkpoints.save(
            self._identity(), self.epoch_reached, end_of_epoch
        )

    def _save_intra_epoch_ckpt(self):
        self._save_checkpoint(end_of_epoch=False)

    def _should_save_intra_epoch_ckpt(self, last_ckpt_time, steps_since_ckpt):
        # Partial gradients are not saved: only between optimiser steps. And not
        # at the end of an epoch, which has a checkpoint of its own.
        due = super()._should_save_intra_epoch_ckpt(
            last_ckpt_time, steps_since_ckpt
        )
        return (
            due
            and self.step % self.grad_accumulation_factor == 0
            and self.step < len(self.train_sampler)
        )

    def seconds(self):
        """Return the wall time of the run, over all resumes."""
        return self.state.values["seconds"] + time.monotonic() - self._clock
