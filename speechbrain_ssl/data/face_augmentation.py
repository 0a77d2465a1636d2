"""Change views of pictures at random, in batches on the training device.

Every view is changed on its own, and all draws are addressed by seed, epoch,
utterance and view, as those of ``augmentation.Augmentation`` are, whose place
``FaceAugmentation`` takes.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F

from speechbrain_ssl.checks import check_int, check_number
from speechbrain_ssl.data.draws import uniform
from speechbrain_ssl.errors import ConfigError

#: Weights of red, green and blue in the luma of ITU-R BT.601.
_LUMA = (0.299, 0.587, 0.114)

#: Width to height of the part that is cut out, and of the erased rectangle.
_RATIO = (3 / 4, 4 / 3)


class FaceAugmentation(torch.nn.Module):
    """Flips, crops, recolours, blurs and erases views of pictures.

    A view passes these steps in this order; the strengths are ours, weaker
    than those for pictures of objects, because a face that is cut or
    recoloured much is of somebody else.

    Arguments
    ---------
    flip : float
        Probability of a mirror image.
    scale : tuple of float
        Smallest and largest area of the part that is cut out and scaled to the
        size of the picture (Szegedy et al., 2015, arXiv 1409.4842).
    local_scale : tuple of float
        The same for views beyond those of the first group (DINO's local ones).
    local_size : int
        Pixels on a side of these views.
    brightness, contrast, colour : float
        Largest change of the three: factors are drawn between ``1 - x`` and
        ``1 + x``. A colour factor of 0 is grey.
    tint : float
        Largest change of each of red, green and blue by itself, as by another
        white balance.
    grey : float
        Probability that a view loses its colours.
    blur : float
        Probability of a Gaussian blur, whose deviation is drawn between 0.5 and
        ``blur_pixels`` pixels.
    blur_pixels : float
        See ``blur``.
    erase : float
        Probability that a rectangle is replaced by the mean of the view (Zhong
        et al., 2017, arXiv 1708.04896, who fill it at random).
    erase_scale : tuple of float
        Smallest and largest area of the rectangle.

    Raises
    ------
    ConfigError
        If a value is out of range.

    Example
    -------
    >>> views = torch.rand(2, 4, 3, 32, 32)
    >>> address = (1, 1, np.array([5, 6], dtype=np.uint64))
    >>> FaceAugmentation()(views, address).shape
    torch.Size([2, 4, 3, 32, 32])
    """

    def __init__(
        self,
        flip=0.5,
        scale=(0.6, 1.0),
        local_scale=(0.2, 0.5),
        local_size=56,
        brightness=0.4,
        contrast=0.4,
        colour=0.4,
        tint=0.2,
        grey=0.2,
        blur=0.3,
        blur_pixels=2.0,
        erase=0.3,
        erase_scale=(0.05, 0.2),
    ):
        super().__init__()
        owner = "FaceAugmentation"
        for name, value in (
            ("flip", flip),
            ("grey", grey),
            ("blur", blur),
            ("erase", erase),
            ("brightness", brightness),
            ("contrast", contrast),
            ("colour", colour),
            ("tint", tint),
        ):
            check_number(owner, name, value, least=0, most=1)
        check_number(owner, "blur_pixels", blur_pixels, least=0.5)
        check_int(owner, "local_size", local_size, least=8)
        for name, (low, high) in (
            ("scale", scale),
            ("local_scale", local_scale),
            ("erase_scale", erase_scale),
        ):
            if not 0 < low <= high <= 1:
                raise ConfigError(
                    f"{owner}'s {name} must be two areas between 0 and 1, the "
                    f"smaller one first; got {low} and {high}"
                )
        self.flip, self.grey = flip, grey
        self.scale, self.local_scale = scale, local_scale
        self.local_size = local_size
        self.jitter, self.tint = (brightness, contrast, colour), tint
        self.blur, self.blur_pixels = blur, blur_pixels
        self.erase, self.erase_scale = erase, erase_scale

    def load(self):
        """Do nothing: there is nothing to read."""

    def begin_epoch(self, epoch):
        """Do nothing: nothing changes from epoch to epoch."""

    @torch.no_grad()
    def forward(self, views, address, first_crop=0):
        """Augment the views of a batch.

        Arguments
        ---------
        views : torch.Tensor
            ``[batch, views, 3, size, size]``, from 0 to 1.
        address : tuple
            (seed, epoch, keys) with keys uint64 ``[batch]``.
        first_crop : int
            Number of the first of these views among all views of a sample;
            above 0 they are local ones.

        Returns
        -------
        torch.Tensor
            ``[batch, views, 3, size, size]``, from 0 to 1; local views have
            ``local_size``.
        """
        batch, count = views.shape[:2]
        seed, epoch, keys = address
        number = np.arange(first_crop, first_crop + count, dtype=np.uint64)
        where = (seed, epoch, np.asarray(keys)[:, None], number[None, :])

        def draw(purpose, size=1):
            values = uniform(*where, f"face {purpose}", size=size)
            values = torch.from_numpy(values.reshape(batch * count, size))
            return values.float().to(views.device).T

        flat = views.flatten(0, 1)
        flat = self._cut(flat, draw, local=first_crop > 0)
        flat = self._recolour(flat, draw)
        flat = self._blur(flat, draw)
        flat = self._erase(flat, draw)
        return flat.unflatten(0, (batch, count))

    def _cut(self, x, draw, local):
        """Cut a part out of every picture, mirror it, and scale it."""
        size = self.local_size if local else x.shape[-1]
        scale = self.local_scale if local else self.scale
        (mirrored,) = draw("flip")
        width, height, left, top = _rectangle(draw("crop", 4), scale)
        # Coordinates of the picture run from -1 to 1.
        turn = torch.where(mirrored < self.flip, -1.0, 1.0)
        none = torch.zeros_like(width)
        affine = torch.stack(
            [
                torch.stack([width * turn, none, 2 * left + width - 1], 1),
                torch.stack([none, height, 2 * top + height - 1], 1),
            ],
            dim=1,
        )
        grid = F.affine_grid(
            affine, (len(x), 3, size, size), align_corners=False
        )
        return F.grid_sample(
            x, grid, padding_mode="border", align_corners=False
        )

    def _recolour(self, x, draw):
        """Change brightness and tint, contrast, and colour, in this order."""
        draws = draw("jitter", 3)
        brightness, contrast, colour = (
            (1 + strength * (2 * value - 1)).view(-1, 1, 1, 1)
            for strength, value in zip(self.jitter, draws, strict=True)
        )
        tint = 1 + self.tint * (2 * draw("tint", 3).T - 1)
        (greyed,) = draw("grey")
        colour = colour * (greyed >= self.grey).view(-1, 1, 1, 1)
        x = (x * brightness * tint[:, :, None, None]).clamp(0, 1)
        luma = _luma(x)
        mean = luma.mean((2, 3), keepdim=True)
        x = (mean + (x - mean) * contrast).clamp(0, 1)
        luma = _luma(x)
        return (luma + (x - luma) * colour).clamp(0, 1)

    def _blur(self, x, draw):
        """Blur some of the pictures with Gaussians of their own."""
        chosen, strength = draw("blur", 2)
        rows = (chosen < self.blur).nonzero()[:, 0]
        if not len(rows):
            return x
        sigma = 0.5 + strength[rows, None] * (self.blur_pixels - 0.5)
        # Two deviations, but no more than reflection can pad.
        reach = min(math.ceil(2 * self.blur_pixels), x.shape[-1] - 1)
        steps = torch.arange(-reach, reach + 1, device=x.device)
        kernel = torch.exp(-0.5 * (steps / sigma).square())
        kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(3, 0)
        planes = x[rows].flatten(0, 1)[None]
        planes = F.pad(planes, (reach,) * 4, mode="reflect")
        for shape in ((-1, 1, 1, len(steps)), (-1, 1, len(steps), 1)):
            planes = F.conv2d(planes, kernel.view(shape), groups=len(kernel))
        return x.index_copy(0, rows, planes.view(len(rows), *x.shape[1:]))

    def _erase(self, x, draw):
        """Replace a rectangle of some pictures by their mean."""
        chosen, *draws = draw("erase", 5)
        width, height, left, top = _rectangle(draws, self.erase_scale)
        size = x.shape[-1]
        # Centres of the pixels, from 0 to 1.
        centres = (torch.arange(size, device=x.device) + 0.5) / size
        across, down = (
            (centres >= begin[:, None]) & (centres < (begin + length)[:, None])
            for begin, length in ((left, width), (top, height))
        )
        inside = across[:, None, None, :] & down[:, None, :, None]
        inside &= (chosen < self.erase).view(-1, 1, 1, 1)
        return torch.where(inside, x.mean((2, 3), keepdim=True), x)


def _rectangle(draws, scale):
    """Return width, height, left and top of rectangles, as shares of a side."""
    area, ratio, across, down = draws
    low, high = (math.log(value) for value in _RATIO)
    ratio = torch.exp(low + ratio * (high - low))
    area = scale[0] + area * (scale[1] - scale[0])
    width = (area * ratio).sqrt().clamp(max=1)
    height = (area / ratio).sqrt().clamp(max=1)
    return width, height, across * (1 - width), down * (1 - height)


def _luma(x):
    """Return the brightness of pixels, ``[batch, 1, height, width]``."""
    weights = torch.tensor(_LUMA, device=x.device).view(3, 1, 1)
    return (x * weights).sum(1, keepdim=True)
