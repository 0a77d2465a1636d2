"""VICReg: invariance, with variance and covariance terms against collapse.

Bardes et al., 2022 (arXiv 2105.04906, equation 6). With the projections Z, Z'
of the two crops of a batch,

    L = lambda s(Z, Z') + mu (v(Z) + v(Z')) + nu (c(Z) + c(Z'))

where s is the mean squared difference (over utterances and dimensions, as in
the authors' code: 1/d of the paper's equation 5), v the hinge on the standard
deviation and c the covariance penalty (see ``regularisers``). The latter two
are computed over the batch of all processes. The projections are not
normalised.
"""

import torch.nn.functional as F

from speechbrain_ssl.checks import check_number
from speechbrain_ssl.objectives.base import Objective
from speechbrain_ssl.objectives.projector import Projector
from speechbrain_ssl.objectives.regularisers import (
    covariance_penalty,
    variance_hinge,
)
from speechbrain_ssl.objectives.views import two_views


class VICReg(Objective):
    """Compute the variance, invariance and covariance loss of two views.

    Arguments
    ---------
    embedding_size, hidden, output_size, layers
        See ``Projector``.
    invariance_weight, variance_weight, covariance_weight : float
        lambda, mu and nu.

    Raises
    ------
    ConfigError
        If a weight is below 0.

    Example
    -------
    >>> import torch
    >>> from speechbrain_ssl.objectives.base import Branch
    >>> vicreg = VICReg(8, hidden=16, output_size=12)
    >>> views = vicreg.head(torch.randn(10, 8)).view(5, 2, 12)
    >>> branch = Branch(None, views, vicreg.head)
    >>> loss, scalars = vicreg(branch, branch)
    >>> sorted(scalars)
    ['covariance', 'invariance', 'variance']
    """

    #: Penalty that decorrelates the dimensions.
    penalty = staticmethod(covariance_penalty)

    def __init__(
        self,
        embedding_size,
        hidden=2048,
        output_size=512,
        layers=3,
        invariance_weight=1.0,
        variance_weight=1.0,
        covariance_weight=0.1,
    ):
        super().__init__()
        self.weights = {
            "invariance": invariance_weight,
            "variance": variance_weight,
            "covariance": covariance_weight,
        }
        owner = type(self).__name__
        for key, value in self.weights.items():
            check_number(owner, f"{key}_weight", value, least=0)
        self.head = Projector(embedding_size, hidden, output_size, layers)

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
            Loss, and its three terms without their weights, as scalars.

        Raises
        ------
        ConfigError
            If there are not exactly two crops, or only one utterance.
        """
        left, right = two_views(online, target, type(self).__name__)
        terms = {
            "invariance": F.mse_loss(left, right),
            "variance": variance_hinge(left) + variance_hinge(right),
            "covariance": self.penalty(left) + self.penalty(right),
        }
        loss = sum(self.weights[name] * term for name, term in terms.items())
        return loss, {name: term.detach() for name, term in terms.items()}
