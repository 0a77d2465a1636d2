"""Convert m4a to wav with ffmpeg."""

import concurrent.futures
import logging
import os
import shutil
import subprocess

from speechbrain_ssl.errors import UserError
from speechbrain_ssl.prepare.listing import list_files
from speechbrain_ssl.prepare.preparation import spaced
from speechbrain_ssl.progress import open_bar

logger = logging.getLogger(__name__)

# Seconds after which ffmpeg is assumed to hang.
FFMPEG_TIMEOUT = 300


def convert_folder(source, target, sample_rate, num_workers):
    """Convert the m4a files that have no wav file yet.

    Arguments
    ---------
    source : str
        Folder of the m4a files.
    target : str
        Folder of the wav files, which get the same relative paths.
    sample_rate : int
        Sample rate of the wav files, Hz; they have one channel of 16 bits.
    num_workers : int
        Number of ffmpeg processes that run at once.

    Yields
    ------
    tuple of str
        Relative path of a file that could not be converted, and the message of
        ffmpeg.

    Raises
    ------
    UserError
        If there are files to convert but no ffmpeg, or if the disk is full.
    """
    sources = list_files(source, extensions=(".m4a",)).files
    done = set()
    if os.path.isdir(target):
        done = {
            os.path.splitext(name)[0]
            for name in list_files(target, extensions=(".wav",)).files
        }
    todo = [n for n in sources if os.path.splitext(n)[0] not in done]
    if not todo:
        return
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is None:
        raise UserError(
            f"{spaced(len(todo))} m4a files below {source} have to be "
            "converted to wav, and there is no ffmpeg on the PATH; install "
            "it (apt-get install ffmpeg, conda install -c conda-forge "
            f"ffmpeg or brew install ffmpeg), or put wav files into {target}"
        )
    logger.info("converting %d m4a files into %s", len(todo), target)

    def convert(name):
        wav = os.path.join(target, os.path.splitext(name)[0] + ".wav")
        return convert_file(
            ffmpeg, os.path.join(source, name), wav, sample_rate
        )

    # Threads suffice, because ffmpeg works in its own processes. Submitting in
    # slices keeps a million waiting tasks out of memory.
    pool = concurrent.futures.ThreadPoolExecutor(max(1, num_workers))
    try:
        with open_bar(total=len(todo), desc="convert", unit=" files") as bar:
            for begin in range(0, len(todo), 1024):
                slab = todo[begin : begin + 1024]
                failures = pool.map(convert, slab)
                for name, failure in zip(slab, failures, strict=True):
                    if failure:
                        yield name, failure
                    bar.update()
    finally:
        pool.shutdown(cancel_futures=True)


def convert_file(ffmpeg, source, target, sample_rate):
    """Convert one file, atomically.

    Arguments
    ---------
    ffmpeg : str
        The program.
    source, target : str
        The file to read, and the wav file to write.
    sample_rate : int
        Sample rate of the wav file, Hz.

    Returns
    -------
    str
        The error; empty if there was none.

    Raises
    ------
    UserError
        If the disk is full.
    """
    folder, name = os.path.split(target)
    os.makedirs(folder, exist_ok=True)
    # Hidden, so that an incomplete file is never taken for a wav file.
    temporary = os.path.join(folder, f".{name}.part")
    command = [ffmpeg, "-nostdin", "-v", "error", "-y", "-threads", "1"]
    command += ["-i", source, "-vn", "-ac", "1", "-ar", str(sample_rate)]
    command += ["-c:a", "pcm_s16le", "-f", "wav", temporary]
    try:
        result = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=FFMPEG_TIMEOUT,
        )
        if result.returncode == 0 and os.path.isfile(temporary):
            os.replace(temporary, target)
            return ""
        lines = result.stderr.decode("utf-8", "replace").strip().splitlines()
        failure = lines[-1] if lines else f"exit status {result.returncode}"
    except subprocess.TimeoutExpired:
        failure = f"took longer than {FFMPEG_TIMEOUT} s"
    if os.path.exists(temporary):
        os.unlink(temporary)
    # On a full disk every file would fail, and be counted as damaged.
    if shutil.disk_usage(folder).free < 2**24:
        raise UserError(
            f"the disk of {folder} is full; make room or give another "
            "wav_folder, then prepare again: converted files are kept"
        )
    return failure
