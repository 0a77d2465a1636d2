"""Find and check the audio files of trial lists; write score files."""

import os
import pathlib

import numpy as np

from speechbrain_ssl.data.packed import file_of
from speechbrain_ssl.embedding.extract import embed_files
from speechbrain_ssl.errors import ConfigError, TrialError
from speechbrain_ssl.files import atomic_write
from speechbrain_ssl.prepare.listing import count_kinds, needs_decoding
from speechbrain_ssl.verification.scoring import cosine_scores
from speechbrain_ssl.verification.trial_layouts import (
    join_fields,
    read_enrolment,
)
from speechbrain_ssl.verification.trials import (
    linked_speakers,
    path_component,
    read_trials,
)

#: The longest file that is embedded whole, in seconds. All of VoxCeleb is: the
#: longest utterance has 145 s in VoxCeleb1 and 220 s in VoxCeleb2 (Nagrani et
#: al., 2020), and published error rates are of whole utterances.
WHOLE_SECONDS = 300.0


def check_files(trials, root):
    """Check, before hours of work, that the file of every utterance exists.

    Arguments
    ---------
    trials : Trials
        The trials to be scored.
    root : str or pathlib.Path
        The folder that the names are relative to.

    Raises
    ------
    TrialError
        If a file is absent; names the first one with its line, and the number
        of all absent files.

    Example
    -------
    >>> import tempfile
    >>> from speechbrain_ssl.verification.trials import Trials
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> (folder / "a.wav").touch(), (folder / "b.wav").touch()
    (None, None)
    >>> check_files(Trials([True], [0], [1], ["a.wav", "b.wav"]), folder)
    """
    root = os.fspath(root)
    absent = {
        name
        for name in trials.recordings
        if not os.path.isfile(os.path.join(root, name))
    }
    first = first_trial_of(trials, absent)
    if first is None:
        # Absent files that no trial uses do not matter.
        return
    line, name = first
    used = np.union1d(trials.left, trials.right)
    needed = {r for i in used for r in trials.members(trials.names[i])}
    raise TrialError(
        f"trial list, line {line}: there is no file '{name}' in {root}; "
        f"{len(absent & needed)} of {len(trials.recordings)} files are absent. "
        "Correct the data folder, or extract the rest of the corpus"
    )


def check_formats(trials):
    """Check that no file is of a format that only a preparation decodes.

    Arguments
    ---------
    trials : Trials
        The trials to be scored.

    Raises
    ------
    TrialError
        If there are such files, as m4a; says how many of which kind, and the
        remedy.

    Example
    -------
    >>> from speechbrain_ssl.verification.trials import Trials
    >>> check_formats(Trials([True], [0], [1], ["a.wav", "b.mp3"]))
    """
    others = {name for name in trials.recordings if needs_decoding(name)}
    first = first_trial_of(trials, others)
    if first is None:
        return
    line, name = first
    raise TrialError(
        f"trial list, line {line}: '{name}' has to be decoded first, one of "
        f"{count_kinds(others)}. Convert these files to wav or flac; or "
        "prepare the folder with recipes/UnlabeledFolder/unlabeled_prepare.py, "
        "which decodes them, and give evaluate.py its train.csv as "
        "trials_manifest, with trials_folder=null"
    )


def first_trial_of(trials, recordings):
    """Find the first trial that uses one of the given recordings.

    Arguments
    ---------
    trials : Trials
        The trials.
    recordings : set of str
        The recordings to look for.

    Returns
    -------
    tuple or None
        The line and the recording.

    Example
    -------
    >>> from speechbrain_ssl.verification.trials import Trials
    >>> trials = Trials([1, 0], [0, 0], [1, 2], ["a", "b", "c"])
    >>> first_trial_of(trials, {"c", "x"})
    (2, 'c')
    """
    hit = np.array(
        [not recordings.isdisjoint(trials.members(n)) for n in trials.names]
    )
    hits = np.flatnonzero(hit[trials.left] | hit[trials.right])
    if len(hits) == 0:
        return None
    left, right = trials.left[hits[0]], trials.right[hits[0]]
    members = trials.members(trials.names[left if hit[left] else right])
    name = next(name for name in members if name in recordings)
    return int(trials.lines[hits[0]]), name


def load_trials(path, audio_folder, speaker_component):
    """Read a trial list and check that its files exist.

    Arguments
    ---------
    path : str
        The list.
    audio_folder : str
        Folder the paths in it are relative to.
    speaker_component : int
        Position of the path component that names the speaker (for the
        interval).

    Returns
    -------
    speechbrain_ssl.verification.trials.Trials

    Raises
    ------
    TrialError
        As ``read_trials``, ``check_files`` and ``check_formats``.
    """
    trials = read_trials(path, speaker_of=path_component(speaker_component))
    check_files(trials, audio_folder)
    check_formats(trials)
    return trials


def score_trials(
    encoder,
    features,
    trials,
    audio_folder,
    most_seconds=WHOLE_SECONDS,
    **kwargs,
):
    """Embed the utterances of a trial list and score it.

    Arguments
    ---------
    encoder, features, most_seconds, **kwargs
        See ``speechbrain_ssl.embedding.extract.embed_files``.
    trials : speechbrain_ssl.verification.trials.Trials
        The trials.
    audio_folder : str
        Folder of the audio files.

    Returns
    -------
    tuple of numpy.ndarray
        Scores ``[trials]`` and embeddings ``[utterances, size]``.
    """
    paths = [str(pathlib.Path(audio_folder) / name) for name in trials.names]
    embeddings = embed_files(
        encoder, features, paths, most_seconds=most_seconds, **kwargs
    )
    return cosine_scores(embeddings, trials), embeddings


def named_lists(trials):
    """Give every trial list a name.

    Arguments
    ---------
    trials : str, list of str or dict
        One file, several (named by their stems), or names and files; a name
        whose file is None is left out.

    Returns
    -------
    dict
        Name to path.

    Raises
    ------
    ConfigError
        If there is no list, or two have one name.

    Example
    -------
    >>> named_lists(["save/trials_vox1_O.txt"])
    {'trials_vox1_O': 'save/trials_vox1_O.txt'}
    >>> named_lists({"O": "O.txt", "E": None})
    {'O': 'O.txt'}
    """
    if isinstance(trials, dict):
        pairs = [(k, v) for k, v in trials.items() if v is not None]
    else:
        if trials is None or isinstance(trials, (str, pathlib.Path)):
            trials = [] if trials is None else [trials]
        pairs = [(pathlib.Path(path).stem, path) for path in trials]
    lists = {str(name): str(path) for name, path in pairs}
    if not lists:
        raise ConfigError(
            "there is no trial list to evaluate; name at least one in `trials`"
        )
    if len(lists) < len(pairs):
        raise ConfigError(
            "two trial lists have the same file name; give `trials` as a "
            "mapping of names to files"
        )
    return lists


def load_lists(
    lists,
    speaker_component,
    folder=None,
    manifest=None,
    layout=None,
    enrolment=None,
):
    """Read several trial lists and find the audio file of every utterance.

    All lists are checked before this returns.

    Arguments
    ---------
    lists : dict
        Name to path, from ``named_lists``.
    speaker_component : int or None
        Position of the name component that is the speaker. None: names that
        target trials link are of one speaker (``linked_speakers``).
    folder : str, optional
        Folder that the names in the lists are relative to.
    manifest : Manifest, optional
        Instead of ``folder``: a manifest whose IDs are the names, with or
        without their extension, for audio that lies in several trees.
    layout : str, optional
        As in ``read_trials``, for all lists.
    enrolment : str, optional
        An enrolment list, for all lists: the left names are models.

    Returns
    -------
    dict
        Name to a pair of ``Trials`` and their audio files (list of str, beside
        ``Trials.recordings``).

    Raises
    ------
    TrialError
        If a list is malformed, or a file is missing or has to be decoded
        first; names list and line.
    """
    rows = None
    if manifest is not None:
        rows = {manifest.ids[i]: i for i in range(len(manifest))}
    models = None if enrolment is None else read_enrolment(enrolment)
    loaded = {}
    for name, path in lists.items():
        trials = read_trials(path, layout=layout, enrolment=models)
        if speaker_component is None:
            trials.speaker_of = linked_speakers(trials)
        else:
            trials.speaker_of = path_component(speaker_component)
        if manifest is None:
            try:
                check_files(trials, folder)
                check_formats(trials)
            except TrialError as error:
                raise _named(error, path) from error
            paths = [f"{folder}/{file}" for file in trials.recordings]
        else:
            paths = _look_up(trials, rows, manifest, path)
        loaded[name] = trials, paths
    return loaded


def _look_up(trials, rows, manifest, path):
    """Look up audio files in a manifest; raise for a name that it lacks."""
    found = {
        name: rows.get(
            name, rows.get(str(pathlib.PurePosixPath(name).with_suffix("")))
        )
        for name in trials.recordings
    }
    lost = {name for name, row in found.items() if row is None}
    if lost:
        # Every name is used by some trial, since all come from the list.
        line, name = first_trial_of(trials, lost)
        raise TrialError(
            f"{path}, line {line}: '{name}' is not in trials_manifest; "
            f"{len(lost)} of {len(found)} utterances are not. Run the "
            "preparation again on the complete corpus"
        )
    paths = [manifest.path(row) for row in found.values()]
    for name, wav in zip(trials.recordings, paths, strict=True):
        if not os.path.isfile(file_of(wav)):
            raise TrialError(
                f"{path}: there is no file {wav} for '{name}'; correct "
                "data_folder, or run the preparation again"
            )
    return paths


def _named(error, path):
    """Add the name of the list to an error that does not name it."""
    text = str(error)
    if path in text:
        return error
    return TrialError(text.replace("trial list", path, 1))


def check_speakers(lists):
    """Check that speakers and labels agree, before anything is embedded.

    Arguments
    ---------
    lists : dict
        From ``load_lists``.

    Raises
    ------
    TrialError
        As ``Trials.speaker_indices``; names the list.
    """
    for name, (trials, _) in lists.items():
        try:
            trials.speaker_indices()
        except TrialError as error:
            text = str(error).replace(
                "give the right `speaker_of`, such as path_component(1)",
                "correct trials_speaker_component, or set it to null",
            )
            raise TrialError(f"{name}: {text}") from error


def choose_training(manifest, trial_paths, count=None, purpose="training"):
    """Choose training utterances, none of which may be in the trials.

    Arguments
    ---------
    manifest : Manifest
        The training utterances.
    trial_paths : list of str
        The audio files of the trials.
    count : int, optional
        Number of utterances; all if not given. The choice depends on their
        keys, so that the order of the manifest does not matter.
    purpose : str
        Their purpose, for errors that name ``<purpose>_manifest``.

    Returns
    -------
    numpy.ndarray
        Rows of the manifest, int64 ``[N]``.

    Raises
    ------
    ConfigError
        If ``count`` is below 1, an utterance is in the trials, or a file is
        missing.
    """
    chosen = np.arange(len(manifest))
    if count is not None:
        if count < 1:
            raise ConfigError(
                f"{purpose}_utterances must be at least 1, or null for all"
            )
        chosen = np.argsort(manifest.keys)[:count]
    paths = [manifest.path(i) for i in chosen]
    common = set(map(os.path.realpath, paths)).intersection(
        map(os.path.realpath, trial_paths)
    )
    if common:
        raise ConfigError(
            f"{purpose}_manifest: {len(common)} of its {len(paths)} utterances "
            f"are in the trials ({min(common)}); they must be other "
            "utterances. Use the training manifest, or null"
        )
    for path in paths:
        if not os.path.isfile(file_of(path)):
            raise ConfigError(
                f"{purpose}_manifest: there is no file {path}; correct "
                "data_folder, or set it to null"
            )
    return chosen


def write_scores(path, trials, scores):
    """Write the trials with their scores, in the order of the list.

    Arguments
    ---------
    path : str or pathlib.Path
        The text file; its lines are those of a trial list in VoxCeleb's layout
        (without labels if there are none) and the score. A line with a name
        that contains spaces is written as CSV (``trial_layouts.join_fields``).
    trials : Trials
        The trials.
    scores : numpy.ndarray
        ``[T]``.

    Example
    -------
    >>> import pathlib, tempfile
    >>> from speechbrain_ssl.verification.trials import Trials
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "scores.txt"
    >>> trials = Trials([1], [0], [1], ["s1/a.wav", "s1/b.wav"])
    >>> write_scores(path, trials, np.array([0.5]))
    >>> path.read_text()
    '1 s1/a.wav s1/b.wav 0.500000\\n'
    """
    names = trials.names
    labels = [()] * len(trials)
    if trials.labels is not None:
        labels = [(f"{label:d}",) for label in trials.labels.tolist()]
    columns = (
        labels,
        trials.left.tolist(),
        trials.right.tolist(),
        np.asarray(scores).tolist(),
    )
    with atomic_write(path) as stream:
        stream.writelines(
            join_fields([*label, names[a], names[b], f"{score:.6f}"]) + "\n"
            for label, a, b, score in zip(*columns, strict=True)
        )
