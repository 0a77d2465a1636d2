"""Find out whether an audio file can be used, and if not, why."""

import os
from typing import NamedTuple

import numpy as np

from speechbrain_ssl.data.decoder import Decoder, UnusableAudio
from speechbrain_ssl.data.silence import frame_energies, speech_share

CHECKS = ("header", "decode")

# Below one step of 16-bit audio. A lossy codec does not keep exact zeros.
SILENCE = 2.0**-15

# Audio whose loudest sample is below this gets a note (8 steps of 16 bits).
_QUIET = 2.0**-12

# Audio of which less than this is near the level of the loudest parts gets one.
_MOSTLY_SILENT = 0.2

# So does audio of which the louder and the softer frames, nine tenths apart,
# differ by fewer dB. In speechocean762 it is 25 dB and more, with white noise
# as loud as the speech 6 dB and more, and in white noise alone 1 dB.
_STEADY = 3.0


class Outcome(NamedTuple):
    """Result of probing one file.

    Attributes
    ----------
    size : int
        Bytes; -1 where there is no file.
    mtime : int
        Time of its last change, in ns.
    frames : int
        Samples per channel; 0 in a file that cannot be used.
    sample_rate : int
        Hz.
    channels : int
        Number of channels.
    reason : str
        Why the file cannot be used; empty if it can.
    detail : str
        Details of the reason.
    notes : list of list of str
        [note, detail] of what is odd about a file that can be used.
    """

    size: int
    mtime: int
    frames: int
    sample_rate: int
    channels: int
    reason: str
    detail: str
    notes: list


def unusable(size, mtime, reason, detail=""):
    """Return the outcome of a file that cannot be used."""
    return Outcome(size, mtime, 0, 0, 0, reason, detail, [])


def probe(path, check="header"):
    """Open one audio file and find out whether it can be used.

    Arguments
    ---------
    path : str or pathlib.Path
        The file.
    check : str
        ``"header"`` trusts the header as far as the size of the file allows,
        and otherwise counts the samples; of a FLAC file it reads the end.
        ``"decode"`` reads all samples and also finds damaged, truncated and
        silent audio, and NaN, infinite or absurdly large samples, and notes
        audio with hardly any speech.

    Returns
    -------
    Outcome
        The outcome, also for a broken file: no exception is raised for it.

    Example
    -------
    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "a.wav"
    >>> _ = path.write_bytes(b"no audio")
    >>> probe(path).reason, probe(path).detail
    ('unreadable', 'Format not recognised.')
    """
    try:
        status = os.stat(path)
        size, mtime = status.st_size, status.st_mtime_ns
    except (OSError, ValueError):
        # The decoder says why.
        size, mtime = -1, -1
    try:
        with Decoder(path) as decoder:
            frames, notes = decoder.frames, decoder.notes
            if check == "decode":
                frames, more = _decode(decoder)
                notes = notes + more
            elif frames is None:
                frames = decoder.count()
            else:
                decoder.check_end()
    except UnusableAudio as error:
        return unusable(size, mtime, error.reason, error.detail)
    rate, channels = decoder.sample_rate, decoder.channels
    return Outcome(size, mtime, frames, rate, channels, "", "", notes)


def _decode(decoder):
    """Read a whole file; return its frames and notes.

    Raises
    ------
    UnusableAudio
        If it is damaged, truncated or silent.
    """
    rate = decoder.sample_rate
    frames, peak, energies = 0, 0.0, []
    for wave in decoder.seconds():
        frames += len(wave)
        peak = max(peak, float(wave.max()), -float(wave.min()))
        energies.append(frame_energies(wave, rate))
    decoder.check_length(frames)
    if peak < SILENCE:
        raise UnusableAudio("", "silent", "all samples are zero")
    notes = []
    if decoder.cancelled:
        seconds = -(-frames // rate)
        detail = (
            f"in {decoder.cancelled} of {seconds} s, where the louder channel "
            "is read instead of their mean"
        )
        notes.append(["channels cancel each other", detail])
    return frames, notes + _level_notes(peak, np.concatenate(energies))


def _level_notes(peak, energies):
    """Note what the level tells about audio with hardly any speech."""
    if peak < _QUIET:
        steps = round(peak * 2**15)
        return [["hardly any sound", f"at most {steps} steps of 16-bit audio"]]
    share = speech_share(energies)
    if share < _MOSTLY_SILENT:
        detail = f"{100 * share:.1f} % are within 30 dB of the loudest parts"
        return [["mostly silent", detail]]
    soft, loud = np.percentile(energies, (5, 95))
    if loud < soft * 10 ** (_STEADY / 10):
        detail = "as that of noise or of a tone, and unlike that of speech"
        return [["level hardly varies", detail]]
    return []
