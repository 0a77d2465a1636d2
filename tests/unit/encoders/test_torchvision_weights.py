"""Weights of a torchvision ResNet in the encoder of faces.

torchvision itself is not installed: ``Theirs`` is its ResNet, with its names of
modules, written down once more.
"""

import json

import pytest
import tiny
import torch

from speechbrain_ssl.encoders.face import FaceResNet
from speechbrain_ssl.encoders.torchvision_weights import load_torchvision
from speechbrain_ssl.errors import CheckpointError, ConfigError
from speechbrain_ssl.publishing.export import load_encoder

SCRIPT = tiny.ROOT / "recipes/VoxCeleb/AudioVisual/import_resnet.py"


class Block(torch.nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        conv = torch.nn.Conv2d
        self.conv1 = conv(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = torch.nn.BatchNorm2d(outputs)
        self.conv2 = conv(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = torch.nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride > 1:
            self.downsample = torch.nn.Sequential(
                conv(inputs, outputs, 1, stride, bias=False),
                torch.nn.BatchNorm2d(outputs),
            )

    def forward(self, x):
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        return (y + (self.downsample(x) if self.downsample else x)).relu()


class Theirs(torch.nn.Module):
    """A ResNet of four stages; ``face``: as face recognition changes it."""

    def __init__(self, blocks=(2, 2, 2, 2), width=4, face=False):
        super().__init__()
        kernel = 3 if face else 7
        stride = 1 if face else 2
        self.conv1 = torch.nn.Conv2d(
            3, width, kernel, stride, kernel // 2, bias=False
        )
        self.bn1 = torch.nn.BatchNorm2d(width)
        inputs = width
        for i, count in enumerate(blocks):
            outputs = width * 2**i
            first = 2 if i or face else 1
            stage = [Block(inputs, outputs, first)]
            stage += [Block(outputs, outputs, 1) for _ in range(count - 1)]
            self.add_module(f"layer{i + 1}", torch.nn.Sequential(*stage))
            inputs = outputs
        self.fc = torch.nn.Linear(inputs, 12 if face else 1000)
        for module in self.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                torch.nn.init.normal_(module.weight, 1, 0.1)
                torch.nn.init.normal_(module.bias, 0, 0.1)
                module.running_mean.normal_(std=0.1)
                module.running_var.uniform_(0.5, 1.5)

    def stages(self, x):
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))

    def forward(self, x):
        x = self.stages(self.bn1(self.conv1(x)).relu())
        return self.fc(x.mean((2, 3)))


def ours(blocks=(2, 2, 2, 2), width=4):
    return FaceResNet(32, 12, width, blocks).eval()


@torch.no_grad()
def test_a_network_of_the_same_shape_is_the_same():
    """With a stem of 3 x 3 nothing is left, and the embeddings are equal."""
    theirs, encoder = Theirs(face=True).eval(), ours()
    weights = {f"module.{k}": v for k, v in theirs.state_dict().items()}
    assert load_torchvision(encoder, weights) == []
    x = torch.randn(2, 3, 32, 32)
    assert torch.allclose(encoder(x)[:, 0], theirs(x), atol=1e-5)


def without_counts(model):
    """Return the weights as files of before PyTorch 0.4.1 have them."""
    state = model.state_dict()
    return {k: v for k, v in state.items() if "num_batches" not in k}


@torch.no_grad()
def test_an_old_file_without_counts_of_batches():
    theirs, encoder = Theirs(face=True).eval(), ours()
    assert load_torchvision(encoder, without_counts(theirs)) == []
    x = torch.randn(2, 3, 32, 32)
    assert torch.allclose(encoder(x)[:, 0], theirs(x), atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("weights_of", [Theirs.state_dict, without_counts])
def test_a_network_for_224_pixels(weights_of):
    """Stem and last layer stay; the first shortcut begins as the identity."""
    theirs, encoder = Theirs().eval(), ours()
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    left = load_torchvision(encoder, weights_of(theirs))
    assert not any("num_batches" in name for name in left)
    assert {name.rpartition(".")[0] for name in left} == {
        "conv1",
        "bn1",
        "fc",
        "stages.0.0.shortcut.0",
        "stages.0.0.shortcut.1",
    }
    after = encoder.state_dict()
    for name in left:
        if "shortcut.0" not in name:
            assert torch.equal(after[name], before[name]), name
    # From the second stage on, the networks compute the same.
    x = torch.randn(2, 4, 16, 16)
    mine = x
    for stage in encoder.stages[1:]:
        for block in stage:
            mine, _ = block(mine)
    wanted = theirs.layer4(theirs.layer3(theirs.layer2(x)))
    assert torch.allclose(mine, wanted, atol=1e-5)
    shortcut = encoder.stages[0][0].shortcut
    assert torch.allclose(shortcut(x), x[:, :, ::2, ::2], atol=1e-4)


@pytest.mark.parametrize(
    "theirs, text",
    [
        ({"blocks": (1, 1, 1, 1)}, r"no layer1.1.conv1.weight.*\[2, 2, 2, 2\]"),
        ({"blocks": (3, 2, 2, 2)}, "has layer1.2.conv1.weight, and"),
        ({"width": 8}, r"layer1.0.conv1.weight .*\[8, 8, 3, 3\].*\[4, 4, 3"),
    ],
)
def test_another_shape_is_refused_and_changes_nothing(theirs, text):
    encoder = ours()
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    with pytest.raises(ConfigError, match=text):
        load_torchvision(encoder, Theirs(**theirs).state_dict())
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_the_script_exports_and_names_the_labels(tmp_path, capsys):
    script = tiny.load_train(SCRIPT)
    path = tmp_path / "resnet18.pth"
    torch.save({"state_dict": Theirs().state_dict()}, path)
    output = tmp_path / "model"
    argv = [f"--checkpoint={path}", f"--output={output}", "--channels=4"]
    argv += ["--labels=ImageNet's classes", "--image_size=32"]
    script.main(argv)
    assert "labels seen: ImageNet's classes" in capsys.readouterr().out
    encoder, features = load_encoder(output, pictures=True)
    assert features.settings == {"size": 32}
    assert encoder.arguments["lin_neurons"] == 512
    record = json.loads((output / "results.json").read_text())
    assert record == {"labels_seen": "ImageNet's classes"}


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04"])
def test_a_file_that_is_no_checkpoint(tmp_path, content):
    path = tmp_path / "resnet18.pth"
    path.write_bytes(content)
    argv = [f"--checkpoint={path}", "--labels=none", f"--output={tmp_path}/m"]
    with pytest.raises(CheckpointError, match="resnet18.pth is no state dict"):
        tiny.load_train(SCRIPT).main(argv)
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    "content",
    [
        {1: torch.zeros(2)},
        {"state_dict": [1, 2]},
        {"state_dict": "ab"},
        {"conv1.weight": 3},
        [1, 2],
    ],
)
def test_a_checkpoint_that_is_no_state_dict(tmp_path, content):
    path = tmp_path / "resnet18.pth"
    torch.save(content, path)
    argv = [f"--checkpoint={path}", "--labels=none", f"--output={tmp_path}/m"]
    with pytest.raises(CheckpointError, match="is no state dict of tensors"):
        tiny.load_train(SCRIPT).main(argv)
    assert not (tmp_path / "m").exists()
