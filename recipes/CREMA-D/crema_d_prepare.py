"""Prepare CREMA-D: six emotions, as intended or as heard by listeners.

    python crema_d_prepare.py --data_folder=/path/to/CREMA-D --save_folder=save

The emotion that an actor was asked for is in the name of the file
(``1001_DFA_ANG_XX.wav``); the one that most listeners heard is in
``processedResults/summaryTable.csv``. Gender and age come from
``VideoDemographics.csv``.
"""

import functools
import logging
import os
import re
import sys

import pandas as pd

from speechbrain_ssl.downstream.corpus import (
    prepare_corpus,
    read_label_table,
    run_prepare,
)
from speechbrain_ssl.errors import ConfigError, ManifestError
from speechbrain_ssl.prepare.listing import list_files

logger = logging.getLogger(__name__)

EMOTIONS = {
    "ANG": "angry",
    "DIS": "disgust",
    "FEA": "fearful",
    "HAP": "happy",
    "NEU": "neutral",
    "SAD": "sad",
}
VOTES = {code[0]: emotion for code, emotion in EMOTIONS.items()}

# Actor, sentence, emotion, and level: low, medium, high or unspecified (XX; one
# file of the corpus has X).
NAME = re.compile(r"(1\d{3})_([A-Z]{3})_([A-Z]{3})_(LO|MD|HI|XX?)")

LABELS = ("intended", "voice")
PUBLISHED = {"utterances": 7442, "speakers": 91}


def prepare_crema_d(
    data_folder,
    save_folder,
    labels="intended",
    check="decode",
    num_workers=None,
    skip_prep=False,
):
    """Write ``utterances.csv`` with the emotion of each clip.

    Arguments
    ---------
    data_folder : str
        Folder with ``AudioWAV``.
    labels : str
        ``"intended"``: the emotion that the actor was asked for. ``"voice"``:
        the emotion that most listeners heard in the voice alone; clips with a
        tie are left out.
    save_folder, check, num_workers, skip_prep
        See ``speechbrain_ssl.downstream.corpus.prepare_corpus``. Only
        ``check="decode"`` finds the clip that is silent.

    Returns
    -------
    dict
        See ``speechbrain_ssl.downstream.corpus.write_corpus``. Empty with
        ``skip_prep``.

    Raises
    ------
    ConfigError
        If ``labels`` is neither.
    UserError
        If there is no folder ``AudioWAV``.
    ManifestError
        If a table that is needed is missing, wrong, or lacks a clip or an
        actor, or if no clip can be used.
    """
    published = dict(PUBLISHED)
    if labels == "voice":
        # The number of ties depends on the release of the votes.
        del published["utterances"]
    return prepare_corpus(
        "CREMA-D",
        ["AudioWAV", "CREMA-D/AudioWAV"],
        functools.partial(read_corpus, labels=labels),
        data_folder,
        save_folder,
        check,
        num_workers,
        skip_prep,
        published,
        labels=labels,
    )


def read_corpus(audio, labels):
    """Read the labels of the whole corpus, for ``prepare_corpus``.

    Arguments
    ---------
    audio : str
        The folder ``AudioWAV``, beside the tables.
    labels : str
        As in ``prepare_crema_d``.

    Returns
    -------
    tuple
        Folder of the clips, rows and rejected files.

    Raises
    ------
    ConfigError
        If ``labels`` is neither of the two.
    ManifestError
        If no file is named like a clip, or if the tables of votes and actors
        are wrong or incomplete.
    """
    if labels not in LABELS:
        raise ConfigError(
            f"`labels` is '{labels}'; it must be one of {', '.join(LABELS)}"
        )
    rows, rejected = read_names(list_files(audio, (".wav",)).files)
    if rows.empty:
        raise ManifestError(
            f"no file in {audio} has the name of a clip of CREMA-D, such as "
            "1001_DFA_ANG_XX.wav; fetch the corpus again (git clone with git "
            "LFS)"
        )
    root = os.path.dirname(audio)
    if labels == "voice":
        rows["emotion"] = read_votes(root, rows)
        rows = rows[rows["emotion"].notna()].reset_index(drop=True)
    return audio, add_demographics(root, rows), rejected


def read_names(files):
    """Read actor, sentence, emotion and level from the names of the clips.

    Arguments
    ---------
    files : list of str
        Relative to ``AudioWAV``.

    Returns
    -------
    tuple
        Rows for ``write_corpus``, and rejected files (file, reason, detail).

    Example
    -------
    >>> rows, _ = read_names(["1001_DFA_ANG_XX.wav"])
    >>> rows.loc[0, ["spk_id", "emotion", "sentence"]].tolist()
    ['1001', 'angry', 'DFA']
    """
    rows, rejected = [], []
    for file in files:
        match = NAME.fullmatch(os.path.splitext(file)[0])
        if match is None or match[3] not in EMOTIONS:
            rejected.append((file, "unexpected name", "not 1001_DFA_ANG_XX"))
            continue
        actor, sentence, emotion, level = match.groups()
        rows.append(
            {
                "file": file,
                "spk_id": actor,
                "emotion": EMOTIONS[emotion],
                "sentence": sentence,
                "level": level,
            }
        )
    return pd.DataFrame(rows), rejected


def read_votes(root, rows):
    """Return what most listeners heard in each clip; None for a tie."""
    path = os.path.join(root, "processedResults", "summaryTable.csv")
    table = read_label_table(
        path, ["FileName", "VoiceVote"], "the table of the listeners' votes"
    )
    votes = table.set_index("FileName")["VoiceVote"].str.strip()
    wrong = votes[~votes.str.fullmatch(f"[{''.join(VOTES)}](:[A-Z])*")]
    if len(wrong):
        raise ManifestError(
            f"{path}: the VoiceVote '{wrong.iloc[0]}' of {wrong.index[0]} is "
            f"not one of {', '.join(VOTES)}; get the file again"
        )
    names = rows["file"].str.removesuffix(".wav")
    absent = names[~names.isin(votes.index)]
    if len(absent):
        raise ManifestError(
            f"{path} has no votes on {absent.iloc[0]}, and on "
            f"{len(absent) - 1} more clips; get the file again, or use "
            "--labels=intended"
        )
    heard = names.map(votes[~votes.index.duplicated()]).map(VOTES)
    logger.info("left out: %d clips whose votes are tied", heard.isna().sum())
    return heard.where(heard.notna(), None)


def add_demographics(root, rows):
    """Add gender and age of the actors, if their table exists."""
    path = os.path.join(root, "VideoDemographics.csv")
    if not os.path.isfile(path):
        logger.warning(
            "%s is missing: there are no columns gender and age to probe", path
        )
        return rows
    table = read_label_table(
        path, ["ActorID", "Age", "Sex"], "the table of the actors"
    ).set_index("ActorID")
    absent = sorted(set(rows["spk_id"]) - set(table.index))
    if absent:
        raise ManifestError(
            f"{path} does not have the actor {absent[0]}, and "
            f"{len(absent) - 1} more; get the file again"
        )
    return rows.assign(
        gender=rows["spk_id"].map(table["Sex"].str.strip().str.lower()),
        age=rows["spk_id"].map(table["Age"].str.strip()),
    )


def main(argv=None):
    """Run the preparation from the command line; return the exit status."""
    return run_prepare(prepare_crema_d, __doc__, argv, labels=LABELS)


if __name__ == "__main__":
    sys.exit(main())
