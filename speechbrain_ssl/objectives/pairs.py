"""The base of BYOL and SimSiam: predict a crop's projection from another crop.

They have no negatives. The loss attracts the projections of different crops of
an utterance, and does not show whether all utterances collapse onto one point.
``spread`` does.
"""

import torch
import torch.nn.functional as F

from speechbrain_ssl.objectives.base import Objective
from speechbrain_ssl.objectives.projector import Projector
from speechbrain_ssl.objectives.views import mean_over_pairs


class PairPrediction(Objective):
    """Provide the base of BYOL and SimSiam: projector, predictor, mean cosine.

    The projector is the head, which a teacher copies. The predictor belongs to
    the loss, so a teacher has none. A subclass turns the mean cosine into a
    loss in ``loss``.

    Arguments
    ---------
    embedding_size : int
        Size of the encoder's output.
    hidden, output_size, layers : int
        The projector's hidden size, output size and number of linear layers.
    predictor_hidden : int
        Hidden size of the predictor, which has 2 layers.
    last_batch_norm : bool
        Whether the projector ends in a batch norm without scale or shift.

    Raises
    ------
    ConfigError
        If a size is not a positive whole number.
    """

    def __init__(
        self,
        embedding_size,
        hidden,
        output_size,
        layers,
        predictor_hidden,
        last_batch_norm=False,
    ):
        super().__init__()
        self.head = Projector(
            embedding_size,
            hidden,
            output_size,
            layers,
            last_batch_norm=last_batch_norm,
        )
        self.predictor = Projector(
            output_size, predictor_hidden, output_size, layers=2
        )

    def forward(self, online, target):
        """Compute the loss.

        Arguments
        ---------
        online, target : speechbrain_ssl.objectives.base.Branch
            ``online`` has all crops, global ones first. ``target`` has the
            global ones, computed by the teacher if there is one, and receives
            no gradient.

        Returns
        -------
        tuple
            Loss, and the scalars ``positive_cosine`` (mean cosine of the
            predictions with the target branch's projections of other crops)
            and ``spread`` (of these projections: 0 if they have collapsed, 1
            if they lie evenly on the sphere).

        Raises
        ------
        ConfigError
            If there is no pair of different crops.
        """
        predicted = self.predictor(online.projections.flatten(0, 1))
        predicted = predicted.unflatten(0, online.projections.shape[:2])
        cosine = mean_cosine(predicted, target.projections)
        return self.loss(cosine), {
            "positive_cosine": cosine.detach(),
            "spread": spread(target.projections),
        }

    def loss(self, cosine):
        """Turn the mean cosine into the loss, a scalar with gradient."""
        raise NotImplementedError


def mean_cosine(online, target):
    """Average the cosine over the pairs of different crops of an utterance.

    Arguments
    ---------
    online : torch.Tensor
        ``[batch, crops, size]``, global crops first.
    target : torch.Tensor
        ``[batch, global crops, size]``; it gets no gradient.

    Returns
    -------
    torch.Tensor
        A scalar, the mean over batch and pairs v != w of the cosine of
        ``online[:, v]`` and ``target[:, w]``.

    Raises
    ------
    ConfigError
        If there is no pair of different crops.

    Example
    -------
    >>> crops = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    >>> float(mean_cosine(crops, crops))
    0.0
    """
    online = F.normalize(online.float(), dim=-1)
    target = F.normalize(target.detach().float(), dim=-1)
    return mean_over_pairs(target, online, skip_same=True)


@torch.no_grad()
def spread(vectors):
    """Measure how evenly vectors lie on the sphere: 0 collapsed, 1 even.

    Chen and He, 2021 (SimSiam, arXiv 2011.10566, section 4.1): the standard
    deviation of each component of the unit vectors, averaged over components
    and multiplied by the square root of their number.

    Arguments
    ---------
    vectors : torch.Tensor
        ``[batch, crops, size]``.

    Returns
    -------
    torch.Tensor
        A scalar.

    Example
    -------
    >>> float(spread(torch.ones(4, 2, 3)))
    0.0
    """
    unit = F.normalize(vectors.flatten(0, 1).float(), dim=-1)
    return unit.std(0, correction=0).mean() * unit.shape[-1] ** 0.5
