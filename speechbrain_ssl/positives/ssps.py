"""SSPS (self-supervised positive sampling): positives from other utterances.

Lepage and Dehak, 2025 (arXiv 2505.14561, 2501.17772). Two crops of one
utterance share the recording. In the last epochs SSPS therefore compares a crop
with a pseudo-positive: another utterance, believed to be of the same speaker
but of another recording.

1. A **memory** keeps one reference embedding of every training utterance: the
   unit-norm embedding of one 4 s crop without augmentation.
2. At the start of each epoch, spherical k-means divides the memory into K
   clusters.
3. For a sample of cluster c, a cluster is drawn: c itself (M = 0), or one of
   the M other clusters whose centroids have the highest cosine with that of c.
4. From the utterances of that cluster that are in the **queue** of recent
   positive projections, one is drawn, never the sample's own. Its projections
   replace the sample's in the target branch. If there is no such utterance, the
   sample keeps its ordinary positive. The share of samples whose positive is
   replaced is the *coverage*.
5. After the step, memory and queue are updated with what the step has computed.

Differences from the published code, and the reasons:

* For DINO the queue holds the 256-dimensional projections before the last
  layer, and the logits come from the teacher's *current* last layer. The
  published code stores 65 536 logits per crop: 13.1 GB for a queue of 25 000
  and two crops, against 51 MB here. With a frozen last layer the two are the
  same.
* A sample is never its own pseudo-positive, and an empty cluster is never a
  neighbour.
* The queue is first in, first out throughout; the published one begins again
  at its first slot in every epoch.

An option of ours: ``merge_from`` merges more and smaller clusters into the K
clusters (results/ssps_conditions).

As in the published code, one pseudo-positive is drawn for all global crops of a
sample. SwAV uses that of the last crop only (see ``objectives/swav.py``).

**Memory**: 4 * utterances * embedding size bytes for the reference embeddings
(2.2 GB for VoxCeleb2 and 512 dimensions) and 4 * queue * crops * projection
size bytes for the queue, on the training device of every process.
"""

import math

import torch
import torch.nn.functional as F

from speechbrain_ssl.clustering.replicated import clusters_of_all
from speechbrain_ssl.data.draws import uniform
from speechbrain_ssl.distributed import gather_rows
from speechbrain_ssl.objectives.step_notes import StepNotes
from speechbrain_ssl.positives.neighbours import nearest_clusters
from speechbrain_ssl.positives.pseudo_positives import (
    draw_members,
    draw_neighbours,
    expected_coverage,
    put_vectors,
)
from speechbrain_ssl.positives.queue import PositiveQueue
from speechbrain_ssl.positives.ssps_checks import (
    check_memory,
    check_run,
    check_values,
)
from speechbrain_ssl.upload import upload


class SSPS(torch.nn.Module):
    """Draw pseudo-positives by clustering (self-supervised positive sampling).

    All state is in buffers and changes only in ``after_step``, so a run that
    resumes from a checkpoint continues as if it had not stopped. In a
    distributed run every process has the same memory and the same queue.

    Arguments
    ---------
    clusters : int
        K. The paper has 25 000 for the 1.09 million utterances of VoxCeleb2.
        For other data see ``positives/start_rule.py``.
    queue : int
        Number of slots in the queue, at least the global batch; 25 000 in the
        paper.
    neighbours : int
        M; 1 in the paper, 0 to draw from the sample's own cluster. The M
        neighbour clusters are equally likely.
    start_epoch : int
        First epoch with pseudo-positives, at least 2, because the epoch before
        fills memory and queue.
    reference_seconds : float
        Length of the crop that the reference embedding is computed from; 4 in
        the paper.
    iterations : int
        Number of k-means iterations; 10 in the paper.
    merge_from : int, optional
        Number of k-means clusters that are merged into ``clusters`` by Ward's
        criterion (an option of ours, meant for neighbours 0). For memory and
        time see ``speechbrain_ssl/clustering/agglomerative.py``.
    speaker_count : int, optional
        Estimated number of speakers in the training set, at least 2. Guess
        high, since a low guess lets weaker encoders through. If given, the rule
        of ``positives/start_rule.py`` is applied before ``start_epoch``, and
        the start is postponed until it accepts ``clusters`` and ``neighbours``.
        Its results for other values are only logged.
    choose_clusters : bool
        Whether the rule also sets K and M; needs a ``speaker_count``. It
        chooses among half, once and twice the ``clusters`` (not twice with
        ``merge_from``) and 0 to ``neighbours``, and starts as soon as its
        choice is good enough.
    monitor_labels : str, optional
        A CSV file with the columns ``ID`` and ``spk_id``. It is used only to
        log how often a pseudo-positive is of the anchor's speaker.

    Raises
    ------
    ConfigError
        If a value is out of range.
    ClusteringError
        If the merging would exceed its memory limit.

    Example
    -------
    >>> from speechbrain_ssl.objectives.base import Branch
    >>> from speechbrain_ssl.objectives.simclr import SimCLR
    >>> ssps = SSPS(clusters=2, queue=4, neighbours=0, start_epoch=2)
    >>> ssps.set_up(SimCLR(), utterances=4, reference_size=3, crops=2,
    ...             vector_size=3, batch=4, seed=0)
    >>> index = torch.arange(4)
    >>> references = torch.eye(3)[[0, 0, 1, 1]]
    >>> ssps.observe(index, references, torch.randn(4, 2, 3))
    >>> ssps.after_step()
    >>> ssps.before_epoch(2)
    >>> import numpy as np
    >>> keys = np.arange(4, dtype=np.uint64)
    >>> ssps.draw(index, 2, keys).utterances.tolist()
    [1, 0, 3, 2]
    """

    def __init__(
        self,
        clusters,
        queue,
        start_epoch,
        neighbours=1,
        reference_seconds=4.0,
        iterations=10,
        merge_from=None,
        speaker_count=None,
        choose_clusters=False,
        monitor_labels=None,
    ):
        super().__init__()
        self.clusters = clusters
        self.queue_size = queue
        self.start_epoch = start_epoch
        self.neighbours = neighbours
        self.reference_seconds = reference_seconds
        self.iterations = iterations
        self.merge_from = merge_from
        self.speaker_count = speaker_count
        self.choose_clusters = choose_clusters
        self.monitor_labels = monitor_labels
        check_values(self)
        # Epoch -> mean coverage, of the epochs that are over.
        self.coverage = {}
        # Upper limit of the clusters, set in ``set_up``.
        self._most = math.inf
        self._notes = StepNotes()

    def set_up(
        self,
        objective,
        utterances,
        reference_size,
        crops,
        vector_size,
        batch,
        seed,
    ):
        """Create the memory, the clusters and the queue.

        Called once, before a checkpoint is read.

        Arguments
        ---------
        objective : speechbrain_ssl.objectives.base.Objective
            The objective whose target branch receives pseudo-positives.
        utterances : int
            Length of the training manifest.
        reference_size : int
            Size of a reference embedding.
        crops : int
            Number of global crops per sample.
        vector_size : int
            Size of a crop's projection in the target branch.
        batch : int
            Number of utterances in a step, over all processes.
        seed : int
            The run's seed.

        Raises
        ------
        ConfigError
            If the objective is not supported, the queue is too short, or there
            are too many clusters.
        """
        check_run(self, objective, utterances, batch)
        self.seed = seed
        # Number of utterances in the epoch that fills the memory.
        self._most = utterances // batch * batch
        # The start rule may adopt more clusters than are configured.
        most = self.clusters
        if self.choose_clusters:
            most = max(self.candidates())
        shape = (most, max(1, self.neighbours))
        buffers = {
            "memory": torch.zeros(utterances, reference_size),
            "known": torch.zeros(utterances, dtype=torch.bool),
            "assignments": torch.full((utterances,), -1),
            "centroids": torch.zeros(most, reference_size),
            # No cluster has neighbours (-1) before the first k-means.
            "near": torch.full(shape, -1),
        }
        for key, tensor in buffers.items():
            self.register_buffer(key, tensor)
        self.queue = PositiveQueue(
            self.queue_size, utterances, crops, vector_size
        )

    # -- epochs ----------------------------------------------------------------

    def active(self, epoch):
        """Return whether an epoch (counted from 1) replaces positives."""
        return epoch >= self.start_epoch

    def postpone(self):
        """Postpone the start by one epoch; checkpoints store this."""
        self.start_epoch += 1

    def candidates(self):
        """Return the values of K that the start rule tries, ours first."""
        others = [self.clusters // 2]
        if self.merge_from is None:
            others.append(2 * self.clusters)
        return [self.clusters] + [k for k in others if 0 < k <= self._most]

    def adopt(self, clusters, neighbours):
        """Set the K and M that the start rule has chosen.

        Checkpoints store them. ``merge_from`` changes in proportion, so that
        each cluster is still merged from as many small ones.

        Arguments
        ---------
        clusters : int
            One of ``candidates()``.
        neighbours : int
            At most the configured number.
        """
        if self.merge_from is not None:
            self.merge_from = self.merge_from * clusters // self.clusters
        self.clusters, self.neighbours = clusters, neighbours

    #: Settings that the start rule may change, and the record of coverage.
    MOVED = ("start_epoch", "clusters", "neighbours", "merge_from", "coverage")

    def get_extra_state(self):
        """Return what a checkpoint holds besides the buffers."""
        return {name: getattr(self, name) for name in self.MOVED}

    def set_extra_state(self, state):
        """Restore what ``get_extra_state`` returned."""
        for name, value in state.items():
            setattr(self, name, value)

    @property
    def fills_from(self):
        """Return the epoch that fills memory and queue, before the start."""
        return self.start_epoch - 1

    def filling(self, epoch):
        """Return whether an epoch only fills memory and queue."""
        return epoch == self.fills_from

    @torch.no_grad()
    def before_epoch(self, epoch):
        """Cluster the memory for an epoch; called in all processes.

        It is not called when a run resumes in the middle of an epoch: the
        clusters then come from the checkpoint.

        Arguments
        ---------
        epoch : int
            Counted from 1.

        Raises
        ------
        ConfigError
            If the memory has too few reference embeddings.
        """
        if not self.active(epoch):
            return
        known = self.known.nonzero().flatten()
        check_memory(self, epoch, len(known))
        found = clusters_of_all(
            self.memory,
            known,
            self.clusters,
            merge_from=self.merge_from,
            iterations=self.iterations,
            # Draw other initial centroids in every epoch.
            seed=int(uniform(self.seed, epoch, "ssps-clusters") * 2**53),
        )
        self.assignments[known] = found.assignments
        self.centroids[: self.clusters] = found.centroids
        if self.neighbours:
            self.near[: self.clusters, : self.neighbours] = nearest_clusters(
                found.centroids, found.sizes, self.neighbours
            )

    # -- a step ----------------------------------------------------------------

    def substitute(self, target, epoch, keys, monitor=None):
        """Draw pseudo-positives and put them into the target branch.

        Arguments
        ---------
        target : speechbrain_ssl.objectives.base.Branch
            The target branch; it must have an ``index``.
        epoch : int
            Counted from 1.
        keys : numpy.ndarray
            Utterance keys, uint64 ``[batch]``, which seed the draws.
        monitor : PositiveMonitor, optional
            Compares the pseudo-positives with reference labels, for the log.

        Returns
        -------
        tuple
            The branch (unchanged before ``start_epoch``) and a dictionary of
            scalars: ``coverage``, the share of samples whose positive was
            replaced, and those of the monitor.
        """
        if not self.active(epoch):
            return target, {}
        drawn = self.draw(target.index, epoch, keys)
        scalars = {"coverage": (drawn.clusters >= 0).float().mean()}
        if monitor is not None:
            scalars |= monitor(drawn.utterances, target.index)
        return put_vectors(target, self.queue, drawn), scalars

    @torch.no_grad()
    def draw(self, index, epoch, keys):
        """Draw a pseudo-positive for each sample of this process's batch.

        Arguments
        ---------
        index : torch.Tensor
            Positions in the manifest, int64 ``[batch]``.
        epoch : int
            Counted from 1.
        keys : numpy.ndarray
            Utterance keys, uint64 ``[batch]``, which seed the draws.

        Returns
        -------
        PseudoPositives
            One per sample.
        """
        device = self.memory.device
        index = index.to(device)
        which, member = uniform(self.seed, epoch, keys, "ssps", size=2).T
        clusters = self.assignments[index]
        if self.neighbours:
            near = self.near[:, : self.neighbours]
            clusters = draw_neighbours(clusters, near, which)
        member = upload(member, device)
        return draw_members(
            self.queue, self.assignments, clusters, index, member
        )

    def expected_coverage(self):
        """Return the coverage that the epoch will have; see the function."""
        near = self.near[:, : self.neighbours] if self.neighbours else None
        return expected_coverage(self.queue, self.assignments, near)

    @torch.no_grad()
    def observe(self, index, references, vectors):
        """Record a batch; memory and queue receive it in ``after_step``.

        Arguments
        ---------
        index : torch.Tensor
            Positions in the manifest, int64 ``[batch]``.
        references : torch.Tensor
            Embeddings of the reference crops, ``[batch, reference size]``, of
            any norm.
        vectors : torch.Tensor
            The target branch's projections of the global crops, before any
            substitution, ``[batch, crops, projection size]``.
        """
        references = references.detach().float()
        self._notes.append(
            (
                index.to(references.device),
                F.normalize(references, dim=-1),
                vectors.detach().float(),
            )
        )

    @torch.no_grad()
    def after_step(self):
        """Update memory and queue after an optimiser step, in all processes."""
        for rows in self._notes.take():
            self._update(*gather_rows(*rows))

    def _update(self, index, references, vectors):
        """Write the rows of all processes into memory and queue."""
        # A zero embedding has no direction, and a NaN would spread from one
        # utterance to its whole cluster: store neither.
        usable = references.isfinite().all(1) & (references.norm(dim=1) > 0.5)
        rows = torch.where(usable[:, None], references, self.memory[index])
        # An utterance may replace unreadable ones and so occur several times in
        # a batch. All of its rows then write the last one's values.
        same = index[:, None] == index
        last = len(index) - 1 - same.flip(1).byte().argmax(1)
        self.memory[index] = rows[last]
        self.known[index] = self.known[index] | usable[last]
        usable &= vectors.isfinite().all(-1).all(-1)
        self.queue.push(torch.where(usable, index, -1), vectors)

    def skip_step(self):
        """Discard the recorded batches of a skipped step."""
        self._notes.clear()
