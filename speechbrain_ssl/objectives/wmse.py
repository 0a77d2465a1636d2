"""W-MSE: make two crops agree after whitening.

Ermolov et al., 2021 (arXiv 2007.06346, section 3). The projections v of each
crop are whitened in sub-batches, so that they cannot collapse; then the two
crops of an utterance are compared on the unit sphere:

    z = W (v - mean),    W = L^{-1},    L L^T = covariance
    L_MSE = mean of |z/|z| - z'/|z'||^2 = 2 - 2 mean of cos(z, z')

The covariance of few rows is noisy. The paper therefore whitens several random
partitions of a batch. Here there is one partition, in the order of the batch,
which the sampler has already shuffled. Covariance and Cholesky factor are in
float64, since the projections of an untrained encoder are nearly collinear.
"""

import torch
import torch.nn.functional as F

from speechbrain_ssl.checks import check_int, check_number
from speechbrain_ssl.distributed import gather
from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.objectives.base import Objective
from speechbrain_ssl.objectives.projector import Projector
from speechbrain_ssl.objectives.views import two_views


class WMSE(Objective):
    """Compute the mean squared error of two whitened views.

    Arguments
    ---------
    embedding_size, hidden, output_size, layers
        See ``Projector``.
    whitening_size : int
        Utterances in a sub-batch; more than ``output_size``, preferably twice
        as many.
    epsilon : float
        Share of the identity that is mixed into the covariance.

    Raises
    ------
    ConfigError
        If a value is out of range, or a sub-batch is too small to be whitened.

    Example
    -------
    >>> from speechbrain_ssl.objectives.base import Branch
    >>> wmse = WMSE(8, hidden=16, output_size=3, whitening_size=6)
    >>> views = wmse.head(torch.randn(24, 8)).view(12, 2, 3)
    >>> branch = Branch(None, views, wmse.head)
    >>> loss, scalars = wmse(branch, branch)
    >>> loss.shape
    torch.Size([])
    """

    def __init__(
        self,
        embedding_size,
        hidden=1024,
        output_size=64,
        layers=2,
        whitening_size=128,
        epsilon=0.0,
    ):
        super().__init__()
        self.head = Projector(embedding_size, hidden, output_size, layers)
        check_number("W-MSE", "epsilon", epsilon, least=0, below=1)
        check_int(
            "W-MSE",
            "whitening_size",
            whitening_size,
            least=output_size + 1,
            remedy=f"it must be above output_size ({output_size}), since the "
            "covariance of fewer rows has no inverse",
        )
        self.whitening_size = whitening_size
        self.epsilon = epsilon

    def forward(self, online, target):
        """Compute the loss.

        A sub-batch whose covariance is singular makes the loss NaN, and the
        step is then skipped.

        Arguments
        ---------
        online, target : speechbrain_ssl.objectives.base.Branch
            The first crop is taken from ``online``, the second from
            ``target``.

        Returns
        -------
        tuple
            Loss, and the scalar ``positive_cosine`` (mean cosine of the two
            crops, before whitening).

        Raises
        ------
        ConfigError
            If there are not exactly two crops, or the batch over all processes
            is not a multiple of ``whitening_size``.
        """
        left, right = map(gather, two_views(online, target, "W-MSE"))
        if len(left) % self.whitening_size:
            raise ConfigError(
                f"W-MSE whitens {self.whitening_size} utterances at a time, "
                f"but a batch has {len(left)}; make batch_size (times the "
                "processes) a multiple of whitening_size"
            )
        cosine = F.cosine_similarity(self._white(left), self._white(right))
        with torch.no_grad():
            before = F.cosine_similarity(left, right).mean()
        return 2 - 2 * cosine.mean(), {"positive_cosine": before}

    def _white(self, rows):
        """Whiten ``[n, size]`` rows, sub-batch by sub-batch."""
        parts = rows.double().unflatten(0, (-1, self.whitening_size))
        parts = parts - parts.mean(1, keepdim=True)
        eye = torch.eye(parts.shape[-1], dtype=parts.dtype, device=rows.device)
        covariance = parts.mT @ parts / (self.whitening_size - 1)
        covariance = (1 - self.epsilon) * covariance + self.epsilon * eye
        factor, failed = torch.linalg.cholesky_ex(covariance)
        # Where the factorisation failed, the returned values are meaningless:
        # make them NaN, so that the step is skipped.
        factor = torch.where((failed > 0)[:, None, None], float("nan"), factor)
        white = torch.linalg.solve_triangular(factor, parts.mT, upper=False)
        return white.mT.flatten(0, 1).float()
