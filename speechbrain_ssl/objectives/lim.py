"""LIM (local info max): tell whether two crops belong to the same utterance.

Ravanelli and Bengio, 2019 (arXiv 1812.00271). A discriminator g scores pairs of
projections: z_1 and z_2 of two crops of an utterance (joint distribution), or
z_1 and a crop of another utterance (product of the marginals). Encoder and
discriminator together maximise a lower bound of the mutual information of the
two crops. With the scores g+ of N positive and g- of N negative pairs:

    bce:   L = - mean log sigmoid(g+) - mean log(1 - sigmoid(g-))
    mine:  L = - mean g+ + log mean exp(g-)
    nce:   L = - mean [ g+ - log(exp g+ + sum over the batch of exp g-) ]

The negative of an utterance is the next one in the batch; for the last one it
is the first. Since batches are shuffled in every epoch, this is equivalent to
drawing at random.

The paper's g is a multi-layer perceptron on both projections. sslsv uses their
cosine without a scale.
"""

import math

import torch
import torch.nn.functional as F

from speechbrain_ssl import distributed
from speechbrain_ssl.checks import check_choice
from speechbrain_ssl.objectives.base import Objective
from speechbrain_ssl.objectives.projector import Projector
from speechbrain_ssl.objectives.views import own_rows, two_views


class LIM(Objective):
    """Compute the LIM loss with its discriminator.

    Arguments
    ---------
    embedding_size : int
        Size of the encoder's output.
    loss : str
        "bce", "mine" or "nce".
    discriminator_hidden : int
        Hidden size of the discriminator; 0 uses the cosine instead. The size
        is a default of ours.
    hidden : int
        Hidden size of a head of three layers; 0 for no head, as in the paper.
    output_size : int
        Size of the projections if there is a head.

    Raises
    ------
    ConfigError
        If the loss is unknown or a size is not a whole number.

    Example
    -------
    >>> from speechbrain_ssl.objectives.base import Branch
    >>> lim = LIM(embedding_size=8, discriminator_hidden=16)
    >>> views = torch.randn(4, 2, 8)
    >>> branch = Branch(views, views, lim.head)
    >>> loss, scalars = lim(branch, branch)
    >>> loss.shape
    torch.Size([])
    """

    def __init__(
        self,
        embedding_size,
        loss="bce",
        discriminator_hidden=1024,
        hidden=0,
        output_size=512,
    ):
        super().__init__()
        losses = {"bce": _bce, "mine": _mine, "nce": _nce}
        check_choice("LIM", "loss", loss, losses)
        self.loss = losses[loss]
        if hidden:
            self.head = Projector(embedding_size, hidden, output_size)
        else:
            self.head = torch.nn.Identity()
        self.discriminator = None
        if discriminator_hidden:
            size = output_size if hidden else embedding_size
            self.discriminator = Projector(
                2 * size, discriminator_hidden, 1, layers=2, batch_norm=False
            )

    def score(self, left, right):
        """Score pairs with the discriminator.

        Arguments
        ---------
        left, right : torch.Tensor
            ``[n, size]``.

        Returns
        -------
        torch.Tensor
            fp32 ``[n]``; high where a pair seems to be of one utterance.
        """
        if self.discriminator is None:
            return F.cosine_similarity(left, right, dim=-1)
        pairs = torch.cat([left, right], dim=-1)
        return self.discriminator(pairs).squeeze(-1).float()

    def forward(self, online, target):
        """Compute the loss.

        Arguments
        ---------
        online, target : speechbrain_ssl.objectives.base.Branch
            The first crop is taken from ``online``, the second from
            ``target``.

        Returns
        -------
        tuple
            Loss, and the scalars ``positive_score`` and ``negative_score``
            (mean of g over the pairs of each kind) and ``accuracy`` (share of
            utterances whose positive pair scores higher than their negative
            one).

        Raises
        ------
        ConfigError
            If there are not exactly two crops, if there is only one utterance,
            or if the projections do not have the discriminator's input size.
        """
        left, right = two_views(online, target, "LIM")
        if self.discriminator is not None:
            size = self.discriminator.layers[0].in_features // 2
            self.expect("embedding_size", size, left)
        everything = distributed.gather(right)
        self.expect_negatives(len(everything))
        place = own_rows(len(left), left.device)
        other = everything[(place + 1) % len(everything)]
        positive, negative = self.score(left, right), self.score(left, other)
        with torch.no_grad():
            scalars = {
                "positive_score": positive.mean(),
                "negative_score": negative.mean(),
                "accuracy": (positive > negative).float().mean(),
            }
        return self.loss(positive, negative), scalars


def _bce(positive, negative):
    """Compute the binary cross entropy between positive and negative pairs."""
    return F.softplus(-positive).mean() + F.softplus(negative).mean()


def _mine(positive, negative):
    """Compute minus the Donsker-Varadhan bound (arXiv 1801.04062)."""
    negative = distributed.gather(negative)
    log_mean = torch.logsumexp(negative, dim=0) - math.log(len(negative))
    return log_mean - positive.mean()


def _nce(positive, negative):
    """Compute the cross entropy of each positive pair among all negatives."""
    against = torch.logsumexp(distributed.gather(negative), dim=0)
    return (torch.logaddexp(positive, against) - positive).mean()
