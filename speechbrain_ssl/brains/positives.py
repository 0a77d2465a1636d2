"""Where the positives of a batch come from, as the Brain sees it.

One interface, three kinds: the utterance itself, other utterances of its
cluster (cluster-aware sampling, before audio is read), and stored embeddings of
other utterances (SSPS, behind the encoder). The rules themselves are in
``speechbrain_ssl.positives``; here they get what only a run has: the encoder,
the loaders, the other processes.
"""

import logging

import numpy as np
import torch
from speechbrain.utils.distributed import if_main_process
from tqdm import tqdm

from speechbrain_ssl import distributed
from speechbrain_ssl.brains.encoding import crop_features, encode
from speechbrain_ssl.data.halves import ReadableHalves
from speechbrain_ssl.distributed import sum_over_ranks
from speechbrain_ssl.embedding.extract import embed_files
from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.positives.cluster_aware import ClusterAware
from speechbrain_ssl.positives.monitor import PositiveMonitor
from speechbrain_ssl.positives.ssps import SSPS
from speechbrain_ssl.positives.start_rule import fewest_utterances, judge
from speechbrain_ssl.pseudo_labels.labels import read_labels

logger = logging.getLogger(__name__)


def make_positives(brain):
    """Return the kind that ``brain.hparams.positives`` asks for."""
    rule = brain.hparams.positives
    if isinstance(rule, SSPS):
        return SampledPositives(brain, rule)
    if isinstance(rule, ClusterAware):
        return ClusterAwarePositives(brain, rule)
    return OwnPositives()


class OwnPositives:
    """Positives from the utterance itself: there is nothing to do."""

    def loader_options(self):
        """Return what the training loader has to read in addition."""
        return {}

    def recoverables(self):
        """Return name -> object whose state a checkpoint keeps."""
        return {}

    def set_up(self, embedding_size, projection_size):
        """Make the state, for such sizes, before a checkpoint is read."""

    def before_epoch(self, epoch):
        """Prepare an epoch, in all processes; not one taken up in its middle."""

    def replace(self, batch, target):
        """Return the target branch with positives of other utterances.

        Arguments
        ---------
        batch : speechbrain_ssl.data.dataset.CropBatch
            The batch, on the device.
        target : speechbrain_ssl.objectives.base.Branch
            The branch that the online one is compared with.

        Returns
        -------
        Branch
            The target, or another in its place.
        dict
            Scalars for the log.
        """
        return target, {}

    def after_step(self):
        """Keep what the step has left."""

    def skip_step(self):
        """Forget the step."""

    def results(self):
        """Return entries for ``results.json``."""
        return {}

    def warn_if_never_active(self):
        """Say so where a rule was configured and had no part in training."""


class _RulePositives(OwnPositives):
    """What both rules have in common.

    Arguments
    ---------
    brain : speechbrain_ssl.brains.ssl_brain.SSLBrain
        The Brain that holds this.
    rule : SSPS or ClusterAware
        The configured rule.
    """

    def __init__(self, brain, rule):
        self.brain, self.rule = brain, rule

    def recoverables(self):
        """Return the rule."""
        return {"positives": self.rule}

    def set_up(self, embedding_size, projection_size):
        """Warn where the rule would begin after the last epoch."""
        epochs = self.brain.hparams.number_of_epochs
        if self.rule.start_epoch > epochs:
            # Not refused: that is how the baseline of a configuration is made.
            logger.warning(
                "%s begins in epoch %d, but `number_of_epochs` is %d: this run "
                "trains the baseline",
                type(self.rule).__name__,
                self.rule.start_epoch,
                epochs,
            )

    @property
    def first_active_epoch(self):
        """The first epoch with positives of other utterances so far, or None.

        The start rule may have put it off.
        """
        started = self.rule.start_epoch <= self.brain.epoch_reached
        return self.rule.start_epoch if started else None

    def results(self):
        """Return from which epoch on positives came from other utterances."""
        return {"positives_from_epoch": self.first_active_epoch}

    def warn_if_never_active(self):
        """Say that what comes out is the baseline."""
        if self.first_active_epoch is None:
            logger.warning(
                "%s was never active: it would have begun in epoch %d, and %d "
                "were trained; what comes out is the baseline",
                type(self.rule).__name__,
                self.rule.start_epoch,
                self.brain.epoch_reached,
            )


class ClusterAwarePositives(_RulePositives):
    """Crops from other utterances of a cluster, drawn before audio is read."""

    def loader_options(self):
        """Return where the loader finds the partners of an utterance."""
        return {"partners": self.rule.partners}

    def set_up(self, embedding_size, projection_size):
        """Make the table of partners, on the CPU, where the loaders read it."""
        super().set_up(embedding_size, projection_size)
        self.rule.set_up(
            self.brain.train_sampler.num_samples,
            self.brain.hparams.crops.local_crops,
            self.brain.hparams.seed,
        )

    def before_epoch(self, epoch):
        """Cluster the training set where it is due."""
        if self.rule.due(epoch):
            self.rule.recluster(epoch, self._embed_training_set())

    def _embed_training_set(self):
        """Return embeddings ``[utterances, size]``; 0 where there is none."""
        brain, manifest = self.brain, self.brain.train_manifest
        count, ranks = len(manifest), distributed.world_size()
        mine = range(distributed.rank(), count, ranks)
        bad = []
        rows = embed_files(
            brain.evaluated_encoder,
            brain.features,
            [manifest.path(i) for i in mine],
            manifest.durations[mine.start :: ranks],
            device=brain.device,
            num_workers=brain.hparams.num_workers,
            most_seconds=brain.hparams.crops.chunk_seconds,
            bad=bad,
            progress=not brain.noprogressbar and distributed.rank() == 0,
        )
        if bad:
            logger.warning(
                "epoch %d: %d of %d utterances cannot be read, and have no "
                "cluster",
                brain.epoch,
                len(bad),
                len(mine),
            )
        whole = torch.zeros(count, rows.shape[1], device=brain.device)
        whole[mine.start :: ranks] = (
            torch.from_numpy(rows).nan_to_num().to(brain.device)
        )
        return sum_over_ranks(whole)


class SampledPositives(_RulePositives):
    """SSPS: stored embeddings of other utterances, behind the encoder."""

    def __init__(self, brain, rule):
        super().__init__(brain, rule)
        self.monitor = None

    def loader_options(self):
        """Return how long a reference crop is, and from which epoch it is cut."""
        return {
            "reference_seconds": self.rule.reference_seconds,
            "reference_from": self.rule.fills_from,
        }

    def set_up(self, embedding_size, projection_size):
        """Make memory and queue; refuse what the start rule cannot judge."""
        super().set_up(embedding_size, projection_size)
        brain, hparams = self.brain, self.brain.hparams
        self.rule.set_up(
            brain.objective,
            brain.train_sampler.num_samples,
            embedding_size,
            hparams.crops.global_crops,
            projection_size,
            brain.effective_batch,
            hparams.seed,
        )
        self.rule.to(brain.device)
        self.monitor = self._make_monitor()
        if self.rule.speaker_count:
            self._check_start_rule()
        elif self.rule.start_epoch <= hparams.number_of_epochs:
            self._warn_without_start_rule()

    def _make_monitor(self):
        """Build the monitor that compares pseudo-positives with labels."""
        if self.rule.monitor_labels is None:
            return None
        speakers, _ = read_labels(
            self.rule.monitor_labels,
            self.brain.train_manifest,
            "spk_id",
            others=True,
        )
        known = {"spk_id": speakers}
        return PositiveMonitor(known, self.brain.device)

    def _warn_without_start_rule(self):
        if if_main_process():
            logger.warning(
                "SSPS will begin in epoch %d without anybody asking whether "
                "the encoder is good enough; a weak one finds look-alikes, "
                "and training on those makes it weaker. Give a guess of the "
                "number of speakers (`speaker_count`), and a rule asks, "
                "without labels",
                self.rule.start_epoch,
            )

    def replace(self, batch, target):
        """Observe references and, once active, put positives into the target.

        The reference is encoded clean, by the running statistics of the encoder
        that is evaluated.
        """
        epoch = self.brain.epoch
        if not (self.rule.active(epoch) or self.rule.filling(epoch)):
            return target, {}
        encoder = self.brain.evaluated_encoder
        training = encoder.training
        with torch.no_grad():
            clean = self.brain.to_features(batch.reference[:, None])
            references = encode(encoder.eval(), [clean])[:, 0]
        encoder.train(training)
        self.rule.observe(target.index, references, target.projections)
        return self.rule.substitute(target, epoch, batch.keys, self.monitor)

    def after_step(self):
        """Let SSPS keep references and positives of the step."""
        self.rule.after_step()

    def skip_step(self):
        """Let SSPS forget the step."""
        self.rule.skip_step()

    def before_epoch(self, epoch):
        """Ask the start rule where it is due, and cluster the memory."""
        # In the last epoch there is nothing left to begin.
        early = epoch < self.brain.hparams.number_of_epochs
        if self.rule.filling(epoch) and self.rule.speaker_count and early:
            self._ask_start_rule(epoch)
        self.rule.before_epoch(epoch)

    # -- the start rule --------------------------------------------------------

    def _comparable(self):
        """Positions of the utterances whose halves the start rule compares."""
        shortest = 2 * self.brain.hparams.valid_seconds
        return np.flatnonzero(self.brain.train_manifest.durations >= shortest)

    def _check_start_rule(self):
        """Refuse what the start rule could not judge, before the first step."""
        there = len(self._comparable())
        least = fewest_utterances(self.rule.neighbours)
        if there < least:
            raise ConfigError(
                "`speaker_count` asks for the start rule, which compares two "
                "halves of `valid_seconds` = "
                f"{self.brain.hparams.valid_seconds} s: of "
                f"{len(self.brain.train_manifest)} training utterances {there} "
                f"are as long as both, of {least} at least; lower "
                "`valid_seconds`, or set `speaker_count` to null"
            )

    def _ask_start_rule(self, epoch):
        """Put SSPS off where two halves of an utterance disagree too often."""
        halves = EmbeddedHalves(self.brain, self._comparable())
        verdict = judge(
            self.rule,
            *halves.embed(epoch, self.rule.memory.shape[1]).unbind(1),
            utterances=len(self.brain.train_manifest),
            seed=self.brain.hparams.seed,
        )
        if if_main_process():
            log = logger.info if verdict.start else logger.warning
            log("epoch %d: %s", epoch, verdict.reason)
        # All have the same figures but, on machines that differ, for the last
        # digit: broadcast rank 0's decision.
        answer = torch.tensor(
            [verdict.start, verdict.clusters, verdict.neighbours],
            device=distributed.collective_device(),
        )
        may_start, clusters, neighbours = sum_over_ranks(
            answer * (distributed.rank() == 0)
        ).tolist()
        if may_start:
            self.rule.adopt(clusters, neighbours)
        else:
            self.rule.postpone()


class EmbeddedHalves:
    """Embeds two halves of utterances, clean; each process embeds its share.

    Arguments
    ---------
    brain : speechbrain_ssl.brains.ssl_brain.SSLBrain
        Whose encoder and training set these are.
    chosen : numpy.ndarray
        Positions in the training manifest, the same in every process.
    """

    def __init__(self, brain, chosen):
        self.brain, self.chosen = brain, chosen

    @torch.no_grad()
    def embed(self, epoch, size):
        """Return the embeddings of all halves.

        Arguments
        ---------
        epoch : int
            For the message.
        size : int
            Size of an embedding.

        Returns
        -------
        torch.Tensor
            ``[utterances, 2, size]``, in every process. What cannot be read or
            embedded is left out, as in training.
        """
        brain, chosen = self.brain, self.chosen
        rows = torch.zeros(len(chosen), 2, size, device=brain.device)
        encoder = brain.evaluated_encoder.eval()
        for batch in self._batches():
            if len(batch.index):
                crops = batch.to(brain.device).crops[0]
                places = np.searchsorted(chosen, batch.index.numpy())
                rows[torch.from_numpy(places).to(rows.device)] = encode(
                    encoder, [crop_features(brain.features, crops)]
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
                epoch,
                len(chosen) - len(rows),
                len(chosen),
            )
        return rows

    def _batches(self):
        """Yield batches of this process's share."""
        brain = self.brain
        halves = ReadableHalves(
            brain.train_manifest,
            brain.hparams.valid_seconds,
            crops_per_half=1,
            sample_rate=brain.features.sample_rate,
        )
        mine = self.chosen[distributed.rank() :: distributed.world_size()]
        loader = torch.utils.data.DataLoader(
            torch.utils.data.Subset(halves, mine.tolist()),
            batch_size=32,
            collate_fn=halves.collate,
            num_workers=brain.hparams.num_workers,
            generator=torch.Generator(),
        )
        return tqdm(
            loader,
            "start rule",
            disable=brain.noprogressbar or not if_main_process(),
            dynamic_ncols=True,
        )
