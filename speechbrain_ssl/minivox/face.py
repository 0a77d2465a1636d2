"""Draw the faces of MiniVox: one for each speaker, as its videos show it.

A picture has three layers, as an utterance has, each with its own key:

* the **face** (key: seed, speaker): proportions and colours of skin, hair,
  eyes, brows, nose, mouth and beard;
* the **scene** (key: seed, speaker, video): the light and its colour, the
  background, the clothes, the camera, and how the head is held. All pictures of
  a video share it, so that it is the shortcut that a system takes whose two
  views come from one video;
* the **moment** (key: seed, speaker, video, picture): a turn of the head, an
  expression and the noise of the sensor.

Faces are drawings: they serve demonstrations and tests, and say nothing about
photographs.
"""

from typing import NamedTuple

import numpy as np
import scipy.ndimage

from speechbrain_ssl.minivox.draws import FACE, MOMENT, SCENE, generator

#: Pixels on a side of a picture.
SIZE = 64

#: Half the side of a picture; a larger one shows more of the surroundings.
ZOOM = 0.75

#: Skin, hair and iris are mixed from the two ends of each list (RGB).
_SKIN = ((0.96, 0.80, 0.69), (0.38, 0.24, 0.17))
_HAIR = ((0.10, 0.08, 0.07), (0.45, 0.27, 0.12), (0.85, 0.68, 0.40))
_IRIS = ((0.25, 0.14, 0.08), (0.30, 0.42, 0.25), (0.35, 0.52, 0.70))


class Face(NamedTuple):
    """What belongs to the speaker; lengths in units of ``_Canvas``."""

    width: float
    height: float
    jaw: float
    eye_distance: float
    eye_height: float
    eye_size: float
    eye_slant: float
    brow_thickness: float
    brow_height: float
    nose_length: float
    nose_width: float
    mouth_width: float
    mouth_height: float
    lips: float
    fringe: float
    hair_volume: float
    hair_length: float
    beard: float
    skin: np.ndarray
    hair: np.ndarray
    iris: np.ndarray


class Scene(NamedTuple):
    """What belongs to a video."""

    light: np.ndarray
    tint: np.ndarray
    gain: float
    gamma: float
    background: np.ndarray
    clothes: np.ndarray
    pose: np.ndarray
    blur: float
    noise: float


def draw_face(seed, number):
    """Draw the face of a speaker.

    Arguments
    ---------
    seed : int
        Seed of the corpus.
    number : int
        Number of the speaker.

    Returns
    -------
    Face
    """
    rng = generator(seed, FACE, number)
    ranges = {
        "width": (0.42, 0.56),
        "height": (0.58, 0.74),
        "jaw": (0.0, 0.35),
        "eye_distance": (0.17, 0.25),
        "eye_height": (-0.16, 0.0),
        "eye_size": (0.055, 0.095),
        "eye_slant": (-0.25, 0.25),
        "brow_thickness": (0.015, 0.045),
        "brow_height": (0.09, 0.16),
        "nose_length": (0.16, 0.30),
        "nose_width": (0.05, 0.11),
        "mouth_width": (0.13, 0.25),
        "mouth_height": (0.34, 0.44),
        "lips": (0.025, 0.06),
        "fringe": (-0.62, -0.34),
        "hair_volume": (0.02, 0.20),
        "hair_length": (-0.3, 0.9),
    }
    values = {name: rng.uniform(*bounds) for name, bounds in ranges.items()}
    return Face(
        **values,
        beard=max(0.0, rng.uniform(-0.8, 0.6)),
        skin=_mixture(_SKIN, rng.uniform()),
        hair=_mixture(_HAIR, rng.uniform()),
        iris=_mixture(_IRIS, rng.uniform()),
    )


def draw_scene(seed, number, video):
    """Draw the scene of a video.

    Arguments
    ---------
    seed, number
        As in ``draw_face``.
    video : int
        Number of the video.

    Returns
    -------
    Scene
    """
    rng = generator(seed, SCENE, number, video)
    angle = rng.uniform(0, 2 * np.pi)
    return Scene(
        light=rng.uniform(0.0, 0.4) * np.array([np.cos(angle), np.sin(angle)]),
        tint=rng.uniform(0.85, 1.1, 3),
        gain=rng.uniform(0.7, 1.15),
        gamma=rng.uniform(0.8, 1.3),
        background=rng.uniform(0.05, 0.95, (3, 3)),
        clothes=rng.uniform(0.05, 0.9, 3),
        # Yaw, pitch, roll, size, and place.
        pose=rng.normal(0, 1, 6) * [0.12, 0.08, 0.04, 0.03, 0.02, 0.02],
        blur=rng.uniform(0.0, 0.8),
        noise=rng.uniform(0.01, 0.03),
    )


def draw_picture(face, scene, seed, number, video, picture):
    """Draw one picture of a video.

    Arguments
    ---------
    face : Face
        The face of the speaker.
    scene : Scene
        The scene of the video.
    seed, number, video
        As in ``draw_scene``.
    picture : int
        Number of the picture in the video.

    Returns
    -------
    numpy.ndarray
        uint8 ``[SIZE, SIZE, 3]``.

    Example
    -------
    >>> face, scene = draw_face(1986, 10001), draw_scene(1986, 10001, 0)
    >>> draw_picture(face, scene, 1986, 10001, 0, 0).shape
    (64, 64, 3)
    """
    rng = generator(seed, MOMENT, number, video, picture)
    pose = scene.pose + rng.normal(0, 1, 6) * [
        0.15,
        0.1,
        0.04,
        0.02,
        0.02,
        0.02,
    ]
    opened, lids, brows = rng.uniform(0, 1, 3)
    canvas = _Canvas(pose)
    canvas.image[:] = _background(scene.background)
    _paint(canvas, face, scene, opened, 0.5 + 0.5 * lids, 0.03 * brows)
    return _photograph(canvas.image, scene, rng)


class _Canvas:
    """An image, with the coordinates of the head that is turned in it.

    ``x`` runs to the right and ``y`` down, both from ``-ZOOM`` to ``ZOOM``, with
    the middle of the face at 0.
    """

    def __init__(self, pose):
        yaw, pitch, roll, size, right, down = pose
        steps = ZOOM * ((np.arange(SIZE) + 0.5) / SIZE * 2 - 1)
        x, y = np.meshgrid(steps - right, steps - down)
        turned = x * np.cos(roll) + y * np.sin(roll)
        self.y = (y * np.cos(roll) - x * np.sin(roll)) / (1 + size)
        self.x = turned / (1 + size)
        self.yaw, self.pitch = yaw, pitch
        self.image = np.zeros((SIZE, SIZE, 3))

    def near(self, depth):
        """Return the coordinates of what lies in front of the head's axis."""
        return self.x - self.yaw * depth, self.y - self.pitch * depth

    def paint(self, mask, colour):
        """Paint with a colour where a mask is 1."""
        self.image += mask[..., None] * (colour - self.image)


def _ellipse(x, y, middle, radii, power=2.0):
    """Return a mask that is 1 within an ellipse, with a soft edge."""
    reach = (
        np.abs((x - middle[0]) / radii[0]) ** power
        + np.abs((y - middle[1]) / radii[1]) ** power
    )
    # About one pixel wide.
    softness = 0.7 * min(radii) * SIZE
    return 1 / (1 + np.exp(softness * np.clip(reach - 1, -9, 9)))


def _paint(canvas, face, scene, opened, lids, brows):
    """Paint hair, head and features, from the back to the front."""
    x, y = canvas.x, canvas.y
    width, height = face.width, face.height
    hair = face.hair_volume
    behind = _ellipse(
        x, y, (0, -0.06), (width + hair, height + 0.6 * hair), 2.4
    )
    canvas.paint(behind * (y < face.hair_length), face.hair)
    canvas.paint(_ellipse(x, y, (0, 1.25), (0.85, 0.5)), scene.clothes)
    canvas.paint(
        _ellipse(x, y, (0, 0.6), (0.45 * width, 0.3)), 0.85 * face.skin
    )
    # A jaw narrows the lower half of the head.
    narrow = 1 - face.jaw * np.clip(y / height, 0, 1) ** 2
    head = _ellipse(x / narrow, y, (0, 0), (width, height), 2.3)
    canvas.paint(head, face.skin)
    x, y = canvas.near(0.12)
    beard = _ellipse(x, y, (0, 0.48), (0.8 * width, 0.3)) * head
    canvas.paint(beard * face.beard, face.hair)
    canvas.paint(head * (y < face.fringe * height / 0.66), face.hair)
    for side in (-1, 1):
        _paint_eye(canvas, face, side, lids, brows)
    _paint_nose(canvas, face)
    _paint_mouth(canvas, face, opened)
    shade = (
        1
        + scene.light[0] * canvas.x / width
        + scene.light[1] * canvas.y / height
    )
    canvas.image *= (
        1 + head[..., None] * (np.clip(shade, 0.2, 1.8) - 1)[..., None]
    )


def _paint_eye(canvas, face, side, lids, brows):
    x, y = canvas.near(0.18)
    x = x - side * face.eye_distance
    y = y - face.eye_height - side * face.eye_slant * x
    size = face.eye_size
    white = _ellipse(x, y, (0, 0), (1.5 * size, size * lids))
    canvas.paint(white, np.full(3, 0.93))
    canvas.paint(white * _ellipse(x, y, (0, 0), (size, size)), face.iris)
    pupil = _ellipse(x, y, (0, 0), (0.45 * size, 0.45 * size))
    canvas.paint(white * pupil, np.full(3, 0.03))
    middle = (0, -face.brow_height - brows)
    brow = _ellipse(x, y, middle, (1.9 * size, face.brow_thickness))
    canvas.paint(brow, 0.7 * face.hair)


def _paint_nose(canvas, face):
    x, y = canvas.near(0.32)
    tip = face.eye_height + face.nose_length
    middle = (0.4 * face.nose_width, tip - 0.5 * face.nose_length)
    bridge = _ellipse(x, y, middle, (0.02, 0.5 * face.nose_length))
    canvas.paint(0.5 * bridge, 0.6 * face.skin)
    base = _ellipse(x, y, (0, tip), (face.nose_width, 0.035))
    canvas.paint(0.7 * base, 0.65 * face.skin)


def _paint_mouth(canvas, face, opened):
    x, y = canvas.near(0.2)
    middle, lips = (0, face.mouth_height), face.lips
    outer = (face.mouth_width, lips + 0.05 * opened)
    inner = (0.85 * face.mouth_width, 0.008 + 0.045 * opened)
    red = 0.55 * face.skin + np.array([0.28, 0.03, 0.05])
    canvas.paint(_ellipse(x, y, middle, outer), red)
    canvas.paint(_ellipse(x, y, middle, inner), np.array([0.12, 0.03, 0.04]))


def _background(colours):
    """Return a gradient between three colours, ``[SIZE, SIZE, 3]``."""
    steps = np.linspace(0, 1, SIZE)
    across, down = steps[None, :, None], steps[:, None, None]
    first, second, third = colours
    return first + across * (second - first) / 2 + down * (third - first) / 2


def _photograph(image, scene, rng):
    """Return what a camera makes of an image, in 8 bits."""
    image = image * scene.gain * scene.tint
    image = scipy.ndimage.gaussian_filter(image, (scene.blur, scene.blur, 0))
    image = np.clip(image, 0, 1) ** scene.gamma
    image = image + scene.noise * rng.standard_normal(image.shape)
    return np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)


def _mixture(colours, place):
    """Return the colour at a place between 0 and 1 of a row of colours."""
    ends = np.linspace(0, 1, len(colours))
    return np.array([np.interp(place, ends, c) for c in np.transpose(colours)])
