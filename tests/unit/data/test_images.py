"""Pictures of every kind become squares; damaged ones are named."""

import numpy as np
import PIL.Image
import pytest

from speechbrain_ssl.data.images import LEAST_PIXELS, read_image
from speechbrain_ssl.errors import ImageError


@pytest.fixture
def ramp():
    """Grey values 0 to 240, from left to right, 16 pixels a side."""
    return np.tile(np.arange(16, dtype=np.uint8) * 16, (16, 1))


def saved(folder, name, image, **options):
    image.save(folder / name, **options)
    return folder / name


@pytest.mark.parametrize("mode", ["L", "RGB", "P", "RGBA", "LA", "1"])
def test_modes_give_the_same_picture(tmp_path, ramp, mode):
    grey = PIL.Image.fromarray(
        ramp if mode != "1" else (ramp > 120) * np.uint8(255)
    )
    path = saved(tmp_path, "x.png", grey.convert("RGB").convert(mode))
    found = read_image(path, 16)
    assert found.shape == (3, 16, 16) and found.dtype == np.uint8
    # A palette of 216 colours is coarse, and dithered.
    bound = 51 if mode == "P" else 0
    assert np.abs(found.astype(int) - np.asarray(grey)).max() <= bound
    assert found.std() > 50


def test_cmyk_has_the_colours_of_rgb(tmp_path):
    red = PIL.Image.new("RGB", (16, 16), (200, 40, 30))
    path = saved(tmp_path, "x.jpg", red.convert("CMYK"), quality=95)
    assert np.abs(read_image(path, 8)[:, 4, 4] - [200.0, 40, 30]).max() < 6


@pytest.mark.parametrize("name", ["x.png", "x.tif"])
def test_16_bit_is_scaled_and_not_clipped(tmp_path, ramp, name):
    deep = PIL.Image.fromarray(ramp.astype(np.uint16) * 256 + 7)
    assert np.array_equal(read_image(saved(tmp_path, name, deep), 16)[0], ramp)


def test_transparent_pixels_are_black(tmp_path):
    image = PIL.Image.new("RGBA", (16, 16), (255, 255, 255, 0))
    assert read_image(saved(tmp_path, "x.png", image), 8).max() == 0


def test_the_first_frame_of_an_animation(tmp_path):
    frames = [PIL.Image.new("L", (16, 16), value) for value in (40, 200)]
    path = saved(
        tmp_path, "x.gif", frames[0], save_all=True, append_images=frames[1:]
    )
    assert read_image(path, 8).max() == 40


def test_the_central_square_is_kept(tmp_path):
    wide = np.zeros((16, 48), np.uint8)
    wide[:, 16:32] = 200
    path = saved(tmp_path, "x.png", PIL.Image.fromarray(wide))
    assert read_image(path, 16).min() == 200


def test_a_photograph_is_turned_upright(tmp_path, ramp):
    exif = PIL.Image.Exif()
    exif[0x0112] = 3  # upside down
    path = saved(tmp_path, "x.png", PIL.Image.fromarray(ramp), exif=exif)
    assert np.array_equal(read_image(path, 16)[0], ramp[::-1, ::-1])


def test_what_cannot_be_read_is_named_with_a_remedy(tmp_path, ramp):
    whole = saved(
        tmp_path, "whole.jpg", PIL.Image.fromarray(np.kron(ramp, ramp))
    ).read_bytes()
    cases = {
        "truncated.jpg": whole[: len(whole) // 2],
        "empty.jpg": b"",
        "text.jpg": b"not a picture",
    }
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "folder.jpg").mkdir()
    saved(tmp_path, "pixel.png", PIL.Image.new("L", (1, 1)))
    small = PIL.Image.new("L", (LEAST_PIXELS - 1, 90))
    saved(tmp_path, "small.png", small)
    for name in (*cases, "folder.jpg", "pixel.png", "small.png", "absent.jpg"):
        with pytest.raises(ImageError, match="remove its line") as error:
            read_image(tmp_path / name)
        assert str(tmp_path / name) in str(error.value)
    assert read_image(tmp_path / "whole.jpg").shape == (3, 112, 112)
