"""Views of pictures: each step by itself, and draws that depend on addresses."""

import numpy as np
import pytest
import torch

from speechbrain_ssl.data.face_augmentation import FaceAugmentation
from speechbrain_ssl.errors import ConfigError

KEYS = np.random.default_rng(5).integers(0, 2**64, 60, dtype=np.uint64)
SIZE = 16
#: Nothing happens.
OFF = {
    "flip": 0,
    "scale": (1, 1),
    "brightness": 0,
    "contrast": 0,
    "colour": 0,
    "tint": 0,
    "grey": 0,
    "blur": 0,
    "erase": 0,
}


@pytest.fixture
def views():
    torch.manual_seed(0)
    return torch.rand(len(KEYS), 2, 3, SIZE, SIZE)


def run(views, keys=KEYS, epoch=1, first_crop=0, **settings):
    module = FaceAugmentation(**{**OFF, **settings})
    return module(views, (7, epoch, keys), first_crop)


def touched(found, views):
    """Share of the views that are not as they were."""
    return float(((found - views).abs().amax((2, 3, 4)) > 1e-3).float().mean())


def test_draws_depend_on_the_address_alone(views):
    module = FaceAugmentation()
    found = module(views, (7, 1, KEYS))
    assert torch.equal(found, module(views, (7, 1, KEYS)))
    order = np.random.default_rng(1).permutation(len(KEYS))
    turned = module(views[order], (7, 1, KEYS[order]))
    assert torch.allclose(turned, found[order], atol=1e-6)
    for other in (
        module(views, (7, 2, KEYS)),
        module(views, (8, 1, KEYS)),
        module(views, (7, 1, KEYS[::-1].copy())),
    ):
        assert touched(other, found) > 0.95
    # The views of an utterance differ, too.
    same = module(views[:, :1].expand(-1, 2, -1, -1, -1), (7, 1, KEYS))
    assert touched(same[:, :1], same[:, 1:]) > 0.95
    assert 0 <= found.min() and found.max() <= 1


def test_a_flip_is_a_mirror_image(views):
    plain, found = run(views), run(views, flip=1)
    assert torch.allclose(found, plain.flip(-1), atol=1e-5)
    half = run(views, flip=0.5)
    mirrored = (half - found).abs().amax((2, 3, 4)) < 1e-5
    kept = (half - plain).abs().amax((2, 3, 4)) < 1e-5
    assert (mirrored ^ kept).all() and 0.3 < mirrored.float().mean() < 0.7


def test_a_cut_shows_a_part_at_the_full_size():
    ramp = torch.arange(64.0) / 63
    pictures = torch.stack(
        [ramp.expand(64, 64), ramp[:, None].expand(64, 64), torch.ones(64, 64)]
    ).expand(len(KEYS), 2, 3, 64, 64)
    found = run(pictures, scale=(0.25, 0.5))
    sides = [
        (found[:, :, c].amax((2, 3)) - found[:, :, c].amin((2, 3))).flatten()
        for c in (0, 1)
    ]
    area = sides[0] * sides[1]
    assert 0.22 < area.min() < 0.3 and 0.45 < area.max() < 0.53
    assert 0.7 < (sides[0] / sides[1]).min() < 0.85
    # They are cut anywhere.
    left = found[:, :, 0].amin((2, 3))
    assert left.min() < 0.05 and left.max() > 0.35
    local = run(pictures, first_crop=2, local_scale=(0.1, 0.2), local_size=24)
    assert local.shape[-2:] == (24, 24)
    spans = local.amax((3, 4)) - local.amin((3, 4))
    assert (spans[:, :, 0] * spans[:, :, 1]).max() < 0.22


def test_brightness_contrast_and_colour(views):
    views = 0.3 + 0.2 * views  # nothing is clipped
    plain = run(views)
    weights = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)

    def factors(a, b):
        """Slopes of a in b, for each view."""
        a, b = a.flatten(2), b.flatten(2)
        return ((a * b).sum(2) / b.square().sum(2)).flatten()

    found = run(views, brightness=0.4)
    slopes = factors(found, plain)
    assert torch.allclose(
        found.flatten(0, 1),
        plain.flatten(0, 1) * slopes.view(-1, 1, 1, 1),
        atol=1e-4,
    )
    assert 0.6 <= slopes.min() < 0.7 and 1.3 < slopes.max() <= 1.4

    found = run(views, contrast=0.4)
    mean = (plain * weights).sum(2, keepdim=True).mean((3, 4), keepdim=True)
    slopes = factors(found - mean, plain - mean)
    assert 0.6 <= slopes.min() < 0.7 and 1.3 < slopes.max() <= 1.4

    luma = (plain * weights).sum(2, keepdim=True)
    found = run(views, colour=0.4)
    slopes = factors(found - luma, plain - luma)
    assert 0.6 <= slopes.min() < 0.7 and 1.3 < slopes.max() <= 1.4
    found = run(views, tint=0.4)
    slopes = (found / plain).mean((3, 4))
    assert torch.allclose(found, plain * slopes[..., None, None], atol=1e-4)
    assert 0.6 <= slopes.min() < 0.65 and 1.35 < slopes.max() <= 1.4
    assert (slopes[:, :, 0] - slopes[:, :, 1]).abs().max() > 0.4
    grey = run(views, grey=1)
    assert torch.allclose(grey, luma.expand_as(grey), atol=1e-5)


def test_a_blur_keeps_the_mean_and_removes_detail():
    dot = torch.zeros(len(KEYS), 2, 3, SIZE, SIZE)
    dot[..., 8, 8] = 1
    plain, found = run(dot), run(dot, blur=1, blur_pixels=1.5)
    assert torch.allclose(found.sum((3, 4)), plain.sum((3, 4)), atol=1e-4)
    peaks = (found.amax((2, 3, 4)) / plain.amax((2, 3, 4))).flatten()
    # A Gaussian of deviation s has the peak 1 / (2 pi s^2).
    assert peaks.min() < 0.12 and 0.5 < peaks.max() < 1
    assert 0.1 < touched(run(dot, blur=0.3), plain) < 0.5


def test_an_erased_rectangle_has_the_mean(views):
    plain = run(views)
    found = run(views, erase=1, erase_scale=(0.1, 0.3))
    gone = ((found - plain).abs() > 1e-7).all(2)
    assert 0.07 < gone.float().mean((2, 3)).min()
    assert gone.float().mean((2, 3)).max() < 0.36
    mean = plain.mean((3, 4), keepdim=True).expand_as(plain)
    everywhere = gone[:, :, None].expand_as(plain)
    assert torch.allclose(found[everywhere], mean[everywhere], atol=1e-6)
    # One rectangle: its rows times its columns.
    rows, columns = gone.any(3).sum(2), gone.any(2).sum(2)
    assert torch.equal(rows * columns, gone.sum((2, 3)))
    assert 0.15 < touched(run(views, erase=0.3), plain) < 0.45


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"flip": 1.1}, "flip"),
        ({"scale": (0.8, 0.5)}, "scale must be two areas"),
        ({"erase_scale": (0, 0.5)}, "erase_scale"),
        ({"local_size": 4}, "local_size"),
        ({"blur_pixels": 0}, "blur_pixels"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(ConfigError, match=message):
        FaceAugmentation(**settings)
