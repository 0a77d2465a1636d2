"""Which encoder a configuration means, and what is known of it."""

import json

import pytest
import torch

from speechbrain_ssl.encoders.ecapa import FastECAPA
from speechbrain_ssl.encoders.features import LogMel
from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.publishing.export import export_encoder
from speechbrain_ssl.publishing.systems import load_system


@pytest.fixture
def encoder():
    torch.manual_seed(1)
    return FastECAPA(
        80,
        channels=[16, 16, 16, 16, 48],
        lin_neurons=8,
        attention_channels=8,
        se_channels=8,
    ).eval()


def test_a_run_knows_its_seed_and_its_labels(encoder, tmp_path):
    export_encoder(tmp_path / "study/run/model", encoder, LogMel())
    record = {"seed": 7, "labels_seen": "none"}
    path = tmp_path / "study/run/results.json"
    path.write_text(json.dumps(record))
    features = torch.rand(2, 60, 80, generator=torch.Generator().manual_seed(0))
    for folder in ("study/run", "study/run/model"):
        system = load_system(tmp_path / folder, None, LogMel(), 1)
        assert system.name == "study/run"
        assert (system.seed, system.labels_seen) == (7, "none")
        assert system.features.normalize == "mean"
        torch.testing.assert_close(system.encoder(features), encoder(features))
    path.unlink()
    system = load_system(tmp_path / "study/run", None, LogMel(), 1)
    assert (system.seed, system.labels_seen) == (None, "unknown")


def test_baselines(encoder):
    system = load_system("untrained", encoder, LogMel(), 3)
    assert system.encoder is encoder and system.seed == 3
    assert system.folder == "untrained/3"
    system = load_system("statistics", encoder, LogMel(n_mels=40), 3)
    assert system.seed is None and system.labels_seen == "none"
    assert system.folder == "statistics"
    assert system.features.settings == {
        **LogMel(n_mels=40).settings,
        "normalize": "none",
    }
    assert system.encoder(torch.rand(1, 9, 40)).shape == (1, 1, 80)


def test_what_is_no_model(tmp_path):
    for model in ("/not/there", tmp_path, "statistic"):
        with pytest.raises(ConfigError, match="--model=.*`untrained`"):
            load_system(model, None, LogMel(), 1)
