"""Prepares RAVDESS: emotions, actors and more from the names of its files.

    python ravdess_prepare.py --data_folder=/path/to/RAVDESS --save_folder=save

A name such as ``Actor_12/03-01-05-01-02-01-12.wav`` says modality (03: audio
alone), channel (01: speech), emotion, intensity, statement, repetition and
actor. Speech is taken, songs and videos are left out.
"""

import logging
import os
import re
import sys

import pandas as pd

from speechbrain_ssl.downstream.corpus import (
    find_folder,
    run_prepare,
    write_corpus,
)
from speechbrain_ssl.errors import ManifestError
from speechbrain_ssl.prepare.completed import completed
from speechbrain_ssl.prepare.listing import list_files

logger = logging.getLogger(__name__)

EMOTIONS = {
    "01": "neutral",
    "02": "calm",
    "03": "happy",
    "04": "sad",
    "05": "angry",
    "06": "fearful",
    "07": "disgust",
    "08": "surprised",
}

# Modality, channel, emotion, intensity, statement, repetition, actor.
NAME = re.compile(
    r"(0[1-3])-(0[12])-(0[1-8])-(0[12])-(0[12])-(0[12])-(0[1-9]|1\d|2[0-4])"
)
SPEECH = ("03", "01")

# Where the folders of the actors lie.
PLACES = (
    "",
    "Audio_Speech_Actors_01-24",
    "RAVDESS",
    "RAVDESS/Audio_Speech_Actors_01-24",
)

PUBLISHED = {"utterances": 1440, "speakers": 24}


def prepare_ravdess(
    data_folder,
    save_folder,
    check="header",
    num_workers=None,
    skip_prep=False,
):
    """Writes ``utterances.csv`` with the emotion of each utterance.

    Arguments
    ---------
    data_folder : str
        Folder with ``Actor_01`` to ``Actor_24``, or with
        ``Audio_Speech_Actors_01-24``.
    save_folder : str
        Where the outputs go.
    check : str
        ``"header"`` reads headers; ``"decode"`` reads all audio.
    num_workers : int, optional
        Processes that read; one per core otherwise.
    skip_prep : bool
        Does nothing.

    Returns
    -------
    dict
        See ``speechbrain_ssl.downstream.corpus.write_corpus``. Empty with
        ``skip_prep``.

    Raises
    ------
    UserError
        If there are no folders of actors.
    ManifestError
        If they hold no speech of RAVDESS, or none that can be used.
    """
    if skip_prep:
        return {}
    data_folder = os.path.abspath(data_folder)
    actors = [f"{place}/Actor_01".lstrip("/") for place in PLACES]
    audio = os.path.dirname(find_folder(data_folder, actors, "RAVDESS"))
    arguments = {"data_folder": data_folder, "check": check}
    before = completed(save_folder, arguments)
    if before is not None:
        return before
    rows, rejected = read_names(list_files(audio, (".wav",)).files)
    if rows.empty:
        raise ManifestError(
            f"no file below {audio} has the name of an utterance of RAVDESS, "
            "such as Actor_12/03-01-05-01-02-01-12.wav; the emotions are in "
            "the names, so unpack the corpus again without renaming"
        )
    return write_corpus(
        data_folder,
        audio,
        save_folder,
        rows,
        arguments,
        PUBLISHED,
        rejected,
        check,
        num_workers,
    )


def read_names(files):
    """What the names of the files say.

    Arguments
    ---------
    files : list of str
        Relative to the folder of the actors.

    Returns
    -------
    tuple
        Rows for ``write_corpus``, and rejected files (file, reason, detail):
        some copies have one actor's file in another one's folder as well.

    Example
    -------
    >>> rows, _ = read_names(["Actor_12/03-01-05-01-02-01-12.wav"])
    >>> rows.loc[0, ["spk_id", "emotion", "gender"]].tolist()
    ['12', 'angry', 'female']
    """
    rows, rejected, others = [], [], 0
    for file in files:
        folder, _, name = file.rpartition("/")
        match = NAME.fullmatch(os.path.splitext(name)[0])
        if match is None:
            rejected.append((file, "unexpected name", "not seven numbers"))
            continue
        *kind, emotion, intensity, statement, repetition, actor = match.groups()
        if tuple(kind) != SPEECH:
            others += 1
        elif folder != f"Actor_{actor}":
            rejected.append((file, "unexpected place", f"of actor {actor}"))
        else:
            rows.append(
                {
                    "file": file,
                    "spk_id": actor,
                    "emotion": EMOTIONS[emotion],
                    "gender": "male" if int(actor) % 2 else "female",
                    "intensity": {"01": "normal", "02": "strong"}[intensity],
                    "statement": {"01": "kids", "02": "dogs"}[statement],
                    "repetition": int(repetition),
                }
            )
    if others:
        logger.info("left out: %d songs and sound tracks of videos", others)
    return pd.DataFrame(rows), rejected


def main(argv=None):
    """Runs the preparation from the command line; returns the exit status."""
    return run_prepare(prepare_ravdess, __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
