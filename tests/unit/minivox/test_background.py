"""Synthetic noises and rooms."""

import numpy as np
import pytest
import soundfile

from speechbrain_ssl.minivox.background import write_background
from speechbrain_ssl.prepare.scan import write_folder_manifest

SIZES = {"noises": {"noise": 3, "babble": 2, "music": 1}, "rooms": 4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("background")
    assert write_background(folder, **SIZES) == 10
    return folder


def test_the_files_can_be_used_as_noises_and_rooms(folder, tmp_path):
    for name, count in (("noise", 6), ("rooms", 4)):
        manifest = tmp_path / f"{name}.csv"
        write_folder_manifest(folder / name, manifest, num_workers=0)
        assert len(manifest.read_text().splitlines()) == 1 + count


def test_the_sounds_differ_and_use_the_range(folder):
    waves = [soundfile.read(p)[0] for p in sorted(folder.glob("*/*.wav"))]
    assert all(0.3 < np.abs(wave).max() <= 1 for wave in waves)
    assert len({wave.tobytes() for wave in waves}) == len(waves) == 10


def test_babble_has_several_voices(folder):
    """Its level hardly pauses, unlike that of a single voice."""
    wave, rate = soundfile.read(folder / "noise" / "babble000.wav")
    frames = wave[: len(wave) // 1600 * 1600].reshape(-1, rate // 10)
    levels = 10 * np.log10((frames**2).mean(1) + 1e-12)
    assert np.median(levels) - levels.min() < 25


def test_only_missing_files_are_written(folder):
    lost = folder / "noise" / "babble001.wav"
    before = lost.read_bytes()
    lost.unlink()
    assert write_background(folder, **SIZES) == 1
    assert lost.read_bytes() == before
