"""The projector: the layers between embedding and loss.

Most objectives apply their loss not to the embedding but to the output of a few
layers that are discarded after training (Chen et al., 2020, arXiv 2002.05709,
section 4.2). Information that the loss removes is then lost in those layers and
not in the embedding.
"""

import torch
import torch.nn.functional as F

from speechbrain_ssl.checks import check_int


class Projector(torch.nn.Module):
    """Apply linear layers with batch norm and ReLU between them.

    Arguments
    ---------
    embedding_size : int
        Size of the encoder's output.
    hidden : int
        Size of the hidden layers.
    output_size : int
        Size of the projections.
    layers : int
        Number of linear layers; with 1 the projector is a plain linear map.
    batch_norm : bool
        Whether the hidden layers are followed by batch norm. Those layers have
        no bias, since batch norm would remove it.
    last_batch_norm : bool
        Whether the output is batch-normalised, without scale or shift.

    Raises
    ------
    ConfigError
        If a size or the number of layers is not a positive whole number.

    Example
    -------
    >>> projector = Projector(8, hidden=16, output_size=4, layers=2)
    >>> projector(torch.randn(5, 8)).shape
    torch.Size([5, 4])
    """

    def __init__(
        self,
        embedding_size,
        hidden,
        output_size,
        layers=3,
        batch_norm=True,
        last_batch_norm=False,
    ):
        super().__init__()
        for key, value in (
            ("embedding_size", embedding_size),
            ("hidden", hidden),
            ("output_size", output_size),
            ("layers", layers),
        ):
            check_int("the projector", key, value, least=1)
        stack, size = [], embedding_size
        for _ in range(layers - 1):
            stack.append(torch.nn.Linear(size, hidden, bias=not batch_norm))
            if batch_norm:
                stack.append(torch.nn.BatchNorm1d(hidden))
            stack.append(torch.nn.ReLU())
            size = hidden
        stack.append(torch.nn.Linear(size, output_size, not last_batch_norm))
        if last_batch_norm:
            stack.append(torch.nn.BatchNorm1d(output_size, affine=False))
        self.layers = torch.nn.Sequential(*stack)

    def forward(self, embeddings):
        """Return projections ``[n, output size]``."""
        return self.layers(embeddings)


class UnitProjector(Projector):
    """Project embeddings onto the unit sphere.

    Example
    -------
    >>> vectors = UnitProjector(8, 16, 4)(torch.randn(3, 8))
    >>> vectors.norm(dim=1).round(decimals=4).tolist()
    [1.0, 1.0, 1.0]
    """

    def forward(self, embeddings):
        """Return projections of unit norm, float32 ``[n, output size]``."""
        return F.normalize(super().forward(embeddings).float(), dim=-1)
