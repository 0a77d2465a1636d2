"""Additive margins on pairs, for contrastive objectives.

Lepage and Dehak (Interspeech 2023, arXiv 2306.03664; Odyssey 2024, arXiv
2404.14913) transfer the margins of supervised classifiers to contrastive
losses: the positive pair has to win by a margin m. With the angle theta between
the projections of a positive pair, its logit before the temperature is

    cosface:  cos(theta) - m        Wang et al., 2018 (arXiv 1801.09414)
    arcface:  cos(theta + m)        Deng et al., 2019 (arXiv 1801.07698)

Beyond theta + m = pi, cos(theta + m) is continued as described in
``speechbrain_ssl.objectives.margin``. The logits of negative pairs remain
cos(theta).
"""

import dataclasses
import math

from speechbrain_ssl.checks import check_choice, check_number
from speechbrain_ssl.objectives.margin import angular_margin


@dataclasses.dataclass(frozen=True)
class PairMargin:
    """Apply a margin to the cosines of positive pairs.

    Arguments
    ---------
    margin : float
        m; a difference of cosines for "cosface", radians for "arcface".
    kind : str
        "cosface" or "arcface".

    Raises
    ------
    ConfigError
        If the kind is unknown, or the margin is negative or too large for any
        pair to satisfy.

    Example
    -------
    >>> import torch
    >>> PairMargin(0.25, "cosface")(torch.tensor([1.0, 0.0])).tolist()
    [0.75, -0.25]
    """

    margin: float = 0.0
    kind: str = "cosface"

    def __post_init__(self):
        limits = {"cosface": 1.0, "arcface": math.pi / 2}
        check_choice(
            "the pair margin", "margin_kind", self.kind, sorted(limits)
        )
        check_number(
            self.kind,
            "margin",
            self.margin,
            least=0,
            below=limits[self.kind],
            remedy="it is a difference of cosines for cosface, below 1, and an "
            "angle in radians for arcface, below pi/2",
        )

    def __call__(self, cosine):
        """Return the cosines of positive pairs, reduced by the margin."""
        if self.kind == "cosface":
            return cosine - self.margin
        return angular_margin(cosine, self.margin)
