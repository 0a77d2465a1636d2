"""Draw the voice of a speaker, and synthesise random speech in it.

A source (a pulse train and noise) is filtered by the resonances of the vocal
tract, frame by frame.
"""

import dataclasses
import functools

import numpy as np
import scipy.fft
import scipy.ndimage
import scipy.signal

from speechbrain_ssl.minivox.draws import VOICE, generator

SAMPLE_RATE = 16000

# Short-time filtering: 8 ms frames, windows of 32 ms.
_HOP, _WINDOW = 128, 512

#: Frequencies of the bins of a window's spectrum, kHz.
BINS_KHZ = np.linspace(0, SAMPLE_RATE / 2000, _WINDOW // 2 + 1).astype("f4")

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


@dataclasses.dataclass(frozen=True)
class Voice:
    """Voice of a speaker, the same in all videos.

    Arguments
    ---------
    gender : str
        ``"f"`` or ``"m"``: the half of the ranges that the voice is drawn from.
    scale : float
        Factor on all formants: the inverse of the vocal tract's length.
    formants : numpy.ndarray
        Factors on F1, F2 and F3 in addition to ``scale``, ``[3]``.
    vowels : numpy.ndarray
        The speaker's pronunciation: factors on F1, F2, F3 of every phone.
    bandwidth : float
        Factor on the formants' bandwidths.
    filter : numpy.ndarray
        The part of the filter that is constant (higher formants, tilt,
        cavities): a gain per bin of the short-time spectrum.
    pitch : float
        Mean of the fundamental frequency, Hz.
    melody : float
        Range of the fundamental frequency, semitones.
    breath : float
        Level of the noise in voiced sounds.
    jitter : float
        Relative irregularity of the fundamental frequency.
    tempo : float
        Factor on the durations of the phones.
    stress : float
        Variation of syllables, in duration and level.
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
    """Return the gender; they alternate, so that every set is balanced."""
    return "m" if number % 2 else "f"


def draw_voice(seed, number):
    """Draw the voice of a speaker.

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
    rng = generator(seed, VOICE, number)
    gender = speaker_gender(number)
    low = 0.80 if gender == "m" else 0.97
    scale = rng.uniform(low, low + 0.28)
    pitch = rng.uniform(90, 165) if gender == "m" else rng.uniform(150, 260)
    phones = len(_VOWELS) + len(_CONSONANTS)

    # F4 to F8 hardly change in speech. Without them the cascade would fall by
    # 12 dB an octave for each missing one.
    higher = np.array([3.5, 4.5, 5.5, 6.5, 7.5]) * scale
    higher *= 1 + np.clip(rng.normal(0, 0.04, 5), -0.1, 0.1)
    bandwidth = rng.uniform(0.7, 1.5)
    power = np.ones_like(BINS_KHZ)
    for center in higher:
        power /= _pole(center, 0.055 * center * bandwidth)
    octaves = np.log2(np.maximum(BINS_KHZ, 0.06) / 0.5)
    # The tilt of the source and the 6 dB an octave which the lips add.
    tilt = rng.uniform(-8.0, 0.0)
    decibel = tilt * np.maximum(octaves, 0) + 6 * np.minimum(octaves, 0)
    # Side cavities remove narrow bands, whose place depends on the anatomy.
    for low_khz, high_khz in ((2.5, 4.0), (4.0, 6.0)):
        center = rng.uniform(low_khz, high_khz)
        depth, width = rng.uniform(5, 18), rng.uniform(0.2, 0.5)
        decibel -= depth * np.exp(-(((BINS_KHZ - center) / width) ** 2))
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


def synthesise(voice, num_samples, rng):
    """Synthesise random speech in a voice, before any channel.

    Arguments
    ---------
    voice : Voice
        The voice to speak with.
    num_samples : int
        Length at 16 kHz.
    rng : numpy.random.Generator
        Generator for the phones, their lengths and their intonation.

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
    pulses, noise = _sources(voice, frames, rng)

    # Each window of both sources times the gains of the vocal tract there.
    window = np.sqrt(scipy.signal.get_window("hann", _WINDOW)).astype("f4")
    cut = functools.partial(
        np.lib.stride_tricks.sliding_window_view, window_shape=_WINDOW
    )
    voiced = scipy.fft.rfft(cut(pulses)[::_HOP] * window)
    hissed = scipy.fft.rfft(cut(noise)[::_HOP] * window)
    gain, shape = _filters(voice, track, level)
    speech = scipy.fft.irfft(voiced * gain + hissed * shape, n=_WINDOW)
    speech = _overlap_add(speech * window)[_WINDOW:][:num_samples]
    return (speech / (np.sqrt(np.mean(speech**2)) + 1e-8)).astype("f4")


def _sources(voice, frames, rng):
    """Draw the pulses of the glottis and the noise of friction.

    Returns
    -------
    tuple of numpy.ndarray
        Both float32 ``[samples]``.
    """
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
    # A band-limited pulse train (Dirichlet kernel): it has all harmonics,
    # and none is aliased.
    harmonics = np.floor(7800 / pitch)
    below = np.sin(np.pi * phase)
    above = np.sin((2 * harmonics + 1) * np.pi * phase)
    close = np.abs(below) < 1e-4
    pulses = np.where(
        close, 2 * harmonics + 1, above / np.where(close, 1.0, below)
    )
    # Divided by the square root of the number of harmonics, so that high and
    # low voices are about equally loud.
    pulses = (pulses - 1) / np.sqrt(2 * harmonics)
    noise = rng.standard_normal(samples, dtype="f4")
    # Breath is strongest while the glottis is open.
    pulses += voice.breath * noise * (1 - np.cos(2 * np.pi * phase))
    return pulses.astype("f4"), noise


def _filters(voice, track, level):
    """Compute the gains of both sources in every frame.

    Arguments
    ---------
    voice : Voice
        The voice that defines the vocal tract.
    track : numpy.ndarray
        Phone targets, ``[frames, 7]``.
    level : numpy.ndarray
        Loudness, ``[frames]``.

    Returns
    -------
    tuple of numpy.ndarray
        Gains for the pulses and for the noise, float32 ``[frames, bins]``.
    """
    # Articulators move slowly, which gives glides between phones; voicing
    # and noise switch faster.
    formants = _smooth(track[:, :3], 5)
    voicing = _smooth(track[:, 3] * level, 3)
    friction = _smooth(track[:, 4] * level, 2)
    power = np.ones((len(track), len(BINS_KHZ)), dtype="f4")
    for i, base in enumerate((0.06, 0.09, 0.13)):
        width = np.float32(base * voice.bandwidth)
        power *= _pole(formants[:, i, None], width)
    gain = voicing[:, None] / np.sqrt(power) * voice.filter.astype("f4")
    center, width = track[:, 5, None], track[:, 6, None]
    shape = friction[:, None] / (1 + np.square((BINS_KHZ - center) / width))
    return gain, shape


def _pole(center, width):
    """Compute the squared magnitude of a resonance's denominator.

    Arguments
    ---------
    centre, width : float or numpy.ndarray
        Centre and width of the resonance, kHz.

    Returns
    -------
    numpy.ndarray
        One value per bin; it is 1 at 0 Hz.
    """
    square = BINS_KHZ * BINS_KHZ
    center2 = np.square(center)
    return (np.square(center2 - square) + np.square(width) * square) / (
        np.square(center2)
    )


def _phone_string(voice, frames, rng):
    """Draw phone targets, their lengths in frames and their levels."""
    rows, lengths, levels = [], [], []
    total = 0

    def add(row, milliseconds, level, own=None):
        nonlocal total
        row = np.array(row[:7])
        row[:3] *= voice.formants * voice.scale
        # The noise of a fricative varies less than the formants do.
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
        for _ in range(1 + (rng.random() < 0.2)):  # an occasional diphthong
            i = rng.integers(len(_VOWELS))
            row = _VOWELS[i]
            add(row, row[7] * stretch * rng.uniform(0.8, 1.2), level, i)
        if rng.random() < voice.pause_rate:
            add(_PAUSE, voice.pause_ms * rng.uniform(0.5, 1.5), 0.0)
    return np.array(rows), np.array(lengths), np.array(levels)


def _smooth(track, frames, axis=0):
    """Apply a moving average twice; both end values are repeated outwards."""
    for _ in range(2):
        track = scipy.ndimage.uniform_filter1d(
            track, frames, axis=axis, mode="nearest"
        )
    return track


def _overlap_add(frames):
    """Sum windows that begin ``_HOP`` samples apart."""
    count, parts = len(frames), _WINDOW // _HOP
    output = np.zeros((count + parts - 1, _HOP), dtype=frames.dtype)
    for part in range(parts):
        output[part : part + count] += frames[
            :, part * _HOP : (part + 1) * _HOP
        ]
    return output.reshape(-1)
