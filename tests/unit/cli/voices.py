"""Synthetic voices that an encoder tells apart without any training."""

import numpy as np

RATE = 16000


def voice(speaker, take, seconds=1.5, rate=RATE):
    """Two kinds of noise in turns, of formants that are the speaker's own.

    In turns, since features that subtract the mean hear no constant spectrum.
    """
    rng = np.random.default_rng([speaker, take])
    count = round(seconds * rate)
    hertz = np.fft.rfftfreq(count, 1 / rate)
    peaks = np.random.default_rng([99, speaker]).uniform(200, 6000, (2, 3))
    wave = np.zeros(count)
    turn = np.sin(2 * np.pi * (4 * np.arange(count) / rate + rng.uniform())) > 0
    for formants, on in zip(peaks, (turn, ~turn), strict=True):
        gain = sum(np.exp(-(((hertz - peak) / 150) ** 2)) for peak in formants)
        noise = np.fft.rfft(rng.normal(size=count))
        wave += on * np.fft.irfft(noise * (gain + 0.01), count)
    return 0.3 * wave / np.abs(wave).max()
