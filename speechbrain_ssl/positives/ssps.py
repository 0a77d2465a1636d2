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
   place of the sample's in the second branch. Where there is none, the sample
   keeps its ordinary positive. The share that is replaced is the *coverage*.
5. After the step, memory and queue take up what it has computed.

Variants of 4: ``centroid`` takes the centroid of the drawn cluster itself,
``nearest`` draws among the M utterances of the queue whose references have the
greatest cosine with the sample's.

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
sample. ``nearest`` looks for neighbours in the queue, not in the memory, as the
published code does.

**Memory**: 4 * utterances * embedding size bytes for the references (2.2 GB
for VoxCeleb2 and 512 dimensions) and 4 * queue * crops * vector size for the
queue, on the training device of every process.
"""

import dataclasses
import math

import numpy as np
import torch
import torch.nn.functional as F

from speechbrain_ssl.clustering.replicated import (
    check_merge_from,
    clusters_of_all,
)
from speechbrain_ssl.data.draws import uniform
from speechbrain_ssl.distributed import gather_rows
from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.positives.neighbours import nearest_clusters
from speechbrain_ssl.positives.ring import PositiveQueue

VARIANTS = ("queue", "centroid", "nearest")

#: Decay of the exponential weights of neighbour clusters.
DECAY = 0.7


@dataclasses.dataclass
class Partners:
    """Whom SSPS has drawn for the samples of a batch.

    Attributes
    ----------
    utterances : torch.Tensor
        Position of the partner in the manifest, int64 ``[batch]``; -1 where
        there is none, or where the partner is a centroid.
    slots : torch.Tensor
        Its slot in the queue, int64 ``[batch]``; -1 likewise.
    clusters : torch.Tensor
        The drawn cluster, int64 ``[batch]``; -1 where there is none.
    """

    utterances: torch.Tensor
    slots: torch.Tensor
    clusters: torch.Tensor


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
        M; 1 in the paper, 0 for the cluster of the sample itself. For
        ``nearest``, among how many utterances is drawn.
    variant : str
        ``"queue"`` (the paper's), ``"centroid"`` or ``"nearest"``.
    neighbour_draw : str
        ``"uniform"``, or ``"exponential"``: the r-th nearest cluster (from 0)
        has weight exp(-0.7 r), as in the published code, whose main
        configurations do not use it.
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
        ``neighbours``; how others would do is for the log. From 2 on, and not
        for ``nearest``, which the rule cannot judge.
    choose_clusters : bool
        With a ``speaker_count``: the rule sets K and M, too. It takes what it
        prefers of half, once and twice the ``clusters`` (not twice with
        ``merge_from``) and of 0 to ``neighbours``, and starts as soon as that
        is good enough.
    monitor_labels : str, optional
        A CSV file with ``ID`` and the columns below, for the log alone: how
        often a partner is of the anchor's speaker, say.
    monitor_columns : sequence of str
        Such as the speaker's and the recording's.

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
        variant="queue",
        neighbour_draw="uniform",
        reference_seconds=4.0,
        iterations=10,
        merge_from=None,
        speaker_count=None,
        choose_clusters=False,
        monitor_labels=None,
        monitor_columns=("spk_id",),
    ):
        super().__init__()
        for key, value, least in (
            ("clusters", clusters, 1),
            ("queue", queue, 1),
            ("neighbours", neighbours, 0),
            ("iterations", iterations, 0),
        ):
            # A bool is an int, but no number.
            if type(value) is not int or value < least:
                raise ConfigError(
                    f"SSPS's {key} must be a whole number from {least}, got "
                    f"{value!r}"
                )
        if variant not in VARIANTS:
            raise ConfigError(
                f"SSPS's variant is one of {', '.join(VARIANTS)}; got "
                f"{variant!r}"
            )
        if neighbour_draw not in ("uniform", "exponential"):
            raise ConfigError(
                "SSPS's neighbour_draw is uniform or exponential; got "
                f"{neighbour_draw!r}"
            )
        if type(start_epoch) is not int or start_epoch < 2:
            raise ConfigError(
                "SSPS's start_epoch must be at least 2, since the epoch "
                "before it fills memory and queue; to begin from a trained "
                "model, name its run as initial_checkpoint and start at 2 "
                f"(got {start_epoch!r})"
            )
        number = type(reference_seconds) in (int, float)
        if not number or not 0 < reference_seconds < float("inf"):
            raise ConfigError(
                "SSPS's reference_seconds must be a number above 0, got "
                f"{reference_seconds!r}"
            )
        if speaker_count is not None:
            if type(speaker_count) is not int or speaker_count < 2:
                raise ConfigError(
                    "SSPS's speaker_count must be a whole number from 2, or "
                    f"null to start without being asked; got {speaker_count!r}"
                )
            if variant == "nearest":
                raise ConfigError(
                    "SSPS's variant nearest makes no clusters that the start "
                    "rule could judge: set `speaker_count` to null"
                )
        if type(choose_clusters) is not bool:
            raise ConfigError(
                "SSPS's choose_clusters must be True or False, got "
                f"{choose_clusters!r}"
            )
        if choose_clusters and speaker_count is None:
            raise ConfigError(
                "SSPS's choose_clusters asks the start rule, which needs a "
                "guess of the number of speakers: give a `speaker_count`, or "
                "set `choose_clusters` to False"
            )
        if variant == "nearest" and not 1 <= neighbours < queue:
            raise ConfigError(
                "SSPS's variant nearest draws among `neighbours` utterances "
                f"of the queue: from 1 to {queue - 1} for a queue of {queue}, "
                f"got {neighbours}"
            )
        if variant == "nearest" and merge_from is not None:
            raise ConfigError(
                "SSPS's variant nearest makes no clusters: leave out merge_from"
            )
        if variant == "centroid" and monitor_labels is not None:
            raise ConfigError(
                "SSPS's variant centroid draws no utterance that monitor_labels "
                "could say anything of: leave it out"
            )
        check_merge_from("SSPS's merge_from", merge_from, clusters)
        if variant != "nearest" and neighbours >= clusters:
            raise ConfigError(
                f"SSPS cannot draw among {neighbours} neighbours of a cluster "
                f"where there are {clusters} clusters in all; lower "
                "`neighbours` or raise `clusters`"
            )
        self.clusters = clusters
        self.queue_size = queue
        self.start_epoch = start_epoch
        self.neighbours = neighbours
        self.variant = variant
        self.reference_seconds = reference_seconds
        self.merge_from = merge_from
        self.iterations = iterations
        self.speaker_count = speaker_count
        self.choose_clusters = choose_clusters
        self.monitor_labels = monitor_labels
        if isinstance(monitor_columns, str):
            monitor_columns = [monitor_columns]
        self.monitor_columns = tuple(monitor_columns)
        self.neighbour_draw = neighbour_draw
        # No more clusters than utterances; known in ``set_up``.
        self._most = math.inf
        # What the steps since the last one have observed; no state, since a
        # checkpoint is only made right after a step.
        self._seen = []

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
        """Makes the buffers.

        Called once, before a checkpoint is read.

        Arguments
        ---------
        objective : speechbrain_ssl.objectives.base.Objective
            Whose second branch is to get other positives.
        utterances : int
            Length of the training manifest.
        reference_size : int
            Size of an embedding.
        crops : int
            Global crops of a sample.
        vector_size : int
            Size of the vector of a crop in the second branch.
        batch : int
            Utterances in a step, over all processes.
        seed : int
            Of the run.

        Raises
        ------
        ConfigError
            If the objective, the queue or the clusters do not fit.
        """
        name = type(objective).__name__
        if not objective.has_second_branch:
            raise ConfigError(
                f"SSPS replaces positives in the second branch, which {name} "
                "does not have; take another objective, or leave SSPS out "
                "(`positives: null`)"
            )
        if self.variant == "centroid" and not isinstance(
            objective.head, torch.nn.Identity
        ):
            raise ConfigError(
                "SSPS's variant centroid puts a mean of embeddings in the "
                f"place of a vector, but {name} compares what its head makes "
                "of embeddings; take the variant queue or nearest, or an "
                "objective without a head"
            )
        if self.queue_size < batch:
            raise ConfigError(
                f"SSPS's queue of {self.queue_size} cannot hold a batch of "
                f"{batch} (over all processes and accumulated steps); raise "
                "`positive_queue` (`queue` of the block): 25 000 in the paper, "
                "ten batches or more in any case"
            )
        made = self.merge_from or self.clusters
        # What the epoch that fills the memory sees.
        seen = utterances // batch * batch
        if made > seen and self.variant != "nearest":
            raise ConfigError(
                f"SSPS cannot make {made} clusters of {seen} utterances, which "
                f"is what the whole steps of an epoch see of {utterances}; "
                "lower `merge_from`, or `clusters` (the paper has one for every "
                "44 utterances)"
            )
        self.utterances = utterances
        self.seed = seed
        buffers = {
            "memory": torch.zeros(utterances, reference_size),
            "known": torch.zeros(utterances, dtype=torch.bool),
        }
        if self.variant != "nearest":
            self._most = seen
            # As many as the rule may take.
            most = self.clusters
            if self.choose_clusters:
                most = max(self.candidates())
            shape = (most, max(1, self.neighbours))
            buffers |= {
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
        """Whether positives are replaced in an epoch (counted from 1)."""
        return epoch >= self.start_epoch

    def postpone(self):
        """Puts the start off by an epoch; a checkpoint knows of it."""
        self.start_epoch += 1

    def candidates(self):
        """Numbers of clusters that the start rule tries, the own one first."""
        others = [self.clusters // 2]
        if self.merge_from is None:
            others.append(2 * self.clusters)
        return [self.clusters] + [k for k in others if 0 < k <= self._most]

    def adopt(self, clusters, neighbours):
        """Takes the K and M that the start rule has chosen.

        A checkpoint knows of it. The clusters stay made of as many smaller
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
        """What a checkpoint holds beside the buffers."""
        return {name: getattr(self, name) for name in self.MOVED}

    def set_extra_state(self, state):
        """Takes it from there."""
        for name, value in state.items():
            setattr(self, name, value)

    @property
    def fills_from(self):
        """The epoch that fills memory and queue, the first with references."""
        return self.start_epoch - 1

    def filling(self, epoch):
        """Whether an epoch fills memory and queue, and no more."""
        return epoch == self.fills_from

    @torch.no_grad()
    def before_epoch(self, epoch):
        """Makes the clusters of an epoch; called in all processes.

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
        least = self.merge_from or self.clusters
        if self.variant == "nearest":
            least = 1
        if len(known) < least:
            raise ConfigError(
                f"SSPS is to begin in epoch {epoch}, but its memory holds "
                f"references of {len(known)} utterances, of {least} at least; "
                "the epoch before has to fill it: train that one first "
                "(`ssps_start_epoch`), or lower `clusters` (`merge_from`)"
            )
        if self.variant == "nearest":
            return
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

    def substitute(self, second, epoch, keys, monitor=None):
        """Draws partners and puts their vectors into the second branch.

        Arguments
        ---------
        second : speechbrain_ssl.objectives.base.Branch
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
            return second, {}
        partners = self.partners(second.index, epoch, keys)
        scalars = {"coverage": (partners.clusters >= 0).float().mean()}
        if monitor is not None:
            scalars |= monitor(partners.utterances, second.index)
        return self.replace(second, partners), scalars

    @torch.no_grad()
    def partners(self, index, epoch, keys):
        """Draws a partner for each sample of this process's batch.

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
            For the variant ``nearest`` all utterances are one cluster, 0.
        """
        device = self.memory.device
        index = index.to(device)
        draws = uniform(self.seed, epoch, keys, "ssps", size=2)
        member = torch.from_numpy(draws[:, 1]).to(device)
        if self.variant == "nearest":
            return self._nearest_partner(index, member)
        clusters = self.assignments[index]
        if self.neighbours:
            which = np.searchsorted(self._limits(), draws[:, 0], side="right")
            which = torch.from_numpy(which).to(device)
            near = self.near[clusters.clamp(min=0), which]
            clusters = torch.where(clusters < 0, -1, near)
        if self.variant == "centroid":
            nobody = torch.full_like(index, -1)
            return Partners(nobody, nobody, clusters)
        return self._member_of(clusters, index, member)

    def _limits(self):
        """Upper ends of the parts of [0, 1] in which a neighbour is drawn."""
        decay = DECAY if self.neighbour_draw == "exponential" else 0.0
        weights = np.cumsum(np.exp(-decay * np.arange(self.neighbours)))
        return weights / weights[-1]

    def _member_of(self, clusters, index, draws):
        """One utterance of a cluster that is in the queue, not one's own."""
        keys, slots = self.queue.sorted_by(self.assignments)
        # Of a cluster -1 no key is to be found, nor of one behind the last.
        first = clusters * self.utterances
        begin = torch.searchsorted(keys, first)
        end = torch.searchsorted(keys, first + self.utterances)
        own = torch.searchsorted(keys, first + index)
        last = len(keys) - 1
        own_there = keys[own.clamp(max=last)] == first + index
        count = end - begin - own_there.long()
        chosen = begin + (draws * count).long()
        # The sample's own place is stepped over.
        chosen += (own_there & (chosen >= own)).long()
        there = (clusters >= 0) & (count > 0)
        chosen = torch.where(there, slots[chosen.clamp(max=last)], -1)
        return self._partners(chosen, torch.where(there, clusters, -1))

    def _nearest_partner(self, index, draws):
        """One of the M utterances of the queue with the nearest references."""
        keys, slots = self.queue.sorted_by(self.known.long() - 1)
        # All are of group 0: a key is an utterance.
        filled = keys < self.utterances
        ids = torch.where(filled, keys, 0)
        cosines = self.memory[index] @ self.memory[ids].T
        hidden = ~filled | (ids == index[:, None]) | ~self.known[index, None]
        best, place = cosines.masked_fill(hidden, -torch.inf).topk(
            self.neighbours, dim=1
        )
        count = (best > -torch.inf).sum(1)
        # They come in descending order: those that are hidden last.
        chosen = place.gather(1, (draws * count).long()[:, None]).squeeze(1)
        chosen = torch.where(count > 0, slots[chosen], -1)
        return self._partners(chosen, torch.where(count > 0, 0, -1))

    def _partners(self, slots, clusters):
        ids = self.queue.ids[slots.clamp(min=0)]
        return Partners(torch.where(slots < 0, -1, ids), slots, clusters)

    def replace(self, second, partners):
        """Puts the vectors of partners in the place of those of the samples.

        Embeddings stay: an objective that compares those as well compares
        those of the sample.

        Arguments
        ---------
        second : speechbrain_ssl.objectives.base.Branch
            Not changed.
        partners : Partners
            Of the same samples.

        Returns
        -------
        speechbrain_ssl.objectives.base.Branch
            With other ``vectors``; those that are replaced have no gradient.
        """
        vectors = second.vectors
        if self.variant == "centroid":
            # As long as what it replaces, for an objective that sees lengths.
            length = vectors.detach().norm(dim=-1, keepdim=True)
            new = self.centroids[partners.clusters.clamp(min=0)][:, None]
            new = new.to(vectors.dtype) * length
        else:
            new = self.queue.vectors[partners.slots.clamp(min=0)]
            new = new.to(vectors.dtype)
        replaced = (partners.clusters >= 0)[:, None, None]
        return dataclasses.replace(
            second, vectors=torch.where(replaced, new, vectors)
        )

    @torch.no_grad()
    def observe(self, index, references, vectors):
        """Notes what a batch has brought; it counts from ``after_step`` on.

        Arguments
        ---------
        index : torch.Tensor
            Positions in the manifest, int64 ``[batch]``.
        references : torch.Tensor
            Embeddings of the reference crops, ``[batch, reference size]``, of
            any length.
        vectors : torch.Tensor
            What the second branch made of the global crops, before any
            substitution, ``[batch, crops, vector size]``.
        """
        references = references.detach().float()
        self._seen.append(
            (
                index.to(references.device),
                F.normalize(references, dim=-1),
                vectors.detach().float(),
            )
        )

    @torch.no_grad()
    def after_step(self):
        """Takes up what was observed; called after an optimiser step.

        In all processes, if in any.
        """
        seen, self._seen = self._seen, []
        for rows in seen:
            self._take_up(*gather_rows(*rows))

    def _take_up(self, index, references, vectors):
        """Writes the rows of all processes into memory and queue."""
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
        """Forgets what was observed: the step was not taken."""
        self._seen.clear()
