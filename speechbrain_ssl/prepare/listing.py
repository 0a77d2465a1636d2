"""List the audio files below a folder, and make an ID for each."""

import collections
import dataclasses
import logging
import os

from speechbrain_ssl.errors import ManifestError
from speechbrain_ssl.progress import open_bar

logger = logging.getLogger(__name__)

#: Formats that soundfile opens by their header, without a given sample rate.
AUDIO_EXTENSIONS = (
    ".aif",
    ".aifc",
    ".aiff",
    ".au",
    ".caf",
    ".flac",
    ".mp3",
    ".oga",
    ".ogg",
    ".opus",
    ".rf64",
    ".snd",
    ".sph",
    ".w64",
    ".wav",
)

#: Formats that PyAV decodes at preparation.
DECODED_EXTENSIONS = (
    ".3g2",
    ".3gp",
    ".aac",
    ".ac3",
    ".amr",
    ".ape",
    ".dts",
    ".eac3",
    ".m4a",
    ".m4b",
    ".mka",
    ".mkv",
    ".mov",
    ".mp2",
    ".mp4",
    ".mpc",
    ".spx",
    ".tta",
    ".webm",
    ".wma",
    ".wv",
)


def needs_decoding(name):
    """Return whether PyAV has to decode a file, by its extension.

    Example
    -------
    >>> needs_decoding("a.M4A"), needs_decoding("a.wav")
    (True, False)
    """
    return os.path.splitext(name)[1].lower() in DECODED_EXTENSIONS


def count_kinds(files):
    """Say how many files have which extension.

    Example
    -------
    >>> count_kinds(["a.m4a", "b.M4A", "c.wma"])
    '2 .m4a, 1 .wma'
    """
    kinds = collections.Counter(
        os.path.splitext(file)[1].lower() for file in files
    )
    return ", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items()))


@dataclasses.dataclass
class FileListing:
    """Files below a folder.

    Attributes
    ----------
    files : list of str
        Audio files relative to the folder, with ``/``, sorted.
    unknown : dict
        Number of the other files by extension.
    unreadable : list of tuple
        Folders that could not be listed, each with the system's message.
    """

    files: list
    unknown: dict
    unreadable: list


def list_files(root, extensions=AUDIO_EXTENSIONS, progress=True):
    """List the audio files below a folder in a fixed order.

    Hidden files and folders are left out. Links to folders are followed; a
    folder that is reached twice is listed once.

    Arguments
    ---------
    root : str or pathlib.Path
        The folder.
    extensions : tuple of str
        Lower-case extensions of audio files; any case matches.
    progress : bool
        Whether to show how many files were seen.

    Returns
    -------
    FileListing

    Raises
    ------
    ManifestError
        If the folder is missing.

    Example
    -------
    >>> import tempfile, pathlib
    >>> root = pathlib.Path(tempfile.mkdtemp())
    >>> (root / "b.WAV").touch(), (root / "a.flac").touch()
    (None, None)
    >>> (root / "notes.txt").touch()
    >>> listing = list_files(root, progress=False)
    >>> listing.files, listing.unknown
    (['a.flac', 'b.WAV'], {'.txt': 1})
    """
    root = os.path.abspath(root)
    if not os.path.isdir(root):
        raise ManifestError(
            f"there is no folder {root}; correct the argument that names it, "
            "or mount the disk it lies on"
        )
    files, unknown, errors = [], collections.Counter(), []
    seen = set()
    with open_bar(
        desc=f"list {os.path.basename(root)}",
        unit=" files",
        disable=not progress,
    ) as bar:
        for folder, subfolders, names in os.walk(
            root, followlinks=True, onerror=errors.append
        ):
            status = os.stat(folder)
            place = (status.st_dev, status.st_ino)
            if place in seen:
                logger.warning("%s was listed under another name", folder)
                subfolders.clear()
                continue
            seen.add(place)
            # Sorted, because of two names of one folder the first one is kept.
            subfolders[:] = sorted(s for s in subfolders if s[0] != ".")
            inner = os.path.relpath(folder, root).replace(os.sep, "/")
            prefix = "" if inner == "." else inner + "/"
            for name in names:
                if name[0] == ".":
                    continue
                extension = os.path.splitext(name)[1].lower()
                if extension in extensions:
                    files.append(prefix + name)
                else:
                    unknown[extension or "(none)"] += 1
            bar.update(len(names))
    unreadable = [
        (os.path.relpath(e.filename, root).replace(os.sep, "/"), e.strerror)
        for e in errors
    ]
    return FileListing(
        sorted(files), dict(sorted(unknown.items())), sorted(unreadable)
    )


def unique_ids(files):
    """Make an utterance ID of each path.

    The ID is the path without its extension, or the whole path where two files
    would get the same ID.

    Arguments
    ---------
    files : list of str
        Distinct relative paths.

    Returns
    -------
    list of str
        One ID per file, all different.

    Example
    -------
    >>> unique_ids(["s/a.wav", "s/b.wav", "s/b.flac"])
    ['s/a', 's/b.wav', 's/b.flac']
    """
    ids = [os.path.splitext(name)[0] for name in files]
    while True:
        counts = collections.Counter(ids)
        if len(counts) == len(ids):
            return ids
        # Whole paths differ, so every round resolves at least one clash.
        ids = [
            name if counts[i] > 1 else i
            for i, name in zip(ids, files, strict=True)
        ]
