"""Record that a preparation is complete, so that a repeated call does nothing.

``prepare.json`` in the output folder holds the arguments, the digests of the
outputs and the summary of the last preparation that completed.
"""

import hashlib
import json
import logging
import os
import pathlib

from speechbrain_ssl.files import atomic_write

logger = logging.getLogger(__name__)

FILE_NAME = "prepare.json"


def completed(save_folder, arguments):
    """Return the summary of a completed preparation with the same arguments.

    Arguments
    ---------
    save_folder : str or pathlib.Path
        Folder of the outputs.
    arguments : dict
        All that determines the outputs, as values that JSON can represent.

    Returns
    -------
    dict or None
        None where the arguments differ, or where an output is missing or has
        changed since it was written.
    """
    config = _read_config(save_folder)
    if config.get("arguments") != json.loads(json.dumps(arguments)):
        return None
    folder = pathlib.Path(save_folder)
    for name, digest in config["outputs"].items():
        if _digest(folder / name) != digest:
            return None
    logger.info(
        "%s is prepared already with the same arguments; if the corpus has "
        "changed since, delete %s and prepare again, or take another folder",
        folder,
        folder / FILE_NAME,
    )
    return config["summary"]


def mark_completed(save_folder, arguments, outputs, summary):
    """Record that a preparation is complete; call it last.

    Outputs of an earlier preparation that this one did not write are removed,
    so that no list of another configuration remains beside the new ones. A file
    that was edited since is kept.

    Arguments
    ---------
    save_folder : str or pathlib.Path
        Folder of the outputs.
    arguments : dict
        As for ``completed``.
    outputs : list of str
        Names of the files written, relative to ``save_folder``, and of folders
        that must stay, such as those of converted files.
    summary : dict
        The summary that ``completed`` will return.
    """
    folder = pathlib.Path(save_folder)
    before = _read_config(folder).get("outputs", {})
    for name in sorted(set(before) - set(outputs)):
        # A folder of converted files may be wanted again.
        if (
            os.path.isfile(folder / name)
            and _digest(folder / name) == before[name]
        ):
            logger.info(
                "%s is of another configuration: removed", folder / name
            )
            os.unlink(folder / name)
    with atomic_write(folder / FILE_NAME) as stream:
        json.dump(
            {
                "arguments": arguments,
                "outputs": {n: _digest(folder / n) for n in sorted(outputs)},
                "summary": summary,
            },
            stream,
            indent=2,
        )
        stream.write("\n")


def _read_config(save_folder):
    """Read the record of the last preparation, or return {}."""
    try:
        text = (pathlib.Path(save_folder) / FILE_NAME).read_text("utf-8")
        config = json.loads(text)
        return config if isinstance(config, dict) else {}
    except (OSError, ValueError):
        return {}


def _digest(path):
    """Return the fingerprint of a file, or None if it does not exist.

    Of a folder only the existence counts: looking at a million files would take
    minutes.
    """
    if os.path.isdir(path):
        return "folder"
    if not os.path.isfile(path):
        return None
    # A short one suffices: it guards against accidents, not against malice.
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as stream:
        while block := stream.read(2**20):
            digest.update(block)
    return digest.hexdigest()
