"""SimCLR: contrast the crops of an utterance with all other utterances.

Chen et al., 2020 (arXiv 2002.05709, equation 1). With the unit projections z of
the 2N crops of a batch, and j(i) the other crop of i's utterance:

    L = mean over i of  - log  exp(z_i . z_j(i) / tau)
                              / sum over k != i of exp(z_i . z_k / tau)

A margin (see ``pair_margin``) lowers the product z_i . z_j(i) in the numerator
and in the denominator.

With V > 2 crops, every pair of crops of an utterance is positive. Let L(v, w)
be the equation above over the 2N projections of the crops v and w alone; then

    L = mean over the pairs v < w of L(v, w),

the "full graph" of Tian et al., 2020 (Contrastive Multiview Coding, arXiv
1906.05849), with a mean in place of the sum. L(1, 2) thus neither attracts nor
repels a third crop of an utterance.

Speaker systems apply the loss to the embedding itself, without a head (the SSPS
code, WeSpeaker). Without labels, other utterances of the same speaker are
negatives too.
"""

import itertools

import torch
import torch.nn.functional as F

from speechbrain_ssl import distributed
from speechbrain_ssl.checks import check_number
from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.objectives.base import Objective
from speechbrain_ssl.objectives.pair_margin import PairMargin
from speechbrain_ssl.objectives.views import own_rows


class SimCLR(Objective):
    """Compute the temperature-scaled cross entropy of two or more views.

    Arguments
    ---------
    temperature : float
        tau. The SSPS code has 0.03, WeSpeaker 0.07.
    margin : float
        Margin on the cosines of positive pairs; 0 leaves it out.
    margin_kind : str
        "cosface" or "arcface".

    Raises
    ------
    ConfigError
        If the temperature is not above 0 or the margin is out of range.

    Example
    -------
    >>> from speechbrain_ssl.objectives.base import Branch
    >>> simclr = SimCLR(temperature=0.07)
    >>> views = torch.randn(4, 2, 8)
    >>> branch = Branch(views, views, simclr.head)
    >>> loss, scalars = simclr(branch, branch)
    >>> loss.shape
    torch.Size([])
    """

    def __init__(self, temperature=0.07, margin=0.0, margin_kind="cosface"):
        super().__init__()
        check_number("SimCLR", "temperature", temperature, above=0)
        self.temperature = temperature
        self.margin = PairMargin(margin, margin_kind)
        self.head = torch.nn.Identity()

    def forward(self, online, target):
        """Compute the loss.

        Arguments
        ---------
        online, target : speechbrain_ssl.objectives.base.Branch
            In each pair of crops v < w, v is taken from ``online`` and w from
            ``target``.

        Returns
        -------
        tuple
            Loss, and the scalars ``positive_cosine`` (mean cosine of two crops
            of an utterance) and ``accuracy`` (share of crops whose nearest
            neighbour is the other crop), both without margin.

        Raises
        ------
        ConfigError
            If there is only one crop, any local crop, or only one utterance.
        """
        views = target.projections.shape[1]
        if views < 2 or online.projections.shape[1] != views:
            raise ConfigError(
                "SimCLR compares global crops of an utterance with each other; "
                "set global_crops to 2 or more and local_crops to 0 (got "
                f"{views} global crops among {online.projections.shape[1]})"
            )
        pairs = [
            self._pair(online.projections[:, v], target.projections[:, w])
            for v, w in itertools.combinations(range(views), 2)
        ]
        loss, cosine, accuracy = (
            torch.stack(values).mean() for values in zip(*pairs, strict=True)
        )
        return loss, {"positive_cosine": cosine, "accuracy": accuracy}

    def _pair(self, left, right):
        """Return loss, mean cosine and accuracy of a pair of crops."""
        left = F.normalize(left.float(), dim=-1)
        right = F.normalize(right.float(), dim=-1)
        own = len(left)
        everything = torch.cat(
            [distributed.gather(left), distributed.gather(right)]
        )
        total = len(everything) // 2
        self.expect_negatives(total)
        # Not in bf16: divided by 0.03, its rounding error would be 0.07 nats.
        with torch.autocast(left.device.type, enabled=False):
            cosines = torch.cat([left, right]) @ everything.T
        place = own_rows(own, left.device)
        itself = torch.cat([place, place + total])
        partner = torch.cat([place + total, place])
        # No crop is compared with itself.
        cosines = cosines.scatter(1, itself[:, None], float("-inf"))
        positive = cosines.gather(1, partner[:, None])
        logits = cosines.scatter(1, partner[:, None], self.margin(positive))
        loss = F.cross_entropy(logits / self.temperature, partner)
        accuracy = (cosines.argmax(1) == partner).float().mean()
        return loss, positive.detach().mean(), accuracy
