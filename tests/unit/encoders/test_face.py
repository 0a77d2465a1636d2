"""The encoder of faces: its shape, its input, and its way to disk and back."""

import json

import pytest
import torch

from speechbrain_ssl.brains.encoding import crop_features, encode
from speechbrain_ssl.encoders.ecapa import FastECAPA
from speechbrain_ssl.encoders.face import FaceResNet, PixelNormalization
from speechbrain_ssl.encoders.features import LogMel
from speechbrain_ssl.encoders.resnet import ResNet34
from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.publishing.export import (
    export_encoder,
    initialise,
    load_encoder,
)

SMALL = {"input_size": 32, "lin_neurons": 12, "channels": 4}


def made(seed=0, **arguments):
    torch.manual_seed(seed)
    return FaceResNet(**{**SMALL, "blocks": (1, 1, 1, 1), **arguments}).eval()


def plain(encoder, x):
    """ResNet, written out from the weights of the encoder."""

    def norm(x, bn):
        x = (x - bn.running_mean[:, None, None]) / (
            bn.running_var[:, None, None] + bn.eps
        ).sqrt()
        return x * bn.weight[:, None, None] + bn.bias[:, None, None]

    def conv(x, layer, stride):
        pad = layer.weight.shape[-1] // 2
        return torch.nn.functional.conv2d(x, layer.weight, None, stride, pad)

    x = norm(conv(x, encoder.conv1, 1), encoder.bn1).relu()
    for blocks in encoder.stages:
        for i, block in enumerate(blocks):
            stride, before = (2 if i == 0 else 1), x
            if block.shortcut is not None:
                before = conv(x, block.shortcut[0], stride)
                before = norm(before, block.shortcut[1])
            x = norm(conv(x, block.conv1, stride), block.bn1).relu()
            x = norm(conv(x, block.conv2, 1), block.bn2)
            x = (x + before).relu()
    return x.mean((2, 3)) @ encoder.fc.weight.T + encoder.fc.bias


@torch.no_grad()
@pytest.mark.parametrize("blocks", [(1, 1, 1, 1), (2, 2, 2, 2)])
def test_the_network_is_a_resnet(blocks):
    encoder = made(blocks=blocks)
    for module in encoder.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
    x = torch.randn(3, 3, 32, 32)
    found = encoder(x)
    assert found.shape == (3, 1, 12)
    assert torch.allclose(found[:, 0], plain(encoder, x), atol=1e-4)
    assert torch.allclose(encoder(x[:1]), found[:1], atol=1e-5)


def test_sizes_of_the_published_networks():
    with torch.device("meta"):
        for blocks, wanted in (((2, 2, 2, 2), 11.17), ((3, 4, 6, 3), 21.28)):
            encoder = FaceResNet(lin_neurons=512, blocks=blocks)
            last = sum(p.numel() for p in encoder.last_affine().parameters())
            count = sum(p.numel() for p in encoder.parameters()) - last
            # ResNet-18 and -34 without their classifiers have 11.18 and 21.28
            # million; the stem of 3 x 3 saves 0.01.
            assert round(count / 1e6, 2) == wanted


def test_smaller_views_pass_the_same_network():
    encoder, features = made(), PixelNormalization(32)
    views = [torch.rand(2, 2, 3, 32, 32), torch.rand(2, 4, 3, 16, 16)]
    found = encode(encoder, [crop_features(features, v) for v in views])
    assert found.shape == (2, 6, 12)
    found.sum().backward()
    assert all(p.grad is not None for p in encoder.parameters())


def test_the_last_layer_and_its_norm():
    encoder = made(embedding_batch_norm=True)
    assert encoder.needs_two_rows and not made().needs_two_rows
    assert list(encoder.last_affine()) == [encoder.fc, encoder.embedding_norm]
    assert made().last_affine() is not None
    again = FaceResNet(**encoder.arguments)
    again.load_state_dict(encoder.state_dict())


def test_light_and_contrast_are_normalised_away_and_colour_is_kept():
    picture = torch.rand(1, 3, 8, 8)
    features = PixelNormalization(8)
    normal = features(picture)
    assert torch.allclose(features(picture * 0.4 + 0.3), normal, atol=1e-5)
    redder = picture * torch.tensor([1.0, 0.5, 0.5]).view(3, 1, 1)
    assert not torch.allclose(features(redder), normal, atol=0.1)
    assert features(torch.full((1, 3, 8, 8), 0.5)).abs().max() == 0
    assert features.example().shape == (3, 8, 8)
    assert LogMel().example().shape == (16000,)


def test_encoder_and_features_must_fit():
    PixelNormalization(32).check_encoder(made())
    with pytest.raises(ConfigError, match="image_size"):
        PixelNormalization(112).check_encoder(made())
    with pytest.raises(ConfigError, match="n_mels"):
        LogMel(80).check_encoder(made())


def test_an_exported_encoder_is_loaded_again(tmp_path):
    encoder, features = made(embedding_batch_norm=True), PixelNormalization(32)
    export_encoder(tmp_path, encoder, features)
    files = sorted(p.name for p in tmp_path.iterdir())
    assert files == ["config.json", "model.safetensors"]
    about = json.loads((tmp_path / "config.json").read_text())
    assert about["encoder"]["class"] == "FaceResNet"
    assert about["features"] == {"size": 32}
    loaded, front = load_encoder(tmp_path, pictures=True)
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(loaded(front(x)), encoder(features(x)))
    other = made(seed=1, embedding_batch_norm=True)
    initialise(other, tmp_path, features)
    assert torch.equal(other(x), encoder(x))
    with pytest.raises(ConfigError, match="size is 112 here and 32 there"):
        initialise(other, tmp_path, PixelNormalization(112))


def test_voices_and_faces_are_not_mixed_up(tmp_path):
    export_encoder(tmp_path / "face", made(), PixelNormalization(32))
    with pytest.raises(ConfigError, match="holds an encoder of pictures"):
        load_encoder(tmp_path / "face")
    voice = ResNet34(8, 4, channels=2, blocks=[1] * 4)
    export_encoder(tmp_path / "voice", voice, LogMel(8))
    with pytest.raises(ConfigError, match="holds an encoder of recordings"):
        load_encoder(tmp_path / "voice", pictures=True)
    with pytest.raises(ConfigError, match="initial_model.*recordings"):
        initialise(made(), tmp_path / "voice", PixelNormalization(32))
    ecapa = FastECAPA(8, lin_neurons=4, channels=[8] * 5)
    with pytest.raises(ConfigError, match="initial_model.*pictures"):
        initialise(ecapa, tmp_path / "face", LogMel(8))
