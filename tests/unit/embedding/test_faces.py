"""Embeddings of faces: means over pictures, and utterances without any."""

import logging

import numpy as np
import PIL.Image
import pytest
import torch

from speechbrain_ssl.data.faces import FaceManifest
from speechbrain_ssl.data.images import read_image
from speechbrain_ssl.data.manifest import StringColumn
from speechbrain_ssl.embedding.faces import embed_faces
from speechbrain_ssl.encoders.face import FaceResNet, PixelNormalization

FEATURES = PixelNormalization(16)
#: Pictures of each utterance.
COUNTS = [2, 0, 1, 3]


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return FaceResNet(16, 6, channels=4, blocks=(1, 1, 1, 1)).eval()


@pytest.fixture
def faces(tmp_path):
    rng = np.random.default_rng(0)
    paths = []
    for i in range(sum(COUNTS)):
        pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        PIL.Image.fromarray(pixels).save(tmp_path / f"{i}.png")
        paths.append(str(tmp_path / f"{i}.png"))
    offsets = np.concatenate([[0], np.cumsum(COUNTS)])
    return FaceManifest(StringColumn.from_strings(paths), offsets)


def one_by_one(encoder, paths):
    """Mean of unit embeddings of pictures and mirror images, written out."""
    total = 0
    for path in paths:
        picture = torch.from_numpy(read_image(path, 16)) / 255
        pair = [
            encoder(FEATURES(p[None]))[0, 0] for p in (picture, picture.flip(2))
        ]
        both = sum(v / v.norm() for v in pair)
        total = total + both / both.norm()
    return (total / total.norm()).detach().numpy()


@pytest.mark.parametrize("batch, workers", [(64, 0), (1, 0), (4, 2)])
def test_an_embedding_is_the_mean_over_the_pictures(
    encoder, faces, batch, workers
):
    rows, there = embed_faces(
        encoder, FEATURES, faces, batch_size=batch, num_workers=workers
    )
    assert rows.dtype == np.float32 and rows.shape == (4, 6)
    assert there.tolist() == [True, False, True, True]
    assert not rows[1].any()
    for i in (0, 2, 3):
        wanted = one_by_one(encoder, faces.paths(i))
        assert np.allclose(rows[i], wanted, atol=1e-5)


def test_a_part_of_a_manifest(encoder, faces):
    whole, _ = embed_faces(encoder, FEATURES, faces)
    part = FaceManifest(faces.images, faces.offsets[2:])
    rows, there = embed_faces(encoder, FEATURES, part)
    assert np.allclose(rows, whole[2:], atol=1e-6) and there.all()


def test_pictures_that_cannot_be_read_are_named(
    encoder, faces, tmp_path, caplog
):
    whole, _ = embed_faces(encoder, FEATURES, faces)
    for i in (1, 2):
        (tmp_path / f"{i}.png").write_bytes(b"broken")
    with caplog.at_level(logging.WARNING):
        rows, there = embed_faces(encoder, FEATURES, faces)
    assert there.tolist() == [True, False, False, True]
    assert np.isfinite(rows).all() and not rows[2].any()
    assert np.allclose(rows[3], whole[3], atol=1e-6)
    left = one_by_one(encoder, faces.paths(0)[:1])
    assert np.allclose(rows[0], left, atol=1e-5)
    assert "2 of 6 pictures" in caplog.text and "1.png" in caplog.text
    for path in tmp_path.glob("*.png"):
        path.unlink()
    rows, there = embed_faces(encoder, FEATURES, faces)
    assert rows.shape == (4, 6) and not rows.any() and not there.any()
