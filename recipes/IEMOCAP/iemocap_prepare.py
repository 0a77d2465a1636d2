"""Prepare IEMOCAP: four emotions from the evaluations of its sessions.

    python iemocap_prepare.py --data_folder=/path/to/IEMOCAP_full_release \\
        --save_folder=save

The majority labels are read from ``SessionN/dialog/EmoEvaluation/*.txt``. The
four emotions are angry, happy (which includes excited), neutral and sad, 5 531
turns in all. Turns with other labels or without a majority (``xxx``) are left
out.
"""

import collections
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

logger = logging.getLogger(__name__)

EMOTIONS = {
    "ang": "angry",
    "hap": "happy",
    "exc": "happy",
    "neu": "neutral",
    "sad": "sad",
}
OTHERS = ("fru", "fea", "sur", "dis", "oth", "xxx")

SESSIONS = range(1, 6)

# [6.2901 - 8.2357]	Ses01F_impro01_F000	neu	[2.5000, 2.5000, 2.5000]
TURN = re.compile(r"\[[\d.]+ - [\d.]+\]\s+(\S+)\s+(\w+)\s+\[")
# In Ses01F the F tells who wore the markers; in _F000 it tells who speaks.
TURN_NAME = re.compile(r"(Ses0([1-5])[FM]_\w+)_([FM])[XZ]*\d+")

PUBLISHED = {"utterances": 5531, "speakers": 10}


def prepare_iemocap(
    data_folder,
    save_folder,
    check="header",
    num_workers=None,
    skip_prep=False,
):
    """Write ``utterances.csv`` with the emotion of each turn.

    Arguments
    ---------
    data_folder : str
        Folder with ``Session1`` to ``Session5``.
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
        If there are no sessions.
    ManifestError
        If the evaluations of a session are missing or malformed, or if no turn
        can be used.
    """
    return prepare_corpus(
        "IEMOCAP",
        ["Session1", "IEMOCAP_full_release/Session1"],
        read_corpus,
        data_folder,
        save_folder,
        check,
        num_workers,
        skip_prep,
        PUBLISHED,
    )


def read_corpus(first_session):
    """Read the labels of the whole corpus, for ``prepare_corpus``.

    Arguments
    ---------
    first_session : str
        The folder ``Session1``.

    Returns
    -------
    tuple
        Folder of the sessions, rows and rejected files (none).
    """
    root = os.path.dirname(first_session)
    turns = [turn for n in SESSIONS for turn in read_session(root, n)]
    return root, pd.DataFrame(turns), []


def read_session(root, session):
    """Read the labelled turns of a session.

    Arguments
    ---------
    root : str
        The folder of the sessions.
    session : int
        1 to 5.

    Returns
    -------
    list of dict
        Rows for ``write_corpus``.

    Raises
    ------
    ManifestError
        If there are no evaluations, or if a line is malformed.
    """
    folder = os.path.join(root, f"Session{session}", "dialog", "EmoEvaluation")
    names = []
    if os.path.isdir(folder):
        # macOS adds files whose names begin with a dot and an underscore.
        names = sorted(
            name
            for name in os.listdir(folder)
            if name.endswith(".txt") and not name.startswith(".")
        )
    if not names:
        raise ManifestError(
            f"there are no evaluations {folder}/*.txt; unpack IEMOCAP again "
            "with its folders `dialog`: leaving one session out needs all five"
        )
    rows, left_out = [], collections.Counter()
    for name in names:
        for turn, label in read_evaluation(os.path.join(folder, name), session):
            if label not in EMOTIONS:
                left_out[label] += 1
                continue
            dialog, number, gender = TURN_NAME.fullmatch(turn).groups()
            rows.append(
                {
                    "file": f"Session{session}/sentences/wav/{dialog}/{turn}.wav",
                    "spk_id": f"Ses0{number}{gender}",
                    "emotion": EMOTIONS[label],
                    "session": f"Session{session}",
                    "gender": {"F": "female", "M": "male"}[gender],
                    # Acted from a script, or improvised.
                    "setting": "script" if "script" in dialog else "impro",
                }
            )
    logger.info(
        "Session%d: %d turns; left out: %s",
        session,
        len(rows),
        ", ".join(f"{n} {label}" for label, n in sorted(left_out.items()))
        or "none",
    )
    return rows


def read_evaluation(path, session):
    """Read the turns of one dialog with their majority labels.

    Arguments
    ---------
    path : str
        The file of evaluations.
    session : int
        The session that the file belongs to.

    Returns
    -------
    list of tuple
        Name of the turn and its label, as written in the file.

    Raises
    ------
    ManifestError
        If the file has no turn, or a malformed line.
    """
    found = []
    with open(path, encoding="utf-8", errors="replace") as stream:
        for number, line in enumerate(stream, start=1):
            # The lines of single annotators do not begin with a bracket.
            if not line.startswith("["):
                continue
            match = TURN.match(line)
            name = match and TURN_NAME.fullmatch(match[1])
            if not name or int(name[2]) != session:
                raise ManifestError(
                    f"{path}, line {number}: this is not a turn of Session"
                    f"{session}: '{line.strip()[:80]}'; get the file again"
                )
            if match[2] not in (*EMOTIONS, *OTHERS):
                raise ManifestError(
                    f"{path}, line {number}: '{match[2]}' is not a label of "
                    "IEMOCAP; get the file again"
                )
            found.append((match[1], match[2]))
    if not found:
        raise ManifestError(
            f"{path} has no line such as '[6.2901 - 8.2357] "
            "Ses01F_impro01_F000 neu [2.5000, 2.5000, 2.5000]'; get the file "
            "again"
        )
    return found


def main(argv=None):
    """Run the preparation from the command line; return the exit status."""
    return run_prepare(prepare_iemocap, __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
