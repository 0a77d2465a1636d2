"""Record what a prepare script wrote, rejected and did not find."""

import logging
import os
import pathlib

from speechbrain_ssl.data.manifest import write_manifest
from speechbrain_ssl.prepare.completed import mark_completed
from speechbrain_ssl.prepare.pack import pack
from speechbrain_ssl.prepare.rejected import (
    describe_reasons,
    notes_table,
    reasons,
    rejected_table,
    write_rejected,
)
from speechbrain_ssl.prepare.scan import scan
from speechbrain_ssl.prepare.workers import default_workers
from speechbrain_ssl.run_folder import lock_folder

logger = logging.getLogger(__name__)


class Preparation:
    """Scans corpora and records the results of one preparation.

    Arguments
    ---------
    data_folder : str
        The folder that ``$data_root`` stands for in the manifests.
    save_folder : str or pathlib.Path
        Folder for the outputs.
    check : str
        ``"header"`` or ``"decode"``; see ``speechbrain_ssl.prepare.probe``.
    sample_rate : int, optional
        Files of another sample rate are rejected. By default any is usable.
    num_workers : int, optional
        Number of processes. By default one per core.

    Attributes
    ----------
    outputs : list of str
        Names of the files written, and of the folders of converted files.
    rejected : list of tuple
        (wav, reason, detail) of every file that cannot be used.
    notes : list of tuple
        (wav, note, detail) of usable files that are odd.
    counts : dict
        Maps a corpus to a dict from what is counted to [found, published].
    missing : list of str
        Descriptions of what the corpora lack.
    """

    def __init__(
        self, data_folder, save_folder, check, sample_rate, num_workers
    ):
        self.data_folder = data_folder
        self.save_folder = pathlib.Path(save_folder)
        lock_folder(self.save_folder)
        self.check = check
        self.sample_rate = sample_rate
        self.num_workers = (
            default_workers() if num_workers is None else num_workers
        )
        self.outputs = ["rejected.csv", "notes.csv"]
        self.rejected = []
        self.notes = []
        self.counts = {}
        self.missing = []

    def wav_root(self, folder):
        """Return a folder as it is written in manifests, with ``$data_root``.

        Arguments
        ---------
        folder : str
            An absolute path.

        Returns
        -------
        str
            The folder itself if it is not below ``data_folder``.
        """
        inner = os.path.relpath(folder, self.data_folder).replace(os.sep, "/")
        if inner == ".":
            return "$data_root"
        return str(folder) if inner.startswith("..") else f"$data_root/{inner}"

    def scan(self, root, files, name, speech=True, sources=None, **kwargs):
        """Scan files, and add rejected and odd ones to the common lists.

        Arguments
        ---------
        root, files
            See ``speechbrain_ssl.prepare.scan.scan``.
        name : str
            Name of the cache.
        speech : bool
            Whether files that are odd as speech are noted; noises and room
            responses are odd throughout.
        sources : dict, optional
            What the common lists call a file instead of its ``wav``.
        **kwargs : dict
            Further arguments of ``scan``.

        Returns
        -------
        speechbrain_ssl.prepare.scan.Scan
        """
        found = scan(
            root,
            files,
            cache=self.save_folder / "scan_cache" / f"{name}.jsonl",
            check=self.check,
            sample_rate=self.sample_rate,
            num_workers=self.num_workers,
            **kwargs,
        )
        tables = [(self.rejected, found.rejected)]
        if speech:
            tables.append((self.notes, found.notes))
        for rows, table in tables:
            rows += [
                ((sources or {}).get(wav, wav), *what)
                for wav, *what in table.itertuples(index=False)
            ]
        return found

    def pack(self, found, folders):
        """Copy the audio of a scan into shards (``speechbrain_ssl.prepare.pack``).

        Arguments
        ---------
        found : speechbrain_ssl.prepare.scan.Scan
            Its table of usable files gets the new paths and loses the files that
            cannot be read, which are added to the rejected ones.
        folders : str or list of str, optional
            Folders of the shards; without any, nothing is done.
        """
        if not folders or not len(found.usable):
            return
        wavs, rejected = pack(
            found.usable.assign(wav=found.usable["wav"].map(self._absolute)),
            folders,
            verify=self.check == "decode",
            num_workers=self.num_workers,
        )
        self.rejected += rejected
        table = found.usable.assign(wav=wavs)
        found.usable = table[table["wav"].notna()]

    def _absolute(self, wav):
        """Return a path of a manifest in full."""
        wav = wav.replace("$data_root", str(self.data_folder), 1)
        return os.path.join(os.path.abspath(self.save_folder), wav)

    def write(self, name, table):
        """Write a manifest and record its name (see ``write_manifest``)."""
        write_manifest(self.save_folder / name, table)
        self.outputs.append(name)

    def write_rejected(self):
        """Write ``rejected.csv`` and ``notes.csv``.

        Returns
        -------
        dict
            Number of rejected files by reason.
        """
        table = rejected_table(self.rejected)
        write_rejected(self.save_folder / "rejected.csv", table)
        notes = notes_table(self.notes)
        write_rejected(self.save_folder / "notes.csv", notes)
        return reasons(table)

    def count(self, corpus, found, published):
        """Compare numbers with the published ones.

        Too few are added to ``missing``; too many are logged.

        Arguments
        ---------
        corpus : str
            Name for the messages.
        found, published : dict
            Maps what is counted to its number.
        """
        self.counts[corpus] = {
            what: [found[what], published[what]] for what in published
        }
        for what, number in published.items():
            if found[what] < number:
                self.missing.append(
                    f"{corpus}: {spaced(found[what])} of {spaced(number)} "
                    f"{what}"
                )
            elif found[what] > number:
                logger.warning(
                    "%s has %s %s, more than the published %s",
                    corpus,
                    spaced(found[what]),
                    what,
                    spaced(number),
                )

    def complete(self, arguments, summary):
        """Log the summary, and record that the preparation is complete.

        Arguments
        ---------
        arguments : dict
            See ``speechbrain_ssl.prepare.completed.completed``.
        summary : dict
            With at least ``utterances``, ``hours`` and ``rejected``; ``notes``
            (number of files by note) is added.
        """
        summary["notes"] = reasons(notes_table(self.notes))
        for line in self.missing:
            logger.warning("missing: %s", line)
        logger.info(
            "%d training utterances, %.1f hours; rejected: %s; noted: %s%s",
            summary["utterances"],
            summary["hours"],
            describe_reasons(summary["rejected"]),
            describe_reasons(summary["notes"]),
            f" (rejected.csv and notes.csv in {self.save_folder} name them)"
            if summary["rejected"] or summary["notes"]
            else "",
        )
        mark_completed(self.save_folder, arguments, self.outputs, summary)


def spaced(number):
    """Format a number with a space between its thousands.

    Example
    -------
    >>> spaced(1092009)
    '1 092 009'
    """
    return f"{number:,}".replace(",", " ")
