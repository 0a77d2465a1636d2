"""Conversion: the audio is the same; it can be killed, and goes on."""

import errno
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile
import tiny

pytest.importorskip("av")

from av_files import KINDS, encode, has_encoder, video_only, voice

from speechbrain_ssl.data.audio import AudioFile
from speechbrain_ssl.errors import UserError
from speechbrain_ssl.prepare import convert
from speechbrain_ssl.prepare.convert import convert_file, convert_files


def likeness(found, wanted):
    """Correlation at the best delay; coders delay the signal."""
    size = len(found) + len(wanted)
    product = np.fft.rfft(found, size) * np.fft.rfft(wanted, size).conj()
    best = np.abs(np.fft.irfft(product, size)).max()
    return best / np.linalg.norm(found) / np.linalg.norm(wanted)


@pytest.mark.parametrize("name, codec, rate, channels, least", KINDS)
def test_the_audio_is_the_same(tmp_path, name, codec, rate, channels, least):
    if not has_encoder(codec):
        pytest.skip(f"PyAV has no encoder {codec}")
    encode(tmp_path / name, codec, rate, channels, video=name == "a.mp4")
    convert_file(tmp_path / name, tmp_path / "new/a.flac")
    found, new_rate = soundfile.read(tmp_path / "new/a.flac")
    assert new_rate == min(rate, 16000) and found.ndim == 1
    assert len(found) / new_rate == pytest.approx(3.0, abs=0.11)
    assert likeness(found, voice(new_rate)) > least
    if codec == "alac":
        assert len(found) == 3 * new_rate
    info = soundfile.info(tmp_path / "new/a.flac")
    assert (info.format, info.subtype) == ("FLAC", "PCM_16")
    assert os.listdir(tmp_path / "new") == ["a.flac"]


@pytest.mark.parametrize("rate", [44100, 48000])
@pytest.mark.parametrize("count", [1, 70001])
def test_a_copy_has_the_samples_that_training_would_read(tmp_path, rate, count):
    """Even a file that is shorter than a sample at 16 kHz."""
    wave = np.random.default_rng(0).normal(0, 0.1, count)
    soundfile.write(tmp_path / "a.wav", wave, rate)
    convert_file(tmp_path / "a.wav", tmp_path / "b.flac")
    with AudioFile(tmp_path / "a.wav") as audio:
        wanted = audio.read()
    found, _ = soundfile.read(tmp_path / "b.flac")
    assert len(found) - len(wanted) in (0, 1)
    assert np.abs(found[: len(wanted)] - wanted).max() < 1e-4


def test_channels_are_mixed_unless_they_cancel(tmp_path):
    left, right = voice(16000, seed=1), voice(16000, seed=2)
    encode(tmp_path / "a.m4a", "alac", 16000, 2, np.stack([left, right]))
    convert_file(tmp_path / "a.m4a", tmp_path / "a.flac")
    found, _ = soundfile.read(tmp_path / "a.flac")
    assert np.abs(found - (left + right) / 2).max() < 1e-4
    encode(tmp_path / "b.m4a", "alac", 16000, 2, np.stack([left, -left]))
    ((note, detail),) = convert_file(tmp_path / "b.m4a", tmp_path / "b.flac")
    assert note == "channels cancel each other" and "in 3 s" in detail
    found, _ = soundfile.read(tmp_path / "b.flac")
    assert np.abs(found - left).max() < 1e-4


def test_the_stream_changes_its_channels(tmp_path):
    """Two AAC streams in one file, as a radio's."""
    one = encode(tmp_path / "one.aac", "aac", 16000).read_bytes()
    two = encode(tmp_path / "two.aac", "aac", 16000, 2).read_bytes()
    (tmp_path / "both.aac").write_bytes(one + two)
    convert_file(tmp_path / "both.aac", tmp_path / "both.flac")
    found, _ = soundfile.read(tmp_path / "both.flac")
    assert len(found) / 16000 == pytest.approx(6.2, abs=0.2)
    assert likeness(found[len(found) // 2 :], voice(16000)) > 0.9


def broken(folder):
    """Files that cannot be used; name to reason."""
    m4a = encode(
        folder / "whole.m4a", "aac", 16000, options={"movflags": "faststart"}
    ).read_bytes()
    data = m4a.index(b"mdat") + 4
    noise = np.random.default_rng(0).bytes(len(m4a) - data)
    webm = encode(folder / "whole.webm", "libopus", 48000).read_bytes()
    late = encode(folder / "late.m4a", "aac", 16000).read_bytes()
    contents = {
        "cut.m4a": (m4a[: len(m4a) // 2], "truncated"),
        "cut.webm": (webm[: len(webm) // 2], "truncated"),
        "headless.m4a": (late[: len(late) // 2], "unreadable"),
        "encrypted.m4a": (m4a[:data] + noise, "unreadable"),
        "text.wma": (b"no audio", "unreadable"),
        "empty.m4a": (b"", "empty file"),
    }
    for name, (content, _) in contents.items():
        (folder / name).write_bytes(content)
    video_only(folder / "video.mp4")
    os.symlink(folder / "absent.m4a", folder / "link.m4a")
    reasons = {name: reason for name, (_, reason) in contents.items()}
    return {**reasons, "video.mp4": "unreadable", "link.m4a": "missing"}


def test_what_cannot_be_used(tmp_path):
    reasons = broken(tmp_path)
    targets = {name: f"{name}.flac" for name in [*reasons, "whole.m4a"]}
    found = convert_files(
        tmp_path, targets, tmp_path / "new", num_workers=2, progress=False
    )
    assert found.pop("whole.m4a").reason == ""
    assert {name: outcome.reason for name, outcome in found.items()} == reasons
    assert "video" in found["video.mp4"].detail
    assert os.listdir(tmp_path / "new") == ["whole.m4a.flac"]


def run(folder, **kwargs):
    """Convert the folder's m4a files; return what was done, by name."""
    targets = {
        path.name: f"{path.name}.flac" for path in sorted(folder.glob("*.m4a"))
    }
    new = folder / "new"
    before = {p.name: p.stat().st_mtime_ns for p in new.glob("*.flac")}
    outcomes = convert_files(
        folder,
        targets,
        new,
        cache=folder / "cache.jsonl",
        progress=False,
        **kwargs,
    )
    after = {p.name: p.stat().st_mtime_ns for p in new.glob("*.flac")}
    done = {name for name in after if after[name] != before.get(name)}
    failures = {
        name: (outcome.reason, outcome.detail)
        for name, outcome in outcomes.items()
        if outcome.reason
    }
    return done, failures


def test_only_what_is_new_or_changed_is_converted(tmp_path):
    for name in ("a", "b"):
        encode(tmp_path / f"{name}.m4a", "aac", 16000)
    (tmp_path / "bad.m4a").write_bytes(b"no audio")
    done, failures = run(tmp_path)
    assert done == {"a.m4a.flac", "b.m4a.flac"} and set(failures) == {"bad.m4a"}
    # A damaged file is named again, though it is not opened.
    (tmp_path / "bad.m4a").chmod(0)
    assert run(tmp_path) == (set(), failures)
    other = voice(16000, seed=3)
    encode(tmp_path / "a.m4a", "aac", 16000, wave=other)
    assert run(tmp_path)[0] == {"a.m4a.flac"}
    found, _ = soundfile.read(tmp_path / "new/a.m4a.flac")
    assert likeness(found, other) > 0.99
    # The same size at another time, and a converted file that was deleted.
    os.utime(tmp_path / "b.m4a", ns=(10**18, 10**18))
    assert run(tmp_path)[0] == {"b.m4a.flac"}
    (tmp_path / "new/b.m4a.flac").unlink()
    assert run(tmp_path)[0] == {"b.m4a.flac"}


SCRIPT = """
import pathlib, sys, time
from speechbrain_ssl.prepare import convert

whole = convert.convert_file
def slow(*args):
    whole(*args)
    time.sleep(0.2)
convert.convert_file = slow
folder = pathlib.Path(sys.argv[1])
targets = {p.name: p.name + ".flac" for p in sorted(folder.glob("*.m4a"))}
convert.convert_files(folder, targets, folder / "new", folder / "cache.jsonl")
"""


@pytest.mark.skipif(os.name != "posix", reason="needs a signal that kills")
def test_a_killed_conversion_goes_on(tmp_path):
    source = encode(tmp_path / "00.m4a", "aac", 16000).read_bytes()
    for i in range(1, 20):
        (tmp_path / f"{i:02}.m4a").write_bytes(source)
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(tmp_path)],
        env=tiny.environment(),
        stderr=subprocess.DEVNULL,
    )
    while len(list(tmp_path.glob("new/*.flac"))) < 4:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    # Its worker ends when it notices, and what it still does is not recorded.
    time.sleep(1.5)
    lines = (tmp_path / "cache.jsonl").read_text().splitlines()
    recorded = {f"{json.loads(line)[0]}.flac" for line in lines}
    assert 1 <= len(recorded) < 20
    # What a kill leaves of a file is none.
    (tmp_path / "new/.19.m4a.flac.part").write_bytes(b"half")
    done, failures = run(tmp_path)
    assert done == {f"{i:02}.m4a.flac" for i in range(20)} - recorded
    assert not failures
    assert len(os.listdir(tmp_path / "new")) == 20
    first = (tmp_path / "new/00.m4a.flac").read_bytes()
    assert all(p.read_bytes() == first for p in tmp_path.glob("new/*.flac"))


def hang(*args):
    """Hang as C code does, which no signal of Python interrupts."""
    if os.path.basename(args[0]) == "hangs.m4a":
        signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 30))
        time.sleep(600)
    return REAL(*args)


def crash(*args):
    """Crash on one file."""
    if os.path.basename(args[0]) == "crashes.m4a":
        os.kill(os.getpid(), signal.SIGKILL)
    return REAL(*args)


REAL = convert.convert_file


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked")
@pytest.mark.parametrize(
    "fault, name",
    [pytest.param(hang, "hangs", marks=pytest.mark.slow), (crash, "crashes")],
)
def test_a_file_that_hangs_or_crashes(tmp_path, monkeypatch, fault, name):
    for other in ("a", "b", name):
        encode(tmp_path / f"{other}.m4a", "aac", 16000)
    monkeypatch.setattr(convert, "convert_file", fault)
    monkeypatch.setattr(convert, "_LEAST_SECONDS", 4)
    begin = time.monotonic()
    done, failures = run(tmp_path, num_workers=2)
    assert time.monotonic() - begin < 60
    assert done == {"a.m4a.flac", "b.m4a.flac"}
    reason, detail = failures[f"{name}.m4a"]
    assert reason == "unreadable" and "died, or took longer than 4 s" in detail


def test_a_full_disk_is_no_damaged_file(tmp_path, monkeypatch):
    encode(tmp_path / "a.m4a", "aac", 16000)
    (tmp_path / "b.m4a").write_bytes(b"no audio")

    class Full:
        free = 1000

    monkeypatch.setattr(convert.shutil, "disk_usage", lambda folder: Full)
    with pytest.raises(UserError, match="disk of .* is full"):
        run(tmp_path)


def test_silence_is_trimmed_by_the_level_of_the_whole(tmp_path, monkeypatch):
    """In stretches of two seconds here; also of a file that needs no decoder."""
    rate = 16000
    noise = np.random.default_rng(0).normal(0, 1, 10 * rate)
    level = np.repeat([0, 1e-3, 0.1, 1e-3, 0.1], 2 * rate)
    soundfile.write(tmp_path / "a.wav", noise * level, rate)
    encode(tmp_path / "b.m4a", "alac", rate, wave=np.float32(noise * level))
    monkeypatch.setattr(convert, "_TRIM_SECONDS", 2)
    for name in ("a.wav", "b.m4a"):
        convert_file(tmp_path / name, tmp_path / "a.flac", trim=True)
        found, _ = soundfile.read(tmp_path / "a.flac")
        # The two loud stretches are left, without the margins of a cut.
        assert len(found) == 4 * rate
        wanted = (noise * level)[level == 0.1]
        assert np.abs(found - wanted).max() < 1e-3
    soundfile.write(tmp_path / "silent.wav", np.zeros(rate), rate)
    outcomes = convert_files(
        tmp_path,
        {"silent.wav": "silent.flac"},
        tmp_path,
        trim=True,
        progress=False,
    )
    assert outcomes["silent.wav"].reason == "silent"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_bounded(tmp_path):
    """Twenty minutes of 48 kHz would be 230 MB."""
    long = tmp_path / "long.ac3"
    encode(long, "ac3", 48000, wave=np.tile(voice(48000, 10), 120))
    code = (
        "import re, sys\n"
        "from speechbrain_ssl.prepare.convert import convert_file\n"
        "def peak():\n"
        "    status = open('/proc/self/status').read()\n"
        "    return int(re.search(r'VmHWM:\\s+(\\d+) kB', status)[1]) / 1024\n"
        "convert_file(sys.argv[1], sys.argv[2])\n"
        "before = peak()\n"
        "convert_file(sys.argv[3], sys.argv[2], sys.argv[4] == 'True')\n"
        "print(peak() - before)\n"
    )
    short = encode(tmp_path / "short.ac3", "ac3", 48000)
    for trim, most in (False, 20), (True, 60):
        done = subprocess.run(
            [sys.executable, "-c", code, short, tmp_path / "a.flac", long]
            + [str(trim)],
            env=tiny.environment(),
            capture_output=True,
            text=True,
            check=True,
        )
        assert float(done.stdout) < most
        assert soundfile.info(tmp_path / "a.flac").duration > 600


def test_a_failure_of_the_machine_is_tried_again(tmp_path, monkeypatch):
    """A used-up quota or lacking memory is no fault of the file."""
    encode(tmp_path / "a.m4a", "aac", 16000)

    def fail(*args):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    with monkeypatch.context() as patch:
        patch.setattr(convert, "convert_file", fail)
        done, failures = run(tmp_path)
    assert not done and failures["a.m4a"][0] == "not converted"
    assert run(tmp_path) == ({"a.m4a.flac"}, {})
