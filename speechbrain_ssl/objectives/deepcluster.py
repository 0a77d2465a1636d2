"""DeepCluster v2: classify crops into the clusters of the last epoch.

Caron et al., 2020 (arXiv 2006.09882, section 4 and appendix). A memory keeps
the latest unit projection of every utterance. Before each epoch it is clustered
by spherical k-means, several times with different initial centroids. The
centroids m are the prototypes of the epoch and are not trained:

    L = mean over clusterings and crops v of
        - log softmax(z_v . m / tau) [cluster of the utterance]

**The first epoch** has no memory yet. The authors fill it by a pass over the
data with the untrained encoder. Here the first epoch fills it, and meanwhile
trains by SwAV's swapped prediction with fixed random prototypes. This is a
default of ours: it needs no extra pass, and it cannot collapse onto one
prototype, since the codes are balanced.

An utterance that has not been seen yet (the last, incomplete batch of an epoch
is dropped) has no cluster and contributes no loss.

The authors store the projections of two crops and alternate between them from
clustering to clustering. Here only the first global crop's is stored, which
takes half the memory: ``4 * N * d`` bytes in each process for N utterances.
"""

import torch
import torch.nn.functional as F

from speechbrain_ssl import distributed
from speechbrain_ssl.checks import check_int, check_number
from speechbrain_ssl.clustering.replicated import clusters_of_all
from speechbrain_ssl.data.draws import uniform
from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.objectives.base import Objective
from speechbrain_ssl.objectives.projector import UnitProjector
from speechbrain_ssl.objectives.sinkhorn import sinkhorn
from speechbrain_ssl.objectives.views import pair_cross_entropy

#: Temperature of the codes of the first epoch (SwAV's epsilon).
_EPSILON = 0.05


class DeepCluster(Objective):
    """Classify crops into the clusters of the last epoch's projections.

    Arguments
    ---------
    embedding_size, hidden, output_size, layers
        See ``Projector``.
    prototypes : list of int
        Number of clusters of each clustering.
    temperature : float
        tau.
    iterations : int
        Number of centroid updates in each epoch's k-means.

    Raises
    ------
    ConfigError
        If a value is out of range.

    Example
    -------
    >>> from speechbrain_ssl.objectives.base import Branch
    >>> objective = DeepCluster(8, prototypes=[3, 4], hidden=8, output_size=4)
    >>> objective.set_up(utterances=6, seed=1)
    >>> def branch():
    ...     e = torch.randn(6, 2, 8)
    ...     v = objective.head(e.flatten(0, 1)).view(6, 2, 4)
    ...     return Branch(e, v, objective.head, index=torch.arange(6))
    >>> online = branch()
    >>> loss, _ = objective(online, online)
    >>> objective.after_step()
    >>> objective.before_epoch(2)
    >>> loss, scalars = objective(online, online)
    >>> float(scalars["assigned"])
    1.0
    """

    supports_positive_sampling = False
    stores_first_crop_embedding = True

    def __init__(
        self,
        embedding_size,
        prototypes=(3000, 3000, 3000),
        hidden=2048,
        output_size=512,
        layers=3,
        temperature=0.1,
        iterations=10,
    ):
        super().__init__()
        prototypes = list(prototypes)
        if not prototypes:
            raise ConfigError(
                "DeepCluster's prototypes must be a list of whole numbers, one "
                "for each clustering, but it is empty"
            )
        for k in prototypes:
            check_int("DeepCluster", "prototypes", k, least=2)
        check_number("DeepCluster", "temperature", temperature, above=0)
        check_int("DeepCluster", "iterations", iterations, least=1)
        self.head = UnitProjector(embedding_size, hidden, output_size, layers)
        self.clusters = prototypes
        self.output_size = output_size
        self.temperature = temperature
        self.iterations = iterations

    def set_up(self, utterances, seed):
        """Create the memory, and the random prototypes of the first epoch.

        Arguments
        ---------
        utterances : int
            Length of the training manifest.
        seed : int
            Seed of the random prototypes and of the initial centroids.
        """
        self.seed = seed
        counts = len(self.clusters)
        self.register_buffer(
            "memory", torch.zeros(utterances, self.output_size)
        )
        self.register_buffer(
            "in_memory", torch.zeros(utterances, dtype=torch.bool)
        )
        # -1 stands for an utterance without a cluster.
        self.register_buffer(
            "assignments", torch.full((counts, utterances), -1)
        )
        self.register_buffer("clustered", torch.tensor(False))
        for i, k in enumerate(self.clusters):
            drawn = uniform(
                seed, "deep cluster", i, size=k * self.output_size
            ).reshape(k, self.output_size)
            rows = F.normalize(torch.from_numpy(drawn).float() - 0.5)
            self.register_buffer(f"prototypes_{i}", rows)

    def check_epoch(self, utterances, batch):
        """Reject more clusters than an epoch adds utterances to the memory.

        Arguments
        ---------
        utterances : int
            Number of utterances that the complete steps of an epoch see.
        batch : int
            Not used.

        Raises
        ------
        ConfigError
            If there are more clusters than utterances.
        """
        if max(self.clusters) > utterances:
            raise ConfigError(
                f"DeepCluster cannot make {max(self.clusters)} clusters of "
                f"{utterances} utterances; lower prototypes, to a tenth of the "
                "utterances or less"
            )

    def before_epoch(self, epoch):
        """Cluster the memory, unless it is empty.

        Each process clusters its share of the memory.

        Arguments
        ---------
        epoch : int
            Counted from 1.

        Raises
        ------
        ClusteringError
            If fewer utterances have been seen than there are clusters.
        """
        seen = self.in_memory.nonzero().flatten()
        if not len(seen):
            return
        for i, k in enumerate(self.clusters):
            seed = int(2**53 * uniform(self.seed, "deep cluster", epoch, i))
            found = clusters_of_all(
                self.memory, seen, k, iterations=self.iterations, seed=seed
            )
            self.prototype(i).copy_(found.centroids)
            self.assignments[i, seen] = found.assignments
        self.clustered.fill_(True)

    def prototype(self, i):
        """Return a clustering's unit prototypes, ``[K_i, output size]``."""
        return self.get_buffer(f"prototypes_{i}")

    def forward(self, online, target):
        """Compute the loss.

        Arguments
        ---------
        online, target : speechbrain_ssl.objectives.base.Branch
            ``online`` has all crops, global ones first, and their ``index``.
            Of ``target`` only the number of crops is used.

        Returns
        -------
        tuple
            Loss, and the scalars ``assigned`` (share of the utterances that
            have a cluster) and ``accuracy`` (share of their crops that are
            nearest to that cluster's prototype). Both are 0 in the first epoch.

        Raises
        ------
        ConfigError
            If there is no pair of different crops in the first epoch.
        """
        vectors = online.projections.float()
        self.notes.append((online.index, vectors[:, 0].detach()))
        with torch.autocast(vectors.device.type, enabled=False):
            logits = [
                F.linear(vectors, self.prototype(i))
                for i in range(len(self.clusters))
            ]
        if not self.clustered:
            globals_ = target.projections.shape[1]
            losses = [self._swapped(each, globals_) for each in logits]
            zero = vectors.new_zeros(())
            return torch.stack(losses).mean(), {
                "assigned": zero,
                "accuracy": zero,
            }
        targets = self.assignments[:, online.index]
        pairs = zip(logits, targets, strict=True)
        losses = torch.stack([self._losses(*pair) for pair in pairs])
        with torch.no_grad():
            # An utterance has a cluster in every clustering or in none.
            assigned = (targets[0] >= 0).float().mean()
            right = torch.stack(
                [
                    (each.argmax(-1) == labels[:, None]).float().mean()
                    for each, labels in zip(logits, targets, strict=True)
                ]
            )
            everywhere = distributed.mean_over_ranks(assigned).clamp(
                min=torch.finfo(torch.float32).tiny
            )
            scalars = {
                "assigned": assigned,
                "accuracy": right.mean() / everywhere,
            }
        # Dividing by the global share turns the mean over the batch into a mean
        # over the utterances that have a cluster.
        return losses.mean() / everywhere, scalars

    def _losses(self, logits, target):
        """Average cross entropies over all crops, 0 without a cluster."""
        batch, crops, _ = logits.shape
        return F.cross_entropy(
            logits.flatten(0, 1) / self.temperature,
            target[:, None].expand(batch, crops).flatten(),
            ignore_index=-1,
            reduction="sum",
        ) / (batch * crops)

    def _swapped(self, logits, globals_):
        """Compute SwAV's loss, which trains the first epoch."""
        codes = logits[:, :globals_].detach() / _EPSILON
        codes = torch.stack([sinkhorn(c) for c in codes.unbind(1)], dim=1)
        return pair_cross_entropy(
            logits / self.temperature, codes, skip_same=True
        )

    @torch.no_grad()
    def after_step(self):
        """Write the step's projections of all processes to the memory."""
        for index, vectors in self.notes.take():
            index = distributed.gather(index)
            self.memory[index] = distributed.gather(vectors)
            self.in_memory[index] = True
