"""Optional penalties of DINO's loss.

* RDINO's penalties (Chen et al., 2023, arXiv 2211.04168) on a wide layer w of
  the student's head, averaged over its global crops: lambda (alpha v(w) +
  beta c(w)), with the variance hinge and the covariance penalty of
  ``regularisers``. lambda, the ``penalty_weight``, follows a schedule.
* KoLeo (DINOv2, Oquab et al., 2023, arXiv 2304.07193) on the student's
  embeddings of its global crops.
* The cosine consistency of hyperion's "DINO + cosine", whose weight follows a
  schedule.

Without ``global_pairs`` the student has no global crops, and the penalties use
its local ones instead.
"""

import torch.nn.functional as F

from speechbrain_ssl.checks import check_number
from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.objectives.regularisers import (
    covariance_penalty,
    koleo,
    variance_hinge,
)
from speechbrain_ssl.objectives.views import mean_over_pairs


class Regulariser:
    """Provide the base of the penalties with a fixed weight.

    Arguments
    ---------
    **weights : float
        The weight of each penalty, by name; 0 leaves a penalty out.

    Attributes
    ----------
    weights : dict
        The weights that are above 0.
    scheduled : tuple of str
        The scheduled value of ``DINO.forward`` that multiplies them, if any.

    Raises
    ------
    ConfigError
        If a weight is below 0.
    """

    scheduled = ()

    def __init__(self, **weights):
        for name, weight in weights.items():
            check_number("DINO", f"{name}_weight", weight, least=0)
        self.weights = {name: w for name, w in weights.items() if w}

    def check_head(self, head):
        """Reject a head that lacks a layer which the penalties need.

        Arguments
        ---------
        head : speechbrain_ssl.objectives.dino_head.DINOHead
            The student's head.

        Raises
        ------
        ConfigError
            If the head lacks a layer.
        """

    def __call__(self, head, embeddings):
        """Compute the penalties, without their weights.

        Arguments
        ---------
        head : speechbrain_ssl.objectives.dino_head.DINOHead
            The student's head.
        embeddings : torch.Tensor
            The student's embeddings, ``[batch, crops, size]``.

        Returns
        -------
        dict
            Scalars with gradient, with the keys of ``weights``.

        Raises
        ------
        ConfigError
            If there is only one utterance.
        """
        raise NotImplementedError


class RDINOPenalties(Regulariser):
    """Penalise variance and covariance of the head's wide layer.

    RDINO differs in three ways: it adds the penalties of the teacher, which
    have no gradient; it halves the variance hinge; and it divides the
    covariance by the number of prototypes instead of the size of the layer.
    Here the student's wide layer is computed a second time, for its global
    crops only.

    Arguments
    ---------
    variance_weight, covariance_weight : float
        alpha and beta; 0 leaves a penalty out.

    Raises
    ------
    ConfigError
        If a weight is below 0.

    Example
    -------
    >>> import torch
    >>> from speechbrain_ssl.objectives.dino_head import DINOHead
    >>> head = DINOHead(6, prototypes=8, hidden=8, bottleneck=4, wide=12)
    >>> penalties = RDINOPenalties(variance_weight=1.0, covariance_weight=0.0)
    >>> list(penalties(head, torch.randn(5, 2, 6)))
    ['variance']
    """

    scheduled = ("penalty_weight",)

    def __init__(self, variance_weight, covariance_weight):
        super().__init__(variance=variance_weight, covariance=covariance_weight)

    def check_head(self, head):
        """Reject a head without a wide layer."""
        if not head.has_wide_layer:
            raise ConfigError(
                "DINO's variance_weight and covariance_weight need the wide "
                "layer of the head; set wide (RDINO: 8192)"
            )

    def __call__(self, head, embeddings):
        """Compute the penalties whose weights are above 0."""
        wide = head.wide(embeddings.flatten(0, 1)).float()
        wide = wide.unflatten(0, embeddings.shape[:2]).mean(1)
        penalties = {
            "variance": variance_hinge,
            "covariance": covariance_penalty,
        }
        return {name: penalties[name](wide) for name in self.weights}


class KoLeo(Regulariser):
    """Apply the KoLeo penalty to embeddings, summed over the crops.

    Arguments
    ---------
    koleo_weight : float
        The weight; 0.1 in DINOv2.

    Raises
    ------
    ConfigError
        If the weight is below 0.
    """

    def __init__(self, koleo_weight):
        super().__init__(koleo=koleo_weight)

    def __call__(self, head, embeddings):
        """Compute the KoLeo penalty, without its weight."""
        return {"koleo": koleo(embeddings)}


def cosine_consistency(online, target, skip_same):
    """Average 1 - cos(e_t, e_s) over DINO's pairs of crops.

    This is hyperion's "DINO + cosine", which compares embeddings before the
    heads, with a weight of 0.1.

    Arguments
    ---------
    online, target : speechbrain_ssl.objectives.base.Branch
        The student and the teacher.
    skip_same : bool
        As in ``mean_over_pairs``.

    Returns
    -------
    torch.Tensor
        A scalar with gradient.
    """
    student = F.normalize(online.embeddings.float(), dim=-1)
    teacher = F.normalize(target.embeddings.float(), dim=-1)
    return 1.0 - mean_over_pairs(teacher, student, skip_same)
