"""LIM, local info max: do two crops belong to one utterance?

Ravanelli and Bengio, 2019 (arXiv 1812.00271). A discriminator g is shown pairs
of vectors: z_1 and z_2 of two crops of an utterance (joint distribution), or
z_1 and a crop of another utterance (product of the marginals). What encoder and
discriminator learn together is to bound the mutual information of the two
crops from below. With g+ of the N positive and g- of the N negative pairs:

    bce:   L = - mean log sigmoid(g+) - mean log(1 - sigmoid(g-))
    mine:  L = - mean g+ + log mean exp(g-)
    nce:   L = - mean [ g+ - log(exp g+ + sum over the batch of exp g-) ]

The negative of an utterance is its neighbour in the batch, the first one that
of the last: batches are drawn anew in every epoch, so this is as good as a
draw, and takes none.

The paper's g is a multi-layer perceptron on both vectors. sslsv takes the
cosine of the two, without any scale.
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
    """The LIM loss with its discriminator.

    Arguments
    ---------
    embedding_size : int
        Size of the encoder's output.
    loss : str
        "bce", "mine" or "nce".
    discriminator_hidden : int
        Hidden size of the discriminator; 0 takes the cosine in its place. The
        size is a default of ours.
    hidden : int
        Hidden size of a head of three layers; 0 for no head, as in the paper.
    output_size : int
        Size of the vectors where there is a head.

    Raises
    ------
    ConfigError
        If the loss is unknown or a size is no whole number.

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
        """Score pairs by the discriminator.

        Arguments
        ---------
        left, right : torch.Tensor
            ``[n, size]``.

        Returns
        -------
        torch.Tensor
            fp32 ``[n]``; large where it takes a pair for one utterance.
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
            The first crop is taken from one, the second crop from the other.

        Returns
        -------
        tuple
            Loss, and the scalars ``positive_score`` and ``negative_score`` (the
            mean of g over the two kinds of pairs) and ``accuracy`` (how often
            that of an utterance's positive pair is the larger one).

        Raises
        ------
        ConfigError
            If there are not exactly two crops, only one utterance, or vectors
            of another size than the discriminator takes.
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
    """Compute the binary cross entropy of telling the two kinds apart."""
    return F.softplus(-positive).mean() + F.softplus(negative).mean()


def _mine(positive, negative):
    """Compute minus the bound of Donsker and Varadhan (arXiv 1801.04062)."""
    negative = distributed.gather(negative)
    log_mean = torch.logsumexp(negative, dim=0) - math.log(len(negative))
    return log_mean - positive.mean()


def _nce(positive, negative):
    """Compare a positive pair with itself and all negative ones."""
    against = torch.logsumexp(distributed.gather(negative), dim=0)
    return (torch.logaddexp(positive, against) - positive).mean()
