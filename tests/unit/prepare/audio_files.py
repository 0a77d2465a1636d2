"""Audio files for the tests of this folder."""

import numpy as np
import soundfile as sf


def tone(seconds=2.0, rate=16000):
    """A quiet tone."""
    return 0.1 * np.sin(np.arange(int(seconds * rate)) * 0.05)


def write(path, samples=None, rate=16000, **kwargs):
    """Writes an audio file and its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sf.write(path, tone() if samples is None else samples, rate, **kwargs)
    return path
