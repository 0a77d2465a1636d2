"""Crops and pictures of the same utterances."""

import numpy as np
import pandas as pd
import PIL.Image
import pytest
import soundfile
import torch

from speechbrain_ssl.data.manifest import Manifest, write_manifest
from speechbrain_ssl.data.paired import PairedCrops
from speechbrain_ssl.errors import ConfigError

COUNT, SIZE = 6, 8

#: Has no picture; cannot be read; has a picture that cannot be read.
FACELESS, UNREADABLE, TORN = 2, 4, 5


@pytest.fixture
def data(tmp_path):
    """A paired data set; the value of a picture is the utterance's number."""
    rows, faces = [], []
    for i in range(COUNT):
        wav, image = tmp_path / f"{i}.wav", tmp_path / f"{i}.png"
        soundfile.write(wav, np.full(8000, 0.1 * (i + 1)), 16000)
        rows.append({"ID": f"u{i}", "duration": 0.5, "wav": str(wav)})
        PIL.Image.new("L", (SIZE, SIZE), 10 * i).save(image)
        if i != FACELESS:
            faces.append({"ID": f"u{i}", "image": str(image)})
    write_manifest(tmp_path / "train.csv", pd.DataFrame(rows))
    pd.DataFrame(faces).to_csv(tmp_path / "faces.csv", index=False)
    (tmp_path / f"{UNREADABLE}.wav").write_bytes(b"noise")
    (tmp_path / f"{TORN}.png").write_bytes(b"noise")
    plan = PairedCrops(
        global_crops=1,
        global_seconds=0.2,
        faces=str(tmp_path / "faces.csv"),
        image_size=SIZE,
    )
    manifest = Manifest.read(tmp_path / "train.csv")
    return plan.train_set(manifest, 3, None, 1)


def batch(data, epoch=1):
    return data.collate([data[epoch, i] for i in range(COUNT)]).to("cpu")


def test_voice_and_face_are_of_one_utterance(data):
    found = batch(data)
    values = (found.faces.crops[0][:, 0, 0, 0, 0] * 255).round() / 10
    assert torch.equal(found.index, found.faces.index)
    own = found.faces.present
    assert torch.equal(values[own].long(), found.index[own])
    loudness = (found.crops[0].mean(dim=(1, 2)) * 10).round().long() - 1
    assert torch.equal(loudness, found.index)


def test_an_unreadable_voice_is_replaced_together_with_its_face(data):
    found = batch(data)
    assert int(found.index[UNREADABLE]) != UNREADABLE
    assert any(path.endswith("4.wav") for path, _ in found.bad)


def test_a_missing_face_is_lent_and_not_present(data):
    shown = set()
    for epoch in range(1, 9):
        found = batch(data, epoch)
        for place in (FACELESS, TORN):
            assert not found.faces.present[place]
        shown.add(int(found.faces.crops[0][FACELESS].mean() * 255))
        assert any(path.endswith("5.png") for path, _ in found.bad)
        again = batch(data, epoch)
        assert torch.equal(found.faces.crops[0], again.faces.crops[0])
    assert len(shown) > 1


def test_needs_a_face_manifest():
    with pytest.raises(ConfigError, match="face_csv"):
        PairedCrops()
