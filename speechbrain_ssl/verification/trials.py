"""Trial lists, as columns.

A trial asks of two utterances whether one speaker said both. A list of 600 000
trials names some 150 000 utterances: each name is kept once and a trial is two
integers, so that embeddings and scores are plain array indexing later on.

Names are kept exactly as they stand in the list. Nothing is cut at a dot, no
extension is removed: whoever looks up an embedding uses the very same string.
"""

import os
import pathlib

import numpy as np

from speechbrain_ssl.errors import TrialError


def path_component(position):
    """A rule for the speaker of an utterance: one component of its path.

    Arguments
    ---------
    position : int
        Which component between slashes, counted from 0; negative counts from
        the end.

    Returns
    -------
    callable
        Takes a name, gives the speaker (``None`` where the path is too short).

    Example
    -------
    >>> path_component(0)("id10270/x6uYqmx31kE/00001.wav")
    'id10270'
    >>> path_component(1)("audio/5015/050150070.ogg")
    '5015'
    """

    def speaker_of(name):
        components = name.split("/")
        try:
            return components[position]
        except IndexError:
            return None

    return speaker_of


def as_labels(labels):
    """Labels as a bool array.

    Arguments
    ---------
    labels : array_like
        ``[T]``; bool, or numbers that are 1 (target) or 0 (non-target).

    Returns
    -------
    numpy.ndarray
        bool ``[T]``.

    Raises
    ------
    TrialError
        If a label is anything else. In particular -1 is not taken for true.

    Example
    -------
    >>> as_labels([1, 0]).tolist()
    [True, False]
    """
    labels = np.asarray(labels)
    if labels.dtype == bool:
        return labels
    if labels.dtype.kind not in "iuf" or not np.isin(labels, (0, 1)).all():
        raise TrialError("the label of a trial is 1 (target) or 0")
    return labels.astype(bool)


class Trials:
    """Trials as columns over a list of unique utterance names.

    Arguments
    ---------
    labels : array_like
        ``[T]``; true for a target trial (one speaker on both sides).
    left, right : array_like
        ``[T]``; indices into ``names``.
    names : sequence of str
        ``[U]`` unique utterance names.
    speaker_of : callable or dict, optional
        Gives the speaker for a name. By default the first component of the
        path, as in VoxCeleb's ``id10270/x6uYqmx31kE/00001.wav``. Only what
        needs speakers (the bootstrap) calls it.
    lines : array_like, optional
        ``[T]``; the line of each trial in its file, for error messages. By
        default trials are counted from 1.

    Attributes
    ----------
    labels : numpy.ndarray
        bool ``[T]``.
    left, right, lines : numpy.ndarray
        int32 ``[T]``.
    names : list of str
        ``[U]``.

    Raises
    ------
    TrialError
        If there is no trial, a label is neither 0 nor 1, the columns differ in
        length, a name occurs twice or an index points outside ``names``.

    Example
    -------
    >>> trials = Trials(
    ...     [True, False], [0, 0], [1, 2], ["s1/a.wav", "s1/b.wav", "s2/a.wav"]
    ... )
    >>> len(trials), trials.speaker_indices().tolist()
    (2, [0, 0, 1])
    """

    def __init__(self, labels, left, right, names, speaker_of=None, lines=None):
        self.labels = as_labels(labels)
        self.left = np.asarray(left, dtype=np.int32)
        self.right = np.asarray(right, dtype=np.int32)
        self.names = list(names)
        self.speaker_of = (
            path_component(0) if speaker_of is None else speaker_of
        )
        if lines is None:
            lines = np.arange(1, self.labels.size + 1)
        self.lines = np.asarray(lines, dtype=np.int32)
        columns = (self.labels, self.left, self.right, self.lines)
        shapes = {column.shape for column in columns}
        if len(shapes) > 1 or self.labels.ndim != 1:
            raise TrialError(
                "the columns of a trial list must be of one length; got "
                + ", ".join(str(column.shape) for column in columns)
            )
        if len(self) == 0:
            raise TrialError("the trial list holds no trial")
        if len(set(self.names)) < len(self.names):
            raise TrialError("the utterance names of a trial list repeat")
        for side in (self.left, self.right):
            if side.min() < 0 or side.max() >= len(self.names):
                raise TrialError(
                    "a trial points outside its list of "
                    f"{len(self.names)} utterance names"
                )

    def __len__(self):
        return len(self.labels)

    def speaker_indices(self):
        """The speaker of every utterance, checked against the labels.

        Speakers are numbered by their sorted names, so that the order of the
        trials does not matter.

        Returns
        -------
        numpy.ndarray
            int32 ``[U]``.

        Raises
        ------
        TrialError
            If an utterance gets no speaker, or if the speakers contradict the
            labels (which is how a rule for another folder layout shows).
        """
        if callable(self.speaker_of):
            speakers = [self.speaker_of(name) for name in self.names]
        else:
            speakers = [self.speaker_of.get(name) for name in self.names]
        if None in speakers:
            nameless = self.names[speakers.index(None)]
            raise TrialError(
                f"no speaker is known for '{nameless}'; give `speaker_of` as "
                "a dictionary of all utterances or as a rule, such as "
                "path_component(1)"
            )
        indices = np.unique(np.asarray(speakers, str), return_inverse=True)[1]
        same = indices[self.left] == indices[self.right]
        wrong = np.flatnonzero(same != self.labels)
        if len(wrong):
            first = wrong[0]
            a, b = self.left[first], self.right[first]
            raise TrialError(
                f"trial list, line {self.lines[first]}: labelled "
                f"{int(self.labels[first])}, but the speakers of "
                f"'{self.names[a]}' and '{self.names[b]}' come out as "
                f"'{speakers[a]}' and '{speakers[b]}' ({len(wrong)} such "
                f"trials of {len(self)}); give the right `speaker_of`, such as "
                "path_component(1)"
            )
        return indices.astype(np.int32)


def read_trials(path, speaker_of=None, require_both=True):
    """Reads a list in VoxCeleb's format: label, utterance, utterance.

    Fields are separated by any white space; blank lines are skipped. Names are
    numbered in the order in which they first occur.

    Arguments
    ---------
    path : str or pathlib.Path
        The text file, with lines like ``1 a/b/1.wav a/c/2.wav``; 1 is a target.
    speaker_of : callable or dict, optional
        As in ``Trials``.
    require_both : bool
        Whether a list that lacks targets or non-targets is refused: no error
        rate can be computed from it.

    Returns
    -------
    Trials

    Raises
    ------
    TrialError
        If the file is missing, empty or no text, a line is malformed, or a
        class is missing.

    Example
    -------
    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "trials.txt"
    >>> _ = path.write_text("1 s1/a.b.wav s1/c.wav\\n0 s1/a.b.wav s2/d.wav\\n")
    >>> trials = read_trials(path)
    >>> trials.names
    ['s1/a.b.wav', 's1/c.wav', 's2/d.wav']
    >>> trials.left.tolist(), trials.right.tolist()
    ([0, 0], [1, 2])
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise TrialError(
            f"there is no trial list {path}; correct the key that names it, "
            "or download the list first"
        )
    labels, left, right, lines, numbers = [], [], [], [], {}
    label_of = {"1": True, "0": False}
    try:
        # Some editors put a byte order mark before the first label.
        with open(path, encoding="utf-8-sig") as stream:
            for line_number, line in enumerate(stream, start=1):
                fields = line.split()
                if not fields:
                    continue
                if len(fields) != 3 or fields[0] not in label_of:
                    raise TrialError(
                        f"{path}, line {line_number}: '{_shorten(line)}' is "
                        "no trial; expected '1 a.wav b.wav' (one speaker) or "
                        "'0 a.wav b.wav' (two speakers)"
                    )
                labels.append(label_of[fields[0]])
                left.append(numbers.setdefault(fields[1], len(numbers)))
                right.append(numbers.setdefault(fields[2], len(numbers)))
                lines.append(line_number)
    except UnicodeDecodeError as error:
        raise TrialError(
            f"{path} is no text file in UTF-8 ({error}); is it an archive?"
        ) from error
    if not labels:
        raise TrialError(f"the trial list {path} is empty")
    targets = sum(labels)
    if require_both and targets in (0, len(labels)):
        raise TrialError(
            f"all {len(labels)} trials of {path} are "
            f"{'targets' if targets else 'non-targets'}; error rates need "
            "trials of both classes"
        )
    return Trials(labels, left, right, list(numbers), speaker_of, lines)


def _shorten(line, limit=100):
    """The line without its end, and not a whole page of it."""
    line = line.rstrip("\r\n")
    return line if len(line) <= limit else line[:limit] + "..."


def check_files(trials, root):
    """Checks, before hours of work, that every utterance is there.

    Arguments
    ---------
    trials : Trials
        What is to be scored.
    root : str or pathlib.Path
        The folder that the names are relative to.

    Raises
    ------
    TrialError
        Names the first absent file of the list with its line, and says how
        many are absent in total.

    Example
    -------
    >>> import pathlib, tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> (folder / "a.wav").touch(), (folder / "b.wav").touch()
    (None, None)
    >>> check_files(Trials([True], [0], [1], ["a.wav", "b.wav"]), folder)
    """
    root = os.fspath(root)
    absent = np.fromiter(
        (not os.path.isfile(os.path.join(root, n)) for n in trials.names),
        dtype=bool,
        count=len(trials.names),
    )
    hits = np.flatnonzero(absent[trials.left] | absent[trials.right])
    if len(hits) == 0:
        # A name that no trial uses is nobody's loss.
        return
    sides = np.concatenate((trials.left[hits], trials.right[hits]))
    count = len(np.unique(sides[absent[sides]]))
    left, right = trials.left[hits[0]], trials.right[hits[0]]
    first = left if absent[left] else right
    raise TrialError(
        f"trial list, line {trials.lines[hits[0]]}: there is no file "
        f"'{trials.names[first]}' in {root}; {count} of {len(trials.names)} "
        "files are absent. Correct the data folder, or extract the rest of "
        "the corpus"
    )
