"""Pre-trained front ends: SpeechBrain's values, and none of its traps."""

import copy
import json
import sys

import pytest
import torch

pytest.importorskip(
    "transformers", reason="transformers is not installed (extra hf)"
)
from pretrained_models import MODELS, write_pretrained
from speechbrain.integrations.huggingface.hubert import HuBERT
from speechbrain.integrations.huggingface.w2v_bert import W2VBert
from speechbrain.integrations.huggingface.wav2vec2 import Wav2Vec2
from speechbrain.integrations.huggingface.wavlm import WavLM

from speechbrain_ssl.brains.optimisation import (
    apply_lr_ratios,
    parameter_groups,
    take_step,
)
from speechbrain_ssl.encoders.features import LogMel, Waveform
from speechbrain_ssl.encoders.lora import adapters, add_adapters, check_adapters
from speechbrain_ssl.encoders.mhfa import MHFA, AdapterMFA, WeightedECAPA
from speechbrain_ssl.encoders.pretrained import (
    PretrainedFrontEnd,
    with_penalty,
)
from speechbrain_ssl.errors import CheckpointError, ConfigError, UserError
from speechbrain_ssl.hub_errors import HubError

STOCK = {
    "wavlm": WavLM,
    "wavlm-large": WavLM,
    "hubert": HuBERT,
    "wav2vec2": Wav2Vec2,
    "w2v-bert": W2VBert,
}
LORA = {"rank": 2, "alpha": 4}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("pretrained")
    return {name: write_pretrained(name, root / name) for name in MODELS}


def noise(rows, samples):
    generator = torch.Generator().manual_seed(0)
    return 0.1 * torch.randn(rows, samples, generator=generator)


@pytest.mark.parametrize("name", MODELS)
def test_hidden_states_are_those_of_speechbrains_wrapper(folders, name):
    """Values, their number and the names of the weights; also after .train()."""
    stock = STOCK[name](
        str(folders[name]), str(folders[name]), output_all_hiddens=True
    ).eval()
    ours = PretrainedFrontEnd.load(folders[name]).eval()
    waves = noise(2, 8000)
    with torch.no_grad():
        wanted, found = stock(waves), torch.stack(ours(waves))
    assert found.shape == wanted.shape == (ours.states, 2, 24, ours.size)
    torch.testing.assert_close(found, wanted, atol=2e-3, rtol=1e-3)
    assert ours.state_dict().keys() == stock.state_dict().keys()


@pytest.mark.parametrize("name", ["wavlm", "w2v-bert"])
def test_no_layer_is_dropped(folders, name):
    """Stock drops one in ten layers of a training step: fewer states."""
    ours = PretrainedFrontEnd.load(folders[name]).train()
    waves = noise(1, 4000)
    assert {len(ours(waves)) for _ in range(30)} == {ours.states}
    assert ours.model.config.apply_spec_augment is False


def test_frozen_stays_frozen(folders):
    """Stock's `freeze` is undone for dropout by `.train()`; ours is not."""
    stock = WavLM(str(folders["wavlm"]), str(folders["wavlm"]), freeze=True)
    stock.train()
    assert stock.model.training
    front_end = PretrainedFrontEnd.load(folders["wavlm"], train="nothing")
    encoder = MHFA(front_end, heads=2, compression=4, lin_neurons=5).train()
    assert encoder.training and not front_end.model.training
    assert not any(m.training for m in front_end.model.modules())
    first, second = (encoder(noise(2, 4000)) for _ in range(2))
    assert torch.equal(first, second)
    first.sum().backward()
    assert all(p.grad is None for p in front_end.parameters())
    assert all(p.grad is not None for p in encoder.fc.parameters())


BACK_ENDS = {
    "mhfa": lambda f: MHFA(f, heads=3, compression=4, lin_neurons=5),
    "adapters": lambda f: AdapterMFA(f, adapter=4, lin_neurons=5),
    "ecapa": lambda f: WeightedECAPA(
        f, lin_neurons=5, channels=[8, 8, 8, 8, 24]
    ),
}


@pytest.mark.parametrize("back_end", BACK_ENDS)
@pytest.mark.parametrize("name", MODELS)
def test_embeddings_do_not_depend_on_their_batch(folders, name, back_end):
    """Group norm, normalised loudness and attention would see the padding."""
    encoder = BACK_ENDS[back_end](PretrainedFrontEnd.load(folders[name])).eval()
    long, short = noise(2, 8000), noise(1, 5000) * 3
    batch = torch.zeros(3, 8000)
    batch[::2], batch[1, :5000] = long, short
    with torch.no_grad():
        found = encoder(batch, torch.tensor([1.0, 5000 / 8000, 1.0]))
        alone = [encoder(long[:1]), encoder(short), encoder(long[1:])]
    torch.testing.assert_close(found, torch.cat(alone), atol=1e-5, rtol=1e-4)
    assert found.shape == (3, 1, 5)
    if back_end == "mhfa":
        with torch.no_grad():
            ignoring = encoder(batch)[1]
        assert (ignoring - found[1]).abs().max() > 1e-3


def test_stock_embeddings_depend_on_their_batch(folders):
    """The trap that grouping by length avoids, with group norm."""
    stock = WavLM(str(folders["wavlm"]), str(folders["wavlm"])).eval()
    padded = torch.nn.functional.pad(noise(1, 5000), (0, 3000))
    with torch.no_grad():
        alone = stock(noise(1, 5000))
        found = stock(padded, torch.tensor([5000 / 8000]))[:, : alone.shape[1]]
    assert (found - alone).abs().max() > 0.05


@pytest.mark.parametrize(("name", "least"), [("wavlm", 400), ("w2v-bert", 560)])
def test_short_waveforms(folders, name, least):
    front_end = PretrainedFrontEnd.load(folders[name]).eval()
    assert front_end(noise(1, least))[0].shape[1] == 1
    with pytest.raises(ConfigError, match=rf"{least - 1} samples is too short"):
        front_end(noise(1, least - 1))


def test_features_of_w2v_bert_stay_on_the_device(folders, monkeypatch):
    """Stock copies the audio to the CPU in every forward pass."""
    stock = W2VBert(str(folders["w2v-bert"]), str(folders["w2v-bert"]))
    front_end = PretrainedFrontEnd.load(folders["w2v-bert"])
    copies, original = [], torch.Tensor.cpu
    monkeypatch.setattr(
        torch.Tensor, "cpu", lambda x: copies.append(1) or original(x)
    )
    monkeypatch.setattr(torch.Tensor, "numpy", None)
    front_end(noise(2, 4000))
    assert not copies
    with pytest.raises(TypeError):
        stock(noise(2, 4000))
    assert copies


# ---------------------------------------------------------------- back ends


def test_mhfa_is_its_equation(folders):
    """Head by head and frame by frame, in fp64."""
    front_end = PretrainedFrontEnd.load(folders["wavlm"])
    encoder = MHFA(front_end, heads=3, compression=4, lin_neurons=5).double()
    torch.nn.init.normal_(encoder.key_layers)
    torch.nn.init.normal_(encoder.value_layers)
    states = [torch.randn(1, 6, 32, dtype=torch.float64) for _ in range(4)]
    with torch.no_grad():
        w_k, w_v = (
            torch.exp(w) / torch.exp(w).sum()
            for w in (encoder.key_layers, encoder.value_layers)
        )
        scores, values = torch.zeros(6, 3, dtype=torch.float64), []
        for t in range(6):
            k = sum(w_k[i] * states[i][0, t] for i in range(4))
            v = sum(w_v[i] * states[i][0, t] for i in range(4))
            scores[t] = encoder.attention(encoder.key(k))
            values.append(encoder.value(v))
        pooled = []
        for head in range(3):
            share = torch.exp(scores[:, head])
            share = share / share.sum()
            pooled.append(sum(share[t] * values[t] for t in range(6)))
        wanted = encoder.fc(torch.cat(pooled).double())
        found = encoder.pool(tuple(states))[0]
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_features_and_encoder_must_fit(folders):
    encoder = BACK_ENDS["mhfa"](PretrainedFrontEnd.load(folders["wavlm"]))
    Waveform().check_encoder(encoder)
    with pytest.raises(ConfigError, match="MHFA takes waveforms"):
        LogMel().check_encoder(encoder)
    with pytest.raises(ConfigError, match="takes features, not waveforms"):
        Waveform().check_encoder(torch.nn.Linear(1, 1))
    with pytest.raises(ConfigError, match="not features; include"):
        encoder(torch.zeros(1, 100, 80))


# -------------------------------------------------------------- fine-tuning


def trained(front_end):
    return [n for n, p in front_end.named_parameters() if p.requires_grad]


def test_what_is_trained(folders):
    load = PretrainedFrontEnd.load
    names = trained(load(folders["wavlm"], train="transformer"))
    assert names and all(n.startswith("model.encoder.layers.") for n in names)
    assert trained(load(folders["wavlm"], train="nothing")) == []
    everything = load(folders["wavlm"], train="everything")
    assert len(trained(everything)) == len(list(everything.parameters()))
    with pytest.raises(ConfigError, match="train must be one of nothing, lora"):
        load(folders["wavlm"], train="half")
    with pytest.raises(ConfigError, match="`train: lora` without `lora`"):
        load(folders["wavlm"], train="lora")
    with pytest.raises(ConfigError, match="`penalty` to 0 with `train: noth"):
        load(folders["wavlm"], train="nothing", penalty=0.01)


def test_learning_rates_of_layers(folders):
    front_end = PretrainedFrontEnd.load(
        folders["wavlm"], train="everything", lr_ratio=0.1, layer_decay=0.5
    )
    ratios = {id(p): r for r, group in front_end.lr_ratios() for p in group}
    named = dict(front_end.model.named_parameters())
    assert len(ratios) == len(named)
    found = [
        ratios[id(named[f"encoder.layers.{i}.final_layer_norm.weight"])]
        for i in range(3)
    ]
    assert found == pytest.approx([0.025, 0.05, 0.1])
    assert ratios[id(named["feature_projection.projection.weight"])] == (
        pytest.approx(0.0125)
    )


def test_the_optimiser_follows_the_ratios(folders):
    """A step of plain SGD moves each weight by its own learning rate."""
    encoder = BACK_ENDS["mhfa"](
        PretrainedFrontEnd.load(folders["wavlm"], lr_ratio=0.1, layer_decay=0.5)
    )
    trained = [p for p in encoder.parameters() if p.requires_grad]
    groups = parameter_groups(trained, [])
    apply_lr_ratios(groups, encoder)
    assert sorted(id(p) for g in groups for p in g["params"]) == sorted(
        map(id, trained)
    )
    optimizer = torch.optim.SGD(groups, lr=0.0)
    for p in trained:
        p.grad = torch.ones_like(p)
    before = {n: p.clone() for n, p in encoder.named_parameters()}
    take_step(
        optimizer,
        torch.amp.GradScaler("cpu", enabled=False),
        trained,
        lr=0.01,
        peak_lr=0.01,
        weight_decay=0.0,
        max_norm=float("inf"),
    )
    for name, rate in {
        "fc.weight": 0.01,
        "front_end.model.encoder.layers.2.final_layer_norm.bias": 0.001,
        "front_end.model.encoder.layers.0.attention.q_proj.weight": 0.00025,
        "front_end.model.feature_projection.projection.weight": 0.0,
    }.items():
        moved = before[name] - encoder.get_parameter(name)
        torch.testing.assert_close(
            moved, torch.full_like(moved, rate), atol=1e-6, rtol=1e-3
        )


def test_penalty_is_miaras(folders):
    encoder = BACK_ENDS["mhfa"](
        PretrainedFrontEnd.load(folders["wavlm"], penalty=0.01)
    )
    loss = torch.tensor(7.0, requires_grad=True)
    assert with_penalty(loss, torch.nn.Linear(1, 1)) is loss
    at_start = with_penalty(loss, encoder)
    at_start.backward()
    assert loss.grad == pytest.approx(1 / 7) and at_start == 1
    layer = encoder.front_end.model.encoder.layers[1]
    assert all(not p.grad.any() for p in layer.parameters())
    with torch.no_grad():
        layer.final_layer_norm.weight += 0.5
        layer.final_layer_norm.bias += 0.25
    assert encoder.front_end.distance().item() == pytest.approx(
        32**0.5 * 0.5 + 32**0.5 * 0.25
    )
    layer.zero_grad()
    with_penalty(loss, encoder).backward()
    # 0.01 / R times the unit vector of the difference.
    expected = 0.01 / (32**0.5 * 0.75 + 1e-5) / 32**0.5
    torch.testing.assert_close(
        layer.final_layer_norm.weight.grad, torch.full((32,), expected)
    )


def test_gradient_checkpointing_changes_no_gradient(folders):
    """Layers run twice, with the same dropout."""
    gradients, calls = [], []
    for checkpointing in (False, True):
        torch.manual_seed(3)
        encoder = BACK_ENDS["mhfa"](
            PretrainedFrontEnd.load(
                folders["wavlm"], gradient_checkpointing=checkpointing
            )
        )
        for layer in encoder.front_end.model.encoder.layers:
            layer.feed_forward.register_forward_hook(lambda *_: calls.append(1))
        encoder.train()(noise(2, 4000)).square().sum().backward()
        gradients.append(
            {
                name: parameter.grad
                for name, parameter in encoder.named_parameters()
                if parameter.grad is not None
            }
        )
    assert len(calls) == 3 + 6
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient)


LAYERS = {
    "wavlm": ["q_proj", "v_proj", "out_proj", "output_dense"],
    "hubert": ["q_proj", "v_proj"],
    "wav2vec2": ["k_proj", "intermediate_dense"],
    "w2v-bert": ["linear_q", "linear_v"],
}


@pytest.mark.parametrize("name", LAYERS)
def test_lora_trains_all_its_adapters_and_merges(folders, name):
    """All get a gradient; merged, the embeddings are the same; and reload."""
    lora = {**LORA, "layers": LAYERS[name]}
    encoder = BACK_ENDS["mhfa"](
        PretrainedFrontEnd.load(folders[name], train="lora", lora=lora)
    )
    found = adapters(encoder.front_end)
    assert len(found) == 3 * len(LAYERS[name])
    assert len(trained(encoder.front_end)) == 2 * len(found)
    for adapter in found.values():
        torch.nn.init.normal_(adapter.up)
    encoder(noise(2, 4000)).square().sum().backward()
    for adapter in found.values():
        assert adapter.up.grad.any() and adapter.down.grad.any()
    encoder.eval()
    merged, waves = encoder.merged(), noise(2, 5000)
    assert not adapters(merged) and adapters(encoder)
    plain = BACK_ENDS["mhfa"](PretrainedFrontEnd.load(folders[name])).eval()
    plain.load_state_dict(merged.state_dict())
    fresh = BACK_ENDS["mhfa"](
        PretrainedFrontEnd.load(folders[name], train="lora", lora=lora)
    ).eval()
    before = fresh(waves)
    fresh.load_state_dict(merged.state_dict())
    again = BACK_ENDS["mhfa"](
        PretrainedFrontEnd.load(folders[name], train="lora", lora=lora)
    ).eval()
    again.load_state_dict(encoder.state_dict())
    wanted = encoder(waves)
    assert (wanted - before).abs().max() > 1e-3
    for other in (merged, plain, fresh, again, copy.deepcopy(encoder)):
        torch.testing.assert_close(other(waves), wanted, atol=1e-5, rtol=1e-4)


def test_lora_that_trains_nothing_is_refused(folders):
    lora = {**LORA, "layers": ["linear_x"]}
    with pytest.raises(ConfigError, match="no linear layer named linear_x; it"):
        PretrainedFrontEnd.load(folders["wavlm"], train="lora", lora=lora)

    class Unused(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.used = torch.nn.Linear(4, 4)
            self.idle = torch.nn.Linear(4, 4)

        def forward(self, x):
            return self.used(x)

    model = Unused()
    add_adapters(model, ["used", "idle"], **LORA)
    with pytest.raises(ConfigError, match=r"1 of 2 adapters.*\(idle, for"):
        check_adapters(model, lambda: model(torch.ones(2, 4)))


# ------------------------------------------------------------------- loading


def test_pickled_weights_are_read_as_tensors(folders, tmp_path):
    pickled = write_pretrained("wavlm", tmp_path / "m", pickled=True)
    ours, other = (
        PretrainedFrontEnd.load(f).state_dict()
        for f in (pickled, folders["wavlm"])
    )
    assert all(torch.equal(ours[name], other[name]) for name in other)


def spoil(what, folder):
    """Damage a folder with a pre-trained model."""
    weights, config = folder / "model.safetensors", folder / "config.json"
    about = json.loads(config.read_text())
    if what == "no config":
        config.unlink()
    elif what == "no weights":
        weights.unlink()
    elif what == "another kind":
        config.write_text(json.dumps({**about, "model_type": "bert"}))
    elif what == "other weights":
        config.write_text(json.dumps({**about, "hidden_size": 64}))
    elif what == "fewer layers":
        config.write_text(json.dumps({**about, "num_hidden_layers": 5}))
    elif what == "cut off":
        weights.write_bytes(weights.read_bytes()[:5000])
    elif what == "no json":
        config.write_text("{")
    elif what == "program":
        weights.unlink()
        torch.save({"a": Program()}, folder / "pytorch_model.bin")


class Program:
    def __reduce__(self):
        return print, ("it ran",)


@pytest.mark.parametrize(
    ("what", "kind", "message"),
    [
        ("no config", ConfigError, "config.json is missing; fetch the whole"),
        ("no weights", ConfigError, "neither model.safetensors nor pytorch_mo"),
        (
            "another kind",
            ConfigError,
            "kind 'bert'; those that can be used are",
        ),
        ("other weights", CheckpointError, "holds no weights|does not fit"),
        (
            "fewer layers",
            CheckpointError,
            "weights of a wavlm model are missing",
        ),
        ("cut off", CheckpointError, "model.safetensors holds no weights"),
        ("no json", CheckpointError, "describes no model of transformers"),
        ("program", CheckpointError, "more than tensors"),
    ],
)
def test_a_folder_that_cannot_be_loaded(tmp_path, capsys, what, kind, message):
    folder = write_pretrained("wavlm", tmp_path / "m")
    spoil(what, folder)
    capsys.readouterr()
    with pytest.raises(kind, match=message):
        PretrainedFrontEnd.load(folder)
    assert "it ran" not in capsys.readouterr().out


def test_places_that_do_not_exist(tmp_path, monkeypatch):
    with pytest.raises(
        ConfigError, match="there is no folder .*hf:owner/model"
    ):
        PretrainedFrontEnd.load(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="'wavlm' is not a name on the hub"):
        PretrainedFrontEnd.load("hf:wavlm")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="the hub|HF_HUB_OFFLINE"):
        PretrainedFrontEnd.load("hf:nobody/nothing-of-this-name")


def test_without_transformers_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigError, match=r"pip install speechbrain-ssl\[hf\]"):
        PretrainedFrontEnd.load("here")


def test_an_architecture_that_is_not_known():
    with pytest.raises(UserError, match="model_type must be one of wavlm"):
        PretrainedFrontEnd.described({"model_type": "bert"})
    with pytest.raises(UserError, match="wavlm has no setting auto_map"):
        PretrainedFrontEnd.described({"model_type": "wavlm", "auto_map": {}})
