"""Write MiniVox to a folder, or complete it there.

The folders are laid out as those of VoxCeleb
(``wav/<speaker>/<video>/<utterance>.wav``), MUSAN and RIRS_NOISES, so that code
that reads those reads these.
"""

import functools
import json
import pathlib

import numpy as np
import PIL.Image
import scipy.io.wavfile
import scipy.signal

from speechbrain_ssl.errors import ConfigError, differences
from speechbrain_ssl.files import atomic_write
from speechbrain_ssl.minivox import draws
from speechbrain_ssl.minivox.channel import (
    coloured_noise,
    draw_channel,
    draw_room,
    transmit,
)
from speechbrain_ssl.minivox.face import (
    draw_face,
    draw_picture,
    draw_scene,
)
from speechbrain_ssl.minivox.voice import (
    SAMPLE_RATE,
    draw_voice,
    speaker_gender,
    synthesise,
)
from speechbrain_ssl.prepare.workers import default_workers, finish_jobs
from speechbrain_ssl.progress import open_bar

# Increase it with every change that alters a sample: a folder that another
# version wrote in part is then rejected instead of completed.
GENERATOR_VERSION = 1
FACE_VERSION = 1

PARAMETERS_FILE = "minivox.json"
SPEAKERS_FILE = "minivox_meta.csv"

# First number of the speakers of each set; a speaker keeps its voice when the
# size of the sets changes.
_TRAIN, _TEST, _BACKGROUND = 10001, 20001, 30001


def write_corpus(
    folder,
    num_train_speakers=60,
    num_test_speakers=20,
    videos_per_speaker=4,
    utterances_per_video=5,
    seconds=(2.5, 5.0),
    num_noises=20,
    num_rooms=40,
    seed=1986,
    jobs=None,
    progress=True,
):
    """Write MiniVox, or its missing files.

    A repeated call writes only missing files, with the same bytes as before.

    Arguments
    ---------
    folder : str or pathlib.Path
        Folder for the corpus: ``wav``, ``musan``, ``RIRS_NOISES``, the
        arguments (``minivox.json``) and the speakers (``minivox_meta.csv``).
    num_train_speakers : int
        Number of training speakers, ``id10001`` and up.
    num_test_speakers : int
        Number of speakers in the trials, ``id20001`` and up.
    videos_per_speaker : int
        Number of recordings of a speaker, each with its own channel.
    utterances_per_video : int
        Number of files of a recording.
    seconds : tuple of float
        Lengths of the shortest and the longest utterance.
    num_noises : int
        Number of files of each kind of MUSAN (noise, music, speech); with 0
        there is no such folder.
    num_rooms : int
        Number of room responses; with 0 there is no such folder.
    seed : int
        Seed of all draws.
    jobs : int, optional
        Number of processes. By default one per core. The files do not depend
        on it.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    int
        The number of files that were written.

    Raises
    ------
    ConfigError
        If an argument is invalid, or if the folder holds a corpus that was
        made with other arguments or that is not MiniVox.

    Example
    -------
    >>> import tempfile
    >>> sizes = dict(num_train_speakers=1, num_test_speakers=1, num_noises=0)
    >>> sizes.update(videos_per_speaker=1, utterances_per_video=2, num_rooms=0)
    >>> folder = tempfile.mkdtemp()
    >>> write_corpus(folder, **sizes, jobs=1, progress=False)
    4
    >>> write_corpus(folder, **sizes, jobs=1, progress=False)
    0
    """
    folder = pathlib.Path(folder)
    parameters = {
        "num_train_speakers": num_train_speakers,
        "num_test_speakers": num_test_speakers,
        "videos_per_speaker": videos_per_speaker,
        "utterances_per_video": utterances_per_video,
        "seconds": [float(seconds[0]), float(seconds[1])],
        "num_noises": num_noises,
        "num_rooms": num_rooms,
        "seed": seed,
        "version": GENERATOR_VERSION,
    }
    _check(parameters)
    _claim(folder, parameters)
    if not (folder / SPEAKERS_FILE).is_file():
        with atomic_write(folder / SPEAKERS_FILE) as stream:
            stream.write("speaker,gender,set\n")
            for number, name in _speakers(parameters):
                stream.write(f"id{number},{speaker_gender(number)},{name}\n")

    tasks, missing = [], 0
    for kind, number, video, names in _tasks(parameters):
        names = [n for n in names if not (folder / n[1]).is_file()]
        if names:
            tasks.append((kind, number, video, names))
            missing += len(names)
    if not tasks:
        return 0
    write = functools.partial(
        _write_files, folder=str(folder), seed=seed, seconds=tuple(seconds)
    )
    _write_all(write, tasks, missing, jobs, progress)
    return missing


def write_faces(folder, pictures, jobs=None, progress=True):
    """Draw the faces of a corpus, or the pictures that are missing.

    Arguments
    ---------
    folder : str or pathlib.Path
        A folder that ``write_corpus`` has written. The pictures are
        ``faces/<speaker>/<video>/<utterance>_<picture>.png`` in it.
    pictures : int
        Number of pictures of each utterance.
    jobs, progress
        As in ``write_corpus``.

    Returns
    -------
    int
        The number of pictures that were written.

    Raises
    ------
    ConfigError
        If the folder ``faces`` is of another version.

    Example
    -------
    >>> import tempfile
    >>> sizes = dict(num_train_speakers=1, num_test_speakers=1, num_noises=0)
    >>> sizes.update(videos_per_speaker=1, utterances_per_video=2, num_rooms=0)
    >>> folder = tempfile.mkdtemp()
    >>> write_corpus(folder, **sizes, jobs=1, progress=False)
    4
    >>> write_faces(folder, 2, jobs=1, progress=False)
    8
    """
    folder = pathlib.Path(folder)
    parameters = json.loads((folder / PARAMETERS_FILE).read_text("utf-8"))
    _claim(folder / "faces", {"version": FACE_VERSION})
    tasks, missing = [], 0
    for kind, number, video, names in _tasks(parameters):
        if kind != "wav":
            continue
        names = [
            # Of the video's pictures, those of an utterance do not depend on
            # how many there are.
            (10000 * picture + index, name)
            for index, wav in names
            for picture, name in enumerate(face_names(wav, pictures))
            if not (folder / name).is_file()
        ]
        if names:
            tasks.append((number, video, names))
            missing += len(names)
    if tasks:
        draw = functools.partial(
            _draw_pictures, folder=str(folder), seed=parameters["seed"]
        )
        _write_all(draw, tasks, missing, jobs, progress)
    return missing


def face_names(wav, pictures):
    """Name the pictures of an utterance.

    Example
    -------
    >>> face_names("wav/id10001/video01/00001.wav", 1)
    ['faces/id10001/video01/00001_1.png']
    """
    stem = wav.removeprefix("wav/").removesuffix(".wav")
    return [f"faces/{stem}_{i + 1}.png" for i in range(pictures)]


def _write_all(function, tasks, files, jobs, progress):
    """Do all tasks, in several processes."""
    workers = min(default_workers() if jobs is None else jobs, len(tasks))
    # A single worker process would be no faster than this process.
    workers = 0 if workers <= 1 else workers
    with open_bar(
        total=files, desc="MiniVox", unit="file", disable=not progress
    ) as bar:
        for _, count in finish_jobs(function, tasks, workers):
            bar.update(count)


def _check(parameters):
    """Raise if a parameter is invalid."""
    least = {"seed": 0, "num_noises": 0, "num_rooms": 0}
    for key, value in parameters.items():
        if key in ("seconds", "version"):
            continue
        lowest = least.get(key, 1)
        if not isinstance(value, int) or not lowest <= value < 2**32:
            raise ConfigError(
                f"{key} is {value!r}; a whole number from {lowest} is needed"
            )
        if key.startswith("num_") and value >= _TEST - _TRAIN:
            raise ConfigError(f"{key} is {value}; at most 9999 are possible")
    low, high = parameters["seconds"]
    if not 0.1 <= low <= high:
        raise ConfigError(
            f"seconds is {low} to {high}; the shortest has to be at least 0.1 "
            "and the longest no shorter than it"
        )


def _claim(folder, parameters):
    """Write the parameters into the folder, or compare them with those there.

    They are written before the first file of audio, so that an interrupted call
    can only be completed with the same parameters.
    """
    remedy = (
        f"Remove the folder {folder} to make the corpus anew, or choose "
        "another folder"
    )
    path = folder / PARAMETERS_FILE
    if path.is_file():
        try:
            noted = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ConfigError(
                f"{path} cannot be read ({error}). {remedy}."
            ) from error
        changed = differences(noted, parameters)
        if changed:
            raise ConfigError(
                f"{folder} holds a corpus that was made with other arguments: "
                f"{', '.join(changed)}. {remedy}."
            )
        return
    for name in ("wav", "musan", "RIRS_NOISES"):
        if (folder / name).exists():
            raise ConfigError(
                f"{folder} holds a folder {name} that MiniVox did not write; "
                "choose another folder"
            )
    with atomic_write(path) as stream:
        json.dump(parameters, stream, indent=2, sort_keys=True)
        stream.write("\n")


def _speakers(parameters):
    """List the speakers as pairs of number and set."""
    return [
        (first + i, name)
        for name, first in (("train", _TRAIN), ("test", _TEST))
        for i in range(parameters[f"num_{name}_speakers"])
    ]


def _tasks(parameters):
    """List all files by task; all files of a video are one task.

    Returns
    -------
    list of tuple
        Kind, number of the speaker, number of the video (both 0 for a kind that
        has none), and a list of (index, name) of the files.
    """
    tasks = []
    for number, _ in _speakers(parameters):
        for video in range(parameters["videos_per_speaker"]):
            names = [
                (i, f"wav/id{number}/video{video + 1:02d}/{i + 1:05d}.wav")
                for i in range(parameters["utterances_per_video"])
            ]
            tasks.append(("wav", number, video, names))
    for kind in ("noise", "music", "speech"):
        for i in range(parameters["num_noises"]):
            name = f"musan/{kind}/minivox/{kind}-minivox-{i:04d}.wav"
            tasks.append((kind, 0, 0, [(i, name)]))
    if parameters["num_rooms"]:
        base = "RIRS_NOISES/simulated_rirs/smallroom/Room001"
        names = [
            (i, f"{base}/Room001-{i + 1:05d}.wav")
            for i in range(parameters["num_rooms"])
        ]
        tasks.append(("room", 0, 0, names))
    return tasks


def _write_files(kind, number, video, names, folder, seed, seconds):
    """Write the files of one task; return their number."""
    folder = pathlib.Path(folder)
    if kind == "wav":
        voice = draw_voice(seed, number)
        channel = draw_channel(seed, number, video)
    for index, name in names:
        if kind == "wav":
            rng = draws.generator(seed, draws.UTTERANCE, number, video, index)
            length = int(rng.uniform(*seconds) * SAMPLE_RATE)
            sound = transmit(synthesise(voice, length, rng), channel, rng)
        elif kind == "room":
            # Simulated rooms may reverberate longer than those of the corpus.
            rng = draws.generator(seed, draws.ROOM, index)
            sound = 0.9 * draw_room(rng, 0.1, 0.7)
        else:
            sound = background_sound(kind, index, seed)
        write_wav(folder / name, sound)
    return len(names)


def _draw_pictures(number, video, names, folder, seed):
    """Write pictures of one video; return their number."""
    face, scene = draw_face(seed, number), draw_scene(seed, number, video)
    for picture, name in names:
        drawn = draw_picture(face, scene, seed, number, video, picture)
        with atomic_write(pathlib.Path(folder) / name, "wb") as stream:
            PIL.Image.fromarray(drawn).save(stream, "PNG")
    return len(names)


def background_sound(kind, index, seed):
    """Generate the audio of one file below ``musan``.

    Arguments
    ---------
    kind : str
        ``noise``, ``music`` or ``speech``.
    index : int
        Number of the file.
    seed : int
        Seed of all draws.

    Returns
    -------
    numpy.ndarray
        float32 ``[samples]``, 5 to 8 s.
    """
    codes = {
        "noise": draws.NOISE,
        "music": draws.MUSIC,
        "speech": draws.UTTERANCE,
    }
    rng = draws.generator(seed, codes[kind], _BACKGROUND + index)
    length = int(rng.uniform(5, 8) * SAMPLE_RATE)
    if kind == "speech":
        sound = synthesise(draw_voice(seed, _BACKGROUND + index), length, rng)
    elif kind == "music":
        sound = _music(length, rng)
    else:
        sound = coloured_noise(length, rng.uniform(0, 2), rng)
        # Every second one is band-limited, every third varies in level.
        if index % 2:
            low = 10 ** rng.uniform(1.8, 3.2)
            band = [low, min(low * rng.uniform(2, 10), 7800)]
            sections = scipy.signal.butter(
                2, band, "bandpass", fs=SAMPLE_RATE, output="sos"
            )
            sound = scipy.signal.sosfilt(sections, sound).astype("f4")
        if index % 3 == 0:
            time = np.arange(length) / SAMPLE_RATE
            turn = 2 * np.pi * rng.uniform(0.3, 6) * time
            sound *= (0.55 + 0.45 * np.sin(turn)).astype("f4")
    return sound * (rng.uniform(0.4, 0.8) / np.abs(sound).max())


def _music(num_samples, rng):
    """Generate chords with decaying partials, as a substitute for music."""
    time = np.arange(num_samples) / SAMPLE_RATE
    output = np.zeros(num_samples, dtype="f8")
    beat = rng.uniform(0.3, 0.8)
    root = rng.uniform(80, 160)
    fading, brightness = rng.uniform(0.5, 4), rng.uniform(0.8, 2.0)
    for start in np.arange(0, num_samples / SAMPLE_RATE, beat):
        at = time >= start
        local = time[at] - start
        degree = rng.choice([0, 2, 4, 5, 7, 9])
        third = rng.choice([3, 4])
        for note in (0, third, 7, 12):
            hertz = root * 2 ** ((degree + note) / 12)
            count = int(min(8, 7500 / hertz))
            for k in range(1, count + 1):
                output[at] += (
                    k**-brightness
                    * np.exp(-fading * np.sqrt(k) * local)
                    * np.sin(2 * np.pi * k * hertz * local)
                )
    return (output / np.sqrt(np.mean(output**2))).astype("f4")


def write_wav(path, samples):
    """Write a 16-bit mono file atomically.

    Arguments
    ---------
    path : pathlib.Path
        The file.
    samples : numpy.ndarray
        ``[samples]``, between -1 and 1.
    """
    pcm = np.round(samples * 32767).astype("<i2")
    with atomic_write(path, "wb") as stream:
        scipy.io.wavfile.write(stream, SAMPLE_RATE, pcm)
