"""Probing: what is wrong with one file."""

import numpy as np
import pytest
from audio_files import write

from speechbrain_ssl.prepare.probe import probe


@pytest.mark.parametrize("extension", ["wav", "flac", "mp3", "aiff", "au"])
def test_decode_finds_cut_files(tmp_path, extension):
    path = write(tmp_path / f"a.{extension}")
    assert probe(path, "decode").reason == ""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    assert probe(path, "decode").reason in ("truncated", "damaged")


@pytest.mark.parametrize(
    ("extension", "check"), [("wav", "header"), ("mp3", "decode")]
)
def test_a_file_may_lack_one_per_cent(tmp_path, extension, check):
    """What some writers miscount is no damage; two per cent are."""
    # Noise fills the frames of an mp3, and so makes them equally large.
    noise = np.random.default_rng(0).normal(0, 0.1, 320000)
    whole = write(tmp_path / f"whole.{extension}", noise).read_bytes()
    path = tmp_path / f"cut.{extension}"
    for lacking, reason in ((0.005, ""), (0.02, "truncated")):
        path.write_bytes(whole[: round((1 - lacking) * len(whole))])
        assert probe(path, check).reason == reason


def test_wav_written_to_a_pipe_is_whole(tmp_path):
    path = write(tmp_path / "a.wav")
    data = bytearray(path.read_bytes())
    data[40:44] = b"\xff" * 4
    path.write_bytes(data)
    assert probe(path)[2:6] == (32000, 16000, 1, "")


def test_notes_on_what_is_hardly_speech(tmp_path):
    """By energy alone, and only where all is decoded."""
    rng = np.random.default_rng(0)
    syllables = np.repeat(rng.choice([0.003, 0.1], 20), 3200)
    speech = rng.normal(0, 1, 64000) * syllables
    step = np.where(speech > 0, 2.0**-15, 0)
    sparse = np.append(np.zeros(600000), speech)
    noise = rng.normal(0, 0.1, 64000)
    for name, wave, note in (
        ("speech", speech, None),
        ("steps", step, "hardly any sound"),
        ("sparse", sparse, "mostly silent"),
        ("noise", noise, "level hardly varies"),
        ("tone", None, "level hardly varies"),
    ):
        path = write(tmp_path / f"{name}.wav", wave)
        assert probe(path).notes == []
        found = probe(path, "decode")
        assert found.reason == ""
        assert [n for n, _ in found.notes] == ([note] if note else []), name
