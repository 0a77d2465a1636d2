"""SimSiam: predict another crop's projection, without negatives or teacher.

Chen and He, 2021 (arXiv 2011.10566, equations 1 to 4). With the projection z_v
of crop v, the predictor h and the stop-gradient sg:

    L = mean over the pairs v != w of - cos(h(z_v), sg(z_w))

Only the predictor and the stop-gradient prevent collapse, and on speech they do
so poorly: sslsv's published EER on Vox1-O (Fast ResNet-34) is 28.94 %, against
13.99 % for BYOL. Watch ``spread``.

The predictor's learning rate does not decay, so that it keeps up with the
projections (section 4.2 and appendix A of the paper, and sslsv).
"""

from speechbrain_ssl.objectives.pairs import PairPrediction


class SimSiam(PairPrediction):
    """Compute the SimSiam loss with its projector and its predictor.

    The projector is the head and ends in a batch norm without scale or shift.
    The predictor, a bottleneck, belongs to the loss. The defaults are those of
    sslsv's published figure; the paper's projections have 2048 components.

    Arguments
    ---------
    embedding_size, hidden, output_size, layers, predictor_hidden
        See ``PairPrediction``.
    constant_predictor_lr : bool
        Whether the predictor keeps the highest learning rate of the schedule.

    Raises
    ------
    ConfigError
        If a size is not a positive whole number.

    Example
    -------
    >>> import torch
    >>> from speechbrain_ssl.objectives.base import Branch
    >>> simsiam = SimSiam(8, hidden=16, output_size=4, predictor_hidden=2)
    >>> e = torch.randn(3, 2, 8)
    >>> v = simsiam.head(e.flatten(0, 1)).unflatten(0, (3, 2))
    >>> branch = Branch(e, v, simsiam.head)
    >>> loss, scalars = simsiam(branch, branch)
    >>> loss.shape
    torch.Size([])
    """

    def __init__(
        self,
        embedding_size,
        hidden=2048,
        output_size=512,
        layers=3,
        predictor_hidden=512,
        constant_predictor_lr=True,
    ):
        super().__init__(
            embedding_size,
            hidden,
            output_size,
            layers,
            predictor_hidden,
            last_batch_norm=True,
        )
        self.constant_predictor_lr = constant_predictor_lr

    def constant_lr_parameters(self):
        """Return the predictor's parameters."""
        if not self.constant_predictor_lr:
            return []
        return list(self.predictor.parameters())

    def loss(self, cosine):
        """Negate the mean cosine."""
        return -cosine
