"""SDPN: predict the prototype assignment of a long crop from short crops.

Chen et al., 2024 (Self-Distillation Prototypes Network, arXiv 2308.02774), with
the values of the authors' code (3D-Speaker). The teacher sees a long crop q,
the student short crops v. With the unit projections z of their heads and the
unit prototypes c_k, which belong to the student:

    p_v = softmax(z_v . c / tau)
    P_q = Sinkhorn-Knopp of p_q^(1/T), with rows that add up to 1
        = Sinkhorn-Knopp of softmax(z_q . c / (tau T))    (no gradient)
    L   = mean over the pairs of - P_q . log p_v
          + mu (ln K - H(mean over batch and v of p_v))
          + kappa KoLeo(e_v)  + delta R(e_v)

The second term maximises the entropy of the mean prediction ("me-max"). The
embeddings are e, and KoLeo is summed over the crops.

R decorrelates the dimensions of the embedding: "dimension regularisation", Chen
et al., 2025 (arXiv 2505.13826). Their code is not public, and neither their
scale nor their weight is known to us. Here R is the mean squared correlation of
different dimensions, averaged over the crops; it is off by default.

The prototypes are learnt: they get no weight decay, and their gradient is not
clipped, as in the authors' code since April 2025 (before, no optimiser received
them). That code adds up their gradient over its processes, while it averages
all others; here every gradient is averaged, so that a step does not depend on
the number of processes. Nor does it freeze them in the first epoch.
"""

import math

import torch

from speechbrain_ssl.checks import check_int, check_number
from speechbrain_ssl.distributed import gather
from speechbrain_ssl.objectives.base import Objective
from speechbrain_ssl.objectives.dino_head import DINOHead
from speechbrain_ssl.objectives.regularisers import correlation_penalty, koleo
from speechbrain_ssl.objectives.sinkhorn import sinkhorn
from speechbrain_ssl.objectives.views import (
    entropy,
    pair_cross_entropy,
    prototype_entropies,
)


class SDPN(Objective):
    """Compute the SDPN loss: self-distillation over learnt prototypes.

    The student encodes only the local crops, the teacher only the global ones.

    Arguments
    ---------
    embedding_size, prototypes, hidden, bottleneck, batch_norm, prototype_std
        See ``DINOHead``, which SDPN uses too.
    temperature : float
        tau.
    sharpening : float
        T; values below 1 sharpen.
    iterations : int
        Number of Sinkhorn-Knopp iterations.
    mean_entropy_weight, koleo_weight, dimension_weight : float
        mu, kappa and delta; 0 leaves a term out.

    Raises
    ------
    ConfigError
        If a value is out of range.

    Example
    -------
    >>> from speechbrain_ssl.objectives.base import Branch
    >>> sdpn = SDPN(8, prototypes=16, hidden=8, bottleneck=4)
    >>> def branch(crops):
    ...     e = torch.randn(3, crops, 8)
    ...     v = sdpn.head(e.flatten(0, 1)).view(3, crops, 4)
    ...     return Branch(e, v, sdpn.head)
    >>> loss, scalars = sdpn(branch(4), branch(1))
    >>> loss.shape
    torch.Size([])
    """

    momentum = True
    evaluate_teacher = True
    student_sees_global_crops = False

    def __init__(
        self,
        embedding_size,
        prototypes=1024,
        hidden=2048,
        bottleneck=256,
        batch_norm=True,
        temperature=0.1,
        sharpening=0.25,
        iterations=3,
        mean_entropy_weight=1.0,
        koleo_weight=0.1,
        dimension_weight=0.0,
        prototype_std=None,
    ):
        super().__init__()
        for key, value in (
            ("temperature", temperature),
            ("sharpening", sharpening),
        ):
            check_number("SDPN", key, value, above=0)
        check_int("SDPN", "iterations", iterations, least=1)
        self.weights = {
            "mean_entropy": mean_entropy_weight,
            "koleo": koleo_weight,
            "dimension": dimension_weight,
        }
        for name, weight in self.weights.items():
            check_number("SDPN", f"{name}_weight", weight, least=0)
        self.head = DINOHead(
            embedding_size,
            prototypes,
            hidden,
            bottleneck,
            batch_norm,
            prototype_std=prototype_std,
        )
        self.temperature = temperature
        self.sharpening = sharpening
        self.iterations = iterations

    def prototype_parameters(self):
        """Return the prototypes."""
        return [self.head.prototypes]

    def no_weight_decay_parameters(self):
        """Return the prototypes, as in the authors' code."""
        return [self.head.prototypes]

    def unclipped_parameters(self):
        """Return the prototypes, as in the authors' code."""
        return [self.head.prototypes]

    def forward(self, online, target):
        """Compute the loss.

        Arguments
        ---------
        online, target : speechbrain_ssl.objectives.base.Branch
            The student over the local crops, the teacher over the global ones.

        Returns
        -------
        tuple
            Loss, and the scalars ``teacher_entropy`` (mean entropy of the
            teacher's sharpened predictions, in nats), ``usage_entropy``
            (entropy of their mean), ``log_prototypes`` (the upper limit of
            both), ``kl`` (mean of KL(P_q || p_v)), and each penalty whose
            weight is above 0, without the weight. Both entropies are computed
            before Sinkhorn-Knopp, which always uses the prototypes evenly.

        Raises
        ------
        ConfigError
            If there are no local crops, or a penalty has only one utterance.
        """
        with torch.no_grad():
            plain = self._sharpened(target)
            targets = sinkhorn(plain.flatten(0, 1), self.iterations)
            targets = targets.view_as(plain)
        logits = online.head.logits(online.projections) / self.temperature
        loss = pair_cross_entropy(logits, targets, skip_same=False)
        scalars = prototype_entropies(plain.exp())
        scalars["kl"] = loss.detach() - entropy(targets).mean()
        for name, penalty in self._penalties(logits, online.embeddings).items():
            scalars[name] = penalty.detach()
            loss = loss + self.weights[name] * penalty
        return loss, scalars

    @torch.no_grad()
    def held_out(self, target):
        """Return the teacher's entropies on held-out crops."""
        return prototype_entropies(self._sharpened(target).exp())

    def _sharpened(self, target):
        """Return the teacher's sharpened log-probabilities over prototypes."""
        cosines = self.head.logits(target.projections)
        return torch.log_softmax(
            cosines / (self.temperature * self.sharpening), dim=-1
        )

    def _penalties(self, logits, embeddings):
        """Return the penalties whose weights are above 0, by name."""
        penalties = {}
        if self.weights["mean_entropy"]:
            own = logits.softmax(-1).mean(dim=(0, 1))
            mean = gather(own[None]).mean(0)
            # entr has an infinite slope at 0, and softmax may underflow to 0.
            held = mean.clamp(min=torch.finfo(mean.dtype).tiny)
            penalties["mean_entropy"] = math.log(len(mean)) - entropy(held)
        if self.weights["koleo"]:
            penalties["koleo"] = koleo(embeddings)
        if self.weights["dimension"]:
            crops = embeddings.unbind(1)
            penalties["dimension"] = torch.stack(
                [correlation_penalty(crop) for crop in crops]
            ).mean()
        return penalties
