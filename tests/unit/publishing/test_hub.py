"""Fetching by name and pushing, against a hub on the loopback interface."""

import os
import socket

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants

from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.publishing import hub
from speechbrain_ssl.publishing.export import load_encoder
from speechbrain_ssl.publishing.hub import HubError, find_model, pull, push

NAME = "someone/model"


def contents(folder):
    return {
        name: (folder / name).read_bytes()
        for name in hub.FILES
        if (folder / name).is_file()
    }


@pytest.fixture
def published(hub_server, model_folder):
    hub_server.add(NAME, contents(model_folder))
    return hub_server


@torch.no_grad()
def test_a_model_by_its_name(published, small_encoder):
    """The safetensors are fetched, the checkpoint is not."""
    encoder, _ = load_encoder("hf:" + NAME)
    x = torch.randn(1, 50, 80)
    assert torch.equal(encoder(x), small_encoder(x))
    fetched = " ".join(published.requests)
    assert "model.safetensors" in fetched
    assert "embedding_model.ckpt" not in fetched
    assert sorted(os.listdir(pull(NAME))) == [
        "config.json",
        "hyperparams.yaml",
        "model.safetensors",
    ]


def test_a_model_without_safetensors(published):
    files = published.files(NAME)
    del files["model.safetensors"], files["config.json"]
    encoder, _ = load_encoder("hf:" + NAME)
    assert encoder.arguments["lin_neurons"] == 24


def test_a_described_model_without_its_safetensors(published):
    """The stock checkpoint beside it may be of a folded network."""
    del published.files(NAME)["model.safetensors"]
    with pytest.raises(HubError, match=r"no model of this kind.*safetensors"):
        load_encoder("hf:" + NAME)


def test_safetensors_of_another_program(published):
    """What they hold nothing of ours says: the checkpoint it is."""
    files = published.files(NAME)
    files["config.json"] = b'{"speechbrain_interface": "EncoderClassifier"}'
    files["model.safetensors"] = b"of something else"
    encoder, _ = load_encoder("hf:" + NAME)
    assert encoder.arguments["lin_neurons"] == 24


def test_all_files_are_of_one_commit(published, monkeypatch):
    """Somebody pushes while the files are being fetched."""
    fetch = huggingface_hub.hf_hub_download
    newer = {**published.files(NAME), "config.json": b"{}"}

    def and_then(name, filename, **kwargs):
        path = fetch(name, filename, **kwargs)
        published.repos[NAME]["commits"].append(newer)
        return path

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", and_then)
    folder = pull(NAME)
    assert (folder / "config.json").read_bytes() != b"{}"


def test_what_was_fetched_is_there_without_a_network(published, monkeypatch):
    folder = pull(NAME)
    before = len(published.requests)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert pull(NAME) == folder
    load_encoder("hf:" + NAME)
    assert len(published.requests) == before


def test_a_half_fetched_model_is_not_taken_for_whole(published, monkeypatch):
    """Without a network a calibration may be there, and nobody would know."""
    huggingface_hub.hf_hub_download(NAME, "hyperparams.yaml")
    huggingface_hub.hf_hub_download(NAME, "config.json")
    huggingface_hub.hf_hub_download(NAME, "model.safetensors")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="hub cannot be reached"):
        pull(NAME)


def test_no_such_model(published):
    with pytest.raises(HubError, match="no model some/on"):
        load_encoder("hf:some/one")
    published.repos[NAME]["private"] = True
    pull(NAME)


def test_a_private_model_without_its_token(published, monkeypatch):
    published.repos[NAME]["private"] = True
    monkeypatch.setenv("HF_TOKEN", "hf_of_another")
    with pytest.raises(HubError, match="private and HF_TOKEN does not open"):
        pull(NAME)


def test_a_repository_that_is_no_model(published):
    published.add("someone/data", {"README.md": b"data"})
    with pytest.raises(HubError, match="holds no model of this kind"):
        pull("someone/data")


def test_a_name_that_can_be_none(published):
    with pytest.raises(HubError, match="'a/b--c' is not a name on the hub"):
        pull("a/b--c")
    assert published.requests == []


def closed_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def unplug(monkeypatch):
    """A hub that nobody answers for."""
    url = f"http://127.0.0.1:{closed_port()}"
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(
        constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        url + "/{repo_id}/resolve/{revision}/{filename}",
    )
    # Waits of seconds between attempts would show nothing.
    monkeypatch.setattr("time.sleep", lambda seconds: None)


def test_no_network(published, model_folder, monkeypatch):
    unplug(monkeypatch)
    with pytest.raises(
        HubError, match="cannot be reached, and someone/model was no"
    ):
        pull(NAME)
    with pytest.raises(HubError, match="push of someone/new failed.*same comm"):
        push(model_folder, "someone/new")


def test_offline_push(published, model_folder, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="HF_HUB_OFFLINE keeps"):
        push(model_folder, "someone/new")


# --------------------------------------------------------------------- pushing


@pytest.mark.parametrize("public", [False, True])
def test_a_push_arrives(hub_server, model_folder, public):
    (model_folder / "secret.txt").write_text("mine")
    (model_folder / "README.md").write_text("# A model\n")
    done = push(model_folder, "me/new", public=public)
    assert done == {"url": f"{hub_server.url}/me/new", "private": not public}
    assert hub_server.repos["me/new"]["private"] is not public
    assert hub_server.files("me/new") == contents(model_folder)
    assert "secret.txt" not in hub_server.files("me/new")
    load_encoder("hf:me/new")


def test_an_existing_model_stays_as_visible_as_it_is(hub_server, model_folder):
    hub_server.add("me/old", {"README.md": b"old"}, private=True)
    assert push(model_folder, "me/old", public=True)["private"] is True
    assert hub_server.repos["me/old"]["private"] is True
    assert len(hub_server.repos["me/old"]["commits"]) == 2


def test_a_push_that_breaks_goes_on(hub_server, model_folder, monkeypatch):
    """Nothing half is seen, and what has arrived is not sent again."""
    hub_server.add("me/new", {"README.md": b"before"}, private=True)
    hub_server.break_after = 1
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with pytest.raises(HubError, match="failed.*start the same command again"):
        push(model_folder, "me/new")
    assert hub_server.files("me/new") == {"README.md": b"before"}
    assert len(hub_server.sent) == 1
    hub_server.break_after = None
    push(model_folder, "me/new")
    assert len(hub_server.sent) == len(set(hub_server.sent)) == 2
    assert hub_server.files("me/new") == {
        "README.md": b"before",
        **contents(model_folder),
    }


def test_no_token(hub_server, model_folder, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(HubError, match="no token to push me/new.*HF_TOKEN"):
        push(model_folder, "me/new")
    assert hub_server.requests == []


def test_a_token_that_may_not_write(hub_server, model_folder, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_may_read")
    with pytest.raises(HubError, match=r"does not let this token .*\(401\)"):
        push(model_folder, "me/new")


@pytest.mark.parametrize("name", ["model", "a b/c", "/abs/olute", "a/b/c", ""])
def test_a_name_nobody_can_push_to(hub_server, model_folder, name):
    with pytest.raises(ConfigError, match="is not a name on the hub"):
        push(model_folder, name)
    assert hub_server.requests == []


def test_what_is_no_model_is_not_pushed(hub_server, tmp_path):
    with pytest.raises(ConfigError, match="hyperparams.yaml is missing"):
        push(tmp_path, "me/new")
    assert hub_server.requests == []


@pytest.mark.parametrize("name", [NAME, "results/typo", "hf:typo", "hf:"])
def test_the_hub_is_not_asked_for_what_may_be_a_folder(published, name):
    with pytest.raises(ConfigError, match=f"^{name} .*hf:owner/model"):
        find_model(name)
    assert published.requests == []
