"""Cluster-aware sampling: cut the crops of a sample from several utterances.

Han, Chen and Qian, 2023 (arXiv 2304.05754): the crops of a short utterance
overlap, and share its content and recording. From a start epoch on, the
training set is therefore embedded and clustered every few epochs, and the crops
of a sample are cut from utterances of one cluster.

The paper leaves the details open; these are ours:

* The rule ``all`` draws the utterance of each crop uniformly from the anchor's
  cluster, the anchor included.
* The rule ``locals`` cuts the global crops from the anchor, and draws an
  utterance for each local crop.

An utterance that is alone in its cluster, or that has no embedding, keeps all
of its crops.
"""

import numpy as np
import torch

from speechbrain_ssl.checks import check_choice, check_int, check_number
from speechbrain_ssl.clustering.replicated import (
    check_merge_from,
    clusters_of_all,
)
from speechbrain_ssl.data.draws import uniform
from speechbrain_ssl.errors import ConfigError

RULES = ("all", "locals")

_OWNER = "cluster-aware sampling"


class ClusterAware(torch.nn.Module):
    """Draw the utterances that crops are cut from.

    The clusters are a buffer, so that checkpoints contain them. The sampler calls
    ``pseudo_positives`` in the process that trains and sends what was drawn to the
    loader workers, which therefore need not know the clusters.

    Arguments
    ---------
    clusters : int or list of int
        Number of clusters. With a list (the paper's "progressive" variant),
        each clustering takes the next number, and the last one is kept from
        then on. The paper's numbers are not known.
    start_epoch : int
        First epoch with crops of several utterances, at least 2. A default of
        ours is six tenths of all epochs.
    every : int
        Number of epochs between clusterings; 5 is a default of ours.
    rule : str
        ``"all"`` or ``"locals"``, see above.
    iterations : int
        Number of k-means iterations; k-means++ draws the initial centroids.
    merge_from : int, optional
        Number of k-means clusters that are merged into ``clusters`` by Ward's
        criterion. An option of ours; see results/ssps_conditions.
    embed_batch_seconds : float
        Seconds of padded audio in a batch when the training set is embedded.

    Raises
    ------
    ConfigError
        If a value is out of range.
    ClusteringError
        If the merging would exceed its memory limit.

    Example
    -------
    >>> sampling = ClusterAware(clusters=2, start_epoch=2, every=1)
    >>> sampling.set_up(utterances=4, local_crops=4, seed=0)
    >>> sampling.due(1), sampling.due(2)
    (False, True)
    >>> sampling.recluster(2, torch.eye(2)[[0, 1, 0, 1]])
    >>> set(sampling.pseudo_positives(2, 1, key=77, crops=6, global_crops=2)) <= {1, 3}
    True
    """

    def __init__(
        self,
        clusters,
        start_epoch,
        every=5,
        rule="all",
        iterations=20,
        merge_from=None,
        embed_batch_seconds=200.0,
    ):
        super().__init__()
        several = isinstance(clusters, (list, tuple))
        counts = list(clusters) if several else [clusters]
        if not counts:
            raise ConfigError(
                "cluster-aware sampling's clusters are an empty list; give a "
                "whole number from 1, or one for each clustering"
            )
        for count in counts:
            remedy = "a list of such numbers is allowed, too"
            check_int(_OWNER, "clusters", count, least=1, remedy=remedy)
        check_int(
            _OWNER,
            "start_epoch",
            start_epoch,
            least=2,
            remedy="it needs embeddings worth clustering "
            "(`cluster_start_epoch` of a recipe); to begin from a trained "
            "model, name its run as initial_checkpoint and start at 2",
        )
        check_int(_OWNER, "every", every, least=1)
        check_int(_OWNER, "iterations", iterations, least=1)
        check_merge_from(
            "cluster-aware sampling: `merge_from`", merge_from, max(counts)
        )
        check_choice(_OWNER, "rule", rule, RULES)
        check_number(
            _OWNER, "embed_batch_seconds", embed_batch_seconds, above=0
        )
        self.counts = counts
        self.start_epoch = start_epoch
        self.every = every
        self.rule = rule
        self.iterations = iterations
        self.merge_from = merge_from
        self.embed_batch_seconds = embed_batch_seconds
        # Rebuild the member tables after a checkpoint restores the clusters.
        self.register_load_state_dict_post_hook(_tabulate)

    def set_up(self, utterances, local_crops, seed):
        """Create the buffer of cluster assignments.

        Called once, before a checkpoint is read.

        Arguments
        ---------
        utterances : int
            Length of the training manifest.
        local_crops : int
            Number of local crops per sample.
        seed : int
            The run's seed.

        Raises
        ------
        ConfigError
            If there are more clusters than utterances, or the rule is
            ``locals`` and there are no local crops.
        """
        if self.rule == "locals" and local_crops < 1:
            raise ConfigError(
                "cluster-aware sampling with the rule locals draws the "
                "utterances of local crops, but the crop plan has none; take "
                "the rule all, or set `local_crops`"
            )
        most = self.merge_from or max(self.counts)
        if most > utterances:
            raise ConfigError(
                f"cluster-aware sampling cannot make {most} clusters of "
                f"{utterances} utterances; lower `clusters` (`merge_from`)"
            )
        self.seed = seed
        self.register_buffer("assignments", torch.full((utterances,), -1))
        _tabulate(self)

    def active(self, epoch):
        """Return whether an epoch's samples mix crops of several utterances."""
        return epoch >= self.start_epoch

    def due(self, epoch):
        """Return whether an epoch begins with a clustering."""
        since = epoch - self.start_epoch
        return since >= 0 and since % self.every == 0

    def clusters_of(self, epoch):
        """Return the number of clusters of an epoch."""
        turn = (epoch - self.start_epoch) // self.every
        return self.counts[min(turn, len(self.counts) - 1)]

    @torch.no_grad()
    def recluster(self, epoch, embeddings):
        """Cluster the training set.

        In a distributed run every process calls this with all embeddings, and
        clusters its share of them.

        Arguments
        ---------
        epoch : int
            Counted from 1.
        embeddings : torch.Tensor or numpy.ndarray
            ``[utterances, size]`` in the order of the manifest. A row that is
            zero or not finite marks an utterance that could not be embedded.

        Raises
        ------
        ConfigError
            If the number of embeddings is not that of the manifest, or too few
            of them can be clustered.
        """
        rows = torch.as_tensor(embeddings)
        if len(rows) != len(self.assignments):
            raise ConfigError(
                f"cluster-aware sampling: {len(rows)} embeddings for a "
                f"manifest of {len(self.assignments)} utterances"
            )
        lengths = rows.float().norm(dim=1)
        usable = (lengths.isfinite() & (lengths > 0)).nonzero().flatten()
        clusters = self.clusters_of(epoch)
        made = self.merge_from or clusters
        if len(usable) < made:
            raise ConfigError(
                f"cluster-aware sampling cannot make {made} clusters in "
                f"epoch {epoch}: only {len(usable)} of {len(rows)} utterances "
                "have an embedding that is finite and not zero; if there are "
                "fewer than you expect, training has diverged, otherwise "
                "lower `clusters` (`merge_from`)"
            )
        found = clusters_of_all(
            rows,
            usable,
            clusters,
            merge_from=self.merge_from,
            iterations=self.iterations,
            seed=int(uniform(self.seed, epoch, "cluster-aware") * 2**53),
            init="k-means++",
            empty="reseed",
        )
        labels = torch.full((len(rows),), -1, device=rows.device)
        labels[usable] = found.assignments
        self.assignments.copy_(labels)
        _tabulate(self)

    def pseudo_positives(self, epoch, index, key, crops, global_crops):
        """Draw the utterance of each crop of a sample.

        The cost does not depend on the size of the cluster.

        Arguments
        ---------
        epoch : int
            Counted from 1.
        index : int
            Position of the anchor in the manifest.
        key : int
            The anchor's key, which seeds its draws.
        crops : int
            Number of crops per sample, the global ones first.
        global_crops : int
            Number of global crops.

        Returns
        -------
        numpy.ndarray
            Positions in the manifest, int64 ``[crops]``.

        Raises
        ------
        ConfigError
            If the epoch needs clusters and there are none yet.
        """
        chosen = np.full(crops, index, dtype=np.int64)
        if not self.active(epoch):
            return chosen
        if not len(self._members):
            raise ConfigError(
                f"cluster-aware sampling is to begin in epoch {epoch}, but "
                "nothing has been clustered: call `recluster` before the "
                "epoch"
            )
        cluster = self._cluster[index]
        if cluster < 0:
            return chosen
        begin, end = self._offsets[cluster : cluster + 2]
        draws = uniform(self.seed, epoch, key, "partner", size=crops)
        drawn = self._members[
            begin + np.floor(draws * (end - begin)).astype(np.int64)
        ]
        if self.rule == "locals":
            drawn[:global_crops] = index
        return drawn


def _tabulate(module, _=None):
    """List the members of all clusters, and where each cluster begins."""
    cluster = np.array(module.assignments.cpu())
    order = np.argsort(cluster, kind="stable")
    placed = np.bincount(cluster[cluster >= 0], minlength=1)
    module._cluster = cluster
    # Utterances without a cluster (-1) are sorted to the front; drop them.
    module._members = order[len(order) - placed.sum() :]
    module._offsets = np.concatenate([[0], np.cumsum(placed)])
