"""Exported encoders with a pre-trained front end: ours and SpeechBrain load them."""

import json

import pytest
import soundfile
import tiny
import torch

pytest.importorskip(
    "transformers", reason="transformers is not installed (extra hf)"
)
from pretrained_models import MODELS, write_pretrained
from speechbrain.inference.speaker import EncoderClassifier

from speechbrain_ssl.embedding.extract import embed_files
from speechbrain_ssl.encoders.features import LogMel, Waveform
from speechbrain_ssl.encoders.mhfa import MHFA, AdapterMFA, WeightedECAPA
from speechbrain_ssl.encoders.pretrained import PretrainedFrontEnd
from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.publishing.bundle import ProofError, make_bundle, prove
from speechbrain_ssl.publishing.card import About
from speechbrain_ssl.publishing.export import (
    export_encoder,
    initialise,
    load_encoder,
)
from speechbrain_ssl.publishing.onnx import export_onnx, load_onnx

LORA = {"rank": 2, "alpha": 4, "layers": ["q_proj"]}


def mhfa(folder, **options):
    front_end = PretrainedFrontEnd.load(folder, **options)
    return MHFA(front_end, heads=3, compression=4, lin_neurons=5).eval()


@pytest.fixture(scope="module")
def wavlm(tmp_path_factory):
    return write_pretrained("wavlm", tmp_path_factory.mktemp("m") / "wavlm")


def waves():
    return 0.1 * torch.randn(
        2, 6000, generator=torch.Generator().manual_seed(0)
    )


@pytest.mark.parametrize("name", MODELS)
def test_an_export_has_the_same_embeddings(tmp_path, name):
    """Rebuilt from the description; nothing of the pre-trained folder is read."""
    encoder = mhfa(write_pretrained(name, tmp_path / "pretrained"))
    export_encoder(tmp_path / "model", encoder, Waveform())
    (tmp_path / "pretrained").rename(tmp_path / "gone")
    ours, features = load_encoder(tmp_path / "model")
    stock = EncoderClassifier.from_hparams(str(tmp_path / "model"))
    with torch.no_grad():
        wanted = encoder(waves())
        assert torch.equal(ours(features(waves())), wanted)
        found = stock.encode_batch(waves())
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    "make",
    [
        lambda f: AdapterMFA(f, adapter=4, lin_neurons=5),
        lambda f: WeightedECAPA(f, lin_neurons=5, channels=[8] * 4 + [24]),
    ],
    ids=["adapters", "ecapa"],
)
def test_other_back_ends(wavlm, tmp_path, make):
    encoder = make(PretrainedFrontEnd.load(wavlm)).eval()
    export_encoder(tmp_path, encoder, Waveform())
    ours, _ = load_encoder(tmp_path)
    with torch.no_grad():
        assert torch.equal(ours(waves()), encoder(waves()))


def test_adapters_are_merged(wavlm, tmp_path):
    """And another run with adapters can begin with the merged weights."""
    encoder = mhfa(wavlm, train="lora", lora=LORA)
    for name, parameter in encoder.named_parameters():
        if name.endswith(".up"):
            torch.nn.init.normal_(parameter)
    export_encoder(tmp_path, encoder, Waveform())
    ours, _ = load_encoder(tmp_path)
    assert not any(
        "parametrizations.weight.0.up" in n for n in ours.state_dict()
    )
    other = mhfa(wavlm, train="lora", lora=LORA)
    initialise(other, tmp_path, Waveform())
    with torch.no_grad():
        for found in (ours, other):
            torch.testing.assert_close(
                found(waves()), encoder(waves()), atol=1e-5, rtol=1e-4
            )


def test_what_does_not_fit_is_refused(wavlm, tmp_path):
    encoder = mhfa(wavlm)
    export_encoder(tmp_path, encoder, Waveform())
    with pytest.raises(ConfigError, match="was trained on other features"):
        initialise(encoder, tmp_path, LogMel())
    wide = MHFA(encoder.front_end, heads=3, compression=8, lin_neurons=5)
    with pytest.raises(ConfigError, match=r"compression \(4 there, 8 here\)"):
        initialise(wide, tmp_path, Waveform())
    path = tmp_path / "config.json"
    about = json.loads(path.read_text())
    settings = about["encoder"]["arguments"]["front_end"]["architecture"]
    for name, value in (("num_hidden_layers", 10**6), ("auto_map", {})):
        changed = json.loads(json.dumps(about))
        where = changed["encoder"]["arguments"]["front_end"]
        where["architecture"] = {**settings, name: value}
        path.write_text(json.dumps(changed))
        with pytest.raises(ConfigError, match="describes no model.*" + name):
            load_encoder(tmp_path)


def test_onnx(wavlm, tmp_path):
    """Adapters are merged; `export_onnx` compares several lengths itself."""
    for name in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(name)
    encoder = mhfa(wavlm, train="lora", lora=LORA)
    for name, parameter in encoder.named_parameters():
        if name.endswith(".up"):
            torch.nn.init.normal_(parameter)
    path = tmp_path / "model.onnx"
    assert export_onnx(path, encoder, Waveform()) > 0.9999
    with torch.no_grad():
        wanted = encoder(waves()).squeeze(1).numpy()
    assert abs(load_onnx(path)(waves().numpy()) - wanted).max() < 1e-4


def test_w2v_bert_is_not_exported_to_onnx(tmp_path):
    folder = write_pretrained("w2v-bert", tmp_path / "w2v")
    with pytest.raises(ConfigError, match="w2v-BERT 2.0 is not exported to ON"):
        export_onnx(tmp_path / "x.onnx", mhfa(folder), Waveform())
    assert not list(tmp_path.glob("*.onnx"))


def test_a_published_folder(wavlm, tmp_path, monkeypatch):
    """SpeechBrain loads it where this package is installed; the card says so."""
    monkeypatch.setenv("PYTHONPATH", str(tiny.ROOT))
    export_encoder(tmp_path / "model", mhfa(wavlm), Waveform())
    about = About(name="wavlm", data="Noise.")
    made = make_bundle(tmp_path / "model", tmp_path / "published", about)
    assert made["difference"] < 1e-5
    card = (tmp_path / "published/README.md").read_text()
    assert (
        'and the classes of this encoder: `pip install "speechbrain-ssl' in card
    )
    assert "MHFA on the hidden states of a wavlm model" in card
    assert "nothing else has to be" not in card and "log-mel" not in card
    # Other weights there than here are noticed.
    other = mhfa(wavlm)
    torch.nn.init.normal_(other.fc.weight)
    with pytest.raises(ProofError, match="differ from ours"):
        prove(tmp_path / "published", other, Waveform())


def test_files_of_several_lengths(wavlm, tmp_path):
    """Embedding in padded batches equals embedding one file at a time."""
    paths = []
    for i, samples in enumerate((9000, 16000, 12345, 16000)):
        wave = torch.randn(samples, generator=torch.Generator().manual_seed(i))
        paths.append(str(tmp_path / f"{i}.wav"))
        soundfile.write(paths[-1], 0.1 * wave.numpy(), 16000)
    encoder = mhfa(wavlm)
    together = embed_files(encoder, Waveform(), paths, progress=False)
    for path, row in zip(paths, together, strict=True):
        alone = embed_files(encoder, Waveform(), [path], progress=False)[0]
        assert abs(alone - row).max() < 1e-5
