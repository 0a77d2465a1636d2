"""A folder of known speakers, with a file for each of them.

A file is named after its speaker and holds the embeddings of the recordings,
the names and digests of these, and the digest of the model. To forget a
speaker, delete the file.
"""

import pathlib
import urllib.parse
import zipfile

import numpy as np

from speechbrain_ssl.embedding.rows import unit_rows
from speechbrain_ssl.errors import ConfigError, counted, full_disk
from speechbrain_ssl.files import atomic_write, file_digest

#: Longest name, in bytes of UTF-8; a file's name has three times as many.
MOST_BYTES = 64
_KEYS = ("name", "files", "sha256", "embeddings", "model", "trimmed")


class Database:
    """Speakers who were enrolled with one model.

    Arguments
    ---------
    folder : str or pathlib.Path
        The folder of the database, which need not exist yet.
    model : str
        Digest of the model.
    trimmed : bool
        Whether silence is trimmed.

    Raises
    ------
    ConfigError
        If the folder holds speakers of another model, or is a file.

    Example
    -------
    >>> import tempfile, pathlib
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> (folder / "anna.wav").touch()
    >>> rows = np.array([[3.0, 4.0]], dtype=np.float32)
    >>> Database(folder / "known", "digest").add(
    ...     "Anna", [folder / "anna.wav"], rows
    ... )
    []
    >>> names, means = Database(folder / "known", "digest").speakers()
    >>> names, means.tolist()
    (['Anna'], [[0.6000000238418579, 0.800000011920929]])
    """

    def __init__(self, folder, model, trimmed=False):
        self.folder = pathlib.Path(folder)
        self.model, self.trimmed = model, trimmed
        if self.folder.exists() and not self.folder.is_dir():
            raise ConfigError(
                f"--database={folder} is a file; name a folder, which is made "
                "if there is none"
            )
        self._known = {}
        for path in sorted(self.folder.glob("*.npz")):
            found = _read(path)
            if found["model"] != model:
                raise ConfigError(
                    f"the speakers of {folder} were enrolled with another "
                    "model, so that no score would mean anything; name that "
                    "model, or enrol them with this one in a new folder"
                )
            if found["trimmed"] != trimmed:
                how = "with" if found["trimmed"] else "without"
                raise ConfigError(
                    f"the speakers of {folder} were enrolled {how} "
                    f"--trim-silence; go on {how} it"
                )
            self._known[str(found["name"])] = found

    def check(self, name, replace=False):
        """Raise a ``ConfigError`` if a name is no name, or is taken.

        Arguments
        ---------
        name : str
            Name of a speaker.
        replace : bool
            Whether it may be in the database already.
        """
        size = len(name.encode("utf-8", "surrogateescape"))
        if not name.strip() or not name.isprintable() or size > MOST_BYTES:
            raise ConfigError(
                f"{name!r} is not a name of a speaker: it needs 1 to "
                f"{MOST_BYTES} bytes of printable text"
            )
        if name in self._known and not replace:
            raise ConfigError(
                f"{name} is in {self.folder} already, with "
                f"{counted(len(self._known[name]['files']), 'recording')}; "
                "enrol all of them anew with --replace (replace=True), or choose "
                "another name"
            )

    def add(self, name, files, embeddings, replace=False):
        """Write the file of a speaker.

        Arguments
        ---------
        name : str
            Name of the speaker.
        files : list
            Paths of the recordings.
        embeddings : numpy.ndarray
            ``[N, size]``, one for each of them.
        replace : bool
            Whether the name may be in the database already.

        Returns
        -------
        list of str
            Notes on recordings that are given twice or are someone else's.

        Raises
        ------
        ConfigError
            As ``check``, or if the file cannot be written.
        """
        self.check(name, replace)
        digests = [file_digest(file) for file in files]
        notes = self._duplicates(name, files, digests)
        speaker = {
            "name": np.array(name),
            "files": np.array([str(file) for file in files]),
            "sha256": np.array(digests),
            "embeddings": embeddings,
            "model": np.array(self.model),
            "trimmed": np.array(self.trimmed),
        }
        path = self.folder / f"{urllib.parse.quote(name, safe=' ')}.npz"
        try:
            with atomic_write(path, "wb") as stream:
                np.savez(stream, **speaker)
        except OSError as error:
            raise ConfigError(
                full_disk(error)
                or f"{path} cannot be written ({error}); name another folder "
                "with --database"
            ) from error
        self._known[name] = speaker
        return notes

    def _duplicates(self, name, files, digests):
        """Note recordings that are given twice or belong to another name."""
        owners = {
            digest: other
            for other, found in self._known.items()
            if other != name
            for digest in found["sha256"].tolist()
        }
        notes, seen = [], {}
        for file, digest in zip(files, digests, strict=True):
            if digest in owners:
                notes.append(f"{file} is also a recording of {owners[digest]}")
            if digest in seen:
                notes.append(f"{file} is the same recording as {seen[digest]}")
            seen.setdefault(digest, file)
        return notes

    def speakers(self):
        """Return the names and a unit embedding for each.

        Returns
        -------
        tuple
            List of ``S`` names, and float32 ``[S, size]``: the mean of the
            unit embeddings of the recordings, scaled to unit norm.

        Raises
        ------
        ConfigError
            If nobody was enrolled.
        """
        if not self._known:
            what = f"nobody is enrolled in {self.folder}"
            if not self.folder.is_dir():
                what = f"there is no database {self.folder}"
            raise ConfigError(
                f"{what}; add a speaker with speechbrain-ssl enrol"
            )
        means = [
            unit_rows(found["embeddings"]).mean(axis=0)
            for found in self._known.values()
        ]
        return list(self._known), unit_rows(np.stack(means), list(self._known))


def _read(path):
    """Read the file of a speaker."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {key: archive[key] for key in _KEYS}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as e:
        raise ConfigError(
            f"{path} is not a speaker of a database ({e}); delete it, and "
            "enrol the speaker again"
        ) from e
