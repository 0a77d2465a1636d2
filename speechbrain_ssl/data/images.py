"""Read pictures of faces, whatever their mode, as squares of one size."""

import numpy as np
import PIL.Image
import PIL.ImageOps

from speechbrain_ssl.errors import ImageError

#: A picture with fewer pixels on a side shows no face (a limit of ours).
LEAST_PIXELS = 8


def read_image(path, size=112):
    """Read a picture, cut its central square, and scale that to a size.

    Grey pictures get three equal channels, transparent ones a black
    background, and 16-bit ones lose their lower eight bits. Of an animation the
    first frame is taken. A photograph is turned upright as its camera noted.

    Arguments
    ---------
    path : str or pathlib.Path
        A picture in a format that Pillow reads (JPEG, PNG, GIF, WebP and
        others).
    size : int
        Pixels on a side of the result.

    Returns
    -------
    numpy.ndarray
        uint8 ``[3, size, size]``.

    Raises
    ------
    ImageError
        If the picture cannot be read as a whole, or has fewer than
        ``LEAST_PIXELS`` pixels on a side; names the file and the remedy.

    Example
    -------
    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "grey.png"
    >>> PIL.Image.new("L", (40, 30), 128).save(path)
    >>> read_image(path, size=16)[:, 0, 0]
    array([128, 128, 128], dtype=uint8)
    """
    try:
        with PIL.Image.open(path) as image:
            image.load()
            square = _square(PIL.ImageOps.exif_transpose(image), size)
    # Decoders raise all kinds of errors for damaged files.
    except Exception as error:
        raise ImageError(
            f"the picture {path} cannot be read ({type(error).__name__}: "
            f"{error}); replace it, or remove its line from the face manifest"
        ) from error
    return np.ascontiguousarray(np.asarray(square).transpose(2, 0, 1))


def _square(image, size):
    """Return the central square of a picture as RGB."""
    if min(image.size) < LEAST_PIXELS:
        raise ValueError(
            f"it has {image.width} x {image.height} pixels, and "
            f"{LEAST_PIXELS} on a side are the least"
        )
    if image.mode == "I" or image.mode.startswith("I;16"):
        # Pillow would clip such values at 255 instead of scaling them.
        values = np.asarray(image).astype(np.int64).clip(0, 2**16 - 1)
        image = PIL.Image.fromarray((values >> 8).astype(np.uint8))
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        below = PIL.Image.new("RGBA", image.size, "black")
        image = PIL.Image.alpha_composite(below, image)
    return PIL.ImageOps.fit(
        image.convert("RGB"), (size, size), PIL.Image.Resampling.BILINEAR
    )
