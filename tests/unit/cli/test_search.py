"""The most similar of the recordings that ``embed`` has stored."""

import numpy as np
import pytest
import torch

from speechbrain_ssl.embedding.rows import unit_rows
from speechbrain_ssl.publishing.export import export_encoder, load_encoder


@pytest.fixture
def stored(command, model, audio, tmp_path):
    path = tmp_path / "stored.npz"
    code, _, err = command(
        "embed", audio, f"--output={path}", f"--model={model}"
    )
    assert code == 0, err
    return path


def test_search(command, command_json, model, audio, stored):
    """The recording itself first, then by cosine."""
    argv = ("search", audio / "s1/2.wav", stored, f"--model={model}")
    code, found, _ = command_json(*argv, "--count=5")
    with np.load(stored) as kept:
        rows, names = unit_rows(kept["embeddings"]), kept["files"].tolist()
    cosines = rows @ rows[names.index("s1/2.wav")]
    order = np.argsort(-cosines)[:5]
    assert code == 0 and found["files"] == [names[i] for i in order]
    assert found["files"][0] == "s1/2.wav" and found["searched"] == 12
    assert found["scores"] == pytest.approx(cosines[order].tolist(), abs=1e-5)
    assert found["starts"] is found["ends"] is None
    code, out, _ = command(*argv)
    assert code == 0 and len(out.splitlines()) == 10
    assert out.splitlines()[0] == "1.0000\ts1/2.wav"


def test_windows(command, command_json, model, audio, tmp_path):
    """Where in a recording it is."""
    path = tmp_path / "windows.npz"
    options = (f"--output={path}", f"--model={model}", "--windows=0.6")
    assert command("embed", audio, *options)[0] == 0
    argv = ("search", audio / "s0/0.wav", path, f"--model={model}")
    _, found, _ = command_json(*argv, "--count=1")
    with np.load(path) as kept:
        rows = list(zip(kept["files"], kept["start"], kept["end"], strict=True))
    (match,) = zip(found["files"], found["starts"], found["ends"], strict=True)
    assert match in rows and found["searched"] == len(rows) > 12
    assert f"{match[1]:.2f}-{match[2]:.2f} s" in command(*argv)[1]


def test_what_cannot_be_compared(command, model, audio, stored, tmp_path):
    encoder, features = load_encoder(model)
    with torch.no_grad():
        next(encoder.parameters()).mul_(1.001)
    export_encoder(tmp_path / "other", encoder, features)
    np.savez(tmp_path / "bare.npz", rows=np.eye(3))
    file = audio / "s0/0.wav"
    for argv, wanted in (
        ((file, stored, f"--model={tmp_path / 'other'}"), "another model's"),
        ((file, stored, f"--model={model}", "--trim-silence"), "without --tr"),
        ((file, stored, f"--model={model}", "--count=0"), "at least 1"),
        ((file, tmp_path / "bare.npz", f"--model={model}"), "lacks columns"),
        ((file, tmp_path / "no.npz", f"--model={model}"), "holds no embedd"),
        ((audio / "no.wav", stored, f"--model={model}"), "missing"),
    ):
        code, out, err = command("search", *argv)
        assert code == 1 and out == "" and wanted in err, argv
