#!/usr/bin/env python3
"""Make two hours of mixed files of real speech, as users have them.

    python mixed_hours.py --corpora=/path/to/corpora FOLDER

``corpora`` contains ``speechocean762`` and ``librispeech_mini``, each with tables
(columns ID, duration, wav, spk_id). The files are the same each time:

    FOLDER/audio    two hours of the training speakers: 25 kinds of files, seven
                    sample rates, mono to 5.1, three files of ten minutes, and
                    some that are damaged or no audio
    FOLDER/trials   recordings of 12 held-out speakers, of the same kinds
    FOLDER/trials.txt
                    a trial list over them, separated by tabs, since the names
                    have spaces

``FOLDER`` must be new. Needs PyAV.
"""

import argparse
import itertools
import os
import pathlib

import av
import numpy as np
import pandas as pd
import soundfile
import soxr

RATES = (16000, 8000, 44100, 11025, 48000, 22050, 32000)

#: Channels of a file, in turn: most are mono.
LAYOUTS = ("mono", "stereo", "mono", "mono", "opposite", "mono", "5.1", "mono")

#: What names have before the number of the file; half of them have nothing.
NAMES = ("", "two words ", "", "it's ", "", 'so "called" ', "", "Gespräch-")

#: Kind -> extension, options of soundfile. 25 kinds, seven rates and eight
#: layouts have no common factor, so that all combinations occur.
SOUNDFILE = {
    "pcm8": (".wav", {"subtype": "PCM_U8"}),
    "pcm16": (".wav", {"subtype": "PCM_16"}),
    "pcm24": (".wav", {"subtype": "PCM_24"}),
    "pcm32": (".wav", {"subtype": "PCM_32"}),
    "float": (".WAV", {"subtype": "FLOAT"}),
    "u-law": (".wav", {"subtype": "ULAW"}),
    "gsm": (".wav", {"subtype": "GSM610"}),
    "ms adpcm": (".wav", {"subtype": "MS_ADPCM"}),
    "flac": (".flac", {}),
    "flac24": (".flac", {"subtype": "PCM_24"}),
    "vorbis": (".ogg", {}),
    "opus": (".opus", {"format": "OGG", "subtype": "OPUS"}),
    "mp3": (".mp3", {}),
    "aiff": (".aiff", {}),
    "au": (".au", {}),
    "caf": (".caf", {}),
}

#: Kind -> extension, codec of PyAV.
PYAV = {
    "mp3 of FFmpeg": (".mp3", "libmp3lame"),
    "m4a": (".m4a", "aac"),
    "mp4": (".mp4", "aac"),
    "apple lossless": (".m4a", "alac"),
    "webm": (".webm", "libopus"),
    "aac": (".aac", "aac"),
    "amr": (".amr", "libopencore_amrnb"),
    "wma": (".wma", "wmav2"),
    "3gp": (".3gp", "libopencore_amrnb"),
}
KINDS = (*SOUNDFILE, *PYAV)

#: Kinds that allow few rates or channels.
OPUS_RATES = (8000, 12000, 16000, 24000, 48000)
ONE_CHANNEL = ("gsm", "amr", "3gp")
AT_MOST_TWO = ("ms adpcm", "mp3", "mp3 of FFmpeg", "wma")


def combination(number):
    """Return kind, rate and layout of a file by its number."""
    kind = KINDS[number % len(KINDS)]
    rate = RATES[number % len(RATES)]
    layout = LAYOUTS[number % len(LAYOUTS)]
    if kind in ("amr", "3gp"):
        rate = 8000
    if kind in ("opus", "webm") and rate not in OPUS_RATES:
        rate = 48000
    if kind in ONE_CHANNEL or (kind in AT_MOST_TWO and layout == "5.1"):
        layout = "mono"
    return kind, rate, layout


def channels(wave, layout):
    """Lay speech out in channels, ``[samples, channels]``."""
    gains = {
        "mono": [1],
        "stereo": [1, 0.8],
        "opposite": [1, -1],
        "5.1": [0.2, 0.2, 1, 0, 0.1, 0.1],
    }[layout]
    return wave[:, None] * np.array(gains, np.float32)


def write(folder, name, wave, kind, rate, layout):
    """Write 16 kHz speech as a file of some kind, and return its path."""
    wave = channels(soxr.resample(wave, 16000, rate), layout)
    extension = (SOUNDFILE | PYAV)[kind][0]
    path = folder / f"{name}{extension}"
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind in PYAV:
        encode(path, wave, PYAV[kind][1], rate)
        return path
    options = SOUNDFILE[kind][1]
    # libsndfile needs much stack for a long block of Vorbis.
    with soundfile.SoundFile(
        path, "w", rate, wave.shape[1], **options
    ) as stream:
        for start in range(0, len(wave), rate):
            stream.write(wave[start : start + rate])
    return path


def encode(path, wave, codec, rate):
    """Write ``[samples, channels]`` by an encoder of PyAV."""
    layout = {1: "mono", 2: "stereo", 6: "5.1"}[wave.shape[1]]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        if codec == "wmav2":
            stream.bit_rate = 64000
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(wave.T), "fltp", layout
        )
        frame.sample_rate = rate
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)


def table(corpora, corpus, name):
    """Read a table of a corpus, with the paths of its audio."""
    folder = corpora / corpus
    found = pd.read_csv(folder / f"{name}.csv", dtype={"ID": str})
    return found.assign(wav=[folder / wav for wav in found["wav"]])


def read(path):
    """Read a file of a corpus, float32 at 16 kHz."""
    wave, rate = soundfile.read(path, dtype="float32")
    assert rate == 16000
    return wave


def make_audio(corpora, folder):
    """Make the two hours of training; return the names of the files."""
    libri = table(corpora, "librispeech_mini", "train")
    ocean = table(corpora, "speechocean762", "train")
    # Nearly an hour, then half an hour, then three times ten minutes.
    short = [*libri["wav"][:250], *ocean["wav"][:: len(ocean) // 500][:500]]
    for number, source in enumerate(short):
        kind, rate, layout = combination(number)
        name = f"{kind}/{NAMES[number % len(NAMES)]}{number:03d}"
        write(folder, name, read(source), kind, rate, layout)
    rest = iter([*libri["wav"][250:], *ocean["wav"][1::7]])
    for kind, rate, layout in (
        ("mp3", 44100, "stereo"),
        ("m4a", 48000, "stereo"),
        ("gsm", 8000, "mono"),
    ):
        waves = []
        while sum(map(len, waves)) < 600 * 16000:
            waves.append(read(next(rest)))
        name = f"meetings/ten minutes of {kind}"
        write(folder, name, np.concatenate(waves), kind, rate, layout)
    wave = np.concatenate([read(next(rest)) for _ in range(3)])
    make_odd(folder / "odd", wave)


def make_odd(folder, wave):
    """Make files that are damaged or no audio."""
    for kind in ("pcm16", "flac", "mp3", "vorbis", "m4a", "webm"):
        path = write(folder, f"cut {kind}", wave, kind, 16000, "mono")
        os.truncate(path, path.stat().st_size // 2)
    for kind in ("flac", "mp3", "vorbis", "aac"):
        path = write(folder, f"overwritten {kind}", wave, kind, 16000, "mono")
        data = bytearray(path.read_bytes())
        middle = len(data) // 2
        data[middle : middle + 2000] = np.random.default_rng(0).bytes(2000)
        path.write_bytes(data)
    wrong = wave.copy()
    wrong[20000] = np.nan
    write(folder, "not a number", wrong, "float", 16000, "mono")
    for kind in ("pcm16", "mp3", "m4a"):
        write(folder, f"silent {kind}", 0 * wave, kind, 16000, "mono")
    write(folder, "half a second", wave[:8000], "pcm16", 16000, "mono")
    write(folder, "twice", wave, "flac", 16000, "mono")
    write(folder, "twice", wave, "m4a", 16000, "mono")
    for name in ("empty.wav", "empty.mp3", "empty.m4a"):
        (folder / name).touch()
    for name in ("text.wav", "text.mp3", "text.m4a"):
        (folder / name).write_text("this is no audio\n" * 500)
    (folder / "notes.txt").write_text("Recorded on Monday.\n")
    (folder / "cover.jpg").write_bytes(b"\xff\xd8\xff\xe0" + bytes(5000))
    (folder / ".hidden.wav").write_bytes(bytes(4096))


def make_trials(corpora, folder):
    """Make recordings of held-out speakers; return names and speakers."""
    dev = table(corpora, "speechocean762", "dev")
    names, speakers = [], []
    for speaker, rows in itertools.islice(dev.groupby("spk_id"), 12):
        for wav in rows["wav"][:8]:
            kind, rate, layout = combination(len(names))
            place = NAMES[len(names) % len(NAMES)]
            name = f"{speaker}/{place}{len(names):02d}"
            path = write(folder, name, read(wav), kind, rate, layout)
            names.append(path.relative_to(folder).as_posix())
            speakers.append(speaker)
    return names, speakers


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--corpora", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True)
    make_audio(arguments.corpora, arguments.folder / "audio")
    names, speakers = make_trials(
        arguments.corpora, arguments.folder / "trials"
    )
    with open(arguments.folder / "trials.txt", "w", encoding="utf-8") as stream:
        for i, j in itertools.combinations(range(len(names)), 2):
            same = int(speakers[i] == speakers[j])
            # All target trials, and every third of the others.
            if same or (i + j) % 3 == 0:
                stream.write(f"{same}\t{names[i]}\t{names[j]}\n")


if __name__ == "__main__":
    main()
