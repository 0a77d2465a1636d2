"""One door for audio: what the check accepts, the reader can read."""

import os
import time
import tracemalloc

import numpy as np
import pytest
import soundfile

from speechbrain_ssl.data import decoder as decoder_module
from speechbrain_ssl.data.audio import AudioFile
from speechbrain_ssl.data.decoder import Decoder
from speechbrain_ssl.errors import AudioError
from speechbrain_ssl.prepare.probe import probe

RATE = 16000


def voice(seconds=3.0, rate=RATE, seed=0):
    """Noise whose level and colour change, below half of the rate."""
    rng = np.random.default_rng(seed)
    samples = round(seconds * rate)
    wave = np.convolve(rng.normal(0, 0.2, samples + 8), np.ones(9) / 9, "valid")
    return wave * (0.55 + 0.45 * np.sin(np.arange(samples) * 9.0 / rate))


def writable():
    """List (format, subtype) of all that libsndfile writes with a header."""
    found = []
    for form in sorted(set(soundfile.available_formats()) - {"RAW"}):
        found += [(form, s) for s in soundfile.available_subtypes(form)]
    return found


def test_every_format_of_libsndfile(tmp_path):
    """All parts equal those of the whole, also where a codec cannot seek."""
    kinds, forward = 0, 0
    for form, subtype in writable():
        path = tmp_path / f"{form}_{subtype}.x"
        rate = 8000 if subtype[:3] in ("G72", "GSM", "NMS") else RATE
        try:
            soundfile.write(
                path, voice(3, rate), rate, subtype=subtype, format=form
            )
        except soundfile.LibsndfileError:
            continue
        kinds += 1
        for check in ("header", "decode"):
            found = probe(path, check)
            assert found.reason == "" and found.notes == [], (path, found)
        seconds = found.frames / found.sample_rate
        with AudioFile(path, RATE, seconds) as audio:
            whole = audio.read()
            assert len(whole) == audio.num_samples
            assert len(whole) / RATE == pytest.approx(seconds, abs=1e-3)
            # XI files are at 44.1 kHz, whatever is written.
            for start, count in ((0, 100), (9876, 3000), (17000, 100), (7, 9)):
                part = audio.read(start, count)
                error = np.abs(part - whole[start : start + count]).max()
                most = 1e-3 if subtype == "OPUS" else 1e-4
                assert error < most, (path, start, error)
            forward += not audio._decoder._seeks
    assert kinds > 80 and forward >= 10


@pytest.mark.parametrize(
    "subtype, seconds, notes",
    [
        ("GSM610", 61, ["cannot seek"]),
        ("GSM610", 59, []),
        ("G721_32", 61, ["cannot seek"]),
        ("IMA_ADPCM", 61, []),
        ("ULAW", 61, []),
    ],
)
def test_a_note_on_long_files_that_cannot_seek(
    tmp_path, subtype, seconds, notes
):
    path = tmp_path / "a.wav"
    soundfile.write(path, voice(seconds, 8000), 8000, subtype=subtype)
    for check in ("header", "decode"):
        assert [note for note, _ in probe(path, check).notes] == notes
    if notes:
        assert f"{subtype} is decoded from" in probe(path).notes[0][1]


@pytest.mark.parametrize("rate", [8000, 11025, 44100, 48000, 8001, 44099])
def test_a_part_is_a_part_of_the_whole(tmp_path, rate):
    """At the same places and, but for 1e-4, with the same samples."""
    path = tmp_path / "a.wav"
    soundfile.write(path, voice(5.3, rate), rate, subtype="FLOAT")
    with AudioFile(path, RATE) as audio:
        whole = audio.read()
        assert len(whole) == audio.num_samples
        assert len(whole) == round(5.3 * rate) * RATE // rate
        for start in (1, 1599, 16000, 16001, 33600, 40000, len(whole) - 3):
            part = audio.read(start, 20000)
            there = whole[start : start + 20000]
            assert len(part) == len(there)
            assert np.abs(part - there).max() < 1e-4


def streamed_flac(path, total, keep=None, wave=None):
    """Write a FLAC file whose header announces another number of samples."""
    soundfile.write(path, voice() if wave is None else wave, RATE)
    data = bytearray(path.read_bytes())
    data[21] = (data[21] & 0xF0) | (total >> 32)
    data[22:26] = (total & 0xFFFFFFFF).to_bytes(4, "big")
    path.write_bytes(data[:keep])
    return path


@pytest.mark.parametrize("total", [0, 2**36 - 1, 10**9])
def test_a_header_without_a_length(tmp_path, total):
    """A FLAC file written to a pipe: its samples are counted."""
    path = streamed_flac(tmp_path / "a.flac", total)
    for check in ("header", "decode"):
        assert probe(path, check).frames == 48000
    soundfile.write(tmp_path / "whole.flac", voice(), RATE)
    wave, _ = soundfile.read(tmp_path / "whole.flac", dtype="float32")
    for seconds in (None, 3.0):
        with AudioFile(path, RATE, seconds) as audio:
            assert audio.num_samples == 48000
            assert np.array_equal(audio.read(20001, 999), wave[20001:21000])
            assert np.array_equal(audio.read(), wave)
    # The manifest of a longer file, which has been replaced.
    with AudioFile(path, RATE, 30.0) as audio:
        with pytest.raises(AudioError, match="truncated: 0 of 16000"):
            audio.read(200000, 16000)
    cut = streamed_flac(tmp_path / "cut.flac", total, 40000)
    for check in ("header", "decode"):
        assert probe(cut, check).reason == "damaged"


def test_a_promise_takes_no_memory(tmp_path):
    """What a header announces is read in blocks, up to what is there."""
    # An hour by its header, which the size of the file permits.
    path = streamed_flac(tmp_path / "a.flac", 3600 * RATE, None, voice(200))
    assert path.stat().st_size > 750 * 3600
    tracemalloc.start()
    with AudioFile(path, RATE) as audio:
        assert audio.num_samples == 3600 * RATE
        with pytest.raises(AudioError, match="truncated: 3200000 of 57600000"):
            audio.read()
        with pytest.raises(AudioError, match="truncated: 0 of 100"):
            audio.read(50 * 10**6, 100)
    # 200 s twice; an hour alone is 230 MB.
    assert tracemalloc.get_traced_memory()[1] < 40e6
    tracemalloc.stop()
    for check in ("header", "decode"):
        assert probe(path, check).reason == "truncated"


def test_a_codec_that_only_says_that_it_seeks(tmp_path, monkeypatch):
    """It is decoded from where the file stands, or from its beginning."""
    path = tmp_path / "a.aiff"
    soundfile.write(path, voice(), RATE, subtype="DWVW_16")
    opened = []
    real = decoder_module._ForwardFile

    def counting(path):
        opened.append(path)
        return real(path)

    monkeypatch.setattr(decoder_module, "_ForwardFile", counting)
    with Decoder(path) as decoder:
        whole = np.concatenate(list(decoder.seconds()))
        assert np.array_equal(next(decoder.seconds(2)), whole[32000:])
        assert np.array_equal(next(decoder.seconds(0)), whole[:16000])
        before = len(opened)
        assert np.array_equal(next(decoder.seconds(1)), whole[16000:32000])
        assert np.array_equal(next(decoder.seconds(2)), whole[32000:])
        assert len(opened) == before


def test_channels_that_cancel(tmp_path):
    """The loudest one is read, in each part alike, and prepare says so."""
    path = tmp_path / "a.wav"
    wave = voice(4.5)
    faint = 0.01 * voice(4.5, seed=1)
    soundfile.write(
        path, np.stack([0.5 * wave + faint, -wave], 1), RATE, subtype="FLOAT"
    )
    with AudioFile(path) as audio:
        # Half as loud, the first channel does not cancel the second.
        assert audio.read(0, 100) == pytest.approx(
            (-0.5 * wave + faint)[:100] / 2, abs=1e-6
        )
    assert probe(path, "decode").notes == []
    for left, right, read in (
        (wave, -wave + faint, wave),
        (0.7 * wave, -wave, -wave),
        (0.5 + wave, 0.5 - wave, wave + 0.5),
    ):
        stereo = np.stack([left, right], 1)
        soundfile.write(path, stereo, RATE, subtype="FLOAT")
        with AudioFile(path) as audio:
            for start, count in ((0, 72000), (30000, 20000), (71000, 1000)):
                part = audio.read(start, count)
                wanted = read[start : start + count]
                assert np.allclose(part, wanted, atol=1e-6)
        (note,) = probe(path, "decode").notes
        assert note[0] == "channels cancel each other"
        assert "in 5 of 5 s" in note[1]


def test_channels_that_do_not_cancel(tmp_path):
    """Independent ones, several, silent ones, and a part that cancels."""
    path = tmp_path / "a.wav"
    channels = np.stack([voice(2, seed=s) for s in range(12)], 1)
    for stereo in (channels, channels[:, :2], channels[:, :3] * [1, 0, 0]):
        soundfile.write(path, stereo, RATE, subtype="FLOAT")
        with AudioFile(path) as audio:
            assert np.allclose(audio.read(), stereo.mean(1), atol=1e-6)
    stereo = channels[:, [0, 0]]
    stereo[16000:, 1] *= -1
    soundfile.write(path, stereo, RATE, subtype="FLOAT")
    with AudioFile(path) as audio:
        assert np.allclose(audio.read(), channels[:, 0], atol=1e-6)
    (note,) = probe(path, "decode").notes
    assert "in 1 of 2 s" in note[1]


@pytest.mark.parametrize("value", [np.nan, np.inf, -1e30, 2e6])
def test_absurd_samples(tmp_path, value):
    """Check and reader treat them alike; loud floats are no fault."""
    path = tmp_path / "a.wav"
    wave = 32767 * voice()
    soundfile.write(path, wave, RATE, subtype="FLOAT")
    assert probe(path, "decode").reason == ""
    wave[40000] = value
    soundfile.write(path, wave, RATE, subtype="FLOAT")
    found = probe(path, "decode")
    assert found.reason == "samples out of range"
    assert found.detail.endswith("at 2.500 s")
    with AudioFile(path) as audio:
        assert len(audio.read(0, 32000)) == 32000
        with pytest.raises(AudioError, match="beyond 1e.06 at 2.500 s"):
            audio.read(39990, 100)


@pytest.mark.parametrize("form", ["wav", "flac", "aiff", "au", "w64"])
def test_a_file_that_has_changed(tmp_path, form):
    """A part is lost, or the file is another one: both lengths are named."""
    path = tmp_path / f"a.{form}"
    soundfile.write(path, voice(10), RATE)
    with AudioFile(path, RATE, 10.05) as audio:
        assert audio.num_samples == 160000
    with AudioFile(path, RATE, 9.95) as audio:
        assert audio.num_samples == round(9.96 * RATE)
    for seconds in (12.0, 8.0):
        with pytest.raises(
            AudioError,
            match=rf"10.00 s, .* {seconds:.2f} s.*delete prepare\.json",
        ):
            AudioFile(path, RATE, seconds)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(AudioError, match="of the .* announced|damaged|10.00 s"):
        with AudioFile(path, RATE, 10.0) as audio:
            audio.read(0, 160000)


def test_a_file_that_changes_while_it_is_open(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, voice(10), RATE)
    with AudioFile(path, RATE, 10.0) as audio:
        assert len(audio.read(0, 16000)) == 16000
        os.truncate(path, 100000)
        with pytest.raises(AudioError, match="a.wav is truncated"):
            audio.read(80000, 16000)


@pytest.mark.skipif(os.name == "nt", reason="there are no such files")
def test_what_is_no_regular_file(tmp_path):
    """Neither a pipe nor a device makes anyone wait."""
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "folder.wav").mkdir()
    os.symlink("/dev/zero", tmp_path / "zero.wav")
    os.symlink("loop.wav", tmp_path / "loop.wav")
    begin = time.monotonic()
    for name in ("pipe", "folder", "zero", "loop"):
        path = tmp_path / f"{name}.wav"
        assert probe(path).reason == probe(path, "decode").reason
        assert probe(path).reason == "unreadable"
        with pytest.raises(AudioError, match=f"{name}.wav: unreadable"):
            AudioFile(path)
    assert probe("a\0b.wav").reason == "unreadable"
    assert time.monotonic() - begin < 5


def patched(path, **fields):
    """Write a wav file and change fields of its header."""
    places = {"riff": (4, 4), "channels": (22, 2), "rate": (24, 4)}
    places |= {"size": (40, 4)}
    soundfile.write(path, voice(), RATE, subtype="PCM_16")
    data = bytearray(path.read_bytes())
    for name, value in fields.items():
        begin, length = places[name]
        data[begin : begin + length] = value.to_bytes(length, "little")
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"size": 2**32 - 1, "riff": 2**32 - 1}, ""),
        ({"size": 0x7FFFF000}, ""),
        ({"size": 0}, "zero length"),
        ({"rate": 8}, "implausible header"),
        ({"rate": 2**31 - 1}, "implausible header"),
        ({"rate": 1_000_000}, ""),
        ({"rate": 0}, "unreadable"),
        ({"channels": 65535}, "unreadable"),
        ({"channels": 1000, "rate": 100_000}, "implausible header"),
    ],
)
def test_headers_of_wav_files(tmp_path, fields, reason):
    path = patched(tmp_path / "a.wav", **fields)
    found = probe(path)
    assert found.reason == reason
    if reason:
        with pytest.raises(AudioError, match=reason):
            AudioFile(path)
    else:
        with AudioFile(path) as audio:
            assert len(audio.read()) == audio.num_samples


def test_several_ogg_streams(tmp_path):
    """The first one is read, exactly, and the rest is noted."""
    soundfile.write(tmp_path / "a.ogg", voice(8), RATE)
    soundfile.write(tmp_path / "b.ogg", voice(7, seed=1), RATE)
    whole, _ = soundfile.read(tmp_path / "a.ogg", dtype="float32")
    with open(tmp_path / "a.ogg", "ab") as stream:
        stream.write((tmp_path / "b.ogg").read_bytes())
    found = probe(tmp_path / "a.ogg")
    assert [note for note, _ in found.notes] == ["several streams"]
    with AudioFile(tmp_path / "a.ogg") as audio:
        assert np.array_equal(audio.read(51000, 900), whole[51000:51900])
        assert np.array_equal(audio.read(), whole)


def test_seeks_in_vorbis(tmp_path):
    """libsndfile decodes some wrongly where a file was not opened anew."""
    path = tmp_path / "a.ogg"
    soundfile.write(path, voice(8), RATE)
    whole, _ = soundfile.read(path, dtype="float32")
    wrong = 0
    with soundfile.SoundFile(path) as stock, Decoder(path) as decoder:
        for start in np.random.default_rng(0).integers(0, 7 * RATE, 40):
            there = whole[start : start + 1000]
            decoder._go_to(start)
            assert np.array_equal(decoder._read(1000)[:, 0], there)
            stock.seek(start)
            wave = stock.read(1000, dtype="float32")
            wrong += not np.array_equal(wave, there)
    assert wrong > 0


def test_mp3_from_any_second(tmp_path, capfd):
    """An MP3 frame has bits in earlier ones, which a bare seek leaves out.

    mpg123 then writes to stderr, and the first samples are wrong.
    """
    rate, path = 8000, tmp_path / "a.mp3"
    wave = np.arange(12 * rate) // 3000 % 2
    soundfile.write(path, wave * voice(12, rate), rate)
    with Decoder(path) as decoder:
        whole = np.concatenate(list(decoder.seconds()))
    stock, wrong, heard = soundfile.SoundFile(path), 0, ""
    for second in range(11, 0, -1):
        there = whole[second * rate :][:rate]
        with Decoder(path) as decoder:
            part = next(decoder.seconds(second))
        assert np.allclose(part, there, atol=1e-5), second
        assert capfd.readouterr().err == ""
        stock.seek(second * rate)
        part = stock.read(rate, dtype="float32")
        wrong += not np.allclose(part, there, atol=1e-3)
        heard += capfd.readouterr().err
    assert wrong > 0 and "mpg123" in heard


@pytest.mark.parametrize(
    "form", ["flac", "w64", "rf64", "sph", "ogg", "opus", "mp3"]
)
def test_files_cut_short_of_other_forms(tmp_path, form):
    """By the header alone; an Ogg file may also have been cut on purpose."""
    path = tmp_path / f"a.{form}"
    kind = {
        "opus": {"format": "OGG", "subtype": "OPUS"},
        "sph": {"format": "NIST"},
    }.get(form, {})
    soundfile.write(path, voice(10), RATE, **kind)
    assert probe(path)[5:] == ("", "", [])
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    found = probe(path)
    assert found.reason == {
        "flac": "damaged",
        "w64": "truncated",
        "rf64": "truncated",
        "sph": "truncated",
    }.get(form, "")
    if form in ("ogg", "opus"):
        assert [note for note, _ in found.notes] == ["no end of stream"]
        with AudioFile(path) as audio:
            whole = audio.read()
            part = audio.read(20000, 900)
            assert np.allclose(part, whole[20000:20900], atol=1e-3)
    if form == "mp3":
        assert probe(path, "decode").reason == "truncated"
