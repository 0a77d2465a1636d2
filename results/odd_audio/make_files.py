#!/usr/bin/env python3
"""Make odd audio files from a synthetic voice, a folder for each kind.

    python make_files.py FOLDER

The files are small and the same each time. ``FOLDER/files.csv`` lists them (kind,
file). To add a kind, write a function that takes an empty folder and fills it, and
decorate it with ``kind``; to spoil files after they have been prepared, decorate a
second function of the same name with ``afterwards``. Names are listed that the
folder's file system can hold.
"""

import argparse
import csv
import functools
import os
import pathlib
import shutil

import av
import numpy as np
import soundfile
import soxr

from speechbrain_ssl.minivox.draws import generator
from speechbrain_ssl.minivox.voice import draw_voice, synthesise

RATE = 16000

#: Kind -> function that makes its files, and one that changes them later.
KINDS, AFTERWARDS = {}, {}


def kind(function):
    """Register a kind of files by the name of the function that makes them."""
    KINDS[function.__name__.replace("_", " ")] = function
    return function


def afterwards(function):
    """Register what happens to the files of a kind after preparation."""
    AFTERWARDS[function.__name__.replace("_", " ")] = function
    return function


@functools.cache
def voice(seconds=3.0, rate=RATE, speaker=1):
    """Return speech in one of a few voices, float64 below full scale."""
    rng = generator(0, 77, speaker)
    wave = synthesise(draw_voice(0, speaker), round(seconds * RATE), rng)
    wave = soxr.resample(wave.astype(np.float64), RATE, rate)
    wave = 0.5 * wave / np.abs(wave).max()
    wave.flags.writeable = False
    return wave


def write(path, wave=None, rate=RATE, **options):
    """Write speech, or another waveform, and return the path."""
    soundfile.write(
        path, voice(rate=rate) if wave is None else wave, rate, **options
    )
    return path


def patch(path, *changes):
    """Overwrite bytes of a file: (place, bytes), ..."""
    data = bytearray(path.read_bytes())
    for place, new in changes:
        data[place : place + len(new)] = new
    path.write_bytes(data)


def cut(path, share=0.5):
    """Remove the end of a file."""
    os.truncate(path, int(path.stat().st_size * share))


def little(value, length=4):
    """Return a number as bytes, lowest first."""
    return value.to_bytes(length, "little")


def noise(seconds=3.0, seed=0):
    """Return white noise."""
    return np.random.default_rng(seed).normal(0, 0.1, round(seconds * RATE))


# --------------------------------------------------------- containers and codecs

CONTAINERS = {
    "wav": {},
    "wavex.wav": {"format": "WAVEX"},
    "rf64": {},
    "w64": {},
    "aiff": {},
    "aifc": {"format": "AIFF", "subtype": "ALAW"},
    "au": {},
    "caf": {},
    "alac.caf": {"format": "CAF", "subtype": "ALAC_16"},
    "flac": {},
    "ogg": {},
    "opus": {"format": "OGG", "subtype": "OPUS"},
    "mp3": {},
    "sph": {"format": "NIST"},
}


@kind
def containers(folder):
    for name, options in CONTAINERS.items():
        write(folder / f"a.{name}", **options)


@kind
def sample_formats(folder):
    for subtype in (
        "PCM_U8 PCM_24 PCM_32 FLOAT DOUBLE ULAW ALAW IMA_ADPCM MS_ADPCM"
    ).split():
        write(folder / f"{subtype}.wav", subtype=subtype)
    write(folder / "PCM_S8.flac", subtype="PCM_S8")
    write(folder / "PCM_24.flac", subtype="PCM_24")
    write(folder / "scaled.wav", 32767 * voice(), subtype="FLOAT")
    write(folder / "beyond_one.wav", 5 * voice(), subtype="FLOAT")


@kind
def codecs_that_cannot_seek(folder):
    for extension, subtype in (
        *(("wav", s) for s in ("GSM610", "G721_32", "NMS_ADPCM_16")),
        *(("wav", s) for s in ("NMS_ADPCM_24", "NMS_ADPCM_32")),
        *(("au", s) for s in ("G721_32", "G723_24", "G723_40")),
        ("aiff", "GSM610"),
        ("aiff", "DWVW_16"),
        ("w64", "GSM610"),
    ):
        path = folder / f"{subtype}_{extension}.{extension}"
        write(path, rate=8000, subtype=subtype)


# ----------------------------------------------------- what PyAV has to decode


def encode(path, codec, rate=RATE, video=False, **options):
    """Write speech by an encoder of PyAV, behind a video stream if asked."""
    with av.open(str(path), "w", options=options) as container:
        if video:
            images = container.add_stream("mpeg4", rate=25)
            images.width = images.height = 64
            images.pix_fmt = "yuv420p"
        stream = container.add_stream(codec, rate=rate, layout="mono")
        if codec == "wmav2":
            stream.bit_rate = 32000
        if video:
            show(container, images)
        frame = av.AudioFrame.from_ndarray(
            voice(rate=rate)[None].astype(np.float32), "fltp", "mono"
        )
        frame.sample_rate = rate
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    return path


def show(container, stream):
    """Write three seconds of a grey video."""
    image = np.full((64, 64, 3), 99, dtype=np.uint8)
    for _ in range(75):
        frame = av.VideoFrame.from_ndarray(image, "rgb24")
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


@kind
def other_formats(folder):
    for name, codec, rate in (
        ("aac.m4a", "aac", 44100),
        ("alac.m4a", "alac", 22050),
        ("raw.aac", "aac", RATE),
        ("opus.webm", "libopus", 48000),
        ("wma.wma", "wmav2", RATE),
        ("dolby.ac3", "ac3", 48000),
        ("layer2.mp2", "mp2", 44100),
        ("aac.mka", "aac", RATE),
        ("phone.amr", "libopencore_amrnb", 8000),
        ("phone.3gp", "libopencore_amrnb", 8000),
        ("wavpack.wv", "wavpack", RATE),
        ("UPPER.M4A", "aac", RATE),
    ):
        encode(folder / name, codec, rate)
    encode(folder / "video.mp4", "aac", 48000, video=True)
    encode(folder / "video.mkv", "aac", 48000, video=True)


@kind
def other_formats_that_are_broken(folder):
    for name, codec in (
        ("cut.m4a", "aac"),
        ("cut_behind_its_index.m4a", "aac"),
        ("cut.webm", "libopus"),
        ("cut.wma", "wmav2"),
        ("cut.aac", "aac"),
    ):
        # An index before the audio is there although the end is missing.
        index = {"movflags": "faststart"} if "index" in name else {}
        cut(encode(folder / name, codec, **index))
    path = encode(folder / "encrypted.m4a", "aac", movflags="faststart")
    data = path.read_bytes()
    begin = data.index(b"mdat") + 4
    random = np.random.default_rng(0).bytes(len(data) - begin)
    patch(path, (begin, random))
    with av.open(str(folder / "no_sound.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        show(container, stream)
    (folder / "text.m4a").write_text("this is no audio\n" * 500)
    (folder / "empty.webm").touch()
    random = np.random.default_rng(0).bytes(20000)
    (folder / "random.aac").write_bytes(random)
    # Two names of one recording: the readable one is taken.
    encode(folder / "twice.m4a", "aac")
    write(folder / "twice.wav")


# ------------------------------------------------------------ rates and channels


@kind
def usual_rates(folder):
    for rate in (8000, 11025, 22050, 32000, 44100, 48000, 96000, 192000):
        write(folder / f"{rate}.wav", rate=rate)


@kind
def rates_without_a_common_factor(folder):
    for rate in (7999, 8001, 11127, 15999, 16001, 22254, 44056, 44099, 999_983):
        write(folder / f"{rate}.wav", rate=rate)


@kind
def impossible_rates(folder):
    for rate in (0, 8, 100, 2**31 - 1, 2**32 - 1):
        patch(write(folder / f"{rate}.wav"), (24, little(rate)))


@kind
def channels(folder):
    for number in (2, 3, 6, 64):
        voices = [voice(speaker=1 + s % 4) for s in range(number)]
        write(folder / f"{number}.wav", np.stack(voices, 1))
    write(folder / "one_silent.wav", np.stack([voice(), 0 * voice()], 1))
    write(folder / "stereo.mp3", np.stack([voice(), voice(speaker=2)], 1))
    for number in (0, 65535):
        patch(write(folder / f"header_{number}.wav"), (22, little(number, 2)))


@kind
def opposite_phase(folder):
    stereo = np.stack([voice(), -voice()], 1)
    for extension in ("wav", "flac", "mp3", "ogg"):
        write(folder / f"a.{extension}", stereo)
    write(folder / "softer.wav", stereo * [0.8, 1])
    stereo = stereo.copy()
    stereo[RATE:, 1] *= -1
    write(folder / "first_second.wav", stereo)


# ----------------------------------------------------------------------- lengths


def flac_length(path, total):
    """Write a length into the STREAMINFO block of a FLAC file."""
    byte = path.read_bytes()[21] & 0xF0
    last = (total & 0xFFFFFFFF).to_bytes(4, "big")
    patch(path, (21, bytes([byte | total >> 32]) + last))


@kind
def written_to_a_pipe(folder):
    for total in (0, 10**9, 2**36 - 1):
        flac_length(write(folder / f"flac_{total}.flac"), total)
    for size in (0, 0x7FFFF000, 2**32 - 1):
        name = folder / f"wav_{size}.wav"
        patch(write(name), (4, little(size)), (40, little(size)))
    patch(write(folder / "au.au"), (8, b"\xff" * 4))
    path = write(folder / "caf.caf")
    patch(path, (path.read_bytes().index(b"data") + 4, b"\xff" * 8))
    path = write(folder / "cut.flac")
    flac_length(path, 0)
    cut(path)


@kind
def false_lengths(folder):
    for name, total in (("less", 24000), ("more", 480000)):
        flac_length(write(folder / f"{name}.flac"), total)
    for name, count in (("less", 20), ("more", 400), ("absurd", 2**31)):
        path = write(folder / f"{name}.mp3")
        data = path.read_bytes()
        place = max(data.find(b"Xing"), data.find(b"Info"))
        patch(path, (place + 8, count.to_bytes(4, "big")))
    path = write(folder / "no_vbr_header.mp3")
    path.write_bytes(path.read_bytes().replace(b"Xing", b"XXXX"))


@kind
def joined_files(folder):
    for extension in ("ogg", "mp3", "flac", "wav"):
        first = write(folder / f"a.{extension}")
        second = write(
            folder / "second",
            voice(speaker=2),
            format=(first.suffix[1:].upper()),
        )
        with open(first, "ab") as stream:
            stream.write(second.read_bytes())
        second.unlink()


@kind
def cut_short(folder):
    containers(folder)
    for path in folder.iterdir():
        cut(path)
    cut(write(folder / "header_only.wav"), 44.5 / 96044)
    cut(write(folder / "half_a_header.wav"), 20 / 96044)


@kind
def very_short(folder):
    for samples in (0, 1, 2, 10, 800, 4000, 15900, 16000):
        write(folder / f"{samples}.wav", voice()[:samples])
    write(folder / "0.flac", voice()[:0])
    write(folder / "1_at_48000.wav", voice()[:1], 48000)


# ---------------------------------------------------------------- levels, content


@kind
def impossible_samples(folder):
    for name, value in (
        ("nan", np.nan),
        ("inf", np.inf),
        ("1e30", 1e30),
        ("2e6", -2e6),
    ):
        wave = voice().copy()
        wave[20000] = value
        write(folder / f"{name}.wav", wave, subtype="FLOAT")
    write(folder / "1e300.wav", 1e300 * voice(), subtype="DOUBLE")


@kind
def hardly_any_speech(folder):
    step = np.where(voice() > 0, 2.0**-15, 0)
    write(folder / "one_step.wav", step)
    write(folder / "zeros.wav", 0 * voice())
    write(folder / "constant.wav", 0 * voice() + 0.25)
    write(folder / "faint.wav", 1e-4 * voice(), subtype="PCM_24")
    write(folder / "mostly_silent.wav", np.append(np.zeros(30 * RATE), voice()))
    write(folder / "noise.wav", noise())
    write(folder / "tone.wav", 0.3 * np.sin(np.arange(3 * RATE) * 0.2))
    click = np.zeros(3 * RATE)
    click[RATE : RATE + 50] = 1
    write(folder / "click.wav", click)


@kind
def no_audio(folder):
    (folder / "empty.wav").touch()
    (folder / "text.wav").write_text("this is no audio\n" * 500)
    (folder / "page.mp3").write_text("<!DOCTYPE html><html>404</html>\n" * 50)
    (folder / "zeros.wav").write_bytes(bytes(10000))
    (folder / "archive.flac").write_bytes(b"PK\3\4" + bytes(3000))
    random = np.random.default_rng(0).bytes(20000)
    (folder / "random.ogg").write_bytes(random)
    (folder / "random.mp3").write_bytes(random)
    (folder / "flac_magic.flac").write_bytes(b"fLaC" + random)


@kind
def no_regular_file(folder):
    (folder / "folder.wav").mkdir()
    os.mkfifo(folder / "pipe.wav")
    (folder / "device.wav").symlink_to("/dev/zero")
    (folder / "dangling.wav").symlink_to("absent.wav")
    (folder / "loop.wav").symlink_to("loop.wav")


@kind
def names(folder):
    for name in (
        " leading and trailing .wav",
        "two  spaces.wav",
        'quote"comma,semicolon;.wav',
        "-rf.wav",
        "100%s{}$HOME.wav",
        "line\nbreak.wav",
        "carriage\rreturn.wav",
        "tab\tin it.wav",
        "\x01\x1b[31m\x7f.wav",
        "line\u2028separator no\xa0break.wav",
        "日本語 ✓ 🎤.wav",
        "A.WAV",
        "x" * 250 + ".wav",
        b"latin1-caf\xe9.wav",
    ):
        path = os.path.join(
            os.fsencode(folder),
            name if isinstance(name, bytes) else os.fsencode(name),
        )
        shutil.copy(write(folder / "a.wav"), path)
        (folder / "a.wav").unlink()


# ------------------------------------------------- what happens after preparation


@kind
def changed_after_preparation(folder):
    for name in ("cut.wav", "cut.flac", "cut.ogg", "cut.aiff", "cut.mp3"):
        write(folder / name, voice(6.0))
    for name in ("longer", "shorter", "removed", "folder", "text", "emptied"):
        write(folder / f"{name}.wav")
    write(folder / "another_rate.wav")


@afterwards
def changed_after_preparation(folder):  # noqa: F811
    for path in folder.glob("cut.*"):
        cut(path)
    write(folder / "longer.wav", voice(6.0))
    write(folder / "shorter.wav", voice(1.5))
    write(folder / "another_rate.wav", rate=44100)
    for name in ("removed", "folder"):
        (folder / f"{name}.wav").unlink()
    (folder / "folder.wav").mkdir()
    (folder / "text.wav").write_text("this is no audio\n" * 500)
    os.truncate(folder / "emptied.wav", 0)


def make(folder, name):
    """Make the files of one kind, in a new folder of that name."""
    place = pathlib.Path(folder) / name.replace(" ", "_")
    if place.exists():
        shutil.rmtree(place)
    place.mkdir(parents=True)
    KINDS[name](place)
    return place


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=pathlib.Path)
    folder = parser.parse_args().folder
    rows = []
    for name in KINDS:
        place = make(folder, name)
        rows += [(name, ascii(p.name)[1:-1]) for p in sorted(place.iterdir())]
    with open(
        folder / "files.csv", "w", encoding="utf-8", newline=""
    ) as stream:
        csv.writer(stream).writerows([("kind", "file"), *rows])
    print(f"{len(rows)} files of {len(KINDS)} kinds in {folder}")


if __name__ == "__main__":
    main()
