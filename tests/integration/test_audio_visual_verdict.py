"""A round that ruins one of the two encoders is not kept.

Training is replaced: it leaves both encoders as they were, or ruins one. The
models are exported, embedded and compared as in any run.
"""

import shutil

import pytest
import tiny
import tiny_faces
import torch

from speechbrain_ssl.brains.audio_visual_brain import AudioVisualBrain
from speechbrain_ssl.data import loaders
from speechbrain_ssl.report.rounds import build_rounds_report

pytestmark = pytest.mark.usefixtures("no_report")

#: With augmentation the untrained encoders are at chance from the start.
CLEAN = "{clean: 1.0, reverb: 0.0, noise: 0.0}"
PLAIN = (
    "{flip: 0.0, scale: [1.0, 1.0], brightness: 0.0, contrast: 0.0, "
    "colour: 0.0, tint: 0.0, grey: 0.0, blur: 0.0, erase: 0.0}"
)


@pytest.fixture(scope="module")
def faces(drawn_faces):
    """Return the pictures of the tiny corpus."""
    return drawn_faces


@pytest.fixture
def run(faces, tmp_path, monkeypatch):
    """Return a function that runs a round, which ruins what it is told."""
    # More than a user would hold out, so that a verdict is possible.
    monkeypatch.setattr(loaders, "MOST_HELD_OUT", 0.8)
    script = tiny.load_train(tiny_faces.ROUNDS)
    model = tiny_faces.export_voices(tmp_path / "voices")

    def run(ruined=None, **options):
        @torch.no_grad()
        def fit(brain, *_):
            brain.on_fit_start()
            brain.epoch = 1
            if ruined is not None:
                # Every utterance gets the same embedding.
                layer = brain.modules[ruined].last_affine()
                getattr(layer, "conv", layer).weight.zero_()
                getattr(layer, "conv", layer).bias.fill_(1.0)
            brain.recent_weights.save(brain.averaged_modules(), 1)

        monkeypatch.setattr(AudioVisualBrain, "fit", fit)
        monkeypatch.setattr(
            AudioVisualBrain, "trusted", lambda b: b.labels.numpy() >= 0
        )
        output = tmp_path / "run"
        options = {
            "rounds": 1,
            "valid_utterances": 40,
            "augmentation_block": CLEAN,
            "face_augmentation_block": PLAIN,
            "clusters": 3,
            "min_cluster_size": 1,
            **options,
        }
        script.main(faces.argv(output, model, **options))
        found = tiny.results(output)
        (record,) = (r for r in found["stages"] if r["stage"] == "train")
        return output, found, record

    return run


def verdicts(record):
    """Return the verdict by each modality."""
    return {name: one["verdict"] for name, one in record["by"].items()}


def test_a_round_that_ruins_the_faces(run, faces):
    """The initial models stay, and report and results say why."""
    output, found, record = run("face_encoder")
    assert record["verdict"] == "worse"
    assert verdicts(record) == {
        "voice": "not distinguishable",
        "face": "worse",
        "both": record["by"]["both"]["verdict"],
    }
    assert record["by"]["face"]["pseudo_eer"] == pytest.approx(50)
    assert found["model_from"] == "the initial model"
    assert "by face worse: pseudo-EER 50.00 %" in found["why"]
    kept = (output / "model/face/model.safetensors").read_bytes()
    assert kept == (faces.model / "model.safetensors").read_bytes()
    text = build_rounds_report(output).read_text(encoding="utf-8")
    start = record["by"]["face"]["start_pseudo_eer"]
    assert f"<td>{start:.1f}, 50.0</td>" in text


def test_a_round_that_ruins_the_voices(run):
    _, _, record = run("encoder")
    assert record["verdict"] == "worse"
    assert verdicts(record)["voice"] == "worse"
    assert verdicts(record)["face"] == "not distinguishable"


def test_a_round_that_changes_nothing(run, faces, tmp_path):
    """All three comparisons are of a model with itself.

    The results say that the initial model of faces has seen labels.
    """
    seen = tmp_path / "seen"
    shutil.copytree(faces.model, seen)
    (seen / "results.json").write_text('{"labels_seen": "people"}')
    _, found, record = run(initial_face_model=seen)
    assert found["labels_seen"] == "people"
    assert set(verdicts(record).values()) == {"not distinguishable"}
    assert all(one["pseudo_eer_gain"] == 0 for one in record["by"].values())
    assert found["model_from"] == "round_1"


def test_too_few_faces_are_no_verdict_on_faces(run, faces, tmp_path):
    """The voice alone decides where only few utterances have a picture."""
    lines = faces.csv.read_text().splitlines(keepends=True)
    few = tmp_path / "few.csv"
    few.write_text("".join(lines[:17]))
    _, _, record = run("face_encoder", face_csv=few, valid_utterances=12)
    assert record["verdict"] == "not distinguishable"
    assert "by" not in record
