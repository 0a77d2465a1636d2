"""One ONNX graph from waveform to embedding, of any length and batch."""

import importlib.util
import os

import numpy as np
import pytest
import torch

from speechbrain_ssl.encoders.ecapa import FastECAPA
from speechbrain_ssl.encoders.features import LogMel
from speechbrain_ssl.encoders.resnet import FastResNet34, ResNet34
from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.publishing import onnx
from speechbrain_ssl.publishing.onnx import (
    ConvLogMel,
    ParityError,
    export_onnx,
    load_onnx,
    parity,
)


def rustle(count, batch=2, seed=0):
    """Noise with a falling spectrum that comes and goes."""
    generator = torch.Generator().manual_seed(seed)
    wave = torch.randn(batch, count, generator=generator).cumsum(1)
    wave = wave - wave.mean(1, keepdim=True)
    wave = wave * torch.sin(torch.arange(count) / 900).square()
    return 0.5 * wave / wave.abs().amax(1, keepdim=True)


SSLSV = {"normalize": "mean_variance", "n_fft": 512, "log_floor": 1e-6}


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"n_mels": 40, "sample_rate": 8000},
        {"normalize": "none", "window": "hann"},
        SSLSV,
    ],
)
@pytest.mark.parametrize("count", [400, 16000, 48123])
def test_the_spectrum_as_a_convolution(config, count):
    """Within the rounding of fp32; a single quiet band may show more of it."""
    wave = rustle(count)
    wanted, found = LogMel(**config)(wave), ConvLogMel(**config)(wave)
    assert found.shape == wanted.shape
    difference = (found - wanted).abs()
    assert float(difference.square().mean().sqrt()) < 1e-4
    assert float(difference.max()) < 1e-2


def test_its_kernels_are_the_transform():
    """In fp64 nothing is left of the difference."""
    features = ConvLogMel().double()
    time = torch.arange(features.n_fft, dtype=torch.float64)
    frame = torch.randn(features.n_fft, dtype=torch.float64)
    wanted = torch.fft.rfft(frame * features.window.double())
    angle = 2 * np.pi / features.n_fft
    bins = torch.arange(features.n_fft // 2 + 1, dtype=torch.float64)
    kernels = features.kernels.squeeze(1)
    # Kept in fp32.
    for part, function in zip(
        kernels.chunk(2), (torch.cos, lambda x: -torch.sin(x)), strict=True
    ):
        exact = function(angle * torch.outer(bins, time)) * features.window
        assert torch.allclose(part, exact, atol=1e-6)
    real, imaginary = (kernels @ frame).chunk(2)
    assert torch.allclose(real, wanted.real, atol=1e-4)
    assert torch.allclose(imaginary, wanted.imag, atol=1e-4)


ENCODERS = {
    "ecapa": lambda: FastECAPA(
        80, channels=[16, 16, 16, 16, 48], lin_neurons=24
    ),
    "resnet": lambda: ResNet34(80, 24, channels=4, blocks=[1, 1, 1, 1]),
    "fast": lambda: FastResNet34(
        80, 24, channels=8, blocks=[1, 1, 1, 1], pooling="asp"
    ),
    "ecapa, normed": lambda: FastECAPA(
        80,
        channels=[16, 16, 16, 16, 48],
        lin_neurons=24,
        embedding_batch_norm=True,
    ),
}


def trained(name):
    torch.manual_seed(0)
    encoder = ENCODERS[name]()
    for _ in range(5):
        encoder(torch.randn(8, 60, 80) * 5)
    return encoder.eval()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "config"), [*((name, {}) for name in ENCODERS), ("ecapa", SSLSV)]
)
@torch.no_grad()
def test_the_graph_is_the_encoder(tmp_path, name, config):
    """From half a second to 30, alone and in a batch of three."""
    encoder, features = trained(name), LogMel(**config)
    path = tmp_path / "new" / "model.onnx"
    least = export_onnx(path, encoder, features)
    assert least > 0.9999
    assert os.listdir(path.parent) == ["model.onnx"]
    # The exporter notes where each node was traced.
    here = os.path.dirname(onnx.__file__).encode()
    assert here not in path.read_bytes()
    assert b'File "' not in path.read_bytes()
    graph = pytest.importorskip("onnx").load(path).graph
    shape = graph.input[0].type.tensor_type.shape
    assert [axis.dim_param for axis in shape.dim] == ["batch", "samples"]
    shape = graph.output[0].type.tensor_type.shape
    assert shape.dim[0].dim_param == "batch"
    embed = load_onnx(path)
    for batch, count in ((1, 8000), (3, 16001), (1, 50123), (1, 480000)):
        wave = rustle(count, batch)
        wanted = encoder(features(wave))[:, 0]
        found = torch.from_numpy(embed(wave.numpy()))
        assert found.shape == wanted.shape
        cosine = torch.cosine_similarity(found, wanted)
        assert float(cosine.min()) > 0.9999
        assert (found - wanted).norm() < 1e-3 * wanted.norm()
    # The proof is one: another encoder's embeddings are far away.
    torch.manual_seed(9)
    other = ENCODERS[name]().eval()
    assert min(parity(path, other, features, (1.0,)).values()) < 0.99


def test_a_graph_without_parity_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(
        onnx, "_write", lambda path, *args: open(path, "wb").close()
    )
    monkeypatch.setattr(onnx, "parity", lambda *args: {1.0: 0.5})
    path = tmp_path / "model.onnx"
    path.write_bytes(b"an earlier one")
    with pytest.raises(ParityError, match="0.500000 .* no file was written"):
        export_onnx(path, trained("ecapa"), LogMel())
    assert os.listdir(tmp_path) == ["model.onnx"]
    assert path.read_bytes() == b"an earlier one"


def test_without_the_extra(tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name: None if name == "onnxruntime" else find(name),
    )
    with pytest.raises(ConfigError, match="needs onnxruntime.*pip install"):
        export_onnx(tmp_path / "model.onnx", trained("ecapa"), LogMel())
    assert os.listdir(tmp_path) == []
