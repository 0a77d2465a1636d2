"""Read trial lists into columns.

A trial asks whether two utterances are of one speaker. A list of 600 000 trials
names some 150 000 utterances: each name is stored once and a trial is two
integers, so that embeddings and scores are found by plain array indexing.

Names are kept exactly as in the list, without cutting at a dot or removing an
extension, so that the same string looks up the embedding.
"""

import pathlib

import numpy as np
from scipy import sparse

from speechbrain_ssl.errors import TrialError
from speechbrain_ssl.verification.trial_layouts import (
    check_layout,
    detect_layout,
    fields_of,
    lines_of,
    split_trial,
)


def path_component(position):
    """Return a rule that takes one component of a path as the speaker.

    Arguments
    ---------
    position : int
        Position of the component between slashes, counted from 0; a negative
        one counts from the end.

    Returns
    -------
    callable
        Takes a name, returns the speaker (``None`` if the path is too short).

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
    """Convert labels to a bool array.

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
        If a label is anything else; -1, for example, is not taken for true.

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
    labels : array_like or None
        ``[T]``; true for a target trial (one speaker on both sides). None for
        a list without labels, which can be scored but not evaluated.
    left, right : array_like
        ``[T]``; indices into ``names``.
    names : sequence of str
        ``[U]`` unique utterance names.
    speaker_of : callable or dict, optional
        Maps a name to its speaker. By default the first component of the
        path, as in VoxCeleb's ``id10270/x6uYqmx31kE/00001.wav``. Called only
        where speakers are needed (by the bootstrap).
    lines : array_like, optional
        ``[T]``; the line of each trial in its file, for error messages. By
        default trials are counted from 1.
    enrolment : dict, optional
        Maps each name that is a model, not a recording, to the recordings it
        is enrolled with.

    Attributes
    ----------
    labels : numpy.ndarray or None
        bool ``[T]``.
    left, right, lines : numpy.ndarray
        int32 ``[T]``.
    names : list of str
        ``[U]``.
    recordings : list of str
        ``[R]``, all recordings once, in the order of the names; the names
        themselves where there are no models.

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

    def __init__(
        self,
        labels,
        left,
        right,
        names,
        speaker_of=None,
        lines=None,
        enrolment=None,
    ):
        self.labels = None if labels is None else as_labels(labels)
        self.left = np.asarray(left, dtype=np.int32)
        self.right = np.asarray(right, dtype=np.int32)
        self.names = list(names)
        self.speaker_of = (
            path_component(0) if speaker_of is None else speaker_of
        )
        if lines is None:
            lines = np.arange(1, self.left.size + 1)
        self.lines = np.asarray(lines, dtype=np.int32)
        columns = [self.left, self.right, self.lines]
        if self.labels is not None:
            columns.insert(0, self.labels)
        shapes = {column.shape for column in columns}
        if len(shapes) > 1 or self.left.ndim != 1:
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
        self._enrolment = enrolment or {}
        self.recordings = list(
            dict.fromkeys(r for name in self.names for r in self.members(name))
        )

    def __len__(self):
        return len(self.left)

    def select(self, keep):
        """Return some of the trials, of the same names.

        Arguments
        ---------
        keep : numpy.ndarray
            Which, bool ``[T]``.

        Returns
        -------
        Trials

        Example
        -------
        >>> trials = Trials([1, 0], [0, 0], [1, 2], ["a/1", "a/2", "b/1"])
        >>> trials.select(np.array([False, True])).right.tolist()
        [2]
        """
        return Trials(
            None if self.labels is None else self.labels[keep],
            self.left[keep],
            self.right[keep],
            self.names,
            self.speaker_of,
            self.lines[keep],
            self._enrolment,
        )

    def members(self, name):
        """Return the recordings of a model, or the name itself."""
        return self._enrolment.get(name, (name,))

    def pool(self, embeddings):
        """Convert rows of recordings to rows of names; a model is their mean.

        Arguments
        ---------
        embeddings : numpy.ndarray
            ``[R, D]``; row ``i`` belongs to ``recordings[i]``.

        Returns
        -------
        numpy.ndarray
            ``[U, D]``; row ``i`` belongs to ``names[i]``.

        Example
        -------
        >>> trials = Trials(
        ...     [1], [0], [1], ["m", "c"], enrolment={"m": ("a", "b")}
        ... )
        >>> trials.recordings, trials.pool(np.array([[1.0], [3.0], [5.0]]))
        (['a', 'b', 'c'], array([[2.],
               [5.]]))
        """
        if self.recordings == self.names:
            return embeddings
        row = {name: i for i, name in enumerate(self.recordings)}
        members = [self.members(name) for name in self.names]
        sizes = np.array([len(group) for group in members])
        means = sparse.csr_array(
            (
                np.repeat(1 / sizes, sizes).astype(embeddings.dtype),
                [row[name] for group in members for name in group],
                np.concatenate(([0], np.cumsum(sizes))),
            ),
            shape=(len(self.names), len(self.recordings)),
        )
        return means @ embeddings

    def speakers(self):
        """Look up the speaker of every name.

        Returns
        -------
        list
            ``[U]``.

        Raises
        ------
        TrialError
            If a name has no speaker.
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
        return speakers

    def speaker_indices(self):
        """Number the speaker of every utterance, checked against the labels.

        Speakers are numbered by their sorted names, so that the order of the
        trials does not matter.

        Returns
        -------
        numpy.ndarray
            int32 ``[U]``.

        Raises
        ------
        TrialError
            If an utterance has no speaker, or if the speakers contradict the
            labels (which reveals a rule for another folder layout).
        """
        speakers = self.speakers()
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


def linked_speakers(trials):
    """Derive speakers from the trials: names that a target links are one.

    For lists whose names do not contain the speaker (SITW, VOiCES, CN-Celeb).
    A speaker whose names no target trial links counts as several.

    Arguments
    ---------
    trials : Trials
        Labelled trials.

    Returns
    -------
    dict
        Name to speaker, for ``Trials.speaker_of``.

    Example
    -------
    >>> trials = Trials([1, 0], [0, 0], [1, 2], ["m1", "a", "b"])
    >>> linked_speakers(trials)
    {'m1': '0', 'a': '0', 'b': '1'}
    """
    left, right = trials.left[trials.labels], trials.right[trials.labels]
    size = len(trials.names)
    links = sparse.coo_array(
        (np.ones(len(left), dtype=bool), (left, right)), shape=(size, size)
    )
    _, number = sparse.csgraph.connected_components(links, directed=False)
    return dict(zip(trials.names, map(str, number.tolist()), strict=True))


def read_trials(
    path, speaker_of=None, require_both=True, layout=None, enrolment=None
):
    """Read a trial list in any of the layouts of ``trial_layouts``.

    Fields are separated by white space, by tabs or as in CSV (see
    ``trial_layouts.fields_of``); blank lines are skipped. Names are numbered in
    the order in which they first occur.

    Arguments
    ---------
    path : str or pathlib.Path
        The text file, with lines like ``1 a/b/1.wav a/c/2.wav``; 1 is a target.
    speaker_of : callable or dict, optional
        As in ``Trials``.
    require_both : bool
        Whether to reject a list that lacks targets or non-targets, from which
        no error rate can be computed.
    layout : str, optional
        One of ``LAYOUTS`` or ``ALIASES``. By default it is detected from the
        first line.
    enrolment : dict, optional
        Maps models to recordings, from ``read_enrolment``. All left names are
        then models.

    Returns
    -------
    Trials

    Raises
    ------
    TrialError
        If the file is missing, empty or not text, a line is malformed, a class
        is missing, or a model is not in the enrolment list.

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
    if layout is not None:
        layout = check_layout(layout)
    labels, left, right, lines, numbers = [], [], [], [], {}
    for line_number, line in lines_of(path):
        fields = fields_of(line)
        layout = layout or detect_layout(fields)
        trial = layout and split_trial(fields, layout)
        if not trial:
            raise TrialError(
                f"{path}, line {line_number}: '{_shorten(line)}' is not a "
                "trial; "
                + _EXPECTED.get(layout, _EXPECTED[None])
                + ". If a name has spaces, separate the fields by tabs, or "
                'write 1,"a b.wav","c d.wav"'
            )
        label, a, b = trial
        if enrolment is not None and (a not in enrolment or b in enrolment):
            raise TrialError(
                f"{path}, line {line_number}: "
                + (
                    f"the model '{a}' is not in the enrolment list"
                    if a not in enrolment
                    else f"'{b}' is a model of the enrolment list, not a "
                    "recording"
                )
            )
        labels.append(label)
        left.append(numbers.setdefault(a, len(numbers)))
        right.append(numbers.setdefault(b, len(numbers)))
        lines.append(line_number)
    if not lines:
        raise TrialError(f"the trial list {path} is empty")
    if layout == "pairs":
        labels = None
    if require_both:
        _check_classes(path, labels)
    return Trials(
        labels, left, right, list(numbers), speaker_of, lines, enrolment
    )


_EXPECTED = {
    None: "expected '1 a.wav b.wav' (one speaker) or '0 a.wav b.wav' (two "
    "speakers), or 'model b.wav 1', '... tgt', '... target'. If it is one of "
    "these, name the layout",
    "voxceleb": "expected '1 a.wav b.wav' (one speaker) or '0 a.wav b.wav' "
    "(two speakers)",
    "cnceleb": "expected 'model b.wav 1' or 'model b.wav 0'",
    "sitw": "expected 'model b.flac tgt' or 'model b.flac imp'",
    "kaldi": "expected 'model b target' or 'model b nontarget'",
    "pairs": "expected 'a.wav b.wav'",
}


def _check_classes(path, labels):
    """Raise if no error rate can be computed from a list."""
    if labels is None:
        raise TrialError(
            f"the trials of {path} have no labels (two fields a line): they "
            "can be scored, but no error rate can be computed"
        )
    targets = sum(labels)
    if targets in (0, len(labels)):
        raise TrialError(
            f"all {len(labels)} trials of {path} are "
            f"{'targets' if targets else 'non-targets'}; error rates need "
            "trials of both classes"
        )


def _shorten(line, limit=100):
    """Shorten a line for a message."""
    line = line.rstrip("\r\n")
    return line if len(line) <= limit else line[:limit] + "..."
