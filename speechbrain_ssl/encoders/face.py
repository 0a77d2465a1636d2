"""A ResNet for pictures of faces, and the normalisation of its input.

``FaceResNet`` is the ResNet of He et al. (2015, arXiv 1512.03385) with the
changes that face recognition made for pictures of 112 x 112 pixels: a 3 x 3
stem that keeps the resolution, and no pooling behind it. The four stages halve
the sides. Two choices are ours: the embedding is computed from the mean over
the last 7 x 7 pixels, so that smaller pictures (DINO's local views) pass the
same network, and it is a plain linear layer.
"""

import torch

from speechbrain_ssl.checks import check_int
from speechbrain_ssl.encoders.resnet import BasicBlock, ResNetBase
from speechbrain_ssl.errors import ConfigError

#: A picture of one colour has no deviation to divide by.
LEAST_DEVIATION = 1e-3


class FaceResNet(ResNetBase):
    """Embeds pictures of faces; by default a ResNet-18.

    Arguments
    ---------
    input_size : int
        Pixels on a side of the pictures. No weight depends on it.
    lin_neurons : int
        Size of the embedding.
    channels : int
        Channels of the first stage; each later stage doubles the number.
    blocks : list of int
        Number of blocks in each of the four stages: (2, 2, 2, 2) is ResNet-18
        and (3, 4, 6, 3) ResNet-34.
    embedding_batch_norm : bool
        Whether the embedding passes a batch norm with scale and shift.

    Example
    -------
    >>> encoder = FaceResNet(lin_neurons=512)
    >>> round(sum(p.numel() for p in encoder.parameters()) / 1e6, 2)
    11.44
    >>> encoder(torch.rand(2, 3, 112, 112)).shape
    torch.Size([2, 1, 512])
    """

    def __init__(
        self,
        input_size=112,
        lin_neurons=512,
        channels=64,
        blocks=(2, 2, 2, 2),
        embedding_batch_norm=False,
    ):
        super().__init__(
            input_size,
            stem=torch.nn.Conv2d(3, channels, 3, padding=1, bias=False),
            kind=BasicBlock,
            strides=(2, 2, 2, 2),
            blocks=blocks,
            pooled=8 * channels,
            lin_neurons=lin_neurons,
            embedding_batch_norm=embedding_batch_norm,
        )

    def forward(self, x):
        """Embed pictures.

        Arguments
        ---------
        x : torch.Tensor
            Normalised pictures ``[batch, 3, height, width]``.

        Returns
        -------
        torch.Tensor
            Embeddings ``[batch, 1, lin_neurons]``, as those of the encoders of
            audio.
        """
        return self.embed(x)

    def pool(self, x, valid=None):
        """Average ``[batch, channels, rows, columns]`` over all pixels."""
        return x.mean((2, 3))


class PixelNormalization(torch.nn.Module):
    """Normalises pictures; it takes the place of the features of audio.

    Every picture gets zero mean and unit deviation over its pixels and
    channels together, which removes brightness and contrast and keeps colours
    (a choice of ours).

    Arguments
    ---------
    size : int
        Pixels on a side of the pictures that the encoder was made for.

    Example
    -------
    >>> found = PixelNormalization()(torch.rand(2, 3, 112, 112))
    >>> round(float(found[0].std()), 3)
    1.0
    """

    def __init__(self, size=112):
        super().__init__()
        check_int("PixelNormalization", "size", size, least=8)
        self.settings = {"size": size}
        # Says where the module is, as it has no other tensor.
        self.register_buffer("place", torch.zeros(()), persistent=False)

    def extra_repr(self):
        """Return the settings: two normalisations must not look alike."""
        return f"size={self.settings['size']}"

    def example(self):
        """Return a black picture, to measure an encoder with."""
        size = self.settings["size"]
        return torch.zeros(3, size, size, device=self.place.device)

    def check_encoder(self, encoder):
        """Reject an encoder for pictures of another size, or for audio.

        Arguments
        ---------
        encoder : torch.nn.Module
            Its ``arguments`` tell its ``input_size``, if it has any.

        Raises
        ------
        ConfigError
            If it is not the size of the pictures.
        """
        size = self.settings["size"]
        wanted = getattr(encoder, "arguments", {}).get("input_size", size)
        if wanted != size:
            raise ConfigError(
                f"the pictures have {size} pixels on a side, and the encoder is "
                f"made for {wanted}: set `size` of `features_block` and "
                "`image_size` of `encoder_block` to the same number"
            )

    def forward(self, pictures):
        """Normalise pictures, always in fp32.

        Arguments
        ---------
        pictures : torch.Tensor
            ``[batch, 3, height, width]``, from 0 to 1.

        Returns
        -------
        torch.Tensor
            Of the same shape.
        """
        pictures = pictures.float()
        std, mean = torch.std_mean(
            pictures, dim=(1, 2, 3), correction=0, keepdim=True
        )
        return (pictures - mean) / std.clamp(min=LEAST_DEVIATION)
