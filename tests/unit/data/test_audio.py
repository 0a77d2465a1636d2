"""Reading stretches of audio files, good and bad."""

import numpy as np
import pytest
import soundfile

from speechbrain_ssl.data.audio import AudioFile, fit_length
from speechbrain_ssl.data.decoder import Decoder
from speechbrain_ssl.errors import AudioError


def ramp(count):
    return (np.arange(count) % 30000).astype(np.int16)


@pytest.mark.parametrize("form", ["wav", "flac"])
def test_a_stretch_is_where_it_should_be(tmp_path, form):
    """Every sample says its own position, so that an offset by one shows."""
    path = str(tmp_path / f"a.{form}")
    soundfile.write(path, ramp(20000), 16000, subtype="PCM_16")
    with AudioFile(path) as audio:
        assert audio.num_samples == 20000
        for start, count in ((0, 5), (12345, 777), (19990, 10), (3, 1)):
            wave = audio.read(start, count)
            assert wave.dtype == np.float32
            assert (wave * 32768).tolist() == list(range(start, start + count))
        assert len(audio.read()) == 20000
        assert audio.read(100)[0] * 32768 == 100
        # Less where the file ends.
        assert len(audio.read(19990, 50)) == 10


def test_channels_are_averaged(tmp_path):
    path = str(tmp_path / "a.wav")
    soundfile.write(path, np.tile([[0.5, -0.25]], (1000, 1)), 16000)
    with AudioFile(path) as audio:
        assert audio.read() == pytest.approx(0.125)


@pytest.mark.parametrize("rate", [48000, 44100, 8000])
def test_resampling_of_a_stereo_sine(tmp_path, rate):
    """A tone keeps its frequency, level and time, from any offset."""
    time = np.arange(2 * rate) / rate
    wave = 0.5 * np.sin(2 * np.pi * 440 * time)
    path = str(tmp_path / "a.wav")
    soundfile.write(path, np.stack([wave, wave], 1), rate, subtype="FLOAT")
    with AudioFile(path, 16000) as audio:
        assert audio.num_samples == 32000
        for start, count in ((0, 32000), (16000, 8000), (4411, 16000)):
            found = audio.read(start, count)
            assert len(found) == count
            at = (start + np.arange(count)) / 16000
            wanted = 0.5 * np.sin(2 * np.pi * 440 * at)
            # The filter rings at the ends of a stretch; an offset that falls
            # between two samples of the file is rounded down to one.
            error = np.abs(found - wanted)[200:-200].max()
            whole = start * rate % 16000 == 0
            assert error < (2e-3 if whole else 2 * np.pi * 440 * 0.5 / rate)


@pytest.mark.parametrize(
    "rate, subtype", [(16000, "PCM_16"), (44100, "PCM_16"), (8000, "GSM610")]
)
def test_parts_in_order_are_decoded_once(tmp_path, monkeypatch, rate, subtype):
    """They are the parts of the whole, also of a codec that cannot seek."""
    rng = np.random.default_rng(0)
    path = str(tmp_path / "a.wav")
    soundfile.write(path, rng.normal(0, 0.1, 7 * rate), rate, subtype)
    with AudioFile(path) as audio:
        whole = audio.read()
    decoded, read = [], Decoder._read

    def counting(self, frames):
        block = read(self, frames)
        decoded.append(len(block))
        return block

    monkeypatch.setattr(Decoder, "_read", counting)
    with AudioFile(path) as audio:
        edges = [0, 100, 25000, 70001, 70002, audio.num_samples]
        parts = [
            audio.read(start, end - start)
            for start, end in zip(edges[:-1], edges[1:], strict=True)
        ]
        assert sum(decoded) <= 7.1 * rate
        assert np.abs(np.concatenate(parts) - whole).max() < 1e-6
        # Not in order: from anywhere.
        again = audio.read(25000, 5000)
    assert np.abs(again - whole[25000:30000]).max() < 1e-4


def test_a_very_short_file_of_another_rate(tmp_path):
    path = str(tmp_path / "a.wav")
    soundfile.write(path, np.array([0.5]), 48000)
    with AudioFile(path, 16000) as audio:
        assert audio.num_samples == 1
        assert len(audio.read()) == 1


def broken_files(folder):
    """Name -> path of a file that opens or reads badly."""
    noise = np.random.default_rng(0).normal(0, 0.1, 160000).astype(np.float32)
    files = {}

    def path(name):
        files[name.partition(".")[0]] = folder / name
        return folder / name

    path("missing.wav")
    path("folder.wav").mkdir()
    path("empty.wav").touch()
    path("text.wav").write_text("this is no audio " * 100)
    # A headerless file: soundfile wants to be told the rate.
    path("headerless.raw").write_bytes(b"\1\2" * 1000)
    soundfile.write(path("zero.wav"), noise[:0], 16000)
    for name in ("cut.flac", "cutmp3.mp3"):
        soundfile.write(path(name), noise, 16000)
        whole = files[name.partition(".")[0]].read_bytes()
        files[name.partition(".")[0]].write_bytes(whole[: len(whole) // 2])
    for name, value in (
        ("nan.wav", np.nan),
        ("inf.wav", -np.inf),
        ("loud.wav", -1e30),
    ):
        bad = noise.copy()
        bad[80000] = value
        soundfile.write(path(name), bad, 16000, subtype="FLOAT")
    return files


def test_a_bad_file_is_named_with_the_reason(tmp_path):
    """One bad file in a million must be found by the message alone."""
    reasons = {
        "missing": "missing, No such file",
        "folder": "unreadable, it is a folder",
        "empty": "empty file, 0 bytes",
        "text": "unreadable, Format not recognised",
        "headerless": "unreadable, .*samplerate",
        "zero": "zero length",
        "cut": "damaged, after .* lost sync",
        "cutmp3": "is truncated",
        "nan": "NaN, infinite or beyond 1e.06 at 5.000 s",
        "inf": "NaN, infinite or beyond 1e.06 at 5.000 s",
        "loud": "NaN, infinite or beyond 1e.06 at 5.000 s",
    }
    files = broken_files(tmp_path)
    assert set(files) == set(reasons)
    for name, path in files.items():
        with pytest.raises(AudioError, match=reasons[name]) as caught:
            with AudioFile(str(path)) as audio:
                audio.read()
        assert str(path) in str(caught.value)


def test_the_good_part_of_a_bad_file_is_usable(tmp_path):
    """Only what is read is judged: a chunk before the damage is fine."""
    files = broken_files(tmp_path)
    for name in ("nan", "cutmp3"):
        with AudioFile(str(files[name])) as audio:
            assert len(audio.read(1000, 16000)) == 16000
    with AudioFile(str(files["cutmp3"])) as audio:
        with pytest.raises(AudioError, match="is truncated"):
            audio.read(150000, 1000)


def test_fit_length():
    wave = np.arange(3.0)
    assert fit_length(wave, 7).tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert fit_length(wave, 3).tolist() == [0, 1, 2]
    assert fit_length(wave, 2).tolist() == [0, 1]
