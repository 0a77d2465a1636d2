"""Convert audio to files that training can read at any position.

Formats that libsndfile cannot read are decoded by PyAV; with ``trim_silence``
any file is converted. The result is mono, of 16 bits and of at most 16 kHz: the
encoders work at 16 kHz, an epoch reads each file again, and resampling once is
cheaper than each time, and takes a third of the disk of 48 kHz. A lower rate is
kept, so that the file still shows that it is telephone speech.

A conversion can be killed and goes on: each file appears under its name when it
is whole. A list beside them says of which source, by its size and time, each
was made; one that has changed is converted again, and a damaged one is not
tried again.
"""

import contextlib
import faulthandler
import os
import shutil
from concurrent.futures.process import BrokenProcessPool

import numpy as np
import soundfile

from speechbrain_ssl.data.audio import resampled
from speechbrain_ssl.data.decoder import Decoder, UnusableAudio
from speechbrain_ssl.data.silence import (
    frame_energies,
    speech_level,
    trim_silence,
)
from speechbrain_ssl.errors import UserError
from speechbrain_ssl.prepare.av_decoder import AVDecoder
from speechbrain_ssl.prepare.listing import needs_decoding
from speechbrain_ssl.prepare.probe import unusable
from speechbrain_ssl.prepare.scan import ScanCache
from speechbrain_ssl.prepare.workers import finish_jobs, open_pool
from speechbrain_ssl.progress import open_bar

#: Greatest sample rate of a converted file, Hz.
SAMPLE_RATE = 16000

# A conversion that takes longer is ended: so many seconds, and so many for each
# MB. A minute of AAC is about 1 MB, and takes a tenth of a second to decode.
_LEAST_SECONDS = 120
_SECONDS_PER_MB = 2

# Reason of files whose conversion failed although they may be sound.
_FAILED = "not converted"

# Silence is trimmed in stretches of this length, in seconds, which bounds the
# memory.
_TRIM_SECONDS = 60


def convert_files(
    root, targets, folder, cache=None, trim=False, num_workers=1, progress=True
):
    """Convert files, each in a worker process that may take only so long.

    Arguments
    ---------
    root : str
        Folder of the sources.
    targets : dict
        Maps each source, relative to ``root`` or absolute, to the file to
        write, relative to ``folder``: ``.flac`` or ``.wav``.
    folder : str or pathlib.Path
        Folder of the converted files.
    cache : str or pathlib.Path, optional
        File that keeps the outcomes, for a call that continues this one. Files
        converted with ``trim`` need a folder and a cache of their own.
    trim : bool
        Whether to cut silence (``speechbrain_ssl.data.silence.trim_silence``).
    num_workers : int
        Number of processes; at least one.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    dict
        Maps each source to an ``Outcome``: its ``reason`` and ``detail`` if it
        could not be converted, its ``notes`` if it could.

    Raises
    ------
    UserError
        If the disk is full.
    """
    outcomes = {}
    folder = os.path.abspath(folder)
    with contextlib.ExitStack() as stack:
        known = {}
        if cache is not None:
            cache = ScanCache(cache, "convert")
            stack.callback(cache.close)
            known = cache.outcomes
        jobs = (
            (
                os.path.join(root, source),
                os.path.join(folder, target),
                known.get(source),
                trim,
            )
            for source, target in targets.items()
        )
        sources = {os.path.join(root, source): source for source in targets}
        bar = stack.enter_context(
            open_bar(
                total=len(targets),
                desc=f"convert {os.path.basename(root)}".rstrip(),
                unit=" files",
                disable=not progress,
            )
        )
        results = stack.enter_context(
            contextlib.closing(
                finish_jobs(_convert, jobs, max(1, num_workers), _convert_alone)
            )
        )
        for (path, _, before, _), outcome in results:
            source = sources[path]
            if outcome is None:
                outcome = before
            else:
                if outcome.reason:
                    _check_disk(folder)
                # What failed for lack of memory, disk or a permission is tried
                # again.
                if cache is not None and outcome.reason != _FAILED:
                    cache.add([source], [outcome])
            outcomes[source] = outcome
            bar.update()
    return outcomes


def _check_disk(folder):
    """Raise if a disk is full: every file would be counted as damaged."""
    os.makedirs(folder, exist_ok=True)
    if shutil.disk_usage(folder).free < 2**24:
        raise UserError(
            f"the disk of {folder} is full; make room or give another folder "
            "(for temporary files in TMPDIR), then start the same command again"
        )


def _convert(source, target, before, trim):
    """Convert one file in a worker process, which ends if it takes too long.

    Returns
    -------
    Outcome or None
        Size and time of the source, and why it could not be converted; None if
        it has not changed since ``before``.
    """
    try:
        status = os.stat(source)
    except OSError as error:
        return unusable(-1, -1, "missing", error.strerror or "")
    stamp = status.st_size, status.st_mtime_ns
    if (
        before is not None
        and tuple(before[:2]) == stamp
        and (before.reason or os.path.isfile(target))
    ):
        return None
    # A thread of C, which a decoder that hangs cannot hold up. Its traceback
    # goes to the worker's stderr, which shows nothing.
    faulthandler.dump_traceback_later(
        _time_limit(status.st_size), exit=True, file=2
    )
    try:
        notes = convert_file(source, target, trim)
    except UnusableAudio as error:
        return unusable(*stamp, error.reason, error.detail)
    except (OSError, RuntimeError, MemoryError) as error:
        return unusable(*stamp, _FAILED, str(error))
    finally:
        faulthandler.cancel_dump_traceback_later()
    return unusable(*stamp, "")._replace(notes=notes)


def _convert_alone(source, target, before, trim):
    """Convert a file that may crash its process, or that may hang."""
    try:
        with open_pool(1) as pool:
            return pool.submit(_convert, source, target, before, trim).result()
    except BrokenProcessPool:
        status = os.stat(source)
        return unusable(
            status.st_size,
            status.st_mtime_ns,
            "unreadable",
            "the process that read it died, or took longer than "
            f"{_time_limit(status.st_size):.0f} s",
        )


def _time_limit(size):
    """Return the longest time that a conversion may take, in seconds."""
    return _LEAST_SECONDS + _SECONDS_PER_MB * size / 1e6


def convert_file(source, target, trim=False):
    """Convert one file.

    Arguments
    ---------
    source, target, trim
        Paths, and as for ``convert_files``.

    Returns
    -------
    list of list of str
        Notes, as those of an ``Outcome``, that the new file would not get.

    Raises
    ------
    UnusableAudio
        If the source cannot be used.

    Example
    -------
    >>> import pathlib, tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> soundfile.write(folder / "a.wav", np.ones((48000, 2)) / 4, 48000)
    >>> convert_file(folder / "a.wav", folder / "b.flac")
    []
    >>> found = soundfile.info(folder / "b.flac")
    >>> found.samplerate, found.channels, found.duration
    (16000, 1, 1.0)
    """
    folder, name = os.path.split(target)
    os.makedirs(folder, exist_ok=True)
    # Hidden, so that an incomplete file is taken for none.
    temporary = os.path.join(folder, f".{name}.part")
    decode = AVDecoder if needs_decoding(source) else Decoder
    try:
        level = _speech_level(decode(source)) if trim else None
        with decode(source) as decoder:
            rate = min(decoder.sample_rate, SAMPLE_RATE)
            waves = resampled(decoder, rate)
            if trim:
                waves = _trimmed(waves, rate, level)
            with soundfile.SoundFile(
                temporary,
                "w",
                rate,
                channels=1,
                subtype="PCM_16",
                format=os.path.splitext(target)[1][1:].upper(),
            ) as file:
                for wave in waves:
                    file.write(wave)
                if file.frames == 0:
                    raise UnusableAudio("", "silent", "nothing is left of it")
        os.replace(temporary, target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
    notes = list(decoder.notes)
    if decoder.cancelled:
        detail = (
            f"in {decoder.cancelled} s, where the louder channel is read "
            "instead of their mean"
        )
        notes.append(["channels cancel each other", detail])
    return notes


def _speech_level(decoder):
    """Compute the ``speech_level`` of a whole file, without keeping it."""
    with decoder:
        rate = min(decoder.sample_rate, SAMPLE_RATE)
        energies = [
            frame_energies(wave, rate) for wave in resampled(decoder, rate)
        ]
    return speech_level(np.concatenate(energies))


def _trimmed(waves, rate, level):
    """Cut the silence of a waveform that comes piece by piece."""
    pieces, length = [], 0
    for wave in waves:
        pieces.append(wave)
        length += len(wave)
        if length >= _TRIM_SECONDS * rate:
            yield trim_silence(np.concatenate(pieces), rate, level=level)
            pieces, length = [], 0
    if length:
        yield trim_silence(np.concatenate(pieces), rate, level=level)
