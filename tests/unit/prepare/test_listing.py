"""Listing: a fixed order, and an ID for each file."""

import os

from speechbrain_ssl.prepare.listing import list_files, unique_ids


def test_listing_is_sorted_and_leaves_out_hidden(tmp_path):
    for name in ("b/2.wav", "b/1.WAV", "a/9.Mp3", ".git/x.wav", "a/._9.wav"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    (tmp_path / "a/notes.TXT").touch()
    (tmp_path / "LICENSE").touch()
    os.symlink(tmp_path, tmp_path / "b/loop")
    listing = list_files(tmp_path, progress=False)
    assert listing.files == ["a/9.Mp3", "b/1.WAV", "b/2.wav"]
    assert listing.unknown == {"(none)": 1, ".txt": 1}


def test_ids_are_unique():
    files = ["a.flac", "a.wav", "a.wav.wav", "b.wav", "c.d.wav"]
    assert unique_ids(files) == [
        "a.flac",
        "a.wav",
        "a.wav.wav",
        "b",
        "c.d",
    ]
