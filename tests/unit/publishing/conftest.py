"""A hub on the loopback interface, and small models to put there."""

import numpy as np
import pytest
import soundfile
import torch
from hub_standin import Hub
from huggingface_hub import constants
from huggingface_hub.utils import disable_progress_bars, enable_progress_bars

from speechbrain_ssl.encoders.ecapa import FastECAPA
from speechbrain_ssl.encoders.features import LogMel
from speechbrain_ssl.publishing.export import export_encoder


@pytest.fixture
def hub_server(monkeypatch, tmp_path):
    """A hub that the client in this process talks to, with an empty cache."""
    server = Hub()
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(
        constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        server.url + "/{repo_id}/resolve/{revision}/{filename}",
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_may_write")
    disable_progress_bars()
    yield server
    enable_progress_bars()
    server.close()


def make_encoder(seed=0):
    """A small ECAPA whose batch norms have seen something."""
    torch.manual_seed(seed)
    encoder = FastECAPA(80, channels=[16, 16, 16, 16, 48], lin_neurons=24)
    for _ in range(5):
        encoder(torch.randn(8, 60, 80) * 5)
    return encoder.eval()


@pytest.fixture(scope="session")
def small_encoder():
    return make_encoder()


@pytest.fixture
def model_folder(tmp_path, small_encoder):
    """An exported model."""
    return export_encoder(tmp_path / "exported", small_encoder, LogMel())


@pytest.fixture(scope="session")
def recordings(tmp_path_factory):
    """Three synthetic recordings; the last one 48 kHz and stereo."""
    folder = tmp_path_factory.mktemp("recordings")
    rng = np.random.default_rng(0)
    paths = []
    for i, (seconds, rate, channels) in enumerate(
        ((1.5, 16000, 1), (2.5, 16000, 1), (1.7, 48000, 2))
    ):
        size = (round(seconds * rate), channels)
        wave = np.tanh(np.cumsum(rng.normal(0, 0.01, size), axis=0))
        paths.append(str(folder / f"{i}.wav"))
        soundfile.write(paths[-1], wave, rate)
    return paths
