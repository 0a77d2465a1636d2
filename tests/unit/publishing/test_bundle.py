"""A published folder: whole, proven, and usable where we are not installed."""

import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys
import sysconfig

import numpy as np
import pytest
import soundfile
import torch

from speechbrain_ssl.cli.main import main as command
from speechbrain_ssl.embedding.extract import embed_files
from speechbrain_ssl.encoders.features import LogMel
from speechbrain_ssl.encoders.resnet import ResNet34
from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.publishing.bundle import (
    ProofError,
    make_bundle,
    prove,
    threshold_of,
)
from speechbrain_ssl.publishing.calibration_file import (
    CosineCalibration,
    read_calibration,
)
from speechbrain_ssl.publishing.card import About
from speechbrain_ssl.publishing.export import export_encoder, load_encoder
from speechbrain_ssl.publishing.onnx import load_onnx
from speechbrain_ssl.verification.calibration import Calibration
from speechbrain_ssl.verification.evaluation import write_calibrations

ABOUT = About(name="me/model", data="Noise.")

# -I and -S: no PYTHONPATH, no current folder, no .pth file that would make our
# checkout importable; site-packages by hand.
STRANGER = """
import importlib.util, json, sys
sys.path.append(sys.argv[1])
assert importlib.util.find_spec("speechbrain_ssl") is None
import torch
torch.set_num_threads(1)
from speechbrain.inference.speaker import EncoderClassifier, SpeakerRecognition

folder, first, second = sys.argv[2:]
encoder = EncoderClassifier.from_hparams(folder, savedir="encoder")
model = SpeakerRecognition.from_hparams(folder, savedir="verifier")
a, b = (model.load_audio(path).unsqueeze(0) for path in (first, second))
threshold = model.hparams.verification_threshold
score, same = model.verify_batch(a, b, threshold=threshold)
print(json.dumps({
    "score": float(score),
    "same": bool(same),
    "threshold": threshold,
    "embedding": encoder.encode_batch(a)[0, 0].tolist(),
}))
"""


def stranger(folder, first, second, cwd):
    """What stock SpeechBrain says of two files, without us and a network."""
    site = sysconfig.get_paths()["purelib"]
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", STRANGER, site]
        + [str(folder), str(first), str(second)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={
            "HF_HUB_OFFLINE": "1",
            "HF_HOME": str(cwd / "hub"),
            "HOME": str(cwd),
            "OMP_NUM_THREADS": "1",
            "OMP_WAIT_POLICY": "passive",
            "PATH": os.environ["PATH"],
        },
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def editable():
    """Whether our package is no ordinary part of site-packages."""
    site = pathlib.Path(sysconfig.get_paths()["purelib"]).resolve()
    spec = importlib.util.find_spec("speechbrain_ssl")
    return site not in pathlib.Path(spec.origin).resolve().parents


@pytest.fixture
def run(tmp_path, small_encoder):
    """The output folder of a training run, evaluated and calibrated."""
    folder = tmp_path / "run"
    export_encoder(folder / "model", small_encoder, LogMel())
    (folder / "results.json").write_text(
        json.dumps(
            {
                "eer": 8.8,
                "ci_low": 5.4,
                "ci_high": 12.4,
                "threshold": 0.3,
                "labels_seen": "none",
                "seed": 4,
                "command": "python train.py",
            }
        )
    )
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("shift", [-0.02, 0.02])
def test_a_stranger_decides_as_we_do(run, recordings, tmp_path, shift, capfd):
    """Same score, same decision; the calibration puts it on either side."""
    if not editable():
        pytest.skip("speechbrain_ssl is installed where it cannot be left out")
    first, second = recordings[:2]
    rows = embed_files(*load_encoder(run), [first, second], progress=False)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    score = float(unit[0] @ unit[1])
    (run / "calibration.json").write_text(
        json.dumps(
            {"scale": 10.0, "offset": -10 * (score + shift), "trials": "mine"}
        )
    )
    folder = tmp_path / "published"
    made = make_bundle(run, folder, ABOUT)
    assert made["difference"] < 1e-5
    (tmp_path / "clean").mkdir()
    theirs = stranger(folder, first, second, tmp_path / "clean")
    assert (
        command(["verify", first, second, f"--model={folder}", "--json"]) == 0
    )
    ours = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert theirs["score"] == pytest.approx(ours["score"], abs=1e-5)
    assert theirs["threshold"] == pytest.approx(ours["threshold"], abs=1e-9)
    assert theirs["same"] is ours["same"] is (shift < 0)
    worst = np.abs(np.array(theirs["embedding"]) - rows[0]).max()
    assert worst < 1e-5 * np.abs(rows).max()


@pytest.mark.slow
def test_a_stranger_with_real_speech(shared_data, run, tmp_path):
    """Two real files: 16 kHz speech of a corpus."""
    if not editable():
        pytest.skip("speechbrain_ssl is installed where it cannot be left out")
    files = sorted(shared_data.glob("librispeech_mini/audio/*/*.ogg"))[:2]
    if len(files) < 2:
        pytest.skip("no real speech there")
    made = make_bundle(run, tmp_path / "published", ABOUT)
    (tmp_path / "clean").mkdir()
    theirs = stranger(made["folder"], *files, tmp_path / "clean")
    rows = embed_files(
        *load_encoder(run), list(map(str, files)), progress=False
    )
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    score = float(unit[0] @ unit[1])
    assert theirs["score"] == pytest.approx(score, abs=1e-5)
    assert theirs["same"] is bool(score > 0.3)


def without_proof(monkeypatch):
    """The proof is slow and has tests of its own."""
    monkeypatch.setattr(
        "speechbrain_ssl.publishing.bundle.prove", lambda *args: 0.0
    )


def test_what_a_folder_holds(run, tmp_path, monkeypatch):
    without_proof(monkeypatch)
    folder = tmp_path / "published"
    made = make_bundle(run, folder, ABOUT)
    assert sorted(os.listdir(folder)) == [
        "README.md",
        "config.json",
        "embedding_model.ckpt",
        "hyperparams.yaml",
        "model.safetensors",
        "results.json",
    ]
    assert made["threshold"] == 0.3 and made["evaluations"] == 1
    card = (folder / "README.md").read_text()
    assert "8.80 [5.40, 12.40]" in card and "python train.py" in card
    assert str(tmp_path) not in card


def test_results_and_calibration_that_are_given(run, tmp_path, monkeypatch):
    """They go before those of the run, which stay in the record."""
    without_proof(monkeypatch)
    results = {
        "evaluations": [
            {
                "list": "O",
                "scoring": "cosine",
                "eer_percent": 3.0,
                "threshold": 0.4,
            }
        ],
        "labels_seen": "unknown",
    }
    (tmp_path / "r.json").write_text(json.dumps(results))
    (tmp_path / "c.json").write_text('{"scale": 5, "offset": -1}')
    folder = tmp_path / "published"
    made = make_bundle(run, folder, ABOUT, results=tmp_path / "r.json")
    assert made["threshold"] == 0.4 and "of O" in made["threshold_from"]
    kept = json.loads((folder / "results.json").read_text())
    assert kept["labels_seen"] == "none" and kept["training"]["seed"] == 4
    made = make_bundle(
        run,
        folder,
        ABOUT,
        results=tmp_path / "r.json",
        calibration=tmp_path / "c.json",
    )
    assert made["threshold"] == pytest.approx(0.2)
    assert read_calibration(folder) == CosineCalibration(5.0, -1.0, "unknown")
    # And goes where it is not wanted any more.
    make_bundle(run, folder, ABOUT)
    assert read_calibration(folder) is None


def test_no_folder_of_this_machine_is_published(run, tmp_path, monkeypatch):
    without_proof(monkeypatch)
    record = json.loads((run / "results.json").read_text())
    record["command"] = f"train.py a.yaml --data_folder={tmp_path}/corpora"
    (run / "results.json").write_text(json.dumps(record))
    given = tmp_path / "r.json"
    command = f"evaluate.py b.yaml '--trials=[{tmp_path}/O.txt]'"
    given.write_text(json.dumps({"command": command}))
    folder = tmp_path / "published"
    make_bundle(run, folder, ABOUT, results=given)
    for path in folder.iterdir():
        assert str(tmp_path).encode() not in path.read_bytes(), path.name
    card = (folder / "README.md").read_text()
    kept = json.loads((folder / "results.json").read_text())
    for shown, options in (
        (kept["command"], "'--trials=[/path/to/O.txt]'"),
        (kept["training"]["command"], "--data_folder=/path/to/corpora"),
    ):
        assert shown.endswith(options) and shown in card


def test_what_is_not_there_is_said(run, tmp_path, monkeypatch):
    without_proof(monkeypatch)
    folder = tmp_path / "published"
    for options in ({"results": "no.json"}, {"calibration": "no.json"}):
        with pytest.raises(ConfigError, match="there is no .* no.json"):
            make_bundle(run, folder, ABOUT, **options)
    for place in (run, run / "model"):
        with pytest.raises(ConfigError, match="is the model itself"):
            make_bundle(run, place, ABOUT)
    assert not folder.exists()


def test_the_calibration_of_an_evaluation(tmp_path):
    """As ``evaluate.py`` writes it, with other scorings beside."""
    calibration = Calibration().fit([0.1, 0.5, 0.3, 0.9], [0, 0, 1, 1])
    path = tmp_path / "calibration.json"
    write_calibrations(path, {"cosine": calibration}, "dev")
    found = read_calibration(path)
    assert found.trials == "dev"
    assert found(0.4) == pytest.approx(float(calibration([0.4])[0]))
    assert found.threshold(0.05) == pytest.approx(calibration.threshold(0.05))
    write_calibrations(path, {"as_norm": calibration}, "dev")
    with pytest.raises(ConfigError, match="is not a calibration"):
        read_calibration(path)


def test_thresholds():
    calibration = CosineCalibration(10.0, -4.0, "some")
    assert threshold_of(calibration, {"threshold": 0.9})[0] == 0.4
    value, why = threshold_of(calibration, {}, p_target=0.01)
    # At its threshold the ratio outweighs the prior: 99 to 1.
    assert calibration(value) == pytest.approx(np.log(99))
    assert "0.01" in why
    assert threshold_of(None, {}) == (None, None)


@pytest.mark.slow
def test_a_folder_of_another_encoder_has_no_proof(tmp_path, small_encoder):
    """Of other weights, and of weights that SpeechBrain only warns about."""
    folder = export_encoder(tmp_path, small_encoder, LogMel())
    torch.manual_seed(7)
    other = type(small_encoder)(**small_encoder.arguments)
    with pytest.raises(ProofError, match="differ from ours by"):
        prove(folder, other, LogMel())
    path = folder / "embedding_model.ckpt"
    state = torch.load(path, weights_only=True)
    torch.save({f"module.{k}": v for k, v in state.items()}, path)
    with pytest.raises(ProofError, match="differ from ours by"):
        prove(folder, small_encoder, LogMel())
    (folder / "hyperparams.yaml").write_text("modules: !new:no.where.Class\n")
    with pytest.raises(ProofError, match="cannot load .*nothing was uploaded"):
        prove(folder, small_encoder, LogMel())


@pytest.mark.slow
def test_a_resnet_with_onnx(tmp_path, monkeypatch):
    torch.manual_seed(0)
    encoder = ResNet34(80, 16, channels=4, blocks=[1, 1, 1, 1])
    for _ in range(5):
        encoder(torch.randn(8, 60, 80) * 5)
    export_encoder(tmp_path / "model", encoder.eval(), LogMel())
    made = make_bundle(
        tmp_path / "model", tmp_path / "published", ABOUT, onnx=True
    )
    assert made["difference"] < 1e-5 and made["threshold"] is None
    embed = load_onnx(tmp_path / "published" / "model.onnx")
    # What the card says of it works as it stands.
    card = (tmp_path / "published" / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(import onnxruntime.*?)```", card, re.S)
    sound = np.random.default_rng(1).normal(0, 0.1, 32000)
    soundfile.write(tmp_path / "published" / "first.wav", sound, 16000)
    monkeypatch.chdir(tmp_path / "published")
    scope = {}
    exec(code, scope)
    assert scope["embedding"].shape[0] == 1
    assert np.array_equal(embed(scope["wave"][None]), scope["embedding"])
    wave = torch.randn(1, 20000)
    with torch.no_grad():
        wanted = encoder(LogMel()(wave))[:, 0]
    found = torch.from_numpy(embed(wave.numpy()))
    assert torch.cosine_similarity(found, wanted) > 0.9999
