"""Find and cut silence by the energy of short frames.

This is no voice activity detector: whatever is loud counts as speech, and
steady noise counts as speech throughout, since none of it lies below the rest.
The level is relative to the loudest frames of the same recording, as in the
detector of Kinnunen and Li ("An overview of text-independent speaker
recognition", Speech Communication 2010), from which the 30 dB come.
"""

import numpy as np

#: Length of a frame in seconds.
FRAME_SECONDS = 0.02

#: A frame this far below the loudest ones, in dB, is silent.
BELOW_LOUDEST = 30.0

#: The loudest frames together last this many seconds. A click is shorter, and
#: so does not make all the rest of a recording silent.
_LOUDEST_SECONDS = 0.1

#: A frame below one step of 16-bit audio is silent beside any other one.
_FLOOR = 2.0**-30


def frame_energies(wave, sample_rate):
    """Compute the mean square of each frame, without its constant part.

    Arguments
    ---------
    wave : numpy.ndarray
        ``[samples]``.
    sample_rate : int
        Hz.

    Returns
    -------
    numpy.ndarray
        float32 ``[frames]``, one value for each ``FRAME_SECONDS``; what is left
        at the end makes a shorter frame.
    """
    length = _frame_length(sample_rate)
    whole = len(wave) // length * length
    energies = wave[:whole].reshape(-1, length).var(axis=1, dtype=np.float64)
    if whole < len(wave):
        energies = np.append(energies, wave[whole:].var(dtype=np.float64))
    return energies.astype(np.float32)


def speech_level(energies):
    """Compute the energy above which a frame of a recording is speech.

    Arguments
    ---------
    energies : numpy.ndarray
        What ``frame_energies`` returned, of a whole recording.

    Returns
    -------
    float
    """
    rank = min(len(energies), round(_LOUDEST_SECONDS / FRAME_SECONDS))
    if rank == 0:
        return _FLOOR
    loudest = np.partition(energies, -rank)[-rank]
    # A recording shorter than the click it holds is all click.
    if loudest == 0:
        loudest = energies.max()
    return max(float(loudest) * 10 ** (-BELOW_LOUDEST / 10), _FLOOR)


def speech_share(energies):
    """Compute the share of frames that are not far below the loudest ones.

    Arguments
    ---------
    energies : numpy.ndarray
        What ``frame_energies`` returned, of a whole recording.

    Returns
    -------
    float
        In [0, 1]; 0 where all is silent.

    Example
    -------
    >>> voice = np.random.default_rng(0).normal(0, 0.1, 16000)
    >>> energies = frame_energies(np.append(voice, np.zeros(48000)), 16000)
    >>> round(speech_share(energies), 2)
    0.25
    """
    if len(energies) == 0:
        return 0.0
    return float((energies > speech_level(energies)).mean())


def trim_silence(wave, sample_rate, longest_pause=0.5, margin=0.1, level=None):
    """Cut silence at both ends, and shorten long pauses.

    Training crops are drawn from all of an utterance; without its silence, more
    of each crop is speech, but an utterance may become shorter than a crop, and
    is then repeated, and a crop may contain a joint of two stretches. A score
    changes with it, since the pauses have their part in the statistics pooling
    of an encoder: trim the enrolment, the test and the cohort files all alike,
    and calibrate again.

    Arguments
    ---------
    wave : numpy.ndarray
        ``[samples]``.
    sample_rate : int
        Hz.
    longest_pause : float
        A pause within the recording that is longer is cut, in seconds.
    margin : float
        What stays of the silence on either side of a cut, in seconds.
    level : float, optional
        The ``speech_level`` of the recording of which ``wave`` is a part; that
        of ``wave`` if not given.

    Returns
    -------
    numpy.ndarray
        The kept stretches, joined, ``[samples or fewer]``; the waveform itself
        if nothing is cut. Of a waveform without speech, nothing is left if
        ``level`` is given, and all of it otherwise.

    Example
    -------
    >>> voice = np.random.default_rng(0).normal(0, 0.1, 16000)
    >>> wave = np.concatenate([voice, np.zeros(48000), voice])
    >>> len(trim_silence(wave, 16000)) / 16000
    2.2
    """
    energies = frame_energies(wave, sample_rate)
    speech = energies > (speech_level(energies) if level is None else level)
    if not speech.any():
        return wave if level is None else wave[:0]
    length = _frame_length(sample_rate)
    margin = round(margin * sample_rate)
    # Where the stretches of speech begin and end, in samples.
    edges = np.flatnonzero(np.diff(np.r_[False, speech, False])) * length
    kept, (begin, end) = [], edges[:2]
    for start, stop in edges[2:].reshape(-1, 2):
        if start - end > max(longest_pause * sample_rate, 2 * margin):
            kept.append((begin, end))
            begin = start
        end = stop
    kept.append((begin, end))
    if len(kept) == 1 and begin <= margin and end + margin >= len(wave):
        return wave
    return np.concatenate(
        [wave[max(0, begin - margin) : end + margin] for begin, end in kept]
    )


def _frame_length(sample_rate):
    """Return the samples of a frame."""
    return max(1, round(FRAME_SECONDS * sample_rate))
