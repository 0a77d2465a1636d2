"""A model is described by data; what would have to be executed is not."""

import json
import os
import pathlib
import time

import pytest
import torch

from speechbrain_ssl.encoders.ecapa import FastECAPA
from speechbrain_ssl.encoders.features import LogMel
from speechbrain_ssl.encoders.resnet import FastResNet34, ResNet34
from speechbrain_ssl.errors import CheckpointError, ConfigError
from speechbrain_ssl.publishing.description import (
    build,
    describe,
    read_description,
)
from speechbrain_ssl.publishing.export import export_encoder, load_encoder

TINY = {"channels": [8, 8, 8, 8, 24], "lin_neurons": 8, "se_channels": 4}

# As published models of SpeechBrain's are written.
PUBLISHED = """\
pretrained_path: someone/model
n_mels: 80
width: 8
compute_features: !new:speechbrain.lobes.features.Fbank
    n_mels: !ref <n_mels>
    deltas: False
mean_var_norm: !new:speechbrain.processing.features.InputNormalization
    norm_type: sentence
    std_norm: False
embedding_model: !new:speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN
    input_size: !ref <n_mels>
    channels: [!ref <width>, 8, 8, 8, 24]
    se_channels: 4
    activation: !name:torch.nn.LeakyReLU
    lin_neurons: 8
mean_var_norm_emb: !new:speechbrain.processing.features.InputNormalization
    norm_type: global
modules:
    compute_features: !ref <compute_features>
    mean_var_norm: !ref <mean_var_norm>
    embedding_model: !ref <embedding_model>
label_encoder: !new:speechbrain.dataio.encoder.CategoricalEncoder
pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
    loadables:
        embedding_model: !ref <embedding_model>
    paths:
        embedding_model: !ref <pretrained_path>/embedding_model.ckpt
"""


@pytest.fixture
def published(tmp_path):
    """A folder without a description of ours."""
    torch.manual_seed(0)
    encoder = FastECAPA(80, activation=torch.nn.LeakyReLU, **TINY).eval()
    (tmp_path / "hyperparams.yaml").write_text(PUBLISHED)
    torch.save(encoder.state_dict(), tmp_path / "embedding_model.ckpt")
    return tmp_path, encoder


def edit(folder, old, new):
    path = pathlib.Path(folder) / "hyperparams.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@torch.no_grad()
def test_a_published_model_is_parsed(published):
    folder, encoder = published
    loaded, features = load_encoder(folder)
    x = torch.randn(2, 50, 80)
    assert torch.equal(loaded(x), encoder(x))
    assert isinstance(loaded.blocks[0].activation, torch.nn.LeakyReLU)
    assert (features.n_mels, features.sample_rate) == (80, 16000)


@pytest.mark.parametrize(
    "old, new, match",
    [
        ("n_mels: 80\n", "n_mels: !ref <width> * 10\n", "would have to be co"),
        ("n_mels: 80\n", "n_mels: !ref <nowhere>\n", "nowhere"),
        ("n_mels: 80\n", "n_mels: !ref <n_mels>\n", "round in circles"),
        ("ECAPA_TDNN.ECAPA_TDNN", "Xvector.Xvector", "ECAPA_TDNN expected"),
        ("features.Fbank", "features.MFCC", "Fbank expected"),
        ("std_norm: False", "std_norm: True", "in another way"),
        ("type: sentence", "type: global", "in another way"),
        ("deltas: False", "deltas: True", "sets deltas of Fbank"),
        ("deltas: False", "colour: red", "unknown argument colour"),
        ("modules:", "parts:", "'modules'"),
        ("pretrained_path: someone/model", "[", "not valid YAML"),
        (
            "lin_neurons: 8",
            "lin_neurons: !apply:os.getpid []",
            "holds no ECAPA-TDNN",
        ),
        ("!name:torch.nn.LeakyReLU", "7", "'7' is not an activation"),
        ("!name:torch.nn.LeakyReLU", "!name:os.system", "have to be comp"),
        ("[!ref <width>, 8", "!apply:sorted [8, 8", "holds no ECAPA-TDNN"),
        ("lin_neurons: 8", "lin_neurons: 9", "does not hold the weights"),
    ],
)
def test_what_is_not_understood_is_refused(published, old, new, match):
    folder, _ = published
    edit(folder, old, new)
    with pytest.raises((ConfigError, CheckpointError), match=match):
        load_encoder(folder)


def without_paths(folder):
    """A path of the pretrainer's would be looked for on the hub."""
    path = folder / "hyperparams.yaml"
    text = path.read_text()
    path.write_text(text[: text.index("    paths:")])


def trap(folder):
    """A YAML that leaves a trace where it is executed."""
    trace = pathlib.Path(folder) / "trace"
    edit(
        folder,
        "pretrained_path: someone/model",
        f"__trap: !apply:os.mkdir ['{trace}']",
    )
    return trace


def test_a_yaml_of_others_is_executed_only_on_demand(published):
    """The trap lies in a key that is not even needed."""
    folder, encoder = published
    trace = trap(folder)
    edit(folder, "<pretrained_path>", "<n_mels>")
    load_encoder(folder)
    assert not trace.exists()
    # Not understood, and still not executed.
    edit(folder, "    lin_neurons: 8", "    lin_neurons: !ref <width> * 1")
    with pytest.raises(ConfigError, match=r"\(--trust\)"):
        load_encoder(folder)
    assert not trace.exists()
    without_paths(folder)
    loaded, _ = load_encoder(folder, trust=True)
    assert trace.is_dir()
    x = torch.randn(1, 40, 80)
    with torch.no_grad():
        assert torch.allclose(loaded(x), encoder(x), atol=1e-6)


@pytest.mark.parametrize("trust", [False, True])
def test_all_settings_of_an_fbank_are_kept(published, trust):
    """Whether the YAML is parsed or, as it computes a value, executed."""
    folder, _ = published
    wanted = {"n_fft": 512, "f_min": 20, "f_max": 7600}
    lines = "\n    ".join(f"{key}: {value}" for key, value in wanted.items())
    edit(folder, "deltas: False", lines)
    if trust:
        edit(folder, "    lin_neurons: 8", "    lin_neurons: !ref <width> * 1")
        without_paths(folder)
    _, features = load_encoder(folder, trust=trust)
    assert features.settings == LogMel(**wanted).settings


@pytest.mark.parametrize(
    "old, new",
    [
        ("std_norm: False", "std_norm: True"),
        ("deltas: False", "filter_shape: gaussian"),
    ],
)
def test_trust_does_not_make_other_features_ours(published, old, new):
    """What SpeechBrain computes for it is not what we would."""
    folder, _ = published
    edit(folder, old, new)
    without_paths(folder)
    with pytest.raises(ConfigError, match="features .* are not those"):
        load_encoder(folder, trust=True)


def test_our_own_yaml_is_not_executed_either(tmp_path):
    """Not even where the user trusts: the description is enough."""
    folder = export_encoder(tmp_path, FastECAPA(80, **TINY), LogMel())
    trace = tmp_path / "trace"
    edit(
        folder,
        "sample_rate: 16000\n\n",
        f"sample_rate: 16000\n__x: !apply:os.mkdir ['{trace}']\n",
    )
    load_encoder(folder, trust=True)
    assert not trace.exists()
    os.unlink(folder / "config.json")
    load_encoder(folder)
    assert not trace.exists()


class Payload:
    """Leaves a trace where a pickle of it is read."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


def test_a_pickle_is_not_unpickled(published):
    folder, encoder = published
    state = {**encoder.state_dict(), "more": Payload(folder / "trace")}
    torch.save(state, folder / "embedding_model.ckpt")
    with pytest.raises(CheckpointError, match="does not hold the weights"):
        load_encoder(folder)
    assert not (folder / "trace").exists()


ENCODERS = [
    lambda: FastECAPA(80, activation=torch.nn.GELU, **TINY),
    lambda: ResNet34(80, 8, channels=2, blocks=[1, 1, 1, 1]),
    lambda: FastResNet34(80, 8, channels=8, pooling="asp"),
    lambda: FastECAPA(80, embedding_batch_norm=True, **TINY),
]


@pytest.mark.parametrize("make", ENCODERS)
def test_a_description_is_plain_and_makes_it_again(make):
    encoder = make()
    about = json.loads(json.dumps(describe(encoder, LogMel())))
    again, features = build(about, "here")
    assert type(again) is type(encoder)
    assert describe(again, features) == about
    assert {k: v.shape for k, v in again.state_dict().items()} == {
        k: v.shape for k, v in encoder.state_dict().items()
    }
    # It has taken no memory yet.
    assert all(p.is_meta for p in again.parameters())


@pytest.mark.parametrize(
    "change",
    [
        {"class": "Linear"},
        {"class": ["FastECAPA"]},
        {"arguments": {"colour": "red"}},
        {"arguments": {"input_size": 80, "activation": "Sequential"}},
        {"arguments": {"input_size": 80, "activation": "torch"}},
        {"arguments": {"input_size": 40}},
        {"arguments": {"input_size": 80, "lin_neurons": -3}},
        {"arguments": {"input_size": 80, "lin_neurons": 10**12}},
        {"arguments": {"input_size": 80, "channels": [8]}},
        {"arguments": None},
    ],
)
def test_a_description_of_something_else_is_refused(change):
    about = describe(FastECAPA(80, **TINY), LogMel())
    about["encoder"].update(change)
    with pytest.raises(ConfigError, match="^here describes no model"):
        build(about, "here")


def test_a_description_of_another_version_or_broken_is_refused(tmp_path):
    folder = export_encoder(tmp_path, FastECAPA(80, **TINY), LogMel())
    path = folder / "config.json"
    about = json.loads(path.read_text())
    # Version 1 had other names for the settings of the features.
    old = {**about, "version": 1, "features": {"n_mels": 80, "mean_norm": True}}
    for other in (old, {**about, "version": 3}):
        path.write_text(json.dumps(other))
        match = f"version {other['version']}, .* install an older or newer one"
        with pytest.raises(ConfigError, match=match):
            load_encoder(folder)
    for text in ("{", "[]", "\xff" * 3, "[" * 100000):
        path.write_text(text, encoding="latin-1")
        with pytest.raises(ConfigError, match="not valid JSON|no JSON object"):
            load_encoder(folder)
    # One of another program's is no matter.
    path.write_text('{"speechbrain_interface": "EncoderClassifier"}')
    load_encoder(folder)


def test_an_activation_of_ones_own_is_refused():
    class Mine(torch.nn.ReLU):
        pass

    encoder = FastECAPA(80, activation=Mine, **TINY)
    with pytest.raises(ConfigError, match="not an activation of torch.nn"):
        describe(encoder, LogMel())


@pytest.mark.parametrize(
    "section, key, value",
    [
        ("features", "n_mels", 10**6),
        ("features", "n_fft", 2**16),
        ("encoder", "res2net_scale", 10**6),
        ("encoder", "channels", [8] * 10**5),
        ("encoder", "blocks", [10**6] * 4),
        ("encoder", "lin_neurons", float("nan")),
    ],
)
def test_sizes_that_would_exhaust_the_machine(section, key, value):
    """They are refused before anything is built."""
    about = describe(FastECAPA(80, channels=[8] * 5), LogMel())
    settings = about[section]
    settings.get("arguments", settings)[key] = value
    if key == "n_mels":
        about["encoder"]["arguments"]["input_size"] = value
    start = time.monotonic()
    with pytest.raises(ConfigError, match=f"{key} (is not between|has)"):
        build(about, "here")
    assert time.monotonic() - start < 2


def test_the_largest_description_is_built_quickly():
    """All bounds together, too, are no burden."""
    about = describe(FastECAPA(80, channels=[8] * 5), LogMel())
    layers = 16
    about["encoder"]["arguments"].update(
        input_size=512,
        channels=[32] * layers,
        kernel_sizes=[3] * layers,
        dilations=[1] * layers,
        groups=[1] * layers,
        res2net_scale=32,
    )
    about["features"].update(n_mels=512, n_fft=2**13)
    start = time.process_time()
    build(about, "here")
    assert time.process_time() - start < 2


def test_alias_bomb(tmp_path):
    """A few lines that stand for 10^9 nodes are refused at once."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for n in range(1, 10):
        lines.append(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]")
    (tmp_path / "hyperparams.yaml").write_text("\n".join(lines))
    start = time.monotonic()
    with pytest.raises(ConfigError, match="aliases"):
        read_description(tmp_path)
    assert time.monotonic() - start < 2


def test_huge_file(tmp_path):
    """Its size is looked at before it is read."""
    path = tmp_path / "config.json"
    with open(path, "wb") as stream:
        stream.truncate(2**33)
    with pytest.raises(ConfigError, match="more than"):
        read_description(tmp_path)


def test_huge_yaml(tmp_path):
    """YAML is refused at a smaller size, since it is parsed slowly."""
    path = tmp_path / "hyperparams.yaml"
    path.write_text("a:\n" + "- 1\n" * 30000)
    with pytest.raises(ConfigError, match="more than"):
        read_description(tmp_path)
