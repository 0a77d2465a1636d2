"""The head of DINO and SDPN: a projector and its prototypes."""

import torch
import torch.nn.functional as F

from speechbrain_ssl.checks import check_int


class DINOHead(torch.nn.Module):
    """Three-layer projector with an L2-normalised bottleneck.

    ``forward`` ends at the bottleneck; ``logits`` applies the last layer, whose
    rows (the prototypes) have unit norm, so that a logit is a cosine.

    Arguments
    ---------
    embedding_size : int
        Size of the encoder's output.
    prototypes : int
        Number K of outputs.
    hidden : int
        Size of the two hidden layers.
    bottleneck : int
        Size of the vectors before the last layer.
    batch_norm : bool
        Whether the hidden layers are followed by batch norm (WeSpeaker: yes,
        Cho et al.: no).
    wide : int
        Size of RDINO's layer between the hidden ones and the bottleneck; 0:
        none.

    Attributes
    ----------
    has_wide_layer : bool
        Whether there is a wide layer.

    Raises
    ------
    ConfigError
        If a size is no whole number, or too small.

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
        # One prototype is taken whatever the input: its loss is always 0.
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
        # The wide layer ends with its linear map, like an output.
        self._to_wide = 5 + 2 * batch_norm
        for layer in self.layers:
            if isinstance(layer, torch.nn.Linear):
                torch.nn.init.trunc_normal_(layer.weight, std=0.02)
                torch.nn.init.zeros_(layer.bias)
        # The gain of the weight normalisation is fixed at 1: no parameter.
        self.prototypes = torch.nn.Parameter(
            torch.nn.init.trunc_normal_(
                torch.empty(prototypes, bottleneck), std=0.02
            )
        )

    def forward(self, embeddings):
        """Return bottleneck vectors of unit norm, ``[n, bottleneck]``."""
        return F.normalize(self.layers(embeddings).float(), dim=-1)

    def wide(self, embeddings):
        """Return the wide layer before its batch norm, ``[n, wide]``."""
        return self.layers[: self._to_wide](embeddings)

    def logits(self, vectors):
        """Return cosines with the prototypes, fp32 ``[..., K]``.

        Not in bf16: divided by a temperature of 0.04, its rounding (2^-9) would
        be a tenth of a nat.
        """
        with torch.autocast(vectors.device.type, enabled=False):
            return F.linear(vectors.float(), F.normalize(self.prototypes))
