"""Simulate the channel of a video: a room, a microphone and a noise."""

import dataclasses

import numpy as np
import scipy.fft
import scipy.signal

from speechbrain_ssl.minivox.draws import CHANNEL, generator
from speechbrain_ssl.minivox.voice import BINS_KHZ, SAMPLE_RATE


@dataclasses.dataclass(frozen=True)
class Channel:
    """Room, microphone and noise that all utterances of a video share.

    Arguments
    ---------
    room : numpy.ndarray
        Impulse response with the direct path at sample 0.
    equaliser : numpy.ndarray
        Gain of the microphone at the frequencies ``BINS_KHZ``, dB.
    snr : float
        Signal-to-noise ratio in dB before the microphone.
    colour : float
        Exponent: the power of the noise falls with ``frequency ** colour``.
    hum : float
        Share of the noise that is a hum and its harmonics.
    hum_hz : float
        Fundamental of the hum.
    flutter : float
        Depth of the noise's modulation, 0 to 1.
    flutter_hz : float
        Rate of that modulation, Hz.
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
    """Draw a room: direct path, early reflections and exponential decay.

    Arguments
    ---------
    rng : numpy.random.Generator
        Generator for the room.
    low : float
        Shortest reverberation time, seconds.
    high : float
        Longest reverberation time, seconds.

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
    # Walls absorb high frequencies first.
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
    """Draw the channel of a video.

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
    rng = generator(seed, CHANNEL, number, video)
    room = draw_room(rng)
    octaves = np.log2(np.maximum(BINS_KHZ, 0.03))
    decibel = rng.uniform(-1.2, 1.2) * octaves
    for _ in range(3):
        center = rng.uniform(-2.5, 2.7)
        width, height = rng.uniform(0.3, 0.8), rng.uniform(-3, 3)
        decibel += height * np.exp(-(((octaves - center) / width) ** 2))
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
    """Draw Gaussian noise whose power falls with ``frequency ** colour``.

    Arguments
    ---------
    num_samples : int
        Length at 16 kHz.
    colour : float
        0 is white, 1 pink, 2 brown.
    rng : numpy.random.Generator
        Generator for the noise.

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
    """Send speech through a channel: room, noise, microphone, level.

    Arguments
    ---------
    speech : numpy.ndarray
        From ``synthesise``.
    channel : Channel
        Channel of the video.
    rng : numpy.random.Generator
        Generator for the samples of the noise.

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
    # The noise is not reverberated, but passes through the microphone too.
    spectrum += scipy.fft.rfft(noise, n=size)
    kilohertz = np.arange(len(spectrum)) * (SAMPLE_RATE / 1000 / size)
    gain = np.interp(kilohertz, BINS_KHZ, channel.equaliser)
    spectrum *= 10 ** (gain.astype("f4") / 20)
    recorded = scipy.fft.irfft(spectrum, n=size)[:length]
    # No recorder is silent; this noise floor also keeps logarithms finite.
    floor = 1e-3 * rng.standard_normal(length, dtype="f4")
    recorded = recorded / np.abs(recorded).max() + floor
    return recorded * (channel.level / np.abs(recorded).max())
