"""Create MiniVox, its training manifest and its trial lists.

    python minivox_prepare.py --data_folder=exp/minivox --save_folder=exp/save

The output depends only on the arguments: another call, with any number of
processes, writes the same bytes. The corpus itself is synthesised by
speechbrain_ssl/minivox.
"""

import argparse
import itertools
import logging
import pathlib
import sys

import numpy as np
import pandas as pd
import soundfile

from speechbrain_ssl.checks import check_int
from speechbrain_ssl.data.faces import write_faces as write_face_manifest
from speechbrain_ssl.data.manifest import write_manifest
from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.files import atomic_write
from speechbrain_ssl.minivox.corpus import (
    SPEAKERS_FILE,
    face_names,
    write_corpus,
    write_faces,
)
from speechbrain_ssl.prepare.prepare_script import run_parsed
from speechbrain_ssl.prepare.scan import write_folder_manifest

logger = logging.getLogger(__name__)

TRAIN_CSV = "train.csv"
FACES_CSV = "faces.csv"
CROSS_VIDEO = "trials_cross_video.txt"
WITHIN_VIDEO = "trials_within_video.txt"
BACKGROUND = {
    "noise.csv": "musan/noise",
    "music.csv": "musan/music",
    "speech.csv": "musan/speech",
    "rirs.csv": "RIRS_NOISES/simulated_rirs",
}


def prepare_minivox(
    data_folder, save_folder, max_trials=6000, faces=0, **corpus
):
    """Create the corpus if it is missing, and its manifests and trial lists.

    Arguments
    ---------
    data_folder : str or pathlib.Path
        Folder of the corpus.
    save_folder : str or pathlib.Path
        Where ``train.csv``, ``trials_cross_video.txt``,
        ``trials_within_video.txt`` and the manifests of noise and rooms
        (``noise.csv``, ``music.csv``, ``speech.csv``, ``rirs.csv``) are written.
        As in VoxCeleb's lists, paths in the trials are relative to
        ``<data_folder>/wav``.
    max_trials : int
        Greatest number of trials in each of the two lists.
    faces : int
        Number of pictures of each utterance's speaker that are drawn; their
        manifest, ``faces.csv``, has the utterances of training and trials.
    **corpus : dict
        Passed to ``speechbrain_ssl.minivox.corpus.write_corpus``: sizes, seed,
        jobs, progress.

    Returns
    -------
    dict
        ``train``, ``cross_video`` and ``within_video``: paths of the three
        files.

    Raises
    ------
    ConfigError
        If an argument is out of range, or the folder holds another corpus.

    Example
    -------
    >>> import tempfile
    >>> sizes = dict(num_train_speakers=2, num_test_speakers=4, num_noises=0)
    >>> sizes.update(videos_per_speaker=2, utterances_per_video=2, num_rooms=0)
    >>> folder = tempfile.mkdtemp()
    >>> paths = prepare_minivox(folder, folder, **sizes, progress=False)
    >>> len(paths["train"].read_text().splitlines())
    9
    >>> len(paths["cross_video"].read_text().splitlines())
    32
    """
    check_int("prepare_minivox", "faces", faces, least=0)
    if max_trials < 2:
        raise ConfigError(
            f"max_trials is {max_trials}; at least 2 are needed, a target and "
            "a nontarget"
        )
    data_folder = pathlib.Path(data_folder)
    save_folder = pathlib.Path(save_folder)
    written = write_corpus(data_folder, **corpus)
    logger.info("MiniVox in %s: %d files written", data_folder, written)

    speakers = pd.read_csv(data_folder / SPEAKERS_FILE, dtype=str)
    paths = {
        "train": save_folder / TRAIN_CSV,
        "cross_video": save_folder / CROSS_VIDEO,
        "within_video": save_folder / WITHIN_VIDEO,
    }
    train = speakers.loc[speakers["set"] == "train", "speaker"]
    write_manifest(paths["train"], _manifest(data_folder / "wav", train))

    # Noise and rooms, if the corpus was created with them.
    for name, part in BACKGROUND.items():
        if (data_folder / part).is_dir():
            write_folder_manifest(data_folder / part, save_folder / name)

    if faces:
        options = {k: corpus[k] for k in ("jobs", "progress") if k in corpus}
        write_faces(data_folder, faces, **options)
        write_face_manifest(
            save_folder / FACES_CSV,
            _face_manifest(data_folder / "wav", speakers["speaker"], faces),
        )

    test = speakers[speakers["set"] == "test"]
    genders = dict(zip(test["speaker"], test["gender"], strict=True))
    names = _utterances(data_folder / "wav", genders)
    for key, across in (("cross_video", True), ("within_video", False)):
        trials = make_trials(names, genders, across, max_trials)
        with atomic_write(paths[key]) as stream:
            stream.writelines(f"{label} {a} {b}\n" for label, a, b in trials)
    return paths


def _utterances(folder, speakers):
    """List the names ``<speaker>/<video>/<utterance>.wav`` of speakers."""
    return [
        path.relative_to(folder).as_posix()
        for speaker in sorted(speakers)
        for path in sorted((folder / speaker).glob("*/*.wav"))
    ]


def _manifest(folder, speakers):
    """Return the training manifest, which has no speaker column."""
    rows = []
    for name in _utterances(folder, speakers):
        info = soundfile.info(str(folder / name))
        rows.append(
            {
                "ID": name.removesuffix(".wav"),
                "duration": round(info.frames / info.samplerate, 4),
                "wav": f"$data_root/wav/{name}",
            }
        )
    return pd.DataFrame(rows)


def _face_manifest(folder, speakers, pictures):
    """Return the manifest of the faces, of all utterances."""
    rows = [
        (name.removesuffix(".wav"), f"$data_root/{picture}")
        for name in _utterances(folder, speakers)
        for picture in face_names(f"wav/{name}", pictures)
    ]
    return pd.DataFrame(rows, columns=["ID", "image"])


def make_trials(names, genders, across, max_trials=6000):
    """Choose equal numbers of targets and nontargets, in a fixed order.

    Arguments
    ---------
    names : list of str
        Utterances, ``<speaker>/<video>/<utterance>.wav``.
    genders : dict
        Gender of each speaker. The two sides of a nontarget have the same
        gender, so that telling men from women does not help. They are mixed
        only if no gender has two speakers.
    across : bool
        Whether the two sides of a target come from different videos, or from
        the same one.
    max_trials : int
        Greatest number of trials.

    Returns
    -------
    list of tuple
        Label (1 for a target), and the two names.

    Raises
    ------
    ConfigError
        If the corpus has no target, or no nontarget.

    Example
    -------
    >>> names = ["a/v1/1.wav", "a/v2/1.wav", "b/v1/1.wav"]
    >>> trials = make_trials(names, {"a": "f", "b": "f"}, across=True)
    >>> len(trials), trials[1]
    (2, (1, 'a/v1/1.wav', 'a/v2/1.wav'))
    """
    side = {name: tuple(name.split("/")[:2]) for name in names}
    targets, alike, mixed = [], [], []
    for a, b in itertools.combinations(sorted(names), 2):
        (speaker_a, video_a), (speaker_b, video_b) = side[a], side[b]
        if speaker_a == speaker_b:
            if (video_a != video_b) == across:
                targets.append((1, a, b))
        elif genders[speaker_a] == genders[speaker_b]:
            alike.append((0, a, b))
        else:
            mixed.append((0, a, b))
    others = alike or mixed
    count = min(len(targets), len(others), max_trials // 2)
    if not count:
        raise ConfigError(
            f"no trials {'across' if across else 'within'} videos can be made; "
            "take at least two test speakers, two videos and two utterances"
        )
    # A fixed seed, because the lists are part of the corpus.
    rng = np.random.default_rng([1986, int(across)])
    chosen = []
    for pairs in (targets, others):
        picked = rng.choice(len(pairs), size=count, replace=False)
        chosen.extend(pairs[i] for i in picked)
    return sorted(chosen)


def _parser():
    parser = argparse.ArgumentParser(
        description="Create MiniVox, its training manifest and trial lists.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--data_folder", required=True, help="folder of the corpus")
    add("--save_folder", required=True, help="folder for manifests and trials")
    add(
        "--num_train_speakers",
        type=int,
        default=60,
        help="speakers to train on",
    )
    add(
        "--num_test_speakers",
        type=int,
        default=20,
        help="speakers in the trials",
    )
    add(
        "--videos_per_speaker",
        type=int,
        default=4,
        help="videos, each with its own channel",
    )
    add(
        "--utterances_per_video",
        type=int,
        default=5,
        help="utterances, one file each",
    )
    add(
        "--seconds",
        type=float,
        nargs=2,
        default=(2.5, 5.0),
        metavar=("SHORTEST", "LONGEST"),
        help="duration of an utterance",
    )
    add("--num_noises", type=int, default=20, help="noises of each MUSAN kind")
    add("--num_rooms", type=int, default=40, help="room responses")
    add(
        "--max_trials",
        type=int,
        default=6000,
        help="most trials in either list",
    )
    add("--faces", type=int, default=0, help="pictures of each utterance")
    add("--seed", type=int, default=1986, help="seed of the corpus")
    add("--jobs", type=int, default=None, help="processes (None: all cores)")
    return parser


if __name__ == "__main__":
    sys.exit(run_parsed(prepare_minivox, _parser()))
