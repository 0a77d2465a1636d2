"""Prepare RAVDESS: emotions, actors and more from the names of its files.

    python ravdess_prepare.py --data_folder=/path/to/RAVDESS --save_folder=save

A name such as ``Actor_12/03-01-05-01-02-01-12.wav`` encodes modality (03: audio
alone), channel (01: speech), emotion, intensity, statement, repetition and
actor. Only speech is used; songs and videos are left out.
"""

import logging
import os
import re
import sys

import pandas as pd

from speechbrain_ssl.downstream.corpus import (
    prepare_corpus,
    run_prepare,
)
from speechbrain_ssl.errors import ManifestError
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

# Where the folder of the first actor may be.
PLACES = [
    "Actor_01",
    "Audio_Speech_Actors_01-24/Actor_01",
    "RAVDESS/Actor_01",
    "RAVDESS/Audio_Speech_Actors_01-24/Actor_01",
]

PUBLISHED = {"utterances": 1440, "speakers": 24}


def prepare_ravdess(
    data_folder,
    save_folder,
    check="header",
    num_workers=None,
    skip_prep=False,
):
    """Write ``utterances.csv`` with the emotion of each utterance.

    Arguments
    ---------
    data_folder : str
        Folder with ``Actor_01`` to ``Actor_24``, or with
        ``Audio_Speech_Actors_01-24``.
    save_folder, check, num_workers, skip_prep
        See ``speechbrain_ssl.downstream.corpus.prepare_corpus``.

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
        If the folders hold no speech of RAVDESS, or none that can be used.
    """
    return prepare_corpus(
        "RAVDESS",
        PLACES,
        read_corpus,
        data_folder,
        save_folder,
        check,
        num_workers,
        skip_prep,
        PUBLISHED,
    )


def read_corpus(first_actor):
    """Read the labels of the whole corpus, for ``prepare_corpus``.

    Arguments
    ---------
    first_actor : str
        The folder ``Actor_01``.

    Returns
    -------
    tuple
        Folder of the actors, rows and rejected files.

    Raises
    ------
    ManifestError
        If no file is named like an utterance.
    """
    audio = os.path.dirname(first_actor)
    rows, rejected = read_names(list_files(audio, (".wav",)).files)
    if rows.empty:
        raise ManifestError(
            f"no file below {audio} has the name of an utterance of RAVDESS, "
            "such as Actor_12/03-01-05-01-02-01-12.wav; the emotions are in "
            "the names, so unpack the corpus again without renaming"
        )
    return audio, rows, rejected


def read_names(files):
    """Read emotion, actor and more from the names of the files.

    Arguments
    ---------
    files : list of str
        Relative to the folder of the actors.

    Returns
    -------
    tuple
        Rows for ``write_corpus``, and rejected files (file, reason, detail).
        Some copies of the corpus have a file of one actor in the folder of
        another, too; it is rejected there.

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
    """Run the preparation from the command line; return the exit status."""
    return run_prepare(prepare_ravdess, __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
