"""What ends a run must not fail after days of training."""

import json
from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest
import soundfile
import torch

from speechbrain_ssl.brains import verdict
from speechbrain_ssl.brains.face_trials import FaceTrials
from speechbrain_ssl.brains.finish import _held_out_halves
from speechbrain_ssl.brains.initial import labels_of_model
from speechbrain_ssl.brains.ssl_brain import SSLBrain
from speechbrain_ssl.data.manifest import Manifest, StringColumn
from speechbrain_ssl.encoders.face import FaceResNet, PixelNormalization
from speechbrain_ssl.encoders.features import LogMel
from speechbrain_ssl.errors import TrialError
from speechbrain_ssl.objectives.distillation import Distillation
from speechbrain_ssl.publishing.export import export_encoder
from speechbrain_ssl.verification.trials import Trials


class Mean(torch.nn.Module):
    """An encoder without weights."""

    def forward(self, features, lengths=None):
        return features.exp().mean(dim=1, keepdim=True)


@pytest.fixture
def manifest(tmp_path):
    rng, paths = np.random.default_rng(0), []
    for i in range(20):
        wave = np.cumsum(rng.normal(size=48000)) * rng.normal(size=48000)
        paths.append(str(tmp_path / f"{i}.wav"))
        soundfile.write(paths[-1], wave / abs(wave).max(), 16000, "FLOAT")
    return Manifest(
        StringColumn.from_strings(list("abcdefghijklmnopqrst")),
        StringColumn.from_strings(paths),
        [3.0] * 20,
    )


def test_a_file_damaged_beyond_what_validation_read(manifest, caplog):
    caplog.set_level("WARNING")
    brain = SimpleNamespace(
        features=LogMel(),
        held_out_manifest=manifest,
        evaluated_encoder=Mean(),
        device="cpu",
        hparams=SimpleNamespace(num_workers=0, output_folder="run"),
    )
    whole = _held_out_halves(brain)
    assert whole["halves"].shape[:2] == (20, 2) and not caplog.records
    wave, _ = soundfile.read(manifest.path(2))
    wave[-1] = np.nan
    soundfile.write(manifest.path(2), wave, 16000, "FLOAT")
    found = _held_out_halves(brain)
    assert "1 of 20 held-out files" in caplog.text
    assert "needs 20 held-out utterances, and this run has 19" in caplog.text
    assert "speechbrain-ssl threshold FOLDER --model=run" in caplog.text
    rest = np.delete(np.arange(20), 2)
    assert found["names"] == [manifest.ids[i] for i in rest]
    assert np.array_equal(found["halves"], whole["halves"][rest])
    brain.held_out_manifest = manifest.select(np.array([2, 3]))
    assert _held_out_halves(brain) == {}


def test_the_verdict_hears_nothing_that_was_trained_on(
    manifest, monkeypatch, caplog
):
    heard, manifest = [], manifest.select(np.arange(8))

    def augmentation(crops, address):
        heard.extend(address[-1].tolist())
        return crops

    augmentation.begin_epoch = lambda epoch: None
    monkeypatch.setattr(verdict, "load_encoder", lambda *_: (Mean(), LogMel()))
    options = {"valid_utterances": 6, "valid_seconds": 1.0, "seed": 0}

    def compare(trained_on):
        heard.clear()
        return verdict.compare_exported(
            "", "", manifest, trained_on, options, augmentation, "cpu"
        )

    assert "verdict" in compare(np.array([], np.uint64))
    assert len(heard) == 6
    trained_on = np.array(heard[:2] + [1], np.uint64)
    rest = heard[2:]
    assert "verdict" in compare(trained_on) and heard == rest
    assert compare(np.array(rest, np.uint64)) == {}
    assert "too few to say" in caplog.text


def test_faces_of_too_few_trials_are_refused_at_the_start(tmp_path):
    names = ["a/1.wav", "a/2.wav", "b/1.wav", "b/2.wav"]
    trials = Trials([1, 1, 0, 0], [0, 2, 0, 1], [1, 3, 2, 3], names)
    rows = ["ID,image"]
    for name in ("a/1", "a/2"):
        path = tmp_path / f"{name.replace('/', '_')}.png"
        PIL.Image.fromarray(np.zeros((48, 48, 3), "u1")).save(path)
        rows.append(f"{name},{path}")
    (tmp_path / "faces.csv").write_text("\n".join(rows) + "\n")
    with pytest.raises(TrialError):
        FaceTrials(tmp_path / "faces.csv", trials)


@pytest.mark.parametrize(
    "record, wanted",
    [
        (None, "unknown"),
        ("{}", "unknown"),
        ('{"labels_seen": null}', "unknown"),
        ('{"labels_seen": "none"}', "none"),
        ('{"labels_seen": true}', "yes"),
        ('{"labels_seen": "ImageNet\'s classes"}', "ImageNet's classes"),
        ("no JSON", "unknown"),
    ],
)
def test_labels_that_the_initial_model_has_seen(tmp_path, record, wanted):
    """A model that has gone does not end a run that has begun with it."""
    encoder = FaceResNet(16, 8, 4, (1, 1, 1, 1))
    export_encoder(tmp_path / "model", encoder, PixelNormalization(16))
    if record is not None:
        (tmp_path / "results.json").write_text(record)
    assert labels_of_model(str(tmp_path)) == wanted
    assert labels_of_model(None) == "none"
    assert labels_of_model(str(tmp_path / "gone/1")) == "unknown"


@pytest.mark.parametrize(
    "positives, start, source, wanted",
    [
        ("none", "none", None, "none"),
        ("unknown: a file", "none", "none", "unknown: a file"),
        ("none", "unknown", "people", "people"),
        ("unknown: a file", "people", "unknown", "people"),
    ],
)
@pytest.mark.parametrize("key", ["initial_model", "initial_checkpoint"])
def test_a_run_passes_on_what_its_models_have_seen(
    tmp_path, key, positives, start, source, wanted
):
    """The strongest counts: labels, else unknown ones, else none.

    ``source`` is the teacher of a distillation.
    """
    encoder = FaceResNet(16, 8, 4, (1, 1, 1, 1))
    for name, seen in (("start", start), ("teacher", source)):
        export_encoder(tmp_path / name, encoder, PixelNormalization(16))
        record = json.dumps({"labels_seen": seen})
        (tmp_path / name / "results.json").write_text(record)
    models = {"initial_model": None, "initial_checkpoint": None}
    models[key] = str(tmp_path / "start")
    objective = Distillation(str(tmp_path / "teacher")) if source else None
    brain = SimpleNamespace(
        positives=SimpleNamespace(labels_seen=positives),
        hparams=SimpleNamespace(**models),
        objective=objective,
    )
    assert SSLBrain.labels_seen.fget(brain) == wanted
