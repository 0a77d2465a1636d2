"""DINO: self-distillation without negatives.

Caron et al., 2021 (arXiv 2104.14294), as speaker systems use it: Han, Chen and
Qian, 2023 (arXiv 2304.05754), Cho et al., 2022 (arXiv 2208.05445).

With teacher logits t_q of the global crops q and student logits s_v of all
crops v:

    P_q  = softmax((t_q - c) / tau_t)                   (no gradient)
    Q_v  = log softmax(s_v / tau_s)
    L_CE = mean over the pairs v != q of  - P_q . Q_v
    c   <- m_c c + (1 - m_c) mean over batch and q of t_q

With 2 global and 4 local crops there are ten pairs. Since the loss is linear in
Q, two products suffice: sum_q P_q times sum_v Q_v, minus the pairs with v = q.

DINOv2 (Oquab et al., 2023, arXiv 2304.07193) replaces the centre: the teacher's
targets are the Sinkhorn-Knopp assignments of t_q / tau_t over all global crops
of the batch. Optional penalties are in ``dino_regularisers``.
"""

import torch

from speechbrain_ssl.checks import check_choice, check_number
from speechbrain_ssl.distributed import mean_over_ranks
from speechbrain_ssl.objectives.base import Objective
from speechbrain_ssl.objectives.dino_regularisers import cosine_consistency
from speechbrain_ssl.objectives.sinkhorn import sinkhorn
from speechbrain_ssl.objectives.views import (
    entropy,
    pair_cross_entropy,
    prototype_entropies,
)


class DINO(Objective):
    """Compute the DINO loss, and keep its centre.

    Arguments
    ---------
    head : speechbrain_ssl.objectives.dino_head.DINOHead
        The student's head, which the teacher copies.
    regularisers : sequence of Regulariser
        Penalties to add to the loss; see ``dino_regularisers``.
    student_temperature : float
        tau_s.
    center_momentum : float
        m_c.
    global_pairs : bool
        Whether the student sees the global crops too. Set it to False for a
        disjoint crop plan: the student then encodes the local crops only, and
        each pair has a global crop of the teacher and a local crop of the
        student.
    centering : str
        ``"mean"`` subtracts the centre; ``"sinkhorn"`` balances the batch.

    The scheduled values are ``teacher_temperature`` (tau_t; values above 0.07
    are known to be unstable, and a loss that stays flat calls for a lower one),
    ``cosine_weight`` (the weight of ``cosine_consistency``; 0 leaves it out)
    and, with RDINO's penalties only, ``penalty_weight`` (their lambda).

    Raises
    ------
    ConfigError
        If the temperature is not above 0, the momentum is not in [0, 1), the
        centering is unknown, or a penalty needs a wide layer that the head
        lacks.

    Example
    -------
    >>> from speechbrain_ssl.objectives.base import Branch
    >>> from speechbrain_ssl.objectives.dino_head import DINOHead
    >>> dino = DINO(DINOHead(8, prototypes=16, hidden=8, bottleneck=4))
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
    evaluate_teacher = True
    scheduled = ("teacher_temperature", "cosine_weight")

    def __init__(
        self,
        head,
        regularisers=(),
        student_temperature=0.1,
        center_momentum=0.9,
        global_pairs=True,
        centering="mean",
    ):
        super().__init__()
        temperature, momentum = student_temperature, center_momentum
        check_number("DINO", "student_temperature", temperature, above=0)
        # With a momentum of 1 the centre would never move.
        check_number("DINO", "center_momentum", momentum, least=0, below=1)
        check_choice("DINO", "centering", centering, ("mean", "sinkhorn"))
        self.head = head
        self.regularisers = [each for each in regularisers if each.weights]
        for regulariser in self.regularisers:
            regulariser.check_head(head)
            self.scheduled = (*self.scheduled, *regulariser.scheduled)
        self.student_temperature = student_temperature
        self.centering = centering
        self.center_momentum = center_momentum
        self.student_sees_global_crops = global_pairs
        self.register_buffer("center", torch.zeros(len(head.prototypes)))

    def prototype_parameters(self):
        """Return the prototypes; all recipes freeze them for one epoch."""
        return [self.head.prototypes]

    def forward(
        self,
        online,
        target,
        teacher_temperature,
        cosine_weight,
        penalty_weight=1.0,
    ):
        """Compute the loss.

        Arguments
        ---------
        online, target : speechbrain_ssl.objectives.base.Branch
            The student over all crops, global ones first (without
            ``global_pairs``: the local ones only), and the teacher over the
            global ones.
        teacher_temperature, cosine_weight, penalty_weight : float
            Scheduled values.

        Returns
        -------
        tuple
            Loss, and the scalars ``teacher_entropy`` (mean entropy of P_q, in
            nats), ``usage_entropy`` (entropy of the mean of P_q: how evenly
            prototypes are used), ``kl`` (mean of KL(P_q || Q_v) over the
            pairs) and ``log_prototypes`` (ln K, which both entropies equal
            when the teacher's predictions are uniform). Sinkhorn-Knopp always
            uses the prototypes evenly, so with it ``usage_entropy`` is that of
            the teacher's softmax. Each penalty is listed under its name,
            without its weight.

        Raises
        ------
        ConfigError
            If there is no pair of different crops, or a penalty has only one
            utterance.
        """
        with torch.no_grad():
            logits = target.head.logits(target.projections)
            plain = teacher = self._teacher(logits, teacher_temperature)
            if self.centering == "mean":
                self.notes.append(logits.mean(dim=(0, 1)))
            else:
                teacher = sinkhorn(logits.flatten(0, 1) / teacher_temperature)
                teacher = teacher.view_as(logits)
        student = (
            online.head.logits(online.projections) / self.student_temperature
        )
        loss = pair_cross_entropy(
            student, teacher, self.student_sees_global_crops
        )
        with torch.no_grad():
            scalars = prototype_entropies(plain)
            if self.centering == "sinkhorn":
                scalars["teacher_entropy"] = entropy(teacher).mean()
            scalars["kl"] = loss.detach() - scalars["teacher_entropy"]
        if cosine_weight > 0:
            cosine = cosine_consistency(
                online, target, self.student_sees_global_crops
            )
            scalars["cosine_loss"] = cosine.detach()
            loss = loss + cosine_weight * cosine
        globals_ = (
            target.projections.shape[1]
            if self.student_sees_global_crops
            else None
        )
        for regulariser in self.regularisers:
            penalties = regulariser(
                online.head, online.embeddings[:, :globals_]
            )
            factor = penalty_weight if regulariser.scheduled else 1.0
            for name, penalty in penalties.items():
                scalars[name] = penalty.detach()
                loss = loss + factor * regulariser.weights[name] * penalty
        return loss, scalars

    @torch.no_grad()
    def held_out(self, target, teacher_temperature, **_):
        """Return the teacher's entropies on held-out crops."""
        logits = target.head.logits(target.projections)
        return prototype_entropies(self._teacher(logits, teacher_temperature))

    def _teacher(self, logits, temperature):
        """Return P_q, centred and sharpened; with Sinkhorn the centre is 0."""
        return torch.softmax((logits - self.center) / temperature, dim=-1)

    @torch.no_grad()
    def after_step(self):
        """Move the centre towards the mean teacher logits of the step."""
        if self.centering == "mean":
            mean = mean_over_ranks(torch.stack(self.notes.take()).mean(0))
            self.center.lerp_(mean, 1.0 - self.center_momentum)
