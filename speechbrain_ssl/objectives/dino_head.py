"""The head of DINO and SDPN: a projector followed by prototypes."""

import torch
import torch.nn.functional as F

from speechbrain_ssl.checks import check_int


class DINOHead(torch.nn.Module):
    """Project embeddings through three layers to an L2-normalised bottleneck.

    ``forward`` stops at the bottleneck. ``logits`` applies the last layer,
    whose rows (the prototypes) have unit norm, so that each logit is a cosine.

    Arguments
    ---------
    embedding_size : int
        Size of the encoder's output.
    prototypes : int
        Number K of prototypes, the size of the head's output.
    hidden : int
        Size of the two hidden layers.
    bottleneck : int
        Size of the projections, the input of the last layer.
    batch_norm : bool
        Whether the hidden layers are followed by batch norm (WeSpeaker: yes,
        Cho et al.: no).
    wide : int
        Size of RDINO's layer between the hidden layers and the bottleneck; 0
        leaves it out.

    Attributes
    ----------
    has_wide_layer : bool
        Whether the head has RDINO's wide layer.

    Raises
    ------
    ConfigError
        If a size is not a whole number or is too small.

    Example
    -------
    >>> head = DINOHead(8, prototypes=16, hidden=8, bottleneck=4)
    >>> vectors = head(torch.randn(3, 8))
    >>> vectors.shape, head.logits(vectors).shape
    (torch.Size([3, 4]), torch.Size([3, 16]))
    """

    def __init__(
        self,
        embedding_size,
        prototypes=65536,
        hidden=2048,
        bottleneck=256,
        batch_norm=True,
        wide=0,
    ):
        super().__init__()
        # A softmax over one prototype is constant, so the loss would stay 0.
        for key, value, least in (
            ("prototypes", prototypes, 2),
            ("hidden", hidden, 1),
            ("bottleneck", bottleneck, 1),
            ("wide", wide, 0),
        ):
            check_int("the head", key, value, least)
        sizes = [embedding_size, hidden, hidden, bottleneck]
        if wide:
            sizes.insert(-1, wide)
        layers = []
        for before, after in zip(sizes[:-2], sizes[1:-1], strict=True):
            layers.append(torch.nn.Linear(before, after))
            if batch_norm:
                layers.append(torch.nn.BatchNorm1d(after))
            layers.append(torch.nn.GELU())
        layers.append(torch.nn.Linear(sizes[-2], bottleneck))
        self.layers = torch.nn.Sequential(*layers)
        self.has_wide_layer = wide > 0
        # `wide` stops after the linear map, before batch norm and GELU.
        self._to_wide = 5 + 2 * batch_norm
        for layer in self.layers:
            if isinstance(layer, torch.nn.Linear):
                torch.nn.init.trunc_normal_(layer.weight, std=0.02)
                torch.nn.init.zeros_(layer.bias)
        # The gain of the weight normalisation is fixed at 1, so it is not a
        # parameter.
        self.prototypes = torch.nn.Parameter(
            torch.nn.init.trunc_normal_(
                torch.empty(prototypes, bottleneck), std=0.02
            )
        )

    def forward(self, embeddings):
        """Return projections of unit norm, ``[n, bottleneck]``."""
        return F.normalize(self.layers(embeddings).float(), dim=-1)

    def wide(self, embeddings):
        """Return the wide layer's linear output, ``[n, wide]``."""
        return self.layers[: self._to_wide](embeddings)

    def logits(self, vectors):
        """Return cosines with the prototypes, fp32 ``[..., K]``.

        They are not computed in bf16: after division by a temperature of 0.04,
        its rounding error (2^-9) would be a tenth of a nat.
        """
        with torch.autocast(vectors.device.type, enabled=False):
            return F.linear(vectors.float(), F.normalize(self.prototypes))
