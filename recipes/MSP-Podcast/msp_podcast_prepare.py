"""Prepare MSP-Podcast: consensus labels and official partitions.

    python msp_podcast_prepare.py --data_folder=/path/to/MSP-Podcast \\
        --save_folder=save

The labels are read from ``Labels/labels_consensus.csv``. Files without an
agreed emotion (``X``), with an emotion other than the eight (``O``), or from
partitions whose labels are withheld are left out.
"""

import logging
import os
import sys

import numpy as np

from speechbrain_ssl.downstream.corpus import (
    prepare_corpus,
    read_label_table,
    run_prepare,
)
from speechbrain_ssl.errors import ManifestError

logger = logging.getLogger(__name__)

EMOTIONS = {
    "A": "angry",
    "S": "sad",
    "H": "happy",
    "U": "surprised",
    "F": "fearful",
    "D": "disgust",
    "C": "contempt",
    "N": "neutral",
}
# Another emotion, no agreement, label withheld.
LEFT_OUT = ("O", "X", "")

COLUMNS = ["FileName", "EmoClass", "SpkrID", "Gender", "Split_Set"]

# An early release misspells the name of the file.
LABEL_FILES = (
    "Labels/labels_consensus.csv",
    "labels/labels_consensus.csv",
    "Labels/labels_concensus.csv",
)


def prepare_msp_podcast(
    data_folder,
    save_folder,
    check="header",
    num_workers=None,
    skip_prep=False,
):
    """Write ``utterances.csv`` with emotion and partition of each file.

    Each file of an unknown speaker is given a speaker of its own. Its real
    speaker may be on both sides of a fold, so the log says how many such files
    there are.

    Arguments
    ---------
    data_folder : str
        Folder with ``Audios`` and ``Labels``.
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
        If there is no folder ``Audios``.
    ManifestError
        If the labels are missing or wrong, or if no file can be used.
    """
    return prepare_corpus(
        "MSP-Podcast",
        ["Audios", "Audio"],
        read_corpus,
        data_folder,
        save_folder,
        check,
        num_workers,
        skip_prep,
    )


def read_corpus(audio):
    """Read the labels of the whole corpus, for ``prepare_corpus``.

    Arguments
    ---------
    audio : str
        The folder ``Audios``, beside ``Labels``.

    Returns
    -------
    tuple
        Folder of the audio files, rows and rejected files (none).
    """
    root = os.path.dirname(audio)
    paths = [os.path.join(root, name) for name in LABEL_FILES]
    rows = read_labels(next(filter(os.path.isfile, paths), paths[0]))
    unknown = rows["spk_id"].str.startswith("unknown/")
    counts = rows.loc[unknown, "partition"].value_counts().sort_index()
    if len(counts):
        logger.warning(
            "files of unknown speakers, who may be on both sides of a fold: %s",
            ", ".join(f"{n} in {name}" for name, n in counts.items()),
        )
    return audio, rows, []


def read_labels(path):
    """Read the files that have an emotion.

    Arguments
    ---------
    path : str
        ``labels_consensus.csv``.

    Returns
    -------
    pandas.DataFrame
        Rows for ``write_corpus``.

    Raises
    ------
    ManifestError
        If the file is missing, or a line is malformed.
    """
    table = read_label_table(path, COLUMNS, "the table of consensus labels")
    table = table.apply(lambda column: column.str.strip())
    wrong = ~table["EmoClass"].isin([*EMOTIONS, *LEFT_OUT])
    _refuse(path, table, wrong, "EmoClass", f"one of {', '.join(EMOTIONS)}")
    wrong = ~table["FileName"].str.fullmatch(r"[\w.-]+\.wav")
    _refuse(path, table, wrong, "FileName", "a name such as a.wav")
    wrong = table["FileName"].duplicated()
    _refuse(path, table, wrong, "FileName", "named once")
    wrong = table["Split_Set"] == ""
    _refuse(path, table, wrong, "Split_Set", "filled in")
    kept = table[table["EmoClass"].isin(EMOTIONS)].reset_index(drop=True)
    if kept.empty:
        raise ManifestError(
            f"{path} has no file with an agreed emotion; get it again"
        )
    logger.info(
        "left out: %d of %d files, without an agreed emotion",
        len(table) - len(kept),
        len(table),
    )
    # Speakers are numbers, "Spkr_1" or "Unknown".
    known = ~kept["SpkrID"].str.lower().isin(["unknown", "", "nan"])
    rows = kept.assign(
        spk_id=np.where(known, kept["SpkrID"], "unknown/" + kept["FileName"]),
        emotion=kept["EmoClass"].map(EMOTIONS),
        gender=kept["Gender"].str.lower().replace("unknown", ""),
    )
    names = {"FileName": "file", "Split_Set": "partition"}
    rows = rows.rename(columns=names)
    return rows[["file", "spk_id", "emotion", "partition", "gender"]]


def _refuse(path, table, wrong, column, wanted):
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise ManifestError(
            f"{path}, line {row + 2}: the {column} "
            f"'{table[column].iloc[row][:60]}' is not {wanted}; get the file "
            "again from the source of the corpus"
        )


def main(argv=None):
    """Run the preparation from the command line; return the exit status."""
    return run_prepare(prepare_msp_podcast, __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
