"""``publish.py``: writes, proves, and only then uploads."""

import importlib.util
import json
import subprocess
import sys

import pytest
import torch

from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.publishing import bundle
from speechbrain_ssl.publishing.bundle import ProofError
from speechbrain_ssl.publishing.export import load_encoder
from speechbrain_ssl.publishing.hub import HubError


@pytest.fixture
def script(repository):
    return repository / "recipes" / "VoxCeleb" / "Verification" / "publish.py"


@pytest.fixture
def publish(script):
    spec = importlib.util.spec_from_file_location("publish", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.fixture
def argv(model_folder, tmp_path):
    return [
        f"--model={model_folder}",
        f"--output_folder={tmp_path / 'published'}",
        "--data=Noise.",
    ]


@pytest.mark.slow
@torch.no_grad()
def test_from_a_model_to_the_hub_and_back(
    publish, argv, hub_server, small_encoder, capsys
):
    publish([*argv, "--push", "--hub_id=me/model", "--papers=2304.05754"])
    said = capsys.readouterr().out
    assert "gives the same embeddings" in said
    assert f"uploaded to {hub_server.url}/me/model (private)" in said
    assert hub_server.repos["me/model"]["private"] is True
    card = hub_server.files("me/model")["README.md"].decode()
    assert "# me/model" in card and "Cluster-Aware" in card
    encoder, _ = load_encoder("hf:me/model")
    x = torch.randn(1, 50, 80)
    assert torch.equal(encoder(x), small_encoder(x))


def proof(result):
    """Stands for the slow one, which has tests of its own."""

    def prove(*args):
        if isinstance(result, Exception):
            raise result
        return result

    return prove


def test_without_proof_nothing_leaves(publish, argv, hub_server, monkeypatch):
    monkeypatch.setattr(bundle, "prove", proof(ProofError("it differs")))
    with pytest.raises(ProofError):
        publish([*argv, "--push", "--hub_id=me/model"])
    assert hub_server.requests == []


def test_public_and_titles(publish, argv, hub_server, monkeypatch, capsys):
    monkeypatch.setattr(bundle, "prove", proof(0.0))
    publish([*argv, "--push", "--hub_id=me/m", "--public", "--name=A voice"])
    assert hub_server.repos["me/m"]["private"] is False
    assert b"# A voice" in hub_server.files("me/m")["README.md"]
    said = capsys.readouterr().out
    assert "(public)" in said
    assert "no threshold" in said and "add one with --results" in said


def test_a_broken_push_is_started_again(publish, argv, hub_server, monkeypatch):
    """The same command, which writes the folder anew, sends only the rest."""
    monkeypatch.setattr(bundle, "prove", proof(0.0))
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    hub_server.break_after = 1
    with pytest.raises(HubError, match="start the same command again"):
        publish([*argv, "--push", "--hub_id=me/model"])
    hub_server.break_after = None
    publish([*argv, "--push", "--hub_id=me/model"])
    assert len(hub_server.sent) == len(set(hub_server.sent)) == 2
    load_encoder("hf:me/model")


@pytest.mark.parametrize(
    "options, match",
    [
        (["--push"], "needs a name"),
        (["--public"], "applies to --push"),
        (["--push", "--hub_id=model"], "is not a name on the hub"),
        (["--data= "], "what the model was trained on"),
        (["--model=/no/where"], "no such folder"),
        (["--results=no.json"], "there is no file no.json"),
    ],
)
def test_what_is_wrong_is_said_first(
    publish, argv, tmp_path, monkeypatch, options, match
):
    monkeypatch.setattr(bundle, "prove", proof(AssertionError("too late")))
    with pytest.raises(ConfigError, match=match):
        publish([*argv, *options])
    assert not (tmp_path / "published").exists()


def test_a_calibration_without_a_prior(publish, argv, tmp_path, monkeypatch):
    monkeypatch.setattr(bundle, "prove", proof(0.0))
    path = tmp_path / "c.json"
    path.write_text(json.dumps({"scale": 2, "offset": 0, "trials": "t"}))
    with pytest.raises(ConfigError, match="between 0 and 1"):
        publish([*argv, f"--calibration={path}", "--p_target=0"])
    made = publish([*argv, f"--calibration={path}"])
    assert made["threshold"] == 0.0


def test_wrong_usage_is_two(script, tmp_path):
    done = subprocess.run(
        [sys.executable, script, "--model=x"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 2 and "--output_folder" in done.stderr
