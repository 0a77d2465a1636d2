"""The head of DINO and SDPN: a projector followed by prototypes."""

import torch
import torch.nn.functional as F

from speechbrain_ssl.checks import check_int, check_number


class DINOHead(torch.nn.Module):
    """Project embeddings through three layers to an L2-normalised bottleneck.

    ``forward`` stops at the bottleneck. ``logits`` applies the last layer,
    whose rows (the prototypes) are normalised, so that each logit is a cosine.

    The projector starts with truncated normal weights of deviation 0.02 and
    zero biases. The prototypes start uniform in +-1/sqrt(bottleneck), as torch
    initialises a linear layer: in the code of DINO, WeSpeaker and 3D-Speaker
    the initialisation of the projector does not reach them. The gain of their
    weight normalisation is fixed at 1. Their initial norm (about 1/sqrt(3))
    does not change a logit, but the shorter a row is, the further a step of the
    optimiser turns it.

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
        Size of RDINO's layer between the hidden layers and the bottleneck,
        which is linear, without batch norm or activation; 0 leaves it out.
    prototype_std : float, optional
        If given, the prototypes start with truncated normal components of this
        deviation instead (an option of ours).

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
        prototype_std=None,
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
        layers = []
        for before in (embedding_size, hidden):
            layers.append(torch.nn.Linear(before, hidden))
            if batch_norm:
                layers.append(torch.nn.BatchNorm1d(hidden))
            layers.append(torch.nn.GELU())
        if wide:
            layers.append(torch.nn.Linear(hidden, wide))
        layers.append(torch.nn.Linear(wide or hidden, bottleneck))
        self.layers = torch.nn.Sequential(*layers)
        self.has_wide_layer = wide > 0
        for layer in self.layers:
            if isinstance(layer, torch.nn.Linear):
                torch.nn.init.trunc_normal_(layer.weight, std=0.02)
                torch.nn.init.zeros_(layer.bias)
        self.prototypes = torch.nn.Linear(
            bottleneck, prototypes, bias=False
        ).weight
        if prototype_std is not None:
            check_number("the head", "prototype_std", prototype_std, above=0)
            torch.nn.init.trunc_normal_(self.prototypes, std=prototype_std)

    def forward(self, embeddings):
        """Return projections of unit norm, ``[n, bottleneck]``."""
        return F.normalize(self.layers(embeddings).float(), dim=-1)

    def wide(self, embeddings):
        """Return the output of the wide layer, ``[n, wide]``."""
        return self.layers[:-1](embeddings)

    def logits(self, vectors):
        """Return cosines with the prototypes, fp32 ``[..., K]``.

        They are not computed in bf16: after division by a temperature of 0.04,
        its rounding error (2^-9) would be a tenth of a nat.
        """
        with torch.autocast(vectors.device.type, enabled=False):
            return F.linear(vectors.float(), F.normalize(self.prototypes))
