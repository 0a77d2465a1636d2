"""SwAV: predict the code of one crop from another crop.

Caron et al., 2020 (arXiv 2006.09882). With unit projections z, unit prototypes
c_k and the codes P_q of the global crops q, which Sinkhorn-Knopp balances over
the batch (``sinkhorn`` of exp(z_q . c / epsilon), without gradient),

    L = mean over the pairs v != q of  - P_q . log softmax(z_v . c / tau)

over all crops v, the local ones included (equation 2, section 3.2). The
prototypes are normalised whenever logits are computed; the original rescales
them after each step.

A batch much smaller than the number of prototypes cannot be balanced over them.
A queue then adds the projections of earlier batches.

Positive sampling (SwAV-SSPS in sslsv's code) replaces the last global crop
alone, as the crop whose code is predicted and as one that predicts: with the
projection z'_2 of another utterance in place of z_2,

    L = - (P_1 . log softmax(z'_2 . c / tau)
           + P'_2 . log softmax(z_1 . c / tau)) / 2

with the codes P_1 and P'_2 of z_1 and z'_2. z'_2 has no gradient, so the first
term trains the prototypes only. The queue holds z_1 and z_2.
"""

import math

import torch
import torch.nn.functional as F

from speechbrain_ssl import distributed
from speechbrain_ssl.checks import check_int, check_number
from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.objectives.base import Objective
from speechbrain_ssl.objectives.projector import UnitProjector
from speechbrain_ssl.objectives.sinkhorn import sinkhorn
from speechbrain_ssl.objectives.views import entropy, pair_cross_entropy


class SwAVHead(UnitProjector):
    """Project embeddings onto the unit sphere, and compare with prototypes.

    Arguments
    ---------
    embedding_size, hidden, output_size, layers
        See ``UnitProjector``.
    prototypes : int
        Number K of prototypes.

    Raises
    ------
    ConfigError
        If a size is not a whole number or is too small.
    """

    def __init__(
        self, embedding_size, prototypes, hidden, output_size, layers=3
    ):
        super().__init__(embedding_size, hidden, output_size, layers)
        check_int("SwAV", "prototypes", prototypes, least=2)
        self.prototypes = torch.nn.Linear(
            output_size, prototypes, bias=False
        ).weight

    def logits(self, vectors):
        """Return cosines with the prototypes, float32 ``[..., K]``."""
        with torch.autocast(vectors.device.type, enabled=False):
            return F.linear(vectors.float(), F.normalize(self.prototypes))


class SwAV(Objective):
    """Compute the SwAV loss: swapped prediction of balanced codes.

    Arguments
    ---------
    embedding_size, prototypes, hidden, output_size, layers
        See ``SwAVHead``.
    temperature : float
        tau.
    epsilon : float
        Temperature of the codes; larger values make them softer.
    iterations : int
        Number of Sinkhorn-Knopp iterations.
    global_crops : int
        Number of crops that have codes; the queue has a part for each.
    queue : int
        Number of utterances in the queue, over all processes; 0 for no queue.
    queue_start_epoch : int
        First epoch, counted from 1, that may use the queue. The queue is used
        only once it is full.

    Raises
    ------
    ConfigError
        If a value is out of range.

    Example
    -------
    >>> from speechbrain_ssl.objectives.base import Branch
    >>> swav = SwAV(8, prototypes=16, hidden=8, output_size=4)
    >>> embeddings = torch.randn(6, 3, 8)
    >>> vectors = swav.head(embeddings.flatten(0, 1)).view(6, 3, 4)
    >>> online = Branch(embeddings, vectors, swav.head)
    >>> target = Branch(embeddings[:, :2], vectors[:, :2], swav.head)
    >>> loss, scalars = swav(online, target)
    >>> loss.shape
    torch.Size([])
    """

    def __init__(
        self,
        embedding_size,
        prototypes=6000,
        hidden=2048,
        output_size=512,
        layers=3,
        temperature=0.1,
        epsilon=0.05,
        iterations=3,
        global_crops=2,
        queue=0,
        queue_start_epoch=16,
    ):
        super().__init__()
        for key, value in (("temperature", temperature), ("epsilon", epsilon)):
            check_number("SwAV", key, value, above=0)
        for key, value, least in (
            ("iterations", iterations, 1),
            ("global_crops", global_crops, 1),
            ("queue", queue, 0),
            ("queue_start_epoch", queue_start_epoch, 1),
        ):
            check_int("SwAV", key, value, least)
        self.head = SwAVHead(
            embedding_size, prototypes, hidden, output_size, layers
        )
        self.temperature = temperature
        self.epsilon = epsilon
        self.iterations = iterations
        self.queue_start_epoch = queue_start_epoch
        # Identical in all processes, so that rank 0's checkpoint is complete.
        self.register_buffer(
            "queue", torch.zeros(global_crops, queue, output_size)
        )
        self.register_buffer("queued", torch.zeros((), dtype=torch.int64))
        self.register_buffer("epoch", torch.ones((), dtype=torch.int64))

    def prototype_parameters(self):
        """Return the prototypes; the authors freeze them for one epoch."""
        return [self.head.prototypes]

    def before_epoch(self, epoch):
        """Store the epoch, which decides whether the queue is used."""
        self.epoch.fill_(epoch)

    def forward(self, online, target):
        """Compute the loss.

        Arguments
        ---------
        online, target : speechbrain_ssl.objectives.base.Branch
            ``online`` has all crops, global ones first; ``target`` the global
            ones, of which positive sampling may have replaced rows. Of these
            the last crop alone is used.

        Returns
        -------
        tuple
            Loss, and the scalars ``code_entropy`` (mean entropy of the codes,
            in nats), ``kl`` (mean of KL(P_q || prediction)), ``usage_entropy``
            (entropy of the mean prediction, which is not balanced: how evenly
            prototypes are used) and ``log_prototypes`` (its upper limit).

        Raises
        ------
        ConfigError
            If there are not ``global_crops`` global crops, or there is no pair
            of different crops.
        """
        globals_ = target.projections.shape[1]
        if globals_ != len(self.queue):
            raise ConfigError(
                f"SwAV was made for {len(self.queue)} global crops and got "
                f"{globals_}; set its global_crops to that of the crop plan"
            )
        if self.queue.shape[1]:
            self.notes.append(online.projections[:, :globals_].detach().float())
        own, last = online.projections, globals_ - 1
        vectors = torch.cat(
            [own[:, :last], target.projections[:, last:], own[:, globals_:]],
            dim=1,
        )
        codes = self._codes(vectors[:, :globals_])
        logits = self.head.logits(vectors) / self.temperature
        loss = pair_cross_entropy(logits, codes, skip_same=True)
        with torch.no_grad():
            usage = logits.softmax(-1).mean(dim=(0, 1))
            code_entropy = entropy(codes).mean()
            scalars = {
                "code_entropy": code_entropy,
                "kl": loss.detach() - code_entropy,
                "usage_entropy": entropy(distributed.mean_over_ranks(usage)),
                "log_prototypes": math.log(len(usage)),
            }
        return loss, scalars

    @torch.no_grad()
    def _codes(self, vectors):
        """Return balanced codes ``[batch, global crops, K]``, crop by crop."""
        batch = len(vectors)
        if self._uses_queue():
            # Each process adds its share, so that the queue is counted once.
            share = self.queue.tensor_split(distributed.world_size(), dim=1)
            share = share[distributed.rank()].transpose(0, 1)
            vectors = torch.cat([vectors.float(), share])
        logits = self.head.logits(vectors) / self.epsilon
        codes = [
            sinkhorn(crop, self.iterations)[:batch] for crop in logits.unbind(1)
        ]
        return torch.stack(codes, dim=1)

    def _uses_queue(self):
        """Return whether the queue exists, is full and is due this epoch."""
        size = self.queue.shape[1]
        return bool(
            size
            and self.epoch >= self.queue_start_epoch
            and self.queued >= size
        )

    @torch.no_grad()
    def after_step(self):
        """Put the step's projections of all processes into the queue."""
        size = self.queue.shape[1]
        for vectors in self.notes.take():
            new = distributed.gather(vectors).transpose(0, 1)
            self.queue.copy_(torch.cat([new, self.queue], dim=1)[:, :size])
            self.queued += new.shape[1]
