"""A threshold from a folder of recordings, by command and from Python."""

import numpy as np
import pytest
import soundfile
from voices import RATE, voice

from speechbrain_ssl import load_model
from speechbrain_ssl.embedding.extract import embed_files
from speechbrain_ssl.publishing.export import load_encoder
from speechbrain_ssl.verification.label_free_threshold import (
    label_free_threshold,
    raise_for_many,
)


@pytest.fixture
def folder(tmp_path):
    """Twenty recordings of ten speakers, and one that is none."""
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(20):
        wave = voice(number // 2, number, 1.2)
        soundfile.write(folder / f"{number}.wav", wave, RATE)
    return folder


def test_threshold(command, command_json, model, folder, tmp_path):
    """As from halves that were cut by hand; an unusable file is named."""
    halves = []
    for path in sorted(folder.iterdir()):
        wave, _ = soundfile.read(path)
        for half in np.split(wave, 2):
            halves.append(str(tmp_path / f"{len(halves)}.wav"))
            soundfile.write(halves[-1], half, RATE)
    rows = embed_files(*load_encoder(model), halves, progress=False)
    own, *others = label_free_threshold(rows.reshape(20, 2, -1)).values()
    (folder / "broken.wav").write_bytes(b"RIFF, and no more")
    code, found, err = command_json("threshold", folder, f"--model={model}")
    assert code == 1 and "broken.wav" in err and found["files"] == 20
    assert found["threshold"] == pytest.approx(own, abs=1e-4)
    wanted = [raise_for_many(own, *others, n) for n in (10, 100, 1000)]
    assert list(found["of_many"].values()) == pytest.approx(wanted, abs=1e-4)
    assert own < wanted[0] < wanted[1] < wanted[2] < 1
    code, out, _ = command("threshold", folder, f"--model={model}")
    assert f"one speaker if above  {own:.3f}" in out and "of 100 names  " in out
    assert load_model(model).threshold(folder).threshold == found["threshold"]
    code, found, _ = command_json(
        "threshold", folder, f"--model={model}", "--names=25"
    )
    assert found["of_many"] == {"25": raise_for_many(own, *others, 25)}
    code, out, err = command(
        "threshold", folder, f"--model={model}", "--names=0"
    )
    assert (code, out) == (1, "") and "--names=0 must be at least 1" in err


def test_too_few_files(command, model, folder):
    (folder / "7.wav").unlink()
    code, out, err = command("threshold", folder, f"--model={model}")
    assert code == 1 and out == ""
    assert "19 usable files cannot make a threshold: take at least 20" in err
