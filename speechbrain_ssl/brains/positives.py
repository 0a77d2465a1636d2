"""Supply the positives of a batch: the utterance's own, or pseudo-positives.

``SSLBrain`` calls one interface, which four classes implement:

* ``OwnPositives``: crops of the utterance itself.
* ``ClusterAwarePositives``: crops of other utterances of the same cluster,
  chosen before audio is read.
* ``GivenClusterPositives``: the same with clusters from a file, such as those of
  faces, and from other recordings.
* ``SampledPositives``: SSPS, which puts stored projections into rows of the target branch
  of other utterances, after the encoder.

The sampling rules themselves are in ``speechbrain_ssl.positives``. This file
connects them with what only a run has: the encoder, the data loaders, and the
other processes.
"""

import logging

import numpy as np
import torch
from speechbrain.utils.distributed import if_main_process

from speechbrain_ssl import distributed
from speechbrain_ssl.brains.embedded_halves import EmbeddedHalves
from speechbrain_ssl.brains.encoding import encode
from speechbrain_ssl.embedding.extract import embed_files
from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.positives.cluster_aware import ClusterAware
from speechbrain_ssl.positives.given_clusters import GivenClusters
from speechbrain_ssl.positives.monitor import PositiveMonitor
from speechbrain_ssl.positives.ssps import SSPS
from speechbrain_ssl.positives.start_rule import fewest_utterances, judge
from speechbrain_ssl.precision import DTYPES
from speechbrain_ssl.pseudo_labels.labels import read_labels

logger = logging.getLogger(__name__)

#: Below this share of samples with a pseudo-positive, a warning says so (ours).
LOW_COVERAGE = 0.5


def make_positives(brain):
    """Return the object that implements ``brain.hparams.positives``.

    Arguments
    ---------
    brain : speechbrain_ssl.brains.ssl_brain.SSLBrain
        Its hyper-parameter ``positives`` is an ``SSPS``, a ``ClusterAware``, a
        ``GivenClusters`` or None.

    Returns
    -------
    OwnPositives
        Or one of its subclasses.

    Raises
    ------
    ConfigError
        If the rule cuts crops of audio, and ``crops`` is a plan of pictures.
    """
    rule = brain.hparams.positives
    cuts_audio = isinstance(rule, (ClusterAware, GivenClusters))
    if cuts_audio or getattr(rule, "speaker_count", None):
        if not hasattr(brain.hparams.crops, "chunk_seconds"):
            raise ConfigError(
                "positives from clusters and the start rule of SSPS cut crops of "
                "audio, and `crops` is a plan of pictures: set `positives` to "
                "an SSPS with `speaker_count` null, or to null"
            )
    if isinstance(rule, SSPS):
        return SampledPositives(brain, rule)
    if isinstance(rule, ClusterAware):
        return ClusterAwarePositives(brain, rule)
    if isinstance(rule, GivenClusters):
        return GivenClusterPositives(brain, rule)
    return OwnPositives()


class OwnPositives:
    """Uses crops of the utterance itself, and defines the interface.

    Ordinary positives need no support, so the methods do nothing here.
    """

    #: Which speaker labels the positives are made of, for ``results.json``.
    labels_seen = "none"

    def loader_options(self):
        """Return additional keyword arguments for the training loader."""
        return {}

    def recoverables(self):
        """Return name -> object whose state a checkpoint keeps."""
        return {}

    def set_up(self, embedding_size, projection_size):
        """Create the state before a checkpoint is loaded.

        Arguments
        ---------
        embedding_size : int
            Size of an embedding.
        projection_size : int
            Size of a projection.
        """

    def before_epoch(self, epoch):
        """Prepare an epoch, in all processes.

        Not called for an epoch that is resumed in its middle.
        """

    def replace(self, batch, target):
        """Put pseudo-positives into the target branch.

        Arguments
        ---------
        batch : speechbrain_ssl.data.dataset.CropBatch
            The batch, on the device.
        target : speechbrain_ssl.objectives.base.Branch
            The branch that the online branch is compared with.

        Returns
        -------
        Branch
            The target branch, with or without replaced rows.
        dict
            Name -> scalar, for the log.
        """
        return target, {}

    def after_step(self):
        """Update the state with the batches of the step."""

    def skip_step(self):
        """Discard the batches of a skipped step."""

    def after_epoch(self, epoch, means):
        """Record an epoch, in all processes.

        Arguments
        ---------
        epoch : int
            Counted from 1.
        means : dict
            Name -> mean of the scalars logged in its steps.
        """

    def results(self):
        """Return entries for ``results.json``."""
        return {}

    def warn_if_never_active(self):
        """Warn if pseudo-positives were configured but never used."""


class _RulePositives(OwnPositives):
    """Implements what all sampling rules have in common.

    Arguments
    ---------
    brain : speechbrain_ssl.brains.ssl_brain.SSLBrain
        The Brain that holds this.
    rule : SSPS, ClusterAware or GivenClusters
        The configured sampling rule.
    """

    def __init__(self, brain, rule):
        self.brain, self.rule = brain, rule

    def recoverables(self):
        """Return the rule, whose state a checkpoint keeps."""
        return {"positives": self.rule}

    def set_up(self, embedding_size, projection_size):
        """Warn if the rule would start after the last epoch."""
        epochs = self.brain.hparams.number_of_epochs
        if self.rule.start_epoch > epochs:
            # Not an error: this is how the baseline of a configuration is
            # trained.
            logger.warning(
                "%s starts in epoch %d, but `number_of_epochs` is %d: this run "
                "trains the baseline",
                type(self.rule).__name__,
                self.rule.start_epoch,
                epochs,
            )

    @property
    def first_active_epoch(self):
        """The first epoch with pseudo-positives, or None if there was none yet.

        It may be later than configured: the start rule of SSPS can postpone it.
        """
        started = self.rule.start_epoch <= self.brain.epoch_reached
        return self.rule.start_epoch if started else None

    def results(self):
        """Return the first epoch that used pseudo-positives, or None."""
        return {"positives_from_epoch": self.first_active_epoch}

    def warn_if_never_active(self):
        """Warn if the rule was never active, so that this is the baseline."""
        if self.first_active_epoch is None:
            logger.warning(
                "%s was never active: it would have started in epoch %d, but "
                "%d were trained; the result is the baseline",
                type(self.rule).__name__,
                self.rule.start_epoch,
                self.brain.epoch_reached,
            )


class ClusterAwarePositives(_RulePositives):
    """Cuts crops from other utterances of the same cluster.

    Which utterances is decided before audio is read, in the sampler.
    """

    def loader_options(self):
        """Return the function that chooses the utterance of each crop."""
        return {"pseudo_positives": self.rule.pseudo_positives}

    def set_up(self, embedding_size, projection_size):
        """Create the table of clusters on the CPU, for the sampler."""
        super().set_up(embedding_size, projection_size)
        self.rule.set_up(
            self.brain.train_sampler.num_samples,
            self.brain.hparams.crops.local_crops,
            self.brain.hparams.seed,
        )

    def before_epoch(self, epoch):
        """Cluster the training set, if a clustering is due in this epoch."""
        if self.rule.due(epoch):
            self.rule.recluster(epoch, self._embed_training_set())

    def _embed_training_set(self):
        """Return embeddings ``[utterances, size]``, the same in every process.

        The rows of utterances that cannot be read are zero.
        """
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
            batch_seconds=self.rule.embed_batch_seconds,
            precision=DTYPES[brain.eval_precision],
            num_workers=brain.hparams.num_workers,
            most_seconds=brain.hparams.crops.chunk_seconds,
            bad=bad,
            progress=not brain.noprogressbar and distributed.rank() == 0,
        )
        if bad:
            logger.warning(
                "epoch %d: %d of %d utterances cannot be read; they get no "
                "cluster",
                brain.epoch,
                len(bad),
                len(mine),
            )
        whole = torch.zeros(count, rows.shape[1], device=brain.device)
        whole[mine.start :: ranks] = (
            torch.from_numpy(rows).nan_to_num().to(brain.device)
        )
        return distributed.sum_over_ranks(whole)


class GivenClusterPositives(_RulePositives):
    """Cuts crops from other recordings of a cluster that a file names."""

    #: Nobody but the user knows what the file was made of.
    labels_seen = "unknown: clusters_csv"

    def loader_options(self):
        """Return the function that chooses the utterance of each crop."""
        return {"pseudo_positives": self.rule.pseudo_positives}

    def set_up(self, embedding_size, projection_size):
        """Read the clusters of the training set."""
        super().set_up(embedding_size, projection_size)
        manifest = self.brain.train_manifest
        clusters, _ = read_labels(self.rule.clusters_csv, manifest, others=True)
        ids = [manifest.ids[i] for i in range(len(manifest))]
        self.rule.set_up(clusters, ids, self.brain.hparams.seed)


class SampledPositives(_RulePositives):
    """Puts projections of other utterances into the target branch (SSPS)."""

    def __init__(self, brain, rule):
        super().__init__(brain, rule)
        self.monitor = None

    def loader_options(self):
        """Return the length and the first epoch of reference crops."""
        return {
            "reference_seconds": self.rule.reference_seconds,
            "reference_from": self.rule.fills_from,
        }

    def set_up(self, embedding_size, projection_size):
        """Create memory and queue, and check that the start rule can be used.

        Raises
        ------
        ConfigError
            If too few utterances are long enough for the start rule.
        """
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
        """Build the monitor that compares pseudo-positives with labels.

        Its results are only logged. Return None without ``monitor_labels``.
        """
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
                "SSPS will start in epoch %d without a check that the encoder "
                "is good enough; a weak one finds look-alikes, and training "
                "on those makes it weaker. Set `speaker_count` to a guess of the "
                "number of speakers, and the start rule checks this, without "
                "labels",
                self.rule.start_epoch,
            )

    def replace(self, batch, target):
        """Store references and, once SSPS is active, replace target vectors.

        The reference crops are not augmented, and are encoded in evaluation
        mode by the encoder that is also evaluated.
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
        """Update memory and queue with the vectors of the step."""
        self.rule.after_step()

    def skip_step(self):
        """Discard the references and vectors of a skipped step."""
        self.rule.skip_step()

    def before_epoch(self, epoch):
        """Apply the start rule if it is due, then cluster the memory."""
        # There is no point in starting after the last epoch.
        early = epoch < self.brain.hparams.number_of_epochs
        if self.rule.filling(epoch) and self.rule.speaker_count and early:
            self._ask_start_rule(epoch)
        self.rule.before_epoch(epoch)
        if self.rule.active(epoch):
            self._warn_of_low_coverage(epoch)

    def _warn_of_low_coverage(self, epoch):
        """Warn if most samples will keep their ordinary positive."""
        expected = self.rule.expected_coverage()
        if expected < LOW_COVERAGE and if_main_process():
            logger.warning(
                "epoch %d: SSPS will find a pseudo-positive for %.0f %% of the "
                "samples; the others keep their own crops, because the cluster "
                "that is drawn has no member among the %d projections in the "
                "queue. Raise `positive_queue` (%d utterances are trained on), "
                "or lower `clusters`",
                epoch,
                100 * expected,
                self.rule.queue_size,
                len(self.rule.memory),
            )

    def after_epoch(self, epoch, means):
        """Record the mean coverage."""
        if self.rule.active(epoch):
            self.rule.coverage[epoch] = means["coverage"]

    def results(self):
        """Return the first epoch with SSPS, and the mean coverage since."""
        found = list(self.rule.coverage.values())
        return {
            **super().results(),
            "positives_coverage": float(np.mean(found)) if found else None,
        }

    # -- the start rule --------------------------------------------------------

    def _comparable(self):
        """Return the positions of utterances long enough for the start rule."""
        shortest = 2 * self.brain.hparams.valid_seconds
        return np.flatnonzero(self.brain.train_manifest.durations >= shortest)

    def _check_start_rule(self):
        """Raise if too few utterances are long enough for the start rule."""
        there = len(self._comparable())
        least = fewest_utterances(self.rule.neighbours)
        if there < least:
            raise ConfigError(
                "`speaker_count` asks for the start rule, which compares two "
                "halves of `valid_seconds` = "
                f"{self.brain.hparams.valid_seconds} s each: of "
                f"{len(self.brain.train_manifest)} training utterances {there} "
                f"are long enough, but {least} are needed; lower "
                "`valid_seconds`, or set `speaker_count` to null"
            )

    def _ask_start_rule(self, epoch):
        """Postpone SSPS if the halves of utterances disagree too often.

        Two halves disagree if their clusters lead to different
        pseudo-positives; see ``speechbrain_ssl.positives.start_rule``.
        """
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
        # Machines of different kinds may differ in the last digit: broadcast
        # rank 0's decision.
        may_start, clusters, neighbours = distributed.from_rank_0(
            [verdict.start, verdict.clusters, verdict.neighbours]
        )
        if may_start:
            self.rule.adopt(clusters, neighbours)
        else:
            self.rule.postpone()
