"""SSPS: positives from other utterances, found by clustering as one trains.

Lepage and Dehak, 2025 (arXiv 2505.14561, 2501.17772). Two crops of one
utterance share the recording. In the last epochs SSPS therefore compares a
crop with another utterance, believed to be of the same speaker and of another
recording:

1. A **memory** keeps one vector of every utterance of the training set: the
   embedding, of unit norm, of one crop of 4 s without augmentation.
2. At the start of each epoch spherical k-means makes K clusters of it.
3. For a sample of cluster c, a cluster is drawn: c itself (M = 0), or one of
   the M others whose centroids have the greatest cosine with that of c.
4. Of the utterances of that cluster that are in the **queue** of recent
   positive vectors one is drawn, never the sample's own. Its vectors take the
   place of the sample's in the target branch. Where there is none, the sample
   keeps its ordinary positive. The share that is replaced is the *coverage*.
5. After the step, memory and queue take up what it has computed.

What differs from the published code, and why:

* For DINO the queue holds the vectors of 256 dimensions before the last layer,
  and the logits come from the *current* last layer of the teacher. The
  published code stores 65 536 logits a crop: 13.1 GB for a queue of 25 000 and
  two crops, against 51 MB here. With a last layer that does not move the two
  are the same.
* A sample is never its own pseudo-positive, and a cluster without members is
  nobody's neighbour.

What is ours: ``merge_from`` makes the clusters of more and smaller ones
(results/ssps_conditions).

Where the papers leave it open: one partner is drawn for all global crops of a
sample.

**Memory**: 4 * utterances * embedding size bytes for the references (2.2 GB
for VoxCeleb2 and 512 dimensions) and 4 * queue * crops * vector size for the
queue, on the training device of every process.
"""

import math

import torch
import torch.nn.functional as F

from speechbrain_ssl.clustering.replicated import clusters_of_all
from speechbrain_ssl.data.draws import uniform
from speechbrain_ssl.distributed import gather_rows
from speechbrain_ssl.objectives.step_notes import StepNotes
from speechbrain_ssl.positives.neighbours import nearest_clusters
from speechbrain_ssl.positives.partners import (
    draw_members,
    draw_neighbours,
    put_vectors,
)
from speechbrain_ssl.positives.queue import PositiveQueue
from speechbrain_ssl.positives.ssps_checks import (
    check_memory,
    check_run,
    check_values,
)


class SSPS(torch.nn.Module):
    """Self-supervised positive sampling.

    All state is in buffers, and moves in ``after_step`` alone; a run that is
    taken up from a checkpoint goes on as if it had not stopped. In a
    distributed run every process has the same memory and the same queue.

    Arguments
    ---------
    clusters : int
        K. The paper has 25 000 for the 1.09 million utterances of VoxCeleb2.
        On other data see ``positives/start_rule.py``.
    queue : int
        Slots of the queue; 25 000 in the paper. At least the global batch.
    neighbours : int
        M; 1 in the paper, 0 for the cluster of the sample itself. The M
        neighbour clusters are equally likely.
    start_epoch : int
        The first epoch with pseudo-positives, from 2 on: in the epoch before,
        memory and queue are filled.
    reference_seconds : float
        Length of the crop that the reference is computed from; 4 in the paper.
    iterations : int
        Of k-means; 10 in the paper.
    merge_from : int, optional
        The ``clusters`` are made of so many of a k-means, by Ward's criterion
        (an option of ours, meant for neighbours 0). Memory and time: see
        ``speechbrain_ssl/clustering/agglomerative.py``.
    speaker_count : int, optional
        A guess of the number of speakers in the training set; rather too high
        than too low, which lets weaker encoders through. With it the rule
        of ``positives/start_rule.py`` is asked before ``start_epoch``, and the
        start is put off for as long as it says no to ``clusters`` and
        ``neighbours``; how others would do is for the log. From 2 on.
    choose_clusters : bool
        With a ``speaker_count``: the rule sets K and M, too. It takes what it
        prefers of half, once and twice the ``clusters`` (not twice with
        ``merge_from``) and of 0 to ``neighbours``, and starts as soon as that
        is good enough.
    monitor_labels : str, optional
        A CSV file with the columns ``ID`` and ``spk_id``, for the log alone:
        how often a partner is of the anchor's speaker.

    Raises
    ------
    ConfigError
        If a value makes no sense.
    ClusteringError
        If the merging would take more memory than it may.

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
    >>> ssps.partners(index, 2, keys).utterances.tolist()
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
        # No more clusters than utterances; known in ``set_up``.
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
        """Make the buffers.

        Called once, before a checkpoint is read.

        Arguments
        ---------
        objective : speechbrain_ssl.objectives.base.Objective
            Whose target branch is to get other positives.
        utterances : int
            Length of the training manifest.
        reference_size : int
            Size of an embedding.
        crops : int
            Global crops of a sample.
        vector_size : int
            Size of the vector of a crop in the target branch.
        batch : int
            Utterances in a step, over all processes.
        seed : int
            Of the run.

        Raises
        ------
        ConfigError
            If the objective, the queue or the clusters do not fit.
        """
        check_run(self, objective, utterances, batch)
        self.seed = seed
        # What the epoch that fills the memory sees.
        self._most = utterances // batch * batch
        # As many as the rule may take.
        most = self.clusters
        if self.choose_clusters:
            most = max(self.candidates())
        shape = (most, max(1, self.neighbours))
        buffers = {
            "memory": torch.zeros(utterances, reference_size),
            "known": torch.zeros(utterances, dtype=torch.bool),
            "assignments": torch.full((utterances,), -1),
            "centroids": torch.zeros(most, reference_size),
            # A cluster has none before k-means: all are -1.
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
        """Put the start off by an epoch; a checkpoint keeps that."""
        self.start_epoch += 1

    def candidates(self):
        """Return the K that the start rule tries, the configured one first."""
        others = [self.clusters // 2]
        if self.merge_from is None:
            others.append(2 * self.clusters)
        return [self.clusters] + [k for k in others if 0 < k <= self._most]

    def adopt(self, clusters, neighbours):
        """Set the K and M that the start rule has chosen.

        A checkpoint keeps them. The clusters stay made of as many smaller
        ones each (``merge_from``).

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

    #: What the rule may move.
    MOVED = ("start_epoch", "clusters", "neighbours", "merge_from")

    def get_extra_state(self):
        """Return what a checkpoint holds beside the buffers."""
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
        """Return whether an epoch fills memory and queue, and no more."""
        return epoch == self.fills_from

    @torch.no_grad()
    def before_epoch(self, epoch):
        """Make the clusters of an epoch; called in all processes.

        Not in an epoch that is taken up in its middle: the clusters come with
        the checkpoint.

        Arguments
        ---------
        epoch : int
            Counted from 1.

        Raises
        ------
        ConfigError
            If the memory has too few references.
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
            # Other first centroids in every epoch.
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
        """Draw partners and put their vectors into the target branch.

        Arguments
        ---------
        target : speechbrain_ssl.objectives.base.Branch
            With ``index``.
        epoch : int
            Counted from 1.
        keys : numpy.ndarray
            Utterance keys, uint64 ``[batch]``, which address the draws.
        monitor : PositiveMonitor, optional
            Looks at the partners that were drawn.

        Returns
        -------
        tuple
            The branch (the same one before ``start_epoch``), and scalars:
            ``coverage``, the share of the samples whose positive was replaced,
            and those of the monitor.
        """
        if not self.active(epoch):
            return target, {}
        partners = self.partners(target.index, epoch, keys)
        scalars = {"coverage": (partners.clusters >= 0).float().mean()}
        if monitor is not None:
            scalars |= monitor(partners.utterances, target.index)
        return put_vectors(target, self.queue, partners), scalars

    @torch.no_grad()
    def partners(self, index, epoch, keys):
        """Draw a partner for each sample of this process's batch.

        Arguments
        ---------
        index : torch.Tensor
            Positions in the manifest, int64 ``[batch]``.
        epoch : int
            Counted from 1.
        keys : numpy.ndarray
            Utterance keys, uint64 ``[batch]``.

        Returns
        -------
        Partners
            One for each sample.
        """
        device = self.memory.device
        index = index.to(device)
        which, member = uniform(self.seed, epoch, keys, "ssps", size=2).T
        clusters = self.assignments[index]
        if self.neighbours:
            near = self.near[:, : self.neighbours]
            clusters = draw_neighbours(clusters, near, which)
        member = torch.from_numpy(member).to(device)
        return draw_members(
            self.queue, self.assignments, clusters, index, member
        )

    @torch.no_grad()
    def observe(self, index, references, vectors):
        """Note what a batch has brought; it counts from ``after_step`` on.

        Arguments
        ---------
        index : torch.Tensor
            Positions in the manifest, int64 ``[batch]``.
        references : torch.Tensor
            Embeddings of the reference crops, ``[batch, reference size]``, of
            any length.
        vectors : torch.Tensor
            What the target branch made of the global crops, before any
            substitution, ``[batch, crops, vector size]``.
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
        """Update memory and queue; called after an optimiser step.

        In all processes, if in any.
        """
        for rows in self._notes.take():
            self._update(*gather_rows(*rows))

    def _update(self, index, references, vectors):
        """Write the rows of all processes into memory and queue."""
        # An embedding of zeros has no direction and a NaN would spread from
        # one utterance to its cluster: neither is taken up.
        usable = references.isfinite().all(1) & (references.norm(dim=1) > 0.5)
        rows = torch.where(usable[:, None], references, self.memory[index])
        # An utterance may stand in for unreadable ones, and so come twice in a
        # batch: then all of its rows write the same.
        same = index[:, None] == index
        last = len(index) - 1 - same.flip(1).byte().argmax(1)
        self.memory[index] = rows[last]
        self.known[index] = self.known[index] | usable[last]
        usable &= vectors.isfinite().all(-1).all(-1)
        self.queue.push(torch.where(usable, index, -1), vectors)

    def skip_step(self):
        """Forget what was observed: the step was not taken."""
        self._notes.clear()
