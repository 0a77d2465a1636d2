"""SSLBrain: self-supervised training with any objective.

The way of a batch: crops -> augmentation -> features -> encoder (and teacher)
-> heads -> objective -> loss -> step -> teacher, centre. What is particular to
an objective is in ``speechbrain_ssl.objectives``; what every training run has
in common is in ``training_brain``.
"""

import logging

import numpy as np
import torch
from speechbrain.utils.distributed import if_main_process
from tqdm import tqdm

from speechbrain_ssl import distributed
from speechbrain_ssl.brains.initial import begin_with_checkpoint
from speechbrain_ssl.brains.training_brain import TrainingBrain, encode
from speechbrain_ssl.clustering.rows import sum_over_ranks
from speechbrain_ssl.data.halves import ReadableHalves
from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.objectives.base import Branch
from speechbrain_ssl.objectives.teacher import MomentumTeacher
from speechbrain_ssl.positives.cluster_aware import ClusterAware
from speechbrain_ssl.positives.monitor import PositiveMonitor
from speechbrain_ssl.positives.ssps import SSPS
from speechbrain_ssl.positives.start_rule import fewest_utterances, judge
from speechbrain_ssl.pseudo_labels.labels import read_labels
from speechbrain_ssl.verification.extract import embed_files

logger = logging.getLogger(__name__)


class SSLBrain(TrainingBrain):
    """Trains an encoder without labels.

    ``modules`` holds ``encoder`` and ``objective``. Beside the
    hyper-parameters of every run (see ``TrainingBrain``) it reads
    ``freeze_last_layer_epochs``, ``positives`` (``SSPS``, ``ClusterAware`` or
    None) and ``initial_checkpoint`` (see ``speechbrain_ssl.brains.initial``);
    ``schedules`` has ``momentum`` for an objective with a teacher, and the
    objective's own knobs.
    """

    # -- what the objective decides ------------------------------------------

    @property
    def objective(self):
        """The objective with its heads and state."""
        return self.modules.objective

    @property
    def evaluated_encoder(self):
        """The encoder that is evaluated and exported."""
        if self.objective.teacher_counts:
            return self.teacher.encoder
        return self.encoder

    @property
    def subject(self):
        """The objective's name."""
        return type(self.objective).__name__

    @property
    def wanted_schedules(self):
        """Learning rate, weight decay, momentum, and the objective's knobs."""
        momentum = ("momentum",) if self.objective.momentum else ()
        return (
            *TrainingBrain.wanted_schedules,
            *momentum,
            *self.objective.knobs,
        )

    def knobs(self, step):
        """The objective's scheduled values at an optimiser step."""
        return {name: self.knob(name, step) for name in self.objective.knobs}

    def set_up(self):
        """Makes the teacher, and the objective's state."""
        self.teacher = None
        plan = self.hparams.crops
        if self.objective.needs_frames and plan.local_crops:
            raise ConfigError(
                f"{self.subject} compares frames of crops of one length: set "
                "`local_crops` to 0"
            )
        if self.objective.needs_frames and not hasattr(
            self.encoder, "with_frames"
        ):
            raise ConfigError(
                f"{self.subject} needs the frames of an encoder, which "
                f"{type(self.encoder).__name__} does not give; take an ECAPA"
            )
        if self.objective.momentum:
            self.teacher = MomentumTeacher(self.encoder, self.objective.head)
            self.teacher.to(self.device)
            if self.compile:
                self.teacher.encoder.compile(mode=self.compile_mode)
        utterances = self.train_sampler.num_samples
        self.objective.set_up(utterances, self.hparams.seed)
        batch = self.effective_batch
        self.objective.check_epoch(utterances // batch * batch, batch)
        self.objective.to(self.device)
        self._set_up_positives(*self._sizes())
        if self.hparams.initial_checkpoint and not self.resumes:
            self._begin_with_checkpoint()

    def _begin_with_checkpoint(self):
        """Takes encoder, heads and teacher from another run."""
        if self.hparams.initial_model:
            raise ConfigError(
                "initial_checkpoint brings an encoder of its own: set "
                "`initial_model` to null"
            )
        modules = {"encoder": self.encoder, "objective": self.objective}
        if self.teacher is not None:
            modules["teacher"] = self.teacher
        begin_with_checkpoint(
            self.hparams.initial_checkpoint, self.subject, modules
        )

    @property
    def begins_elsewhere(self):
        """Whether another run has trained what this one begins with."""
        return bool(self.hparams.initial_checkpoint) or super().begins_elsewhere

    def recoverables(self):
        """The objective, the teacher, and whatever finds positives."""
        # Not of SimCLR, which has no state: SpeechBrain would warn of it at each
        # checkpoint.
        stateful = bool(self.objective.state_dict())
        state = {"objective": self.objective} if stateful else {}
        if self.hparams.positives is not None:
            state["positives"] = self.hparams.positives
        if self.teacher is not None:
            state["teacher"] = self.teacher
        return state

    def identity(self):
        """The objective's name."""
        return {"objective": self.subject}

    def frozen(self):
        """DINO's last layer, say, during the first epochs."""
        if self.epoch <= self.hparams.freeze_last_layer_epochs:
            return self.objective.last_layer()
        return []

    def undecayed(self):
        """SDPN's prototypes, say."""
        return self.objective.undecayed()

    # -- a step --------------------------------------------------------------

    def before_epoch(self, epoch):
        """Lets the objective prepare the epoch, and finds clusters."""
        if self.step > 0:
            # They came with the checkpoint.
            return
        self.objective.before_epoch(epoch)
        if self.ssps is not None:
            # In the last epoch there is nothing left to begin.
            early = epoch < self.hparams.number_of_epochs
            if self.ssps.filling(epoch) and self.ssps.speaker_count and early:
                self._ask_start_rule()
            self.ssps.before_epoch(epoch)
        elif self.cluster_aware is not None and self.cluster_aware.due(epoch):
            self.cluster_aware.recluster(epoch, self._embed_training_set())

    def on_fit_batch_start(self, batch, should_step):
        """Puts the teacher in its mode (nothing of SpeechBrain's touches it)."""
        super().on_fit_batch_start(batch, should_step)
        if self.teacher is not None:
            self.teacher.train()

    def compute_forward(self, batch, stage):
        """Both branches of a batch."""
        batch.to(self.device)
        inputs, index = self.inputs(batch), batch.index.to(self.device)
        head = self.objective.head
        skipped = 0 if self.objective.first_sees_global else 1
        frames = None
        if self.objective.needs_frames:
            embeddings, frames = encode_with_frames(self.encoder, inputs)
        else:
            embeddings = encode(self.encoder, inputs[skipped:])
        first = Branch(
            embeddings, project(head, embeddings), head, index, frames
        )
        if self.teacher is not None:
            with torch.no_grad():
                embeddings = encode(self.teacher.encoder, inputs[:1])
                vectors = project(self.teacher.head, embeddings)
            second = Branch(embeddings, vectors, self.teacher.head, index)
        else:
            globals_ = inputs[0].shape[1]
            second = Branch(
                first.embeddings[:, :globals_],
                first.vectors[:, :globals_],
                head,
                index,
            )
        if self.ssps is not None:
            second = self._sample_positives(batch, second)
        return first, second

    def compute_objectives(self, predictions, batch, stage):
        """The loss; its scalars are kept on the device until logged."""
        loss, scalars = self.objective(
            *predictions, **self.knobs(self.optimizer_step)
        )
        self._add(loss=loss.detach(), **scalars)
        return loss

    def after_step(self):
        """Moves the teacher and the objective's state."""
        if self.teacher is not None:
            self.teacher.update(
                self.encoder,
                self.objective.head,
                self.knob("momentum", self.optimizer_step - 1),
            )
        self.objective.after_step()
        if self.ssps is not None:
            self.ssps.after_step()

    def skip_step(self):
        """Lets the objective and SSPS forget the step."""
        self.objective.skip_step()
        if self.ssps is not None:
            self.ssps.skip_step()

    # -- positives -----------------------------------------------------------

    @property
    def ssps(self):
        """What replaces positives behind the encoder, or None."""
        positives = self.hparams.positives
        return positives if isinstance(positives, SSPS) else None

    @property
    def cluster_aware(self):
        """What draws the utterances of crops, or None."""
        positives = self.hparams.positives
        return positives if isinstance(positives, ClusterAware) else None

    @property
    def first_active_epoch(self):
        """The first epoch with positives of other utterances so far, or None.

        The start rule may have put it off.
        """
        positives = self.hparams.positives
        if positives is None or positives.start_epoch > self.epoch_reached:
            return None
        return positives.start_epoch

    def further_results(self):
        """From which epoch on positives came from other utterances, if ever."""
        if self.hparams.positives is None:
            return {}
        return {"positives_from_epoch": self.first_active_epoch}

    def finish(self):
        """As of every run; says so where positives were never active."""
        positives = self.hparams.positives
        if positives is not None and self.first_active_epoch is None:
            logger.warning(
                "%s was never active: it would have begun in epoch %d, and %d "
                "were trained; what comes out is the baseline",
                type(positives).__name__,
                positives.start_epoch,
                self.epoch_reached,
            )
        return super().finish()

    def _set_up_positives(self, embedding, vector):
        """Makes their state, for such sizes; refuses what does not fit."""
        utterances = self.train_sampler.num_samples
        positives = self.hparams.positives
        epochs = self.hparams.number_of_epochs
        if positives is not None and positives.start_epoch > epochs:
            # Not refused: that is how the baseline of a configuration is made.
            logger.warning(
                "%s begins in epoch %d, but `number_of_epochs` is %d: this run "
                "trains the baseline",
                type(positives).__name__,
                positives.start_epoch,
                epochs,
            )
        if self.cluster_aware is not None:
            # On the CPU, where the loader's workers read it.
            self.cluster_aware.set_up(
                utterances, self.hparams.crops.local_crops, self.hparams.seed
            )
        if self.ssps is not None:
            self.ssps.set_up(
                self.objective,
                utterances,
                embedding,
                self.hparams.crops.global_crops,
                vector,
                self.effective_batch,
                self.hparams.seed,
            )
            self.ssps.to(self.device)
            self.monitor = self._read_monitor()
            if self.ssps.speaker_count:
                self._check_start_rule()
            elif (
                self.ssps.variant != "nearest"
                and self.ssps.start_epoch <= epochs
                and if_main_process()
            ):
                logger.warning(
                    "SSPS will begin in epoch %d without anybody asking whether "
                    "the encoder is good enough; a weak one finds look-alikes, "
                    "and training on those makes it weaker. Give a guess of the "
                    "number of speakers (`speaker_count`), and a rule asks, "
                    "without labels",
                    self.ssps.start_epoch,
                )

    def _read_monitor(self):
        """What compares partners with people's knowledge, for the log."""
        path, columns = self.ssps.monitor_labels, self.ssps.monitor_columns
        if path is None:
            return None
        known = {
            name: read_labels(path, self.train_manifest, name, others=True)[0]
            for name in columns
        }
        return PositiveMonitor(known, self.device)

    @torch.no_grad()
    def _sizes(self):
        """Sizes of an embedding and of what the head makes of it."""
        encoder, head = self.encoder.eval(), self.objective.head.eval()
        silence = torch.zeros(1, 1, self.features.sample_rate)
        embedding = encode(encoder, [self.to_features(silence.to(self.device))])
        size = embedding.shape[-1]
        try:
            return size, project(head, embedding).shape[-1]
        except RuntimeError as error:
            raise ConfigError(
                f"{self.subject}'s head does not take embeddings of size {size}, "
                f"which {type(self.encoder).__name__} gives; set "
                f"`embedding_size` to {size} where the objective is made "
                f"({error})"
            ) from error

    def _sample_positives(self, batch, second):
        """Puts other utterances' vectors into the second branch."""
        if not (self.ssps.active(self.epoch) or self.ssps.filling(self.epoch)):
            return second
        # Clean, by the running statistics, by the encoder that counts.
        encoder = self.evaluated_encoder
        training = encoder.training
        with torch.no_grad():
            clean = self.to_features(batch.reference[:, None])
            references = encode(encoder.eval(), [clean])[:, 0]
        encoder.train(training)
        self.ssps.observe(second.index, references, second.vectors)
        second, scalars = self.ssps.substitute(
            second, self.epoch, batch.keys, self.monitor
        )
        self._add(**scalars)
        return second

    def _comparable(self):
        """Positions of the utterances whose halves the start rule compares."""
        shortest = 2 * self.hparams.valid_seconds
        return np.flatnonzero(self.train_manifest.durations >= shortest)

    def _check_start_rule(self):
        """Refuses what the start rule could not judge, before the first step."""
        there = len(self._comparable())
        least = fewest_utterances(self.ssps.neighbours)
        if there < least:
            raise ConfigError(
                "`speaker_count` asks for the start rule, which compares two "
                f"halves of `valid_seconds` = {self.hparams.valid_seconds} s: "
                f"of {len(self.train_manifest)} training utterances {there} "
                f"are as long as both, of {least} at least; lower "
                "`valid_seconds`, or set `speaker_count` to null"
            )

    def _ask_start_rule(self):
        """Puts SSPS off where two halves of an utterance disagree too often."""
        verdict = judge(
            self.ssps,
            *self._halves().unbind(1),
            utterances=len(self.train_manifest),
            seed=self.hparams.seed,
        )
        if if_main_process():
            log = logger.info if verdict.start else logger.warning
            log("epoch %d: %s", self.epoch, verdict.reason)
        # All have the same figures but, on machines that differ, for the last
        # digit: the word of the first process counts.
        answer = torch.tensor(
            [verdict.start, verdict.clusters, verdict.neighbours],
            device=distributed.collective_device(),
        )
        may_start, clusters, neighbours = sum_over_ranks(
            answer * (distributed.rank() == 0)
        ).tolist()
        if may_start:
            self.ssps.adopt(clusters, neighbours)
        else:
            self.ssps.postpone()

    @torch.no_grad()
    def _halves(self):
        """Embeddings ``[utterances, 2, size]`` of two halves of utterances.

        Of all that are long enough, the same in every process; each embeds its
        share, clean. What cannot be read or embedded is left out, as in
        training.
        """
        chosen = self._comparable()
        halves = ReadableHalves(
            self.train_manifest,
            self.hparams.valid_seconds,
            crops_per_half=1,
            sample_rate=self.features.sample_rate,
        )
        mine = chosen[distributed.rank() :: distributed.world_size()]
        loader = torch.utils.data.DataLoader(
            torch.utils.data.Subset(halves, mine.tolist()),
            batch_size=32,
            collate_fn=halves.collate,
            num_workers=self.hparams.num_workers,
            generator=torch.Generator(),
        )
        encoder = self.evaluated_encoder.eval()
        memory = self.ssps.memory
        rows = memory.new_zeros(len(chosen), 2, memory.shape[1])
        for batch in tqdm(
            loader,
            "start rule",
            disable=self.noprogressbar or not if_main_process(),
            dynamic_ncols=True,
        ):
            if len(batch.index):
                crops = batch.to(self.device).crops[0]
                places = np.searchsorted(chosen, batch.index.numpy())
                rows[torch.from_numpy(places).to(rows.device)] = encode(
                    encoder, [self.to_features(crops)]
                ).float()
        rows = sum_over_ranks(rows)
        lengths = rows.norm(dim=2)
        usable = (lengths.isfinite() & (lengths > 0)).all(1)
        # No copy of some gigabytes for nothing.
        rows = rows if usable.all() else rows[usable]
        if len(rows) < len(chosen) and if_main_process():
            logger.warning(
                "epoch %d: the start rule leaves out %d of %d utterances, which "
                "cannot be read, or whose embedding is zero or not finite",
                self.epoch,
                len(chosen) - len(rows),
                len(chosen),
            )
        return rows

    def _embed_training_set(self):
        """Embeddings ``[utterances, size]``; rows that cannot be had are 0."""
        manifest = self.train_manifest
        count, ranks = len(manifest), distributed.world_size()
        mine = range(distributed.rank(), count, ranks)
        bad = []
        rows = embed_files(
            self.evaluated_encoder,
            self.features,
            [manifest.path(i) for i in mine],
            manifest.durations[mine.start :: ranks],
            device=self.device,
            num_workers=self.hparams.num_workers,
            most_seconds=self.hparams.crops.chunk_seconds,
            bad=bad,
            progress=not self.noprogressbar and distributed.rank() == 0,
        )
        if bad:
            logger.warning(
                "epoch %d: %d of %d utterances cannot be read, and have no "
                "cluster",
                self.epoch,
                len(bad),
                len(mine),
            )
        whole = torch.zeros(count, rows.shape[1], device=self.device)
        whole[mine.start :: ranks] = (
            torch.from_numpy(rows).nan_to_num().to(self.device)
        )
        return sum_over_ranks(whole)

    def held_out(self, embeddings):
        """What the teacher says of held-out crops."""
        if not self.objective.teacher_counts:
            return {}
        head = self.teacher.head.eval()
        branch = Branch(embeddings, project(head, embeddings), head)
        # The knobs of the step that has just been taken.
        return self.objective.held_out(
            branch, **self.knobs(self.optimizer_step - 1)
        )


def encode_with_frames(encoder, inputs):
    """As ``encode``, with the frames; all crops are of one length."""
    (x,) = inputs
    embeddings, frames = encoder.with_frames(x.flatten(0, 1))
    return (
        embeddings.squeeze(1).unflatten(0, x.shape[:2]),
        frames.unflatten(0, x.shape[:2]),
    )


def project(head, embeddings):
    """Applies a head to ``[batch, crops, size]``."""
    vectors = head(embeddings.flatten(0, 1))
    return vectors.unflatten(0, embeddings.shape[:2])
