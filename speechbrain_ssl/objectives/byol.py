"""BYOL: predict a momentum teacher's projection of another crop.

Grill et al., 2020 (arXiv 2006.07733, equation 2). With the student's projection
z_v of crop v, its predictor q and the teacher's projection t_w of crop w:

    L = mean over the pairs v != w of || q(z_v)/|q(z_v)| - t_w/|t_w| ||^2
      = 2 - 2 mean over the pairs of cos(q(z_v), t_w)

The paper adds the two pairs of its two crops, which gives twice this value.
There are no negatives. What prevents collapse is the asymmetry: only the
student has a predictor, and only the student receives a gradient. The student's
encoder is the one that is evaluated.
"""

from speechbrain_ssl.objectives.pairs import PairPrediction


class BYOL(PairPrediction):
    """Compute the BYOL loss with its projector and its predictor.

    The projector is the head, which the teacher copies. The predictor belongs
    to the loss, so the teacher has none. The defaults are those of sslsv's
    published figure; the paper has a projector of 2 layers (4096 and 256).

    Arguments
    ---------
    embedding_size, hidden, output_size, layers, predictor_hidden
        See ``PairPrediction``.

    Raises
    ------
    ConfigError
        If a size is not a positive whole number.

    Example
    -------
    >>> import torch
    >>> from speechbrain_ssl.objectives.base import Branch
    >>> byol = BYOL(8, hidden=16, output_size=4, predictor_hidden=16)
    >>> def branch():
    ...     e = torch.randn(3, 2, 8)
    ...     v = byol.head(e.flatten(0, 1)).unflatten(0, (3, 2))
    ...     return Branch(e, v, byol.head)
    >>> loss, scalars = byol(branch(), branch())
    >>> loss.shape
    torch.Size([])
    """

    momentum = True

    def __init__(
        self,
        embedding_size,
        hidden=2048,
        output_size=512,
        layers=3,
        predictor_hidden=4096,
    ):
        super().__init__(
            embedding_size,
            hidden,
            output_size,
            layers,
            predictor_hidden,
        )

    def loss(self, cosine):
        """Return the mean squared distance of unit vectors, 2 - 2 cos."""
        return 2.0 - 2.0 * cosine
