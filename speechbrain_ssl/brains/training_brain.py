"""TrainingBrain: what every training run of an encoder has in common.

Schedules, the step, checkpoints, resume, label-free validation, weights to
average, logs. ``SSLBrain`` and ``PseudoLabelBrain`` add how a batch becomes a
loss.

It differs from stock ``speechbrain.Brain`` where stock behaviour is a trap;
each place says why.
"""

import copy
import csv
import hashlib
import logging
import pathlib
import time

import numpy as np
import speechbrain as sb
import torch
from speechbrain.core import INTRA_EPOCH_CKPT_FLAG
from speechbrain.utils.distributed import if_main_process
from speechbrain.utils.train_logger import FileTrainLogger

from speechbrain_ssl import distributed
from speechbrain_ssl.brains.checkpointing import Generators, RunState
from speechbrain_ssl.brains.finish import (
    TrialMonitor,
    average_weights,
    conclude,
)
from speechbrain_ssl.brains.means import RunningMeans
from speechbrain_ssl.errors import AudioError, ConfigError
from speechbrain_ssl.files import atomic_write
from speechbrain_ssl.publishing.export import initialise
from speechbrain_ssl.report.logbook import Logbook
from speechbrain_ssl.settings import refuse_other
from speechbrain_ssl.verification.label_free import label_free_scores

logger = logging.getLogger(__name__)

#: Where the encoder is kept that a run began with, below its output folder.
INITIAL = "save/initial.ckpt"


class TrainingBrain(sb.Brain):
    """Trains an encoder; how a batch becomes a loss is the subclass's.

    ``modules`` holds ``encoder`` and what else is trained. The
    hyper-parameters it reads are ``features``, ``augmentation``, ``schedules``
    (name -> schedule: ``lr``, ``weight_decay`` and what the subclass names),
    ``lr_reference_batch``, ``clip_per_tensor``, ``average_last``,
    ``log_every``, ``seed``, ``number_of_epochs``, ``batch_size``,
    ``epoch_counter``, ``output_folder``, ``initial_model`` (an exported encoder
    to begin with, or None), ``collapse_alarm`` and, for the reader's eyes
    only, ``trials`` (see ``speechbrain_ssl.brains.finish``).
    """

    #: Steps in a row without a finite gradient before the run stops.
    MAX_SKIPPED = 20

    def on_fit_start(self):
        """Prepares everything that depends on the device or on the ranks."""
        if self.optimizer_step_limit is not None:
            # From the command line SpeechBrain hands it on as a string.
            self.optimizer_step_limit = int(self.optimizer_step_limit)
        self._check_schedules()
        # Looked for once: where this run goes on, nothing else is begun with.
        self._checkpoint = None
        if self.checkpointer is not None:
            self._checkpoint = self.checkpointer.find_checkpoint()
        # Read now: a trial that names an absent file is no news for the end.
        self.trials = None
        if self.hparams.trials and if_main_process():
            self.trials = TrialMonitor(
                self.hparams.trials,
                self.hparams.trials_folder,
                self.hparams.trials_speaker_component,
            )
            self.untrained = copy.deepcopy(self.encoder)
        if self.hparams.initial_model and not self.resumes:
            initialise(self.encoder, self.hparams.initial_model)
        self.features = self.hparams.features.to(self.device)
        self.augmentation = self.hparams.augmentation
        self.augmentation.load()
        self.augmentation.to(self.device)
        self._compile()
        self._wrap_distributed()
        self.set_up()
        self._keep_initial()
        self.init_optimizers()
        self.state = RunState(
            seconds=0.0,
            skipped=0,
            bad_in_epoch=0,
            signs={},
            window={},
            epoch={},
        )
        self.logbook = Logbook(self.hparams.output_folder)
        self.train_logger = FileTrainLogger(
            str(pathlib.Path(self.hparams.output_folder) / "train_log.txt")
        )
        self.alarm = self.hparams.collapse_alarm
        self.window, self.epoch_means = RunningMeans(), RunningMeans()
        self._bad_paths = None
        # Ranks differ in what they draw from torch's generator, if anything.
        torch.manual_seed(self.hparams.seed + distributed.rank())
        self._resume()
        self._keep_buffers()
        self._clock = time.monotonic()

    @property
    def resumes(self):
        """Whether this run goes on from a checkpoint of its own."""
        return self._checkpoint is not None

    @property
    def begins_elsewhere(self):
        """Whether another run has trained the encoder this one begins with."""
        return bool(self.hparams.initial_model)

    def _keep_initial(self):
        """Keeps the encoder this run began with, to be evaluated at the end.

        The other run may be gone by then, or have trained on.
        """
        self.initial = None
        if self.trials is None or not self.begins_elsewhere:
            return
        path = pathlib.Path(self.hparams.output_folder) / INITIAL
        if self.resumes and not path.is_file():
            # A run of an earlier version.
            return
        self.initial = copy.deepcopy(self.evaluated_encoder)
        if self.resumes:
            self.initial.load_state_dict(
                torch.load(path, map_location=self.device, weights_only=True)
            )
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(path, "wb") as stream:
                torch.save(self.initial.state_dict(), stream)

    # -- what a subclass says ------------------------------------------------

    #: Which speaker labels training has seen, for ``results.json``.
    labels_seen = "none"

    #: What is trained, in a word, for error messages.
    subject = "this Brain"

    #: Schedules that must be given, and no others.
    wanted_schedules = ("lr", "weight_decay")

    def set_up(self):
        """Makes what depends on the device; before a checkpoint is read."""

    def recoverables(self):
        """Name -> object with state, beside what is saved for every run."""
        return {}

    def further_results(self):
        """What else ``results.json`` is to say."""
        return {}

    def identity(self):
        """Further plain values that must agree with a checkpoint's."""
        return {}

    def before_epoch(self, epoch):
        """Called in all processes before the steps of an epoch.

        In an epoch that is taken up in its middle too (``self.step`` is then
        above 0), with the state of the checkpoint.
        """

    def frozen(self):
        """Parameters that this step must not move."""
        return []

    def undecayed(self):
        """Parameters without weight decay, beside all vectors and scalars."""
        return []

    def after_step(self):
        """Moves what follows the training; not called for a skipped step."""

    def skip_step(self):
        """Called instead of ``after_step`` where the step was skipped."""

    def after_epoch(self):
        """Called in all processes when the steps of an epoch are done.

        Returns
        -------
        dict
            Scalars for the epoch's line in the log.
        """
        return {}

    # -- set-up ------------------------------------------------------------

    @property
    def encoder(self):
        """The encoder that is trained."""
        return self.modules.encoder

    @property
    def evaluated_encoder(self):
        """The encoder that counts."""
        return self.encoder

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

    def _check_schedules(self):
        """Computes all schedules; the learning rate follows the batch.

        The rule, written here and nowhere else: the learning rate (with its
        end and its warm-up) is multiplied by effective batch / reference batch.
        """
        wanted, given = set(self.wanted_schedules), self.hparams.schedules
        if set(given) != wanted:
            raise ConfigError(
                f"`schedules` must name {sorted(wanted)} for {self.subject}; "
                f"got {sorted(given)}"
            )
        self.schedules = {
            name: schedule(self.hparams.number_of_epochs, self.steps_per_epoch)
            for name, schedule in given.items()
        }
        for name, values in self.schedules.items():
            self._check_range(name, values)
        ratio = self.effective_batch / self.hparams.lr_reference_batch
        self.schedules["lr"] = self.schedules["lr"] * ratio
        logger.info(
            "Effective batch %d (%d per process x %d processes x %d "
            "accumulated); peak learning rate %.4g = the configured one x "
            "%d / %d; %d steps per epoch",
            self.effective_batch,
            self.hparams.batch_size,
            distributed.world_size(),
            self.grad_accumulation_factor,
            self.schedules["lr"].max(),
            self.effective_batch,
            self.hparams.lr_reference_batch,
            self.steps_per_epoch,
        )

    @staticmethod
    def _check_range(name, values):
        """Refuses values that no step can be taken with."""
        low, high = values.min(), values.max()
        if name == "momentum":
            right, rule = low >= 0 and high <= 1, "between 0 and 1"
        elif name.endswith("temperature"):
            right, rule = low > 0, "above 0"
        else:
            right, rule = low >= 0, "not negative"
        if not (right and np.isfinite(values).all()):
            raise ConfigError(
                f"`schedules` gives {name} values from {low:.4g} to {high:.4g}; "
                f"they have to be finite and {rule}"
            )

    def _compile(self):
        """Compiles the encoder in place (``--compile``).

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

        See ``speechbrain_ssl.distributed``: SpeechBrain's way fails with batch
        norm on gloo, and with two forward passes before a backward one.
        """
        for name in self.modules:
            self.modules[name] = distributed.synchronise_batch_norms(
                self.modules[name], self.device_type
            ).to(self.device)
        distributed.broadcast_state(self.modules.values())

    def init_optimizers(self):
        """Two groups: weight decay is for matrices, not for vectors."""
        parameters = [p for p in self.modules.parameters() if p.requires_grad]
        self.trained = parameters
        exempt = {id(p) for p in self.undecayed()}
        groups = [{"params": [], "decay": True}, {"params": [], "decay": False}]
        for p in parameters:
            groups[p.dim() <= 1 or id(p) in exempt]["params"].append(p)
        for group in groups:
            group["weight_decay"] = 0.0
        self.optimizer = self.opt_class(groups, lr=0.0)
        self.optimizers_dict = {"optimizer": self.optimizer}

    def _resume(self):
        """Registers all state, and goes on from the newest checkpoint."""
        if self.checkpointer is None:
            return
        state = {
            "encoder": self.encoder,
            "optimizer": self.optimizer,
            "counter": self.hparams.epoch_counter,
            "generators": Generators(self.hparams.seed, distributed.rank()),
            "state": self.state,
            **self.recoverables(),
        }
        self.checkpointer.add_recoverables(state)
        found = self._checkpoint
        if found is not None:
            refuse_other(
                f"{found.path} is a checkpoint",
                found.meta.get("identity", {}),
                self._identity(),
            )
            self.checkpointer.load_checkpoint(found)
            self.window.load(self.state.values["window"])
            self.epoch_means.load(self.state.values["epoch"])
            logger.info(
                "Going on from %s, after %d steps",
                found.path.name,
                self.optimizer_step,
            )
        if if_main_process():
            self.logbook.rewind(self.optimizer_step)
            # Encoders of epochs that are about to be trained (again), or of a
            # run whose checkpoints are gone, must not be averaged in.
            done = 0 if found is None else self.epoch_reached
            for path in self.weights_files():
                if int(path.stem.removeprefix("epoch_")) > done:
                    path.unlink()

    def _identity(self):
        """What must be the same for a checkpoint to make sense."""
        shapes = [
            (name, tuple(tensor.shape))
            for name, tensor in self.modules.state_dict().items()
        ]
        return {
            "utterances": int(self.train_sampler.num_samples),
            "effective_batch": int(self.effective_batch),
            # The place in an epoch is counted in batches, not in steps.
            "accumulated": int(self.grad_accumulation_factor),
            "epochs": int(self.hparams.number_of_epochs),
            "seed": int(self.hparams.seed),
            **self.identity(),
            "model": hashlib.sha256(repr(shapes).encode()).hexdigest()[:16],
            "schedules": hashlib.sha256(
                b"".join(
                    name.encode() + self.schedules[name].tobytes()
                    for name in sorted(self.schedules)
                )
            ).hexdigest()[:16],
        }

    # -- a step --------------------------------------------------------------

    def on_stage_start(self, stage, epoch=None):
        """Finds the place in the data; gets ready to collect embeddings."""
        if stage == sb.Stage.TRAIN:
            self.epoch = epoch
            self.train_sampler.set_epoch(epoch)
            self.train_sampler.seek(self.step)
            if self.step == 0:
                self.epoch_means.reset()
                self.state.values["bad_in_epoch"] = 0
            self.before_epoch(epoch)
        else:
            self._collected, self._held_out = [], RunningMeans()

    def on_fit_batch_start(self, batch, should_step):
        """Reports what could not be read."""
        self._report_bad(batch.bad)

    def knob(self, name, step):
        """A scheduled value at an optimiser step."""
        return float(self.schedules[name][step])

    def to_features(self, crops):
        """Features of crops.

        Arguments
        ---------
        crops : torch.Tensor
            ``[batch, crops, samples]``.

        Returns
        -------
        torch.Tensor
            ``[batch, crops, frames, features]``.
        """
        features = self.features(crops.flatten(0, 1))
        return features.unflatten(0, crops.shape[:2])

    def inputs(self, batch):
        """Augments the crops of a batch and computes their features.

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
        """Nothing: ``optimizers_step`` looks at the gradients instead.

        The stock check waits for the device at every batch, counts, and then
        steps all the same.
        """

    def optimizers_step(self):
        """One step of the optimiser, or none if a gradient is not finite.

        Stock SpeechBrain clips the first parameter group only, takes a negative
        maximum as an order to flip the gradient, and steps on NaN unless told
        otherwise. Here every tensor is clipped on its own, as DINO does.
        """
        step = self.optimizer_step
        for group in self.optimizer.param_groups:
            group["lr"] = float(self.schedules["lr"][step])
            group["weight_decay"] = group["decay"] * float(
                self.schedules["weight_decay"][step]
            )
        for parameter in self.frozen():
            parameter.grad = None
        self.scaler.unscale_(self.optimizer)
        distributed.average_gradients(self.trained)
        norm = clip_per_tensor_(self.trained, self.hparams.clip_per_tensor)
        self.stepped = bool(torch.isfinite(norm))
        if self.stepped:
            self._add(grad_norm=norm)
            self.scaler.step(self.optimizer)
            self.state.values["skipped"] = 0
        else:
            self._skip()
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        # A skipped step counts: schedules and data go on together.
        self.optimizer_step += 1

    def _skip(self):
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

    def _keep_buffers(self):
        """Notes the running statistics that a good step has left."""
        # Other state moves in ``after_step`` only, and may be large.
        self._buffers = [
            buffer
            for root in (*self.modules.values(), *self.recoverables().values())
            if isinstance(root, torch.nn.Module)
            for module in root.modules()
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm)
            for buffer in module.buffers()
        ]
        self._kept = [b.clone() for b in self._buffers]

    def on_fit_batch_end(self, batch, outputs, loss, should_step):
        """Moves what follows the student; logs."""
        if not should_step:
            return
        if self.stepped:
            self.after_step()
            self._keep_buffers()
        else:
            self.skip_step()
            # One batch norm that has seen a NaN would keep it for good.
            for buffer, kept in zip(self._buffers, self._kept, strict=True):
                buffer.copy_(kept)
        if self.optimizer_step % self.hparams.log_every == 0:
            self._log_train()

    # -- epochs --------------------------------------------------------------

    @torch.no_grad()
    def evaluate_batch(self, batch, stage):
        """Collects embeddings of held-out crops; there is no loss."""
        self.evaluated_encoder.eval()
        with self.evaluation_ctx:
            batch.to(self.device)
            embeddings = encode(self.evaluated_encoder, self.inputs(batch))
            self._held_out.add(**self.held_out(embeddings))
        self._collected.append(embeddings.float().cpu().numpy())
        return torch.zeros(())

    def held_out(self, embeddings):
        """Scalars of held-out crops ``[batch, crops, size]``, for the log."""
        return {}

    def on_stage_end(self, stage, stage_loss, epoch=None):
        """Validates without labels, watches for collapse, saves."""
        if stage == sb.Stage.TRAIN:
            self._log_train()
            self._after_epoch = self.after_epoch()
            return
        scalars = label_free_scores(np.concatenate(self._collected))
        held_out = self._held_out.read()
        scalars.update({f"held_out_{k}": v for k, v in held_out.items()})
        scalars.update(self._after_epoch)
        trained = self.epoch_means.read()
        scalars["minutes"] = self.seconds() / 60
        logger.info(
            "epoch %d: loss %.4f, pseudo-EER %.2f %%, LiDAR %.1f, RankMe %.1f, "
            "%.1f minutes",
            epoch,
            trained.get("loss", float("nan")),
            scalars["pseudo_eer"],
            scalars["lidar"],
            scalars["rankme"],
            scalars["minutes"],
        )
        self.train_logger.log_stats(
            {"epoch": epoch, "lr": self._lr()},
            train_stats={"loss": trained.get("loss", float("nan"))},
            valid_stats=scalars,
            verbose=False,
        )
        if if_main_process():
            self.logbook.log("valid", epoch, self.optimizer_step, **scalars)
            if self.trials is not None and self._trials_due(epoch):
                self._log_trials(epoch)
            self._save_weights(epoch)
        # The last look at the figures of training; the alarm needs both.
        self.state.values["signs"] = self.alarm.check(
            epoch,
            {**trained, **held_out, **scalars},
            self.state.values["signs"],
        )
        self._save_checkpoint(end_of_epoch=True)

    def _lr(self):
        """The learning rate of the last step."""
        return float(self.schedules["lr"][self.optimizer_step - 1])

    def _log_trials(self, epoch):
        """EER on the trial list, for the reader; it decides nothing."""
        scores, _ = self.trials.score(
            self.evaluated_encoder, self.features, self.device
        )
        figures = self.trials.figures(scores, replicates=0)
        logger.info(
            "epoch %d: %s EER %.2f %%", epoch, self.trials.name, figures["eer"]
        )
        self.logbook.log(
            "trials", epoch, self.optimizer_step, eer=figures["eer"]
        )

    def _trials_due(self, epoch):
        every = self.hparams.trials_every
        return every > 0 and epoch % every == 0

    def _save_weights(self, epoch):
        """Keeps the encoder of the last epochs, which are averaged."""
        folder = self.weights_folder
        with atomic_write(folder / f"epoch_{epoch:05d}.pt", "wb") as stream:
            torch.save(self.evaluated_encoder.state_dict(), stream)
        for old in self.weights_files()[: -self.hparams.average_last]:
            old.unlink()

    @property
    def weights_folder(self):
        """Where the encoders of the last epochs lie."""
        return pathlib.Path(self.hparams.output_folder) / "save" / "weights"

    def weights_files(self):
        """Their files, oldest first."""
        return sorted(self.weights_folder.glob("epoch_*.pt"))

    def _save_checkpoint(self, end_of_epoch):
        if self.checkpointer is None:
            return
        self.state.values.update(
            seconds=self.seconds(),
            # Means that are half gathered.
            window=self.window.state(),
            epoch=self.epoch_means.state(),
        )
        self._clock = time.monotonic()
        meta = {"identity": self._identity(), "epoch": self.epoch_reached}
        if end_of_epoch:
            self.checkpointer.save_and_keep_only(meta=meta, num_to_keep=1)
            return
        meta[INTRA_EPOCH_CKPT_FLAG] = True
        self.checkpointer.save_and_keep_only(
            meta=meta,
            end_of_epoch=False,
            num_to_keep=1,
            ckpt_predicate=lambda c: INTRA_EPOCH_CKPT_FLAG in c.meta,
            verbosity=logging.DEBUG,
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
        """Wall time of the run, over all resumes."""
        return self.state.values["seconds"] + time.monotonic() - self._clock

    def finish(self):
        """Averages, exports, evaluates, and writes results and report.

        Returns
        -------
        dict
            The final figures (on the main process; elsewhere empty).
        """
        if not if_main_process():
            return {}
        average_weights(self.evaluated_encoder, self.weights_files())
        return conclude(self)

    # -- scalars ---------------------------------------------------------------

    def _add(self, **scalars):
        self.window.add(**scalars)
        self.epoch_means.add(**scalars)

    def _log_train(self):
        """Writes the means since the last line, over all processes."""
        means = self.window.read()
        self.window.reset()
        if not means or not if_main_process():
            return
        for name, values in self.schedules.items():
            means[name] = float(values[self.optimizer_step - 1])
        self.logbook.log("train", self.epoch, self.optimizer_step, **means)

    def _report_bad(self, bad):
        """Writes the table of unusable files; many of them stop the run."""
        self.state.values["bad_in_epoch"] += len(bad)
        limit = max(10, len(self.train_sampler) * self.hparams.batch_size // 50)
        # A table for each process: they see different files.
        suffix = f"_{distributed.rank()}" if distributed.rank() else ""
        folder = pathlib.Path(self.hparams.output_folder)
        path = folder / f"bad_audio{suffix}.csv"
        if bad and self._bad_paths is None:
            # What a run before this one has listed is not listed again.
            self._bad_paths = set()
            if path.is_file():
                with open(path, encoding="utf-8", newline="") as stream:
                    self._bad_paths = {r[0] for r in csv.reader(stream) if r}
        new = [entry for entry in bad if entry[0] not in self._bad_paths]
        if new:
            self._bad_paths.update(name for name, _ in new)
            with open(path, "a", encoding="utf-8", newline="") as stream:
                writer = csv.writer(stream)
                if stream.tell() == 0:
                    writer.writerow(["wav", "reason"])
                writer.writerows(new)
            logger.warning("%d unusable audio files: see %s", len(new), path)
        if self.state.values["bad_in_epoch"] > limit:
            raise AudioError(
                f"more than 2 % of the utterances of epoch {self.epoch} cannot "
                f"be used; they are listed in {path}. Prepare the corpus again "
                "with `--check=decode`"
            )


def encode(encoder, inputs):
    """Embeddings ``[batch, crops, size]``; equal lengths in one pass."""
    return torch.cat(
        [
            encoder(x.flatten(0, 1)).squeeze(1).unflatten(0, x.shape[:2])
            for x in inputs
        ],
        dim=1,
    )


@torch.no_grad()
def clip_per_tensor_(parameters, max_norm):
    """Scales every gradient tensor to a norm of at most ``max_norm``.

    Arguments
    ---------
    parameters : list of torch.nn.Parameter
        Those without gradient are passed over.
    max_norm : float
        Greatest norm of a single tensor, above 0 (``.inf``: no clipping).

    Returns
    -------
    torch.Tensor
        The norm of all gradients together, before clipping; not finite if any
        gradient is not.

    Raises
    ------
    ConfigError
        If ``max_norm`` is not above 0.
    """
    if not max_norm > 0:
        raise ConfigError(
            f"`clip_per_tensor` must be above 0, got {max_norm}; write .inf to "
            "switch clipping off"
        )
    grads = [p.grad for p in parameters if p.grad is not None]
    norms = torch.stack(torch._foreach_norm(grads))
    if max_norm != float("inf"):
        # One multiplication per tensor, and none waits for the host.
        scales = (max_norm / norms.clamp(min=1e-12)).clamp(max=1.0)
        torch._foreach_mul_(grads, list(scales.unbind()))
    return torch.linalg.vector_norm(norms)
