"""Faces alone in whole runs of ``train.py``, with the Brain of audio."""

import math
import types

import numpy as np
import pandas as pd
import PIL.Image
import pytest
import tiny
import torch

from speechbrain_ssl.brains.positives import make_positives
from speechbrain_ssl.data.face_dataset import FaceViews
from speechbrain_ssl.data.manifest import write_manifest
from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.minivox.face import draw_face, draw_picture, draw_scene
from speechbrain_ssl.positives.cluster_aware import ClusterAware
from speechbrain_ssl.publishing.export import load_encoder

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_report")]

FOLDER = tiny.ROOT / "recipes" / "MiniVox" / "SSL" / "hparams"


def assert_identical(left, right):
    """Assert that two runs left the same weights, bit for bit."""
    for name in ("model/model.safetensors", "save/weights/epoch_00002.pt"):
        assert (left / name).read_bytes() == (right / name).read_bytes(), name


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """A folder with manifests of 30 utterances, of which 6 have no picture."""
    folder = tmp_path_factory.mktemp("faces")
    ids, rows = [], []
    for speaker in range(6):
        face, scene = draw_face(1, speaker), draw_scene(1, speaker, 0)
        for utterance in range(5):
            ids.append(f"s{speaker}/{utterance}")
            for number in (0, 1) if utterance else ():
                path = folder / f"{speaker}_{utterance}_{number}.png"
                drawn = draw_picture(
                    face, scene, 1, speaker, 0, 2 * utterance + number
                )
                PIL.Image.fromarray(drawn).save(path)
                rows.append((ids[-1], path.name, f"speaker {speaker}"))
    table = pd.DataFrame({"ID": ids, "duration": 1.0, "wav": "not read"})
    write_manifest(folder / "train.csv", table)
    table = pd.DataFrame(rows, columns=["ID", "image", "person"])
    table.to_csv(folder / "faces.csv", index=False)
    return folder


def argv(faces, output, name="simclr_face_mini", **overrides):
    options = {
        "output_folder": output,
        "data_folder": faces,
        "manifest_folder": faces,
        "prepare": "null",
        "device": "cpu",
        "number_of_epochs": 2,
        "warmup_epochs": 0.5,
        "batch_size": 4,
        "valid_utterances": 4,
        "image_size": 16,
        "channels": 4,
        "embedding_size": 16,
        "precision": "fp32",
        "eval_precision": "fp32",
        "log_every": 1,
        "ckpt_interval_minutes": 0,
        **overrides,
    }
    flags = [f"--{key}={value}" for key, value in options.items()]
    return [str(FOLDER / f"{name}.yaml"), *flags]


@pytest.fixture(scope="module")
def reference(faces, train, tmp_path_factory):
    output = tmp_path_factory.mktemp("reference")
    train.main(argv(faces, output))
    return output


def test_faces_are_learnt_by_the_brain_of_audio(faces, reference):
    """20 of 24 utterances with a face, in batches of 4; none is missing."""
    lines = tiny.lines(reference)
    assert len(lines) == 2 * 5
    assert all(math.isfinite(line["loss"]) for line in lines)
    assert tiny.results(reference)["labels_seen"] == "none"
    assert {"pseudo_eer", "lidar"} <= set(tiny.lines(reference, "valid")[-1])
    assert not (reference / "bad_audio.csv").exists()
    encoder, features = load_encoder(reference, pictures=True)
    assert encoder(features(torch.rand(1, 3, 16, 16))).shape == (1, 1, 16)


@pytest.mark.parametrize("kind", ["absent", "shuffled", "garbage"])
def test_the_name_of_the_person_changes_nothing(
    faces, train, reference, tmp_path, kind
):
    """Without it, with another one or with garbage the weights are the same."""
    table = pd.read_csv(faces / "faces.csv")
    table["image"] = str(faces) + "/" + table["image"]
    if kind == "absent":
        del table["person"]
    elif kind == "shuffled":
        names = np.random.default_rng(0).permutation(table["person"])
        table = table.assign(person=names)[["person", "image", "ID"]]
    else:
        table["person"] = np.resize(["a,b", "", "NaN", "-1e999"], len(table))
        table["spk_id"] = range(len(table))
    path = tmp_path / "faces.csv"
    table.to_csv(path, index=False)
    train.main(argv(faces, tmp_path / "run", face_csv=path))
    assert_identical(tmp_path / "run", reference)


def test_a_run_goes_on_where_it_was_cut(faces, train, reference, tmp_path):
    flags = argv(faces, tmp_path, ckpt_interval_steps=2)
    tiny.run_until(train, flags, 7)
    train.main(flags)
    assert_identical(tmp_path, reference)


def test_dino_has_smaller_local_views(faces, train, tmp_path, monkeypatch):
    """And a picture that breaks during the run is reported, not fatal."""
    for path in faces.glob("0_1_*.png"):
        path.write_bytes(b"broken")
    sizes, encode = set(), torch.nn.Conv2d.forward

    def forward(self, x):
        if x.shape[1] == 3:
            sizes.add((len(x), x.shape[-1]))
        return encode(self, x)

    monkeypatch.setattr(torch.nn.Conv2d, "forward", forward)
    train.main(
        argv(faces, tmp_path, "dino_face_mini", local_size=12, prototypes=32)
    )
    # Student and teacher see 4 x 2 global views, the student 4 x 4 local ones.
    assert {(8, 16), (16, 12)} <= sizes
    assert all(math.isfinite(line["loss"]) for line in tiny.lines(tmp_path))
    listed = pd.read_csv(tmp_path / "bad_audio.csv")
    assert listed["reason"].str.contains("0_1_0.png|0_1_1.png").all()


def test_rules_that_cut_audio_are_refused(train):
    hparams = {"crops": FaceViews("x"), "positives": ClusterAware(4, 2)}
    brain = types.SimpleNamespace(hparams=types.SimpleNamespace(**hparams))
    with pytest.raises(ConfigError, match="`crops` is a plan of pictures"):
        make_positives(brain)
    brain.hparams.positives = None
    make_positives(brain)
