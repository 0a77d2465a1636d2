"""Probing: what is wrong with one file."""

import pytest
from audio_files import write

from speechbrain_ssl.prepare.probe import probe


@pytest.mark.parametrize("extension", ["wav", "flac", "mp3", "aiff", "au"])
def test_decode_finds_cut_files(tmp_path, extension):
    path = write(tmp_path / f"a.{extension}")
    assert probe(path, "decode").reason == ""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    assert probe(path, "decode").reason in ("truncated", "unreadable")


def test_wav_written_to_a_pipe_is_whole(tmp_path):
    path = write(tmp_path / "a.wav")
    data = bytearray(path.read_bytes())
    data[40:44] = b"\xff" * 4
    path.write_bytes(data)
    assert probe(path)[2:6] == (32000, 16000, 1, "")
