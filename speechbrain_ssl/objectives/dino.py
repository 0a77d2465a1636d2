"""DINO: self-distillation without negatives.

Caron et al., 2021 (arXiv 2104.14294), as speaker systems use it: Han, Chen and
Qian, 2023 (arXiv 2304.05754), Cho et al., 2022 (arXiv 2208.05445).

With teacher logits t_q of the global crops q and student logits s_v of all
crops v:

    P_q  = softmax((t_q - c) / tau_t)                   (no gradient)
    Q_v  = log softmax(s_v / tau_s)
    L_CE = mean over the pairs v != q of  - P_q . Q_v
    c   <- m_c c + (1 - m_c) mean over batch and q of t_q

With 2 global and 4 local crops that is ten pairs. Since the loss is linear in
Q, they are two products: one of sum_q P_q with sum_v Q_v, and one that takes
the pairs v = q out again.

Three things may be added:

* RDINO's penalties (Chen et al., 2023, arXiv 2211.04168) on a wide layer w of
  the student's head, averaged over its global crops: alpha v(w) + beta c(w),
  variance hinge and covariance penalty of ``regularisers``.
* KoLeo (DINOv2, Oquab et al., 2023, arXiv 2304.07193) on the student's
  embeddings of its global crops.
* DINOv2's other way to centre: the teacher's targets are Sinkhorn-Knopp's of
  t_q / tau_t over all global crops of the batch; there is no centre then.
"""

import torch
import torch.nn.functional as F

from speechbrain_ssl.distributed import mean_over_ranks
from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.objectives.base import Objective
from speechbrain_ssl.objectives.regularisers import (
    covariance_penalty,
    koleo,
    variance_hinge,
)
from speechbrain_ssl.objectives.sinkhorn import sinkhorn
from speechbrain_ssl.objectives.views import (
    entropy,
    mean_over_pairs,
    pair_cross_entropy,
    prototype_entropies,
)


class DINOHead(torch.nn.Module):
    """Three-layer projector with an L2-normalised bottleneck.

    ``forward`` ends at the bottleneck; ``logits`` applies the last layer, whose
    rows (the prototypes) have unit norm, so that a logit is a cosine.

    Arguments
    ---------
    embedding_size : int
        Size of the encoder's output.
    prototypes : int
        Number K of outputs.
    hidden : int
        Size of the two hidden layers.
    bottleneck : int
        Size of the vectors before the last layer.
    batch_norm : bool
        Whether the hidden layers are followed by batch norm (WeSpeaker: yes,
        Cho et al.: no).
    wide : int
        Size of RDINO's layer between the hidden ones and the bottleneck; 0:
        none.

    Raises
    ------
    ConfigError
        If a size is no whole number, or too small.
    """

    def __init__(
        self,
        embedding_size,
        prototypes=65536,
        hidden=2048,
        bottleneck=256,
        batch_norm=True,
        wide=0,
    ):
        super().__init__()
        # One prototype is taken whatever the input: its loss is always 0.
        for key, value, least in (
            ("prototypes", prototypes, 2),
            ("hidden", hidden, 1),
            ("bottleneck", bottleneck, 1),
            ("wide", wide, 0),
        ):
            if not isinstance(value, int) or value < least:
                raise ConfigError(
                    f"the head's {key} must be a whole number from {least}, "
                    f"got {value!r}"
                )
        sizes = [embedding_size, hidden, hidden, bottleneck]
        if wide:
            sizes.insert(-1, wide)
        layers = []
        for before, after in zip(sizes[:-2], sizes[1:-1], strict=True):
            layers.append(torch.nn.Linear(before, after))
            if batch_norm:
                layers.append(torch.nn.BatchNorm1d(after))
            layers.append(torch.nn.GELU())
        layers.append(torch.nn.Linear(sizes[-2], bottleneck))
        self.layers = torch.nn.Sequential(*layers)
        # The wide layer ends with its linear map, like an output.
        self._to_wide = 5 + 2 * batch_norm if wide else None
        for layer in self.layers:
            if isinstance(layer, torch.nn.Linear):
                torch.nn.init.trunc_normal_(layer.weight, std=0.02)
                torch.nn.init.zeros_(layer.bias)
        # The gain of the weight normalisation is fixed at 1: no parameter.
        self.prototypes = torch.nn.Parameter(
            torch.nn.init.trunc_normal_(
                torch.empty(prototypes, bottleneck), std=0.02
            )
        )

    def forward(self, embeddings):
        """Bottleneck vectors of unit norm, ``[n, bottleneck]``."""
        return F.normalize(self.layers(embeddings).float(), dim=-1)

    def wide(self, embeddings):
        """The wide layer before its batch norm, ``[n, wide]``."""
        return self.layers[: self._to_wide](embeddings)

    def logits(self, vectors):
        """Cosines with the prototypes, fp32 ``[..., K]``.

        Not in bf16: divided by a temperature of 0.04, its rounding (2^-9) would
        be a tenth of a nat.
        """
        with torch.autocast(vectors.device.type, enabled=False):
            return F.linear(vectors.float(), F.normalize(self.prototypes))


class DINO(Objective):
    """The DINO loss with its head and its centre.

    Arguments
    ---------
    embedding_size, prototypes, hidden, bottleneck, batch_norm, wide
        See ``DINOHead``.
    student_temperature : float
        tau_s.
    centre_momentum : float
        m_c.
    global_pairs : bool
        Whether the student sees the global crops too. False where the crop
        plan is disjoint: then only the pairs of a teacher's global and a
        student's local crop remain, and the student encodes local crops only.
    centring : str
        ``"mean"`` subtracts the centre; ``"sinkhorn"`` balances the batch.
    variance_weight, covariance_weight : float
        alpha and beta of RDINO's penalties, which need the wide layer; 0 leaves
        a penalty out.
    koleo_weight : float
        Of KoLeo, added up over the crops; 0 leaves it out. Without
        ``global_pairs`` both see the student's local crops instead.

    RDINO counts the penalties of the teacher too, which have no gradient, and
    takes half of the variance hinge; its covariance is divided by the number of
    prototypes instead of the size of the layer; and its weight grows during the
    first epochs. The student's wide layer is computed a second time here, of
    its global crops alone.

    The scheduled values are ``teacher_temperature`` (tau_t; above 0.07 it is
    known to be unstable, and a loss that will not move wants a lower one) and
    ``cosine_weight``: the weight of the cosine consistency term of hyperion's
    "DINO + cosine", mean over the same pairs of 1 - cos(e_t, e_s) on the
    embeddings, before the heads (0.1 there; 0 leaves it out).

    Raises
    ------
    ConfigError
        If a size is too small, the temperature is not above 0, the momentum is
        not in [0, 1), the centring is unknown, a weight is below 0 or a penalty
        has no wide layer.

    Example
    -------
    >>> from speechbrain_ssl.objectives.base import Branch
    >>> dino = DINO(8, prototypes=16, hidden=8, bottleneck=4)
    >>> def branch(crops):
    ...     e = torch.randn(3, crops, 8)
    ...     v = dino.head(e.flatten(0, 1)).view(3, crops, 4)
    ...     return Branch(e, v, dino.head)
    >>> loss, scalars = dino(
    ...     branch(4), branch(2), teacher_temperature=0.04, cosine_weight=0.0
    ... )
    >>> loss.shape
    torch.Size([])
    """

    momentum = True
    teacher_counts = True
    knobs = ("teacher_temperature", "cosine_weight")

    def __init__(
        self,
        embedding_size,
        prototypes=65536,
        hidden=2048,
        bottleneck=256,
        batch_norm=True,
        student_temperature=0.1,
        centre_momentum=0.9,
        global_pairs=True,
        wide=0,
        centring="mean",
        variance_weight=0.0,
        covariance_weight=0.0,
        koleo_weight=0.0,
    ):
        super().__init__()
        self.head = DINOHead(
            embedding_size, prototypes, hidden, bottleneck, batch_norm, wide
        )
        if not student_temperature > 0:
            raise ConfigError(
                "DINO's student_temperature must be above 0, got "
                f"{student_temperature}"
            )
        if not 0 <= centre_momentum < 1:
            raise ConfigError(
                "DINO's centre_momentum must be at least 0 and below 1 (at 1 "
                f"the centre never moves), got {centre_momentum}"
            )
        if centring not in ("mean", "sinkhorn"):
            raise ConfigError(
                f"DINO's centring must be mean or sinkhorn, got {centring!r}"
            )
        self.weights = {
            "variance": variance_weight,
            "covariance": covariance_weight,
            "koleo": koleo_weight,
        }
        for name, weight in self.weights.items():
            if not weight >= 0:
                raise ConfigError(
                    f"DINO's {name}_weight must be 0 or more, got {weight}"
                )
        if (variance_weight or covariance_weight) and not wide:
            raise ConfigError(
                "DINO's variance_weight and covariance_weight are for the wide "
                "layer of the head; set wide (RDINO: 8192)"
            )
        self.student_temperature = student_temperature
        self.centring = centring
        self.centre_momentum = centre_momentum
        self.first_sees_global = global_pairs
        self.register_buffer("centre", torch.zeros(prototypes))
        # Means of teacher logits since the last step; no state, since a
        # checkpoint is only made right after a step.
        self._seen = []

    def last_layer(self):
        """The prototypes; frozen for the first epoch in all recipes."""
        return [self.head.prototypes]

    def forward(self, first, second, teacher_temperature, cosine_weight):
        """Computes the loss.

        Arguments
        ---------
        first, second : speechbrain_ssl.objectives.base.Branch
            The student over all crops (global ones first; without
            ``global_pairs`` over the local ones alone), and the teacher over
            the global ones.
        teacher_temperature, cosine_weight : float
            Scheduled values.

        Returns
        -------
        tuple
            Loss, and the scalars ``teacher_entropy`` (mean entropy of P_q, in
            nats), ``usage_entropy`` (entropy of the mean of P_q: how evenly
            prototypes are used), ``kl`` (mean of KL(P_q || Q_v) over the
            pairs) and ``log_prototypes`` (ln K, the value both entropies have
            when the teacher says nothing). Sinkhorn-Knopp uses all prototypes
            evenly whatever happens: the usage is then that of the teacher's
            softmax. Penalties stand there under their names, without weights.

        Raises
        ------
        ConfigError
            If no pair is left to compare, or a penalty has a single utterance.
        """
        with torch.no_grad():
            logits = second.head.logits(second.vectors)
            plain = target = self._target(logits, teacher_temperature)
            if self.centring == "mean":
                self._seen.append(logits.mean(dim=(0, 1)))
            else:
                target = sinkhorn(logits.flatten(0, 1) / teacher_temperature)
                target = target.view_as(logits)
        student = first.head.logits(first.vectors) / self.student_temperature
        loss = self._cross_entropy(student, target)
        with torch.no_grad():
            scalars = prototype_entropies(plain)
            if self.centring == "sinkhorn":
                scalars["teacher_entropy"] = entropy(target).mean()
            scalars["kl"] = loss.detach() - scalars["teacher_entropy"]
        if cosine_weight > 0:
            student_unit = F.normalize(first.embeddings.float(), dim=-1)
            teacher_unit = F.normalize(second.embeddings.float(), dim=-1)
            cosine = 1.0 - mean_over_pairs(
                teacher_unit, student_unit, self.first_sees_global
            )
            scalars["cosine_loss"] = cosine.detach()
            loss = loss + cosine_weight * cosine
        for name, penalty in self._penalties(first, second).items():
            scalars[name] = penalty.detach()
            loss = loss + self.weights[name] * penalty
        return loss, scalars

    def _penalties(self, first, second):
        """The penalties whose weights are above 0, by name."""
        if not any(self.weights.values()):
            return {}
        embeddings = first.embeddings
        if self.first_sees_global:
            embeddings = embeddings[:, : second.vectors.shape[1]]
        penalties = {}
        if self.weights["variance"] or self.weights["covariance"]:
            wide = first.head.wide(embeddings.flatten(0, 1)).float()
            wide = wide.unflatten(0, embeddings.shape[:2]).mean(1)
            if self.weights["variance"]:
                penalties["variance"] = variance_hinge(wide)
            if self.weights["covariance"]:
                penalties["covariance"] = covariance_penalty(wide)
        if self.weights["koleo"]:
            penalties["koleo"] = koleo(embeddings)
        return penalties

    @torch.no_grad()
    def held_out(self, second, teacher_temperature, cosine_weight):
        """Entropies of the teacher on held-out crops, as in ``forward``."""
        logits = second.head.logits(second.vectors)
        return prototype_entropies(self._target(logits, teacher_temperature))

    def _target(self, logits, temperature):
        """P_q: centred (unless that is Sinkhorn-Knopp's task), sharpened."""
        return torch.softmax((logits - self.centre) / temperature, dim=-1)

    def _cross_entropy(self, student, target):
        """Mean over the pairs of -P_q . log softmax(s_v)."""
        return pair_cross_entropy(student, target, self.first_sees_global)

    @torch.no_grad()
    def after_step(self):
        """Moves the centre towards the mean teacher logits of the step."""
        if self.centring != "mean":
            return
        mean = mean_over_ranks(torch.stack(self._seen).mean(0))
        self._seen.clear()
        self.centre.lerp_(mean, 1.0 - self.centre_momentum)

    def skip_step(self):
        """Forgets the step."""
        self._seen.clear()
