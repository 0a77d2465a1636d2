"""What is exported is what stock SpeechBrain loads: same embeddings."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import safetensors.torch
import soundfile
import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN

from speechbrain_ssl.config import read_plain
from speechbrain_ssl.embedding.extract import embed_files
from speechbrain_ssl.encoders.ecapa import FastECAPA
from speechbrain_ssl.encoders.features import LogMel
from speechbrain_ssl.encoders.resnet import FastResNet34, ResNet34
from speechbrain_ssl.errors import CheckpointError, ConfigError
from speechbrain_ssl.publishing import hub
from speechbrain_ssl.publishing.export import (
    export_encoder,
    initialise,
    load_encoder,
)
from speechbrain_ssl.publishing.stock_features import stock_features

# Runs where speechbrain_ssl cannot be imported, as at a user of the model.
STOCK = """
import json, sys
sys.modules["speechbrain_ssl"] = None
import torch
torch.set_num_threads(1)
from speechbrain.dataio import audio_io
from speechbrain.inference.speaker import EncoderClassifier
from speechbrain.inference.speaker import SpeakerRecognition

model, savedir, *paths = sys.argv[1:]
encoder = EncoderClassifier.from_hparams(model, savedir=savedir + "/e")
verifier = SpeakerRecognition.from_hparams(model, savedir=savedir + "/v")
embeddings = []
for path in paths:
    wave, rate = audio_io.load(path)
    assert rate == 16000
    embeddings.append(encoder.encode_batch(wave)[0, 0].tolist())
score, _ = verifier.verify_files(paths[0], paths[1])
print(json.dumps({"embeddings": embeddings, "score": float(score)}))
"""


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("audio")
    rng = np.random.default_rng(0)
    paths = []
    for i, seconds in enumerate((1.0, 2.5, 1.7)):
        paths.append(str(folder / f"{i}.wav"))
        wave = np.cumsum(rng.normal(0, 0.01, round(seconds * 16000)))
        soundfile.write(paths[-1], np.tanh(wave), 16000)
    return paths


def trained(**config):
    """An encoder whose batch norms have seen something."""
    torch.manual_seed(0)
    config = {"channels": [16, 16, 16, 16, 48], "lin_neurons": 24, **config}
    encoder = FastECAPA(80, **config)
    for _ in range(5):
        encoder(torch.randn(8, 60, 80) * 5)
    return encoder.eval()


def trained_resnet(kind, **config):
    """The same of a ResNet."""
    torch.manual_seed(0)
    encoder = kind(80, 24, channels=8, blocks=[1, 2, 1, 1], **config)
    for _ in range(5):
        encoder(torch.randn(8, 60, 80) * 5)
    return encoder.eval()


ENCODERS = {
    "ecapa": trained,
    "resnet": lambda: trained_resnet(ResNet34),
    "fast": lambda: trained_resnet(FastResNet34),
    "fast asp": lambda: trained_resnet(FastResNet34, pooling="asp"),
    "ecapa, normed": lambda: trained(embedding_batch_norm=True),
    "resnet, normed": lambda: trained_resnet(
        ResNet34, embedding_batch_norm=True
    ),
}


def offline(folder):
    return {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(folder / "hub"),
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "passive",
    }


#: Instance normalisation, another window, an added floor.
SSLSV = {
    "normalize": "mean_variance",
    "n_fft": 512,
    "f_min": 20,
    "window": "hann",
    "log_floor": 1e-6,
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "settings"),
    [*((name, {}) for name in ENCODERS), ("ecapa", SSLSV)],
)
def test_stock_speechbrain_loads_it(paths, tmp_path, name, settings):
    """Without our package and without a network, to five digits."""
    encoder, features = ENCODERS[name](), LogMel(**settings)
    folder = export_encoder(tmp_path / "model", encoder, features)
    done = subprocess.run(
        [sys.executable, "-c", STOCK, str(folder), str(tmp_path), *paths],
        capture_output=True,
        text=True,
        env=offline(tmp_path),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    theirs = np.array(found["embeddings"])
    ours = embed_files(encoder, features, paths, progress=False)
    assert np.abs(theirs - ours).max() < 1e-5 * np.abs(ours).max()
    unit = ours / np.linalg.norm(ours, axis=1, keepdims=True)
    cosine = (unit * theirs).sum(1) / np.linalg.norm(theirs, axis=1)
    assert cosine == pytest.approx(1, abs=1e-5)
    assert found["score"] == pytest.approx(unit[0] @ unit[1], abs=1e-5)


@pytest.mark.parametrize("name", ENCODERS)
def test_only_stock_classes_are_named(tmp_path, name):
    """And nothing of where it was made."""
    folder = export_encoder(tmp_path, ENCODERS[name](), LogMel())
    assert sorted(os.listdir(folder)) == [
        "config.json",
        "embedding_model.ckpt",
        "hyperparams.yaml",
        "model.safetensors",
    ]
    text = (folder / "hyperparams.yaml").read_text()
    named = re.findall(r"!(?:new|name|apply):(\S+)", text)
    assert len(named) >= 4
    for name in named:
        assert name.startswith(("speechbrain.", "torch.nn."))
    keys = [line for line in text.splitlines() if not line.startswith("#")]
    assert "speechbrain_ssl" not in "\n".join(keys)
    assert str(tmp_path) not in text


FRONT_ENDS = [
    {},
    {"n_mels": 40, "sample_rate": 8000},
    {"n_fft": 512, "f_min": 20, "f_max": 7600},
    {"normalize": "mean_variance"},
    {"window": "hann"},
    {"n_mels": 40, "log_floor": 1e-6},
    {"normalize": "mean_variance", "log_floor": 9.3e-16},
    SSLSV,
]


@torch.no_grad()
@pytest.mark.parametrize("settings", FRONT_ENDS, ids=str)
def test_the_exported_features_are_ours(settings):
    """In a padded batch, with loud and faint stretches and digital silence."""
    features = LogMel(**settings)
    stock = load_hyperpyyaml(stock_features(features))
    generator = torch.Generator().manual_seed(0)
    waves = 0.1 * torch.randn(3, 16000, generator=generator)
    waves = waves * torch.logspace(0, -6, 16000)
    waves[1, 9600:], waves[2] = 0, 0
    sizes = torch.tensor([16000, 9600, 16000])
    wanted = features(waves, sizes)
    frames = features.num_frames(sizes)
    found = stock["mean_var_norm"](
        stock["compute_features"](waves), frames / wanted.shape[1]
    )
    for a, b, count in zip(found, wanted, frames, strict=True):
        torch.testing.assert_close(a[:count], b[:count], rtol=0, atol=2e-3)


def test_settings_come_back(tmp_path):
    """Features are loaded with what they were exported with."""
    folder = export_encoder(tmp_path, trained(), LogMel(**SSLSV))
    _, features = load_encoder(folder)
    assert features.settings == LogMel(**SSLSV).settings


CONFIGS = [
    {},
    {
        "activation": torch.nn.GELU,
        "global_context": False,
        "groups": [2, 1, 1, 1, 2],
        "dilations": [1, 1, 2, 3, 1],
        "se_channels": 8,
        "attention_channels": 16,
        "res2net_scale": 4,
        "dropout": 0.1,
    },
]


@pytest.mark.parametrize("config", CONFIGS, ids=["default", "other"])
def test_round_trip(paths, tmp_path, config):
    """Exported, loaded, exported again: the same embeddings, the same file."""
    encoder, features = trained(**config), LogMel()
    first = export_encoder(tmp_path / "1", encoder, features)
    loaded, loaded_features = load_encoder(first)
    assert isinstance(loaded, FastECAPA) and not loaded.training
    ours = embed_files(encoder, features, paths, progress=False)
    theirs = embed_files(loaded, loaded_features, paths, progress=False)
    assert np.array_equal(ours, theirs)
    second = export_encoder(tmp_path / "2", loaded, loaded_features)
    name = "hyperparams.yaml"
    assert (first / name).read_text() == (second / name).read_text()
    again, _ = load_encoder(str(second))
    for a, b in zip(
        encoder.state_dict().values(), again.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    "name", ["resnet", "fast", "fast asp", "ecapa, normed", "resnet, normed"]
)
def test_encoders_come_back(paths, tmp_path, name):
    """The compact ones, not what stock SpeechBrain is given."""
    encoder, features = ENCODERS[name](), LogMel()
    wanted = embed_files(encoder, features, paths, progress=False)
    folder = export_encoder(tmp_path, encoder, features)
    loaded, loaded_features = load_encoder(folder)
    assert type(loaded) is type(encoder)
    assert loaded.arguments == encoder.arguments
    assert all(p.requires_grad for p in loaded.parameters())
    found = embed_files(loaded, loaded_features, paths, progress=False)
    assert np.array_equal(found, wanted)


@torch.no_grad()
def test_an_export_leaves_the_encoder_as_it_is(tmp_path):
    encoder = trained_resnet(ResNet34).train()
    before = {k: (id(v), v.clone()) for k, v in encoder.named_parameters()}
    export_encoder(tmp_path, encoder, LogMel())
    assert encoder.training
    for name, parameter in encoder.named_parameters():
        assert id(parameter) == before[name][0]
        assert torch.equal(parameter, before[name][1])


def test_an_encoder_of_others_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="Linear cannot be exported"):
        export_encoder(tmp_path, torch.nn.Linear(80, 2), LogMel())
    assert os.listdir(tmp_path) == []


def test_other_features_come_back(tmp_path):
    encoder = FastECAPA(40, channels=[16, 16, 16, 16, 48], lin_neurons=24)
    features = LogMel(n_mels=40, sample_rate=8000)
    _, loaded = load_encoder(export_encoder(tmp_path, encoder, features))
    assert (loaded.n_mels, loaded.sample_rate) == (40, 8000)
    x = torch.randn(1, 8000)
    assert torch.equal(loaded(x), features(x))


@pytest.mark.parametrize("setting", [{"window": "hann"}, {"log_floor": 1e-6}])
def test_replaced_features_are_not_overlooked(tmp_path, setting):
    """SpeechBrain fetches no config.json, and the Fbank alone is another."""
    features = LogMel(**setting)
    folder = export_encoder(tmp_path, trained(), features)
    assert load_encoder(folder)[1].settings == features.settings
    (folder / "config.json").unlink()
    for trust in (False, True):
        with pytest.raises(ConfigError, match="replaces parts|not those"):
            load_encoder(folder, trust=trust)


def test_the_output_folder_of_a_run_will_do(tmp_path):
    export_encoder(tmp_path / "run" / "model", trained(), LogMel())
    encoder, _ = load_encoder(str(tmp_path / "run"))
    assert encoder.arguments["lin_neurons"] == 24


def test_what_is_no_model_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="is not a model: hyperparams.yaml"):
        load_encoder(str(tmp_path))
    folder = export_encoder(tmp_path / "model", trained(), LogMel())
    (folder / "model.safetensors").unlink()
    (folder / "embedding_model.ckpt").unlink()
    with pytest.raises(ConfigError, match="embedding_model.ckpt is missing"):
        load_encoder(str(folder))


@pytest.mark.parametrize("name", ["ecapa", "ecapa, normed", "resnet"])
def test_safetensors_that_are_missing_are_named(tmp_path, name):
    """The stock checkpoint is of another network: its norms are folded."""
    folder = export_encoder(tmp_path, ENCODERS[name](), LogMel())
    (folder / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match="model.safetensors is missing; copy"):
        load_encoder(folder)


def without_our_files(folder):
    """Leave what stock SpeechBrain fetches."""
    (folder / "config.json").unlink()
    (folder / "model.safetensors").unlink()


@torch.no_grad()
def test_what_stock_speechbrain_fetches_is_enough(tmp_path):
    """The norm behind the embedding is in the last layer there."""
    encoder = trained(embedding_batch_norm=True)
    folder = export_encoder(tmp_path, encoder, LogMel())
    without_our_files(folder)
    x = torch.randn(2, 50, 80)
    loaded, _ = load_encoder(folder)
    torch.testing.assert_close(loaded(x), encoder(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "name",
    [
        "/no/where",
        "./nope",
        "nope",
        "results/typo",
        "results/nope/1",
        "../nope",
    ],
)
def test_a_folder_that_is_not_there(monkeypatch, tmp_path, name):
    """It is not looked for on the hub, which would wait for a network."""
    monkeypatch.chdir(tmp_path)

    def forbidden(*args, **kwargs):
        raise AssertionError("the hub was asked")

    monkeypatch.setattr(hub, "pull", forbidden)
    match = (
        f"{re.escape(name)} is not a model: there is no such folder; give the"
    )
    with pytest.raises(ConfigError, match="^" + match):
        load_encoder(name)
    with pytest.raises(ConfigError, match="^initial_model: " + match):
        initialise(None, name, None)


@pytest.mark.parametrize("damage", ["prefix", "missing", "cut", "other"])
@pytest.mark.parametrize("file", ["embedding_model.ckpt", "model.safetensors"])
def test_wrong_weights_are_refused(tmp_path, damage, file):
    """SpeechBrain only warns, and embeds with random weights."""
    folder = export_encoder(tmp_path / "model", trained(), LogMel())
    state = torch.load(folder / "embedding_model.ckpt", weights_only=True)
    if file == "embedding_model.ckpt":
        without_our_files(folder)
    if damage == "prefix":
        state = {f"module.{k}": v for k, v in state.items()}
    elif damage == "missing":
        state.pop("fc.conv.weight")
    elif damage == "other":
        state["fc.conv.weight"] = state["fc.conv.weight"][:3].clone()
    path = folder / file
    if file == "embedding_model.ckpt":
        torch.save(state, path)
    else:
        safetensors.torch.save_file(state, path)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:1000])
    match = re.escape(file) + " does not hold the weights"
    with pytest.raises(CheckpointError, match=match):
        load_encoder(str(folder))


def test_a_threshold_is_a_key_of_the_yaml(tmp_path):
    """Where stock SpeechBrain finds it, by name."""
    folder = export_encoder(
        tmp_path, trained(), LogMel(), threshold=0.375, why="of some trials"
    )
    plain = read_plain(folder / "hyperparams.yaml")
    assert plain["verification_threshold"] == 0.375
    assert "of some trials" in (folder / "hyperparams.yaml").read_text()
    load_encoder(folder)


def test_features_that_stock_has_not_are_refused(tmp_path):
    """Exported with the mean subtracted, it would be another encoder."""
    with pytest.raises(ConfigError, match="set `normalize` of the features"):
        export_encoder(tmp_path, trained(), LogMel(normalize="none"))
    assert os.listdir(tmp_path) == []


def test_the_export_is_a_stock_model(tmp_path):
    """Its weights load strictly into the stock class."""
    folder = export_encoder(tmp_path, trained(), LogMel())
    state = torch.load(folder / "embedding_model.ckpt", weights_only=True)
    stock = ECAPA_TDNN(80, channels=[16, 16, 16, 16, 48], lin_neurons=24)
    stock.load_state_dict(state)
    assert all(v.device.type == "cpu" for v in state.values())


def test_initialise_takes_the_weights(tmp_path):
    """Training can begin with an exported model of the same shape only."""
    shape = {"input_size": 80, "channels": [16] * 4 + [48], "lin_neurons": 8}
    torch.manual_seed(1)
    trained = FastECAPA(**shape)
    export_encoder(tmp_path / "model", trained, LogMel())
    torch.manual_seed(2)
    fresh = FastECAPA(**shape)
    before = fresh.state_dict()["fc.conv.weight"].clone()
    initialise(fresh, tmp_path, LogMel())
    for name, tensor in trained.state_dict().items():
        assert torch.equal(fresh.state_dict()[name], tensor), name
    assert not torch.equal(before, fresh.state_dict()["fc.conv.weight"])
    # It is trainable still.
    assert all(p.requires_grad for p in fresh.parameters())

    other = FastECAPA(**{**shape, "lin_neurons": 12})
    with pytest.raises(ConfigError, match=r"embedding_size \(8 there, 12 here"):
        initialise(other, tmp_path, LogMel())


def test_initialise_refuses_other_features(tmp_path):
    """The weights fit, and would see what they never learnt."""
    encoder = trained()
    export_encoder(tmp_path, encoder, LogMel(**SSLSV))
    initialise(trained(), tmp_path, LogMel(**SSLSV))
    match = "normalize is mean here and mean_variance there.*features block"
    with pytest.raises(ConfigError, match=match):
        initialise(trained(), tmp_path, LogMel())


def test_initialise_refuses_a_deeper_model(tmp_path):
    """All weights of the shallower one are there, and more."""
    deep = ResNet34(80, 8, channels=2, blocks=[1, 2, 1, 1])
    export_encoder(tmp_path, deep, LogMel())
    shallow = ResNet34(80, 8, channels=2, blocks=[1, 1, 1, 1])
    with pytest.raises(ConfigError, match=r"blocks \(\[1, 2, 1, 1\] there"):
        initialise(shallow, tmp_path, LogMel())


def test_initialise_and_the_norm_of_the_embedding(tmp_path):
    """It is taken along; an encoder that has none is told to have one."""
    encoder = trained(embedding_batch_norm=True)
    export_encoder(tmp_path / "normed", encoder, LogMel())
    other = FastECAPA(**encoder.arguments)
    initialise(other, tmp_path / "normed", LogMel())
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor), name
    plain = trained()
    message = r"embedding_batch_norm \({} there, {} here\).*`encoder_block`"
    with pytest.raises(ConfigError, match=message.format("true", "null")):
        initialise(plain, tmp_path / "normed", LogMel())
    export_encoder(tmp_path / "plain", plain, LogMel())
    with pytest.raises(ConfigError, match=message.format("null", "true")):
        initialise(other, tmp_path / "plain", LogMel())


@torch.no_grad()
@pytest.mark.parametrize("file", ["embedding_model.ckpt", "model.safetensors"])
def test_loaded_weights_lie_where_torch_puts_them(tmp_path, file, monkeypatch):
    """Wherever they lay in the file: kernels round by a matrix's alignment."""
    encoder = trained()
    folder = export_encoder(tmp_path, encoder, LogMel())
    if file == "embedding_model.ckpt":
        without_our_files(folder)

    def misaligned(state):
        found = {}
        for name, tensor in state.items():
            room = torch.empty(tensor.numel() + 1, dtype=tensor.dtype)
            found[name] = room[1:].view(tensor.shape).copy_(tensor)
        return found

    for module, name in ((safetensors.torch, "load_file"), (torch, "load")):
        load = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda *a, load=load, **k: misaligned(load(*a, **k))
        )
    loaded, _ = load_encoder(folder)
    assert all(t.data_ptr() % 16 == 0 for t in loaded.state_dict().values())
    for frames in (50, 180, 301):
        x = torch.randn(1, frames, 80)
        assert torch.equal(loaded(x), encoder.eval()(x))
