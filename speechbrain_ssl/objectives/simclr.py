"""SimCLR: two crops of an utterance against all other utterances.

Chen et al., 2020 (arXiv 2002.05709, equation 1). With the unit vectors z of
the 2N crops of a batch, and j(i) the other crop of i's utterance:

    L = mean over i of  - log  exp(z_i . z_j(i) / tau)
                              / sum over k != i of exp(z_i . z_k / tau)

Speaker systems put the loss on the embedding itself, without a head (the SSPS
code, WeSpeaker). Other utterances of the same speaker count as negatives: the
price of having no labels.
"""

import torch
import torch.nn.functional as F

from speechbrain_ssl import distributed
from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.objectives.base import Objective


class SimCLR(Objective):
    """The normalised-temperature cross entropy of two views.

    Arguments
    ---------
    temperature : float
        tau. The SSPS code has 0.03, WeSpeaker 0.07.

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

    def __init__(self, temperature=0.07):
        super().__init__()
        if not temperature > 0:
            raise ConfigError(
                f"SimCLR's temperature must be above 0, got {temperature}"
            )
        self.temperature = temperature
        self.head = torch.nn.Identity()

    def forward(self, first, second):
        """Computes the loss.

        Arguments
        ---------
        first, second : speechbrain_ssl.objectives.base.Branch
            The first crop is taken from one, the second crop from the other.

        Returns
        -------
        tuple
            Loss, and the scalars ``positive_cosine`` (mean cosine of the two
            crops) and ``accuracy`` (how often the other crop is the nearest).

        Raises
        ------
        ConfigError
            If there are not exactly two crops.
        """
        if second.vectors.shape[1] != 2:
            raise ConfigError(
                "SimCLR compares two crops of an utterance; set global_crops "
                f"to 2 (got {second.vectors.shape[1]})"
            )
        left = F.normalize(first.vectors[:, 0].float(), dim=-1)
        right = F.normalize(second.vectors[:, 1].float(), dim=-1)
        own = len(left)
        everything = torch.cat(
            [distributed.gather(left), distributed.gather(right)]
        )
        logits = torch.cat([left, right]) @ everything.T / self.temperature
        total = len(everything) // 2
        place = torch.arange(own, device=left.device) + distributed.rank() * own
        itself = torch.cat([place, place + total])
        partner = torch.cat([place + total, place])
        # No crop is compared with itself.
        logits = logits.scatter(1, itself[:, None], float("-inf"))
        loss = F.cross_entropy(logits, partner)
        with torch.no_grad():
            scalars = {
                "positive_cosine": (left * right).sum(-1).mean(),
                "accuracy": (logits.argmax(1) == partner).float().mean(),
            }
        return loss, scalars
