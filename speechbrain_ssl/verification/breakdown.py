"""Compute error rates of groups of speakers.

An error rate over all speakers hides which groups a system serves badly.
VoxCeleb's ``vox1_meta.csv`` lists gender and nationality of every speaker, so
that the trials within a group can be evaluated separately.

A group has fewer trials than the list, and its non-targets share one more
property: compare its error rate with those of other groups, not with that of
the whole list. Few speakers give a wide interval; groups of fewer than
``LEAST_SPEAKERS`` are left out.
"""

import csv
import pathlib
from collections import Counter

import numpy as np

from speechbrain_ssl.errors import TrialError
from speechbrain_ssl.verification.bootstrap import bootstrap_interval
from speechbrain_ssl.verification.metrics import eer
from speechbrain_ssl.verification.scored_trials import ScoredTrials
from speechbrain_ssl.verification.trials import Trials


def read_speaker_table(path):
    """Read ``vox1_meta.csv``, or a table like it.

    Arguments
    ---------
    path : str or pathlib.Path
        Text with a header, separated by tabs. The columns read are
        ``VoxCeleb1 ID`` (or any that begins so; else the first one),
        ``Gender`` and, if present, ``Nationality``.

    Returns
    -------
    dict
        Maps a speaker to a dict of ``gender`` and ``nationality`` (lower-case
        keys; only those that the table has).

    Raises
    ------
    TrialError
        If the file is missing or has neither column.

    Example
    -------
    >>> import tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "meta.csv"
    >>> _ = path.write_text("VoxCeleb1 ID\\tGender\\tNationality\\na\\tm\\tUK\\n")
    >>> read_speaker_table(path)
    {'a': {'gender': 'm', 'nationality': 'UK'}}
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise TrialError(
            f"there is no table of speakers {path}; correct the key "
            "speaker_table, or set it to null"
        )
    with open(path, encoding="utf-8-sig", newline="") as stream:
        rows = list(csv.reader(stream, delimiter="\t"))
    header = [cell.strip() for cell in rows[0]] if rows else []
    wanted = [c for c in header if c in ("Gender", "Nationality")]
    if not wanted:
        raise TrialError(
            f"{path} has no column Gender or Nationality; expected the "
            "columns of vox1_meta.csv, separated by tabs"
        )
    who = next((i for i, c in enumerate(header) if c.startswith("VoxCeleb")), 0)
    table = {}
    for number, row in enumerate(rows[1:], start=2):
        if not row:
            continue
        if len(row) < len(header):
            raise TrialError(
                f"{path}, line {number}: {len(row)} columns, but the header "
                f"has {len(header)}"
            )
        cells = dict(zip(header, (cell.strip() for cell in row), strict=False))
        table[row[who].strip()] = {key.lower(): cells[key] for key in wanted}
    return table


def check_in_table(lists, table):
    """Check, before hours of work, that every speaker is in the table.

    Arguments
    ---------
    lists : dict
        Name to a pair of ``Trials`` and anything, from ``load_lists``.
    table : dict
        From ``read_speaker_table``.

    Raises
    ------
    TrialError
        If a speaker is not in the table; names the list.

    Example
    -------
    >>> trials = Trials([1], [0], [1], ["a/1", "a/2"])
    >>> check_in_table({"O": (trials, None)}, {"a": {"gender": "m"}})
    """
    for name, (trials, _) in lists.items():
        unknown = sorted(set(trials.speakers()) - set(table))
        if unknown:
            raise TrialError(
                f"{name}: {len(unknown)} speakers are not in the table of "
                f"speakers, the first is '{unknown[0]}'; does "
                "trials_speaker_component name the speaker, and is "
                "speaker_table of this corpus?"
            )


#: Groups of fewer speakers (of those in the trials) are left out; our default.
LEAST_SPEAKERS = 5


def breakdown(scores, trials, table, replicates=0, seed=0):
    """Compute equal error rates of the trials within groups of speakers.

    Arguments
    ---------
    scores : array_like
        ``[T]``.
    trials : Trials
        The trials, with speakers.
    table : dict
        From ``read_speaker_table``.
    replicates : int
        Replicates of the bootstrap over the speakers of a group. There is no
        interval with 0, or where the group is too small for one.
    seed : int
        Seed of the bootstrap.

    Returns
    -------
    list of dict
        A row for ``all`` trials, one for those of the ``same gender`` on both
        sides, one for each gender and one for each nationality (of both
        sides), largest first: ``group``, ``value``, ``speakers``,
        ``targets``, ``nontargets``, ``eer_percent``, ``ci_low``, ``ci_high``
        (None where one cannot be computed).

    Raises
    ------
    TrialError
        If a speaker of the trials is not in the table, or the scores do not
        fit.

    Example
    -------
    >>> names = ["a/1", "a/2", "b/1", "b/2"]
    >>> trials = Trials([1, 1, 0], [0, 2, 0], [1, 3, 2], names)
    >>> table = {"a": {"gender": "m"}, "b": {"gender": "m"}}
    >>> rows = breakdown([0.9, 0.8, 0.1], trials, table)
    >>> [(row["group"], row["value"], row["eer_percent"]) for row in rows]
    [('all', '', 0.0), ('same gender', '', 0.0)]
    """
    scores = np.asarray(scores)
    check_in_table({"the trials": (trials, None)}, table)
    speakers = np.array(trials.speakers())
    groups = [("all", "", np.ones(len(trials), dtype=bool))]
    used = np.union1d(trials.left, trials.right)
    for key in next(iter(table.values())):
        of_name = np.array([table[s][key] for s in speakers])
        left, right = of_name[trials.left], of_name[trials.right]
        if key == "gender":
            groups.append(("same gender", "", left == right))
        sizes = Counter(table[s][key] for s in set(speakers[used]))
        # Largest first; equal sizes in the order of their names.
        for value in sorted(sizes, key=lambda v: (-sizes[v], v)):
            if sizes[value] >= LEAST_SPEAKERS:
                groups.append((key, value, (left == value) & (right == value)))
    rows = []
    for group, value, chosen in groups:
        part = _part(trials, chosen, speakers)
        figures = _figures(scores[chosen], part, replicates, seed)
        rows.append({"group": group, "value": value, **figures})
    return rows


def _part(trials, chosen, speakers):
    """Select some of the trials, with only the names that occur in them."""
    both = np.concatenate((trials.left[chosen], trials.right[chosen]))
    used, both = np.unique(both, return_inverse=True)
    left, right = np.split(both, 2)
    names = [trials.names[i] for i in used]
    of_name = dict(zip(names, speakers[used].tolist(), strict=True))
    labels = trials.labels[chosen]
    return Trials(labels, left, right, names, of_name) if len(used) else None


def _figures(scores, trials, replicates, seed):
    """Compute counts and rates of a part; None where a rate is undefined."""
    row = dict.fromkeys(("speakers", "targets", "nontargets"), 0)
    row.update(dict.fromkeys(("eer_percent", "ci_low", "ci_high")))
    if trials is None:
        return row
    row["speakers"] = len(set(trials.speakers()))
    row["targets"] = int(trials.labels.sum())
    row["nontargets"] = len(trials) - row["targets"]
    if row["targets"] == 0 or row["nontargets"] == 0:
        return row
    scored = ScoredTrials(scores, trials.labels)
    row["eer_percent"] = 100 * eer(scored)[0]
    if replicates and row["speakers"] > 1:
        try:
            found = bootstrap_interval(
                scored, trials, replicates=replicates, seed=seed
            )
        except TrialError:
            # Too few speakers for an interval; the rate is given without one.
            return row
        row["ci_low"], row["ci_high"] = 100 * found.low, 100 * found.high
    return row
