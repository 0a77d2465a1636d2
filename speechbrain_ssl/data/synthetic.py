"""MiniVox: a corpus of synthetic speech that is written, not downloaded.

It is a demonstration and a test bed, never a benchmark: it shows that a
pipeline runs and learns, on any machine, without a licence or a network.

Three layers, each with a key of its own, make an utterance:

* the **voice** (key: seed, speaker) is a source and a filter. Vocal-tract
  length, formant offsets, pitch, spectral tilt, breathiness, jitter and rhythm
  belong to the speaker; the phone string is random.
* the **channel** (key: seed, speaker, video) is a room, a microphone and a
  noise. All utterances of a video share it, and no two videos do. That makes
  it the shortcut which a self-supervised system takes when both of its crops
  come from one utterance, as in real recordings.
* the **utterance** (key: seed, speaker, video, utterance) is what is said.

As every draw is keyed, a file depends on nothing but its own name and the
seed: not on the number of processes, nor on which files were there before.

The folders are VoxCeleb's (``wav/<speaker>/<video>/<utterance>.wav``),
MUSAN's and RIRS_NOISES', so that whatever reads those reads these.
"""

import concurrent.futures
import dataclasses
import functools
import json
import multiprocessing
import os
import pathlib

import numpy as np
import scipy.fft
import scipy.io.wavfile
import scipy.ndimage
import scipy.signal
from tqdm import tqdm

from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.files import atomic_write

SAMPLE_RATE = 16000

# Raise it with every change that alters a sample: a folder half of which was
# written by another version is then refused instead of completed.
GENERATOR_VERSION = 1

PARAMETERS_FILE = "minivox.json"
SPEAKERS_FILE = "minivox_meta.csv"

# Where the numbers of the speakers begin; a speaker keeps its voice when the
# number of the others changes.
_TRAIN, _TEST, _BACKGROUND = 10001, 20001, 30001

# First word of each key, so that no two kinds of draw share a stream.
_VOICE, _CHANNEL, _UTTERANCE, _NOISE, _MUSIC, _ROOM = range(1, 7)

# Short-time filtering: 8 ms frames, windows of 32 ms.
_HOP, _WINDOW = 128, 512
_BINS_KHZ = np.linspace(0, SAMPLE_RATE / 2000, _WINDOW // 2 + 1).astype("f4")

# Formants (kHz), gains of voicing and noise, centre and width of the noise
# (kHz), duration (ms). Formants: Peterson & Barney (1952), rounded.
_VOWELS = (
    (0.27, 2.29, 3.01, 1.0, 0.0, 4.0, 4.0, 95),
    (0.39, 1.99, 2.55, 1.0, 0.0, 4.0, 4.0, 75),
    (0.53, 1.84, 2.48, 1.0, 0.0, 4.0, 4.0, 90),
    (0.66, 1.72, 2.41, 1.0, 0.0, 4.0, 4.0, 120),
    (0.73, 1.09, 2.44, 1.0, 0.0, 4.0, 4.0, 120),
    (0.57, 0.84, 2.41, 1.0, 0.0, 4.0, 4.0, 115),
    (0.44, 1.02, 2.24, 1.0, 0.0, 4.0, 4.0, 75),
    (0.30, 0.87, 2.24, 1.0, 0.0, 4.0, 4.0, 95),
    (0.64, 1.19, 2.39, 1.0, 0.0, 4.0, 4.0, 80),
    (0.49, 1.35, 1.69, 1.0, 0.0, 4.0, 4.0, 100),
)
_CONSONANTS = (
    (0.25, 1.10, 2.30, 0.45, 0.0, 4.0, 4.0, 70),  # m
    (0.25, 1.60, 2.50, 0.45, 0.0, 4.0, 4.0, 65),  # n
    (0.36, 1.30, 2.70, 0.60, 0.0, 4.0, 4.0, 65),  # l
    (0.33, 1.20, 1.60, 0.60, 0.0, 4.0, 4.0, 65),  # r
    (0.30, 0.65, 2.20, 0.60, 0.0, 4.0, 4.0, 60),  # w
    (0.26, 2.20, 3.00, 0.60, 0.0, 4.0, 4.0, 60),  # j
    (0.35, 1.70, 2.60, 0.0, 0.50, 6.2, 1.2, 100),  # s
    (0.35, 1.80, 2.50, 0.0, 0.50, 3.3, 1.0, 105),  # sh
    (0.35, 1.10, 2.30, 0.0, 0.15, 4.5, 4.0, 85),  # f
    (0.50, 1.50, 2.50, 0.0, 0.25, 1.8, 1.5, 60),  # h
    (0.30, 1.70, 2.60, 0.35, 0.25, 6.0, 1.2, 75),  # z
    (0.30, 1.10, 2.30, 0.45, 0.08, 4.5, 4.0, 60),  # v
)
# A stop is a closure and then a burst.
_CLOSURES = (
    (0.25, 1.20, 2.40, 0.0, 0.0, 4.0, 4.0, 65),  # p, t, k
    (0.25, 1.20, 2.40, 0.15, 0.0, 4.0, 4.0, 55),  # b, d, g
)
_BURSTS = (
    (0.35, 0.90, 2.20, 0.0, 0.35, 1.0, 1.2, 18),  # p
    (0.35, 1.75, 2.60, 0.0, 0.50, 4.2, 1.5, 22),  # t
    (0.35, 1.90, 2.30, 0.0, 0.45, 2.1, 0.7, 28),  # k
)
_PAUSE = (0.50, 1.50, 2.50, 0.0, 0.0, 4.0, 4.0, 1)


def _generator(seed, kind, first=0, second=0, third=0):
    """Random generator of one key.

    The key always has the same number of words: numpy pads shorter ones with
    zeros, and ``[1]`` would be ``[1, 0]``.
    """
    return np.random.default_rng([seed, kind, first, second, third])


@dataclasses.dataclass(frozen=True)
class Voice:
    """What belongs to a speaker and stays from video to video.

    Arguments
    ---------
    gender : str
        ``"f"`` or ``"m"``: which half of the ranges the voice comes from.
    scale : float
        Factor on all formants: the inverse of the vocal tract's length.
    formants : numpy.ndarray
        Factors on F1, F2 and F3 over and above ``scale``, ``[3]``.
    vowels : numpy.ndarray
        The speaker's pronunciation: factors on F1, F2, F3 of every phone.
    bandwidth : float
        Factor on the formants' bandwidths.
    filter : numpy.ndarray
        What does not move in speech: higher formants, tilt, cavities. Gain per
        bin of the short-time spectrum.
    pitch : float
        Mean of the fundamental, Hz.
    melody : float
        Range of the fundamental, semitones.
    breath : float
        Level of the noise in voiced sounds.
    jitter : float
        Relative irregularity of the fundamental.
    tempo : float
        Factor on the durations of the phones.
    stress : float
        How unequal syllables are, in duration and level.
    pause_rate : float
        Probability of a pause after a syllable.
    pause_ms : float
        Mean duration of a pause.
    """

    gender: str
    scale: float
    formants: np.ndarray
    vowels: np.ndarray
    bandwidth: float
    filter: np.ndarray
    pitch: float
    melody: float
    breath: float
    jitter: float
    tempo: float
    stress: float
    pause_rate: float
    pause_ms: float


def speaker_gender(number):
    """Genders alternate, so that every set of speakers is balanced."""
    return "m" if number % 2 else "f"


def draw_voice(seed, number):
    """The voice of a speaker.

    Arguments
    ---------
    seed : int
        Seed of the corpus.
    number : int
        Number of the speaker.

    Returns
    -------
    Voice

    Example
    -------
    >>> draw_voice(0, 10001).gender, draw_voice(0, 10002).gender
    ('m', 'f')
    """
    rng = _generator(seed, _VOICE, number)
    gender = speaker_gender(number)
    low = 0.80 if gender == "m" else 0.97
    scale = rng.uniform(low, low + 0.28)
    pitch = rng.uniform(90, 165) if gender == "m" else rng.uniform(150, 260)
    phones = len(_VOWELS) + len(_CONSONANTS)

    # F4 to F8 hardly move in speech. Without them the cascade would fall by
    # 12 dB an octave for each that is missing.
    higher = np.array([3.5, 4.5, 5.5, 6.5, 7.5]) * scale
    higher *= 1 + np.clip(rng.normal(0, 0.04, 5), -0.1, 0.1)
    bandwidth = rng.uniform(0.7, 1.5)
    power = np.ones_like(_BINS_KHZ)
    for centre in higher:
        power /= _pole(centre, 0.055 * centre * bandwidth)
    octaves = np.log2(np.maximum(_BINS_KHZ, 0.06) / 0.5)
    # The tilt of the source and the 6 dB an octave which the lips add.
    tilt = rng.uniform(-8.0, 0.0)
    decibel = tilt * np.maximum(octaves, 0) + 6 * np.minimum(octaves, 0)
    # Side cavities take narrow bands out; where they sit is anatomy.
    for low_khz, high_khz in ((2.5, 4.0), (4.0, 6.0)):
        centre = rng.uniform(low_khz, high_khz)
        depth, width = rng.uniform(5, 18), rng.uniform(0.2, 0.5)
        decibel -= depth * np.exp(-(((_BINS_KHZ - centre) / width) ** 2))
    return Voice(
        gender=gender,
        scale=scale,
        formants=1 + np.clip(rng.normal(0, 0.05, 3), -0.12, 0.12),
        vowels=1 + np.clip(rng.normal(0, 0.04, (phones, 3)), -0.1, 0.1),
        bandwidth=bandwidth,
        filter=np.sqrt(power) * 10 ** (decibel / 20),
        pitch=pitch,
        melody=rng.uniform(1.0, 5.0),
        breath=10 ** rng.uniform(-2.3, -0.7),
        jitter=10 ** rng.uniform(-2.6, -1.5),
        tempo=rng.uniform(0.75, 1.45),
        stress=rng.uniform(0.05, 0.45),
        pause_rate=rng.uniform(0.03, 0.16),
        pause_ms=rng.uniform(120, 350),
    )


def _pole(centre, width):
    """Squared magnitude of a resonance's denominator, one at 0 Hz (kHz)."""
    square = _BINS_KHZ * _BINS_KHZ
    centre2 = np.square(centre)
    return (np.square(centre2 - square) + np.square(width) * square) / (
        np.square(centre2)
    )


def _phone_string(voice, frames, rng):
    """Rows of phone targets, their lengths in frames and their levels."""
    rows, lengths, levels = [], [], []
    total = 0

    def add(row, milliseconds, level, own=None):
        nonlocal total
        row = np.array(row[:7])
        row[:3] *= voice.formants * voice.scale
        # The noise of a fricative moves less than the formants do.
        row[5] *= voice.scale**0.7
        if own is not None:
            row[:3] *= voice.vowels[own]
        length = max(1, int(round(milliseconds * SAMPLE_RATE / 1000 / _HOP)))
        rows.append(row)
        lengths.append(length)
        levels.append(level)
        total += length

    add(_PAUSE, rng.uniform(20, 120), 0.0)
    while total < frames:
        accent = np.exp(voice.stress * rng.normal())
        level = np.exp(0.8 * voice.stress * rng.normal())
        stretch = voice.tempo * np.clip(accent, 0.5, 2.0)
        kind = rng.random()
        if kind < 0.3:
            stop = rng.integers(6)
            closure, burst = _CLOSURES[stop // 3], _BURSTS[stop % 3]
            add(closure, closure[7] * voice.tempo, level)
            add(burst, burst[7] * rng.uniform(0.8, 1.4), level)
        elif kind < 0.9:
            i = rng.integers(len(_CONSONANTS))
            row = _CONSONANTS[i]
            add(row, row[7] * stretch, level, len(_VOWELS) + i)
        for _ in range(1 + (rng.random() < 0.2)):  # a diphthong now and then
            i = rng.integers(len(_VOWELS))
            row = _VOWELS[i]
            add(row, row[7] * stretch * rng.uniform(0.8, 1.2), level, i)
        if rng.random() < voice.pause_rate:
            add(_PAUSE, voice.pause_ms * rng.uniform(0.5, 1.5), 0.0)
    return np.array(rows), np.array(lengths), np.array(levels)


def _smooth(track, frames, axis=0):
    """Moving average, applied twice, ends held."""
    for _ in range(2):
        track = scipy.ndimage.uniform_filter1d(
            track, frames, axis=axis, mode="nearest"
        )
    return track


def _overlap_add(frames):
    """Sums windows that begin ``_HOP`` samples apart."""
    count, parts = len(frames), _WINDOW // _HOP
    output = np.zeros((count + parts - 1, _HOP), dtype=frames.dtype)
    for part in range(parts):
        output[part : part + count] += frames[
            :, part * _HOP : (part + 1) * _HOP
        ]
    return output.reshape(-1)


def synthesise(voice, num_samples, rng):
    """Random speech of a voice, before any channel.

    Arguments
    ---------
    voice : Voice
        Whose speech.
    num_samples : int
        Length at 16 kHz.
    rng : numpy.random.Generator
        What is said, and how.

    Returns
    -------
    numpy.ndarray
        float32 ``[num_samples]`` with an RMS of one.

    Example
    -------
    >>> rng = np.random.default_rng(0)
    >>> synthesise(draw_voice(0, 10001), 16000, rng).shape
    (16000,)
    """
    frames = num_samples // _HOP + _WINDOW // _HOP + 1
    rows, lengths, levels = _phone_string(voice, frames, rng)
    track = np.repeat(rows, lengths, axis=0)[:frames].astype("f4")
    level = np.repeat(levels, lengths)[:frames].astype("f4")
    # Articulators are slow, which makes the glides between phones; voicing
    # and noise switch faster.
    formants = _smooth(track[:, :3], 5)
    voicing = _smooth(track[:, 3] * level, 3)
    friction = _smooth(track[:, 4] * level, 2)

    # Source: a band-limited pulse train (Dirichlet kernel), so that its
    # harmonics are all there and none is folded back.
    samples = (frames - 1) * _HOP + _WINDOW
    slow = _smooth(rng.normal(size=frames), 15)
    slow /= slow.std() + 1e-6
    fall = np.linspace(1.0, -1.0, frames)
    semitones = voice.melody * (0.5 * fall + 0.6 * slow) + rng.normal(0, 0.4)
    pitch = voice.pitch * 2 ** (np.clip(semitones, -10, 10) / 12)
    pitch *= 1 + voice.jitter * np.clip(rng.normal(size=frames), -3, 3)
    at = np.arange(samples) / _HOP
    pitch = np.interp(at, np.arange(frames), pitch)
    phase = np.cumsum(pitch / SAMPLE_RATE) % 1.0
    harmonics = np.floor(7800 / pitch)
    below = np.sin(np.pi * phase)
    above = np.sin((2 * harmonics + 1) * np.pi * phase)
    close = np.abs(below) < 1e-4
    pulses = np.where(
        close, 2 * harmonics + 1, above / np.where(close, 1.0, below)
    )
    # Divided by the root of the harmonics' number, so that high and low
    # voices are about equally loud.
    pulses = (pulses - 1) / np.sqrt(2 * harmonics)
    noise = rng.standard_normal(samples, dtype="f4")
    # Breath is strongest while the glottis is open.
    pulses += voice.breath * noise * (1 - np.cos(2 * np.pi * phase))

    # Filter: the short-time spectra of both sources times what the vocal
    # tract passes in that frame.
    window = np.sqrt(scipy.signal.get_window("hann", _WINDOW)).astype("f4")
    cut = functools.partial(
        np.lib.stride_tricks.sliding_window_view, window_shape=_WINDOW
    )
    voiced = scipy.fft.rfft(cut(pulses.astype("f4"))[::_HOP] * window)
    hissed = scipy.fft.rfft(cut(noise)[::_HOP] * window)
    power = np.ones((frames, len(_BINS_KHZ)), dtype="f4")
    for i, base in enumerate((0.06, 0.09, 0.13)):
        width = np.float32(base * voice.bandwidth)
        power *= _pole(formants[:, i, None], width)
    gain = voicing[:, None] / np.sqrt(power) * voice.filter.astype("f4")
    centre, width = track[:, 5, None], track[:, 6, None]
    shape = friction[:, None] / (1 + np.square((_BINS_KHZ - centre) / width))
    speech = scipy.fft.irfft(voiced * gain + hissed * shape, n=_WINDOW)
    speech = _overlap_add(speech * window)[_WINDOW:][:num_samples]
    return (speech / (np.sqrt(np.mean(speech**2)) + 1e-8)).astype("f4")


@dataclasses.dataclass(frozen=True)
class Channel:
    """What all utterances of a video share.

    Arguments
    ---------
    room : numpy.ndarray
        Impulse response with the direct path at sample 0.
    equaliser : numpy.ndarray
        The microphone: decibels on ``_BINS_KHZ``.
    snr : float
        Signal-to-noise ratio in dB before the microphone.
    colour : float
        The noise's power falls with frequency to the power of ``colour``.
    hum : float
        Share of the noise that is a hum and its harmonics.
    hum_hz : float
        Fundamental of the hum.
    flutter : float
        Depth of the noise's modulation, 0 to 1.
    flutter_hz : float
        Rate of it.
    level : float
        Peak of the recordings, below 1.
    """

    room: np.ndarray
    equaliser: np.ndarray
    snr: float
    colour: float
    hum: float
    hum_hz: float
    flutter: float
    flutter_hz: float
    level: float


def draw_room(rng, low=0.1, high=0.45):
    """A room: a direct path, early reflections and an exponential decay.

    Arguments
    ---------
    rng : numpy.random.Generator
        Draws the room.
    low : float
        Least reverberation time, seconds.
    high : float
        Greatest reverberation time.

    Returns
    -------
    numpy.ndarray
        float32; the direct path is sample 0 and is the peak, one.

    Example
    -------
    >>> room = draw_room(np.random.default_rng(0))
    >>> float(room[0]), bool(np.abs(room).max() <= 1)
    (1.0, True)
    """
    decay = rng.uniform(low, high)
    length = int(decay * SAMPLE_RATE)
    time = np.arange(length) / SAMPLE_RATE
    tail = rng.standard_normal(length) * 10 ** (-3 * time / decay)
    # Walls swallow high frequencies first.
    damping = rng.uniform(0.1, 0.7)
    tail = scipy.signal.lfilter([1 - damping], [1, -damping], tail)
    tail[: int(rng.uniform(0.002, 0.008) * SAMPLE_RATE)] = 0
    # Energy of the direct path over that of everything else.
    ratio = 10 ** (rng.uniform(3, 15) / 10)
    tail *= np.sqrt(1 / (ratio * np.sum(tail**2) + 1e-12))
    for _ in range(rng.integers(3, 8)):
        at = int(rng.uniform(0.001, 0.03) * SAMPLE_RATE)
        tail[at] += rng.uniform(-0.4, 0.4)
    room = np.clip(tail, -0.95, 0.95)
    room[0] = 1.0
    return room.astype("f4")


def draw_channel(seed, number, video):
    """The channel of a video.

    Arguments
    ---------
    seed : int
        Seed of the corpus.
    number : int
        Number of the speaker.
    video : int
        Number of the speaker's video.

    Returns
    -------
    Channel

    Example
    -------
    >>> 0 < draw_channel(0, 10001, 0).level < 1
    True
    """
    rng = _generator(seed, _CHANNEL, number, video)
    room = draw_room(rng)
    octaves = np.log2(np.maximum(_BINS_KHZ, 0.03))
    decibel = rng.uniform(-1.2, 1.2) * octaves
    for _ in range(3):
        centre = rng.uniform(-2.5, 2.7)
        width, height = rng.uniform(0.3, 0.8), rng.uniform(-3, 3)
        decibel += height * np.exp(-(((octaves - centre) / width) ** 2))
    lowest = np.log2(rng.uniform(0.05, 0.2))
    highest = np.log2(rng.uniform(5.0, 9.0))
    decibel -= 12 * np.maximum(lowest - octaves, 0)
    decibel -= 30 * np.maximum(octaves - highest, 0)
    return Channel(
        room=room,
        equaliser=np.maximum(decibel, -45),
        snr=rng.uniform(16, 32),
        colour=rng.uniform(0.3, 1.7),
        hum=rng.uniform(0, 0.5) * (rng.random() < 0.4),
        hum_hz=rng.uniform(48, 130),
        flutter=rng.uniform(0, 0.9) * (rng.random() < 0.5),
        flutter_hz=rng.uniform(0.5, 8),
        level=rng.uniform(0.45, 0.9),
    )


def coloured_noise(num_samples, colour, rng):
    """Gaussian noise whose power falls with ``frequency ** colour``.

    Arguments
    ---------
    num_samples : int
        Length at 16 kHz.
    colour : float
        0 is white, 1 pink, 2 brown.
    rng : numpy.random.Generator
        Draws the noise.

    Returns
    -------
    numpy.ndarray
        float32 ``[num_samples]`` with an RMS of one.
    """
    size = scipy.fft.next_fast_len(num_samples, real=True)
    spectrum = scipy.fft.rfft(rng.standard_normal(size, dtype="f4"))
    hertz = np.arange(len(spectrum), dtype="f4") * (SAMPLE_RATE / size)
    spectrum *= np.maximum(hertz, 40) ** np.float32(-colour / 2)
    noise = scipy.fft.irfft(spectrum, n=size)[:num_samples]
    return noise / np.sqrt(np.mean(noise**2))


def transmit(speech, channel, rng):
    """Speech as it was recorded: room, noise, microphone, level.

    Arguments
    ---------
    speech : numpy.ndarray
        From ``synthesise``.
    channel : Channel
        Of the video.
    rng : numpy.random.Generator
        Draws the samples of the noise.

    Returns
    -------
    numpy.ndarray
        float32, as long as ``speech``, with the channel's peak.
    """
    length = len(speech)
    noise = coloured_noise(length, channel.colour, rng)
    time = np.arange(length, dtype="f4") / SAMPLE_RATE
    begin = rng.random(2)
    if channel.flutter:
        turn = 2 * np.pi * (channel.flutter_hz * time + begin[0])
        noise *= 1 + channel.flutter * np.sin(turn).astype("f4")
    if channel.hum:
        turn = 2 * np.pi * (channel.hum_hz * time + begin[1])
        hum = sum(np.sin(k * turn) / k for k in (1, 2, 3, 5, 7, 9))
        noise = (1 - channel.hum) * noise + channel.hum * hum.astype("f4")
    noise *= 10 ** (-channel.snr / 20) / np.sqrt(np.mean(noise**2))

    size = scipy.fft.next_fast_len(length + len(channel.room), real=True)
    spectrum = scipy.fft.rfft(speech, n=size)
    spectrum *= scipy.fft.rfft(channel.room, n=size)
    # The noise is where the microphone is: it takes the equaliser along.
    spectrum += scipy.fft.rfft(noise, n=size)
    kilohertz = np.arange(len(spectrum)) * (SAMPLE_RATE / 1000 / size)
    gain = np.interp(kilohertz, _BINS_KHZ, channel.equaliser)
    spectrum *= 10 ** (gain.astype("f4") / 20)
    recorded = scipy.fft.irfft(spectrum, n=size)[:length]
    # No recorder is silent; this also keeps logarithms finite.
    floor = 1e-3 * rng.standard_normal(length, dtype="f4")
    recorded = recorded / np.abs(recorded).max() + floor
    return recorded * (channel.level / np.abs(recorded).max())


def _music(num_samples, rng):
    """Chords with partials that die away: music enough for a distraction."""
    time = np.arange(num_samples) / SAMPLE_RATE
    output = np.zeros(num_samples, dtype="f8")
    beat = rng.uniform(0.3, 0.8)
    root = rng.uniform(80, 160)
    fading, brightness = rng.uniform(0.5, 4), rng.uniform(0.8, 2.0)
    for start in np.arange(0, num_samples / SAMPLE_RATE, beat):
        at = time >= start
        local = time[at] - start
        degree = rng.choice([0, 2, 4, 5, 7, 9])
        third = rng.choice([3, 4])
        for note in (0, third, 7, 12):
            hertz = root * 2 ** ((degree + note) / 12)
            count = int(min(8, 7500 / hertz))
            for k in range(1, count + 1):
                output[at] += (
                    k**-brightness
                    * np.exp(-fading * np.sqrt(k) * local)
                    * np.sin(2 * np.pi * k * hertz * local)
                )
    return (output / np.sqrt(np.mean(output**2))).astype("f4")


def _background_sound(kind, index, seed):
    """One file of the noise folder."""
    codes = {"noise": _NOISE, "music": _MUSIC, "speech": _UTTERANCE}
    rng = _generator(seed, codes[kind], _BACKGROUND + index)
    length = int(rng.uniform(5, 8) * SAMPLE_RATE)
    if kind == "speech":
        sound = synthesise(draw_voice(seed, _BACKGROUND + index), length, rng)
    elif kind == "music":
        sound = _music(length, rng)
    else:
        sound = coloured_noise(length, rng.uniform(0, 2), rng)
        # Every other one is a band, every third comes and goes.
        if index % 2:
            low = 10 ** rng.uniform(1.8, 3.2)
            band = [low, min(low * rng.uniform(2, 10), 7800)]
            sections = scipy.signal.butter(
                2, band, "bandpass", fs=SAMPLE_RATE, output="sos"
            )
            sound = scipy.signal.sosfilt(sections, sound).astype("f4")
        if index % 3 == 0:
            time = np.arange(length) / SAMPLE_RATE
            turn = 2 * np.pi * rng.uniform(0.3, 6) * time
            sound *= (0.55 + 0.45 * np.sin(turn)).astype("f4")
    return sound * (rng.uniform(0.4, 0.8) / np.abs(sound).max())


def _write_wav(path, samples):
    """16-bit mono; nothing that reads the folder ever sees half a file."""
    pcm = np.round(samples * 32767).astype("<i2")
    with atomic_write(path, "wb") as stream:
        scipy.io.wavfile.write(stream, SAMPLE_RATE, pcm)


def _make(task, folder, seed, seconds):
    """Writes the files of one task; returns how many."""
    kind, number, video, names = task
    folder = pathlib.Path(folder)
    if kind == "wav":
        voice = draw_voice(seed, number)
        channel = draw_channel(seed, number, video)
    for index, name in names:
        if kind == "wav":
            rng = _generator(seed, _UTTERANCE, number, video, index)
            length = int(rng.uniform(*seconds) * SAMPLE_RATE)
            sound = transmit(synthesise(voice, length, rng), channel, rng)
        elif kind == "room":
            # Simulated rooms reach further than those of the corpus.
            rng = _generator(seed, _ROOM, index)
            sound = 0.9 * draw_room(rng, 0.1, 0.7)
        else:
            sound = _background_sound(kind, index, seed)
        _write_wav(folder / name, sound)
    return len(names)


def _corpus_tasks(parameters):
    """All files, a video a task: ``(kind, speaker, video, names)``."""
    tasks = []
    for number, _ in _speakers(parameters):
        for video in range(parameters["videos_per_speaker"]):
            names = [
                (i, f"wav/id{number}/video{video + 1:02d}/{i + 1:05d}.wav")
                for i in range(parameters["utterances_per_video"])
            ]
            tasks.append(("wav", number, video, names))
    for kind in ("noise", "music", "speech"):
        for i in range(parameters["num_noises"]):
            name = f"musan/{kind}/minivox/{kind}-minivox-{i:04d}.wav"
            tasks.append((kind, 0, 0, [(i, name)]))
    if parameters["num_rooms"]:
        base = "RIRS_NOISES/simulated_rirs/smallroom/Room001"
        names = [
            (i, f"{base}/Room001-{i + 1:05d}.wav")
            for i in range(parameters["num_rooms"])
        ]
        tasks.append(("room", 0, 0, names))
    return tasks


def _speakers(parameters):
    """Pairs of speaker number and set."""
    return [
        (first + i, name)
        for name, first in (("train", _TRAIN), ("test", _TEST))
        for i in range(parameters[f"num_{name}_speakers"])
    ]


def _check(parameters):
    """Refuses what would not make a corpus."""
    least = {"seed": 0, "num_noises": 0, "num_rooms": 0}
    for key, value in parameters.items():
        if key in ("seconds", "version"):
            continue
        lowest = least.get(key, 1)
        if not isinstance(value, int) or not lowest <= value < 2**32:
            raise ConfigError(
                f"{key} is {value!r}; a whole number from {lowest} is needed"
            )
        if key.startswith("num_") and value >= _TEST - _TRAIN:
            raise ConfigError(f"{key} is {value}; at most 9999 are possible")
    low, high = parameters["seconds"]
    if not 0.1 <= low <= high:
        raise ConfigError(
            f"seconds is {low} to {high}; the shortest has to be at least 0.1 "
            "and the longest no shorter than it"
        )


def _claim(folder, parameters):
    """Notes the arguments in the folder, or compares with those noted.

    They are written before the first sound: an interrupted call has already
    laid down how the corpus has to be completed.
    """
    remedy = (
        f"Remove the folder {folder} to make the corpus anew, or choose "
        "another one"
    )
    path = folder / PARAMETERS_FILE
    if path.is_file():
        try:
            noted = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ConfigError(
                f"{path} cannot be read ({error}). {remedy}."
            ) from error
        changed = [
            f"{key} was {noted.get(key)}, now {parameters.get(key)}"
            for key in sorted({*noted, *parameters})
            if noted.get(key) != parameters.get(key)
        ]
        if changed:
            raise ConfigError(
                f"{folder} holds a corpus that was made with other arguments "
                f"({'; '.join(changed)}). {remedy}."
            )
        return
    for name in ("wav", "musan", "RIRS_NOISES"):
        if (folder / name).exists():
            raise ConfigError(
                f"{folder} holds a folder {name} that MiniVox has not made; "
                "choose another folder"
            )
    with atomic_write(path) as stream:
        json.dump(parameters, stream, indent=2, sort_keys=True)
        stream.write("\n")


def write_corpus(
    folder,
    num_train_speakers=60,
    num_test_speakers=20,
    videos_per_speaker=4,
    utterances_per_video=5,
    seconds=(2.5, 5.0),
    num_noises=20,
    num_rooms=40,
    seed=1986,
    jobs=None,
    progress=True,
):
    """Writes MiniVox, or what is missing of it.

    A repeated call writes only files that are not there, and they get the same
    bytes as those which were.

    Arguments
    ---------
    folder : str or pathlib.Path
        Where the corpus goes: ``wav``, ``musan``, ``RIRS_NOISES``, the
        arguments (``minivox.json``) and the speakers (``minivox_meta.csv``).
    num_train_speakers : int
        Speakers to train on, ``id10001`` and up.
    num_test_speakers : int
        Speakers of the trials, ``id20001`` and up.
    videos_per_speaker : int
        Recordings of a speaker, each with a channel of its own.
    utterances_per_video : int
        Files of a recording.
    seconds : tuple of float
        Shortest and longest utterance.
    num_noises : int
        Files of each of MUSAN's kinds; 0 makes no such folder.
    num_rooms : int
        Room responses; 0 makes no such folder.
    seed : int
        All draws depend on it.
    jobs : int, optional
        Processes. Default: as many as this process has cores. The files do
        not depend on it.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    int
        How many files were written.

    Raises
    ------
    ConfigError
        If an argument makes no sense, if the folder holds a corpus that was
        made with other arguments, or one of another origin.

    Example
    -------
    >>> import tempfile
    >>> sizes = dict(num_train_speakers=1, num_test_speakers=1, num_noises=0)
    >>> sizes.update(videos_per_speaker=1, utterances_per_video=2, num_rooms=0)
    >>> folder = tempfile.mkdtemp()
    >>> write_corpus(folder, **sizes, jobs=1, progress=False)
    4
    >>> write_corpus(folder, **sizes, jobs=1, progress=False)
    0
    """
    folder = pathlib.Path(folder)
    parameters = {
        "num_train_speakers": num_train_speakers,
        "num_test_speakers": num_test_speakers,
        "videos_per_speaker": videos_per_speaker,
        "utterances_per_video": utterances_per_video,
        "seconds": [float(seconds[0]), float(seconds[1])],
        "num_noises": num_noises,
        "num_rooms": num_rooms,
        "seed": seed,
        "version": GENERATOR_VERSION,
    }
    _check(parameters)
    _claim(folder, parameters)
    if not (folder / SPEAKERS_FILE).is_file():
        with atomic_write(folder / SPEAKERS_FILE) as stream:
            stream.write("speaker,gender,set\n")
            for number, name in _speakers(parameters):
                stream.write(f"id{number},{speaker_gender(number)},{name}\n")

    tasks, missing = [], 0
    for kind, number, video, names in _corpus_tasks(parameters):
        names = [n for n in names if not (folder / n[1]).is_file()]
        if names:
            tasks.append((kind, number, video, names))
            missing += len(names)
    if not tasks:
        return 0
    make = functools.partial(
        _make, folder=str(folder), seed=seed, seconds=tuple(seconds)
    )
    with tqdm(
        total=missing, desc="MiniVox", unit="file", disable=not progress
    ) as bar:
        for count in _map(make, tasks, jobs):
            bar.update(count)
    return missing


def _map(function, tasks, jobs):
    """Results as they come, from ``jobs`` processes."""
    if jobs is None:
        affinity = getattr(os, "sched_getaffinity", None)
        jobs = len(affinity(0)) if affinity else os.cpu_count() or 1
    jobs = min(jobs, len(tasks))
    if jobs <= 1:
        yield from map(function, tasks)
        return
    # Forked where that exists: children need no import and no guard around
    # the caller's main module, and they touch neither torch nor a GPU.
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context(
        "fork" if "fork" in methods else "spawn"
    )
    pool = concurrent.futures.ProcessPoolExecutor(jobs, mp_context=context)
    try:
        futures = [pool.submit(function, task) for task in tasks]
        for future in concurrent.futures.as_completed(futures):
            yield future.result()
    finally:
        # After an interrupt nobody waits for a thousand files in the queue.
        pool.shutdown(wait=True, cancel_futures=True)
