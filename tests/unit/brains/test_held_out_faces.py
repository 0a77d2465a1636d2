"""Which held-out pictures are compared, and who decides."""

from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest

from speechbrain_ssl import distributed
from speechbrain_ssl.brains import audio_visual_brain, divergence
from speechbrain_ssl.brains.audio_visual_brain import AudioVisualBrain
from speechbrain_ssl.brains.pseudo_label_brain import PseudoLabelBrain
from speechbrain_ssl.brains.verdict import with_face
from speechbrain_ssl.data.face_dataset import FaceHalves
from speechbrain_ssl.data.faces import FaceManifest
from speechbrain_ssl.data.manifest import Manifest, StringColumn

ABSENT = 12


@pytest.fixture
def halves(tmp_path):
    """Pictures of 15 utterances: 12 files are absent, and one has no line."""
    ids = [f"v{i}" for i in range(ABSENT + 3)]
    manifest = Manifest(
        StringColumn.from_strings(ids),
        StringColumn.from_strings(ids),
        [3.0] * len(ids),
    )
    rows = ["ID,image"]
    for i, name in enumerate(ids[:-1]):
        path = tmp_path / f"{name}.png"
        if i >= ABSENT:
            PIL.Image.fromarray(np.zeros((16, 16, 3), "u1")).save(path)
        rows.append(f"{name},{path}")
    path = tmp_path / "faces.csv"
    path.write_text("\n".join(rows) + "\n")
    return FaceHalves(manifest, FaceManifest.read(path, manifest), 16)


def test_many_absent_pictures_are_no_error(halves, caplog):
    """Joint training allows them; each is named in the log."""
    part = halves.manifest.select(np.arange(len(halves))[::-1])
    assert with_face(halves, part).tolist() == [ABSENT + 1, ABSENT]
    assert caplog.text.count("Not used for validation") == ABSENT
    assert len(with_face(halves, part.select(np.array([0, 5])))) == 0


@pytest.fixture
def brain(halves, monkeypatch):
    """Return a Brain with held-out pictures, and no more than that."""
    brain = object.__new__(AudioVisualBrain)
    brain.held_out_manifest = halves.manifest
    views = SimpleNamespace(valid_set=lambda *_: halves)
    brain.hparams = SimpleNamespace(crops=SimpleNamespace(views=views))
    for name, found in (("make_loaders", ()), ("after_epoch", {})):
        monkeypatch.setattr(PseudoLabelBrain, name, lambda *_, f=found: f)
    return brain


def test_rank_0_decides_for_all(brain, monkeypatch):
    """Another rank takes its word and does not look at its own disk."""
    sent = []

    def broadcast(value):
        sent.append(value)
        return np.array([3, 4]) if value is None else value

    monkeypatch.setattr(distributed, "object_from_rank_0", broadcast)
    brain.make_loaders(None)
    assert brain._with_face.tolist() == [ABSENT, ABSENT + 1]
    monkeypatch.setattr(distributed, "rank", lambda: 1)
    brain.make_loaders(None)
    assert sent[1] is None and brain._with_face.tolist() == [3, 4]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_every_rank_asks_for_divergence(brain, monkeypatch, count):
    """The question is a collective, so no rank may leave it out."""
    asked, rows = [], [np.eye(4, dtype=np.float32).reshape(2, 2, 4)]
    monkeypatch.setattr(divergence, "refuse", lambda _, r: asked.append(r))
    monkeypatch.setattr(audio_visual_brain, "embed_held_out", lambda *_: rows)
    encoder = SimpleNamespace(eval=lambda: None)
    brain.modules = SimpleNamespace(face_encoder=encoder)
    brain.hparams.seed, brain.device = 0, "cpu"
    brain.face_features = brain.face_augmentation = brain._halves = None
    brain._with_face = np.arange(count)
    scalars = brain.after_epoch()
    assert asked == [rows if count > 1 else []]
    assert ("face_pseudo_eer" in scalars) == (count > 1)
