"""What the scripts of a study share: runs called <system>_<seed>, compared.

The scores of a run are kept, so that a study can grow: what has been scored is
not scored again, and every comparison is made anew over the seeds there are.
"""

import numpy as np

from speechbrain_ssl.files import atomic_write
from speechbrain_ssl.verification.bootstrap import paired_difference


def score_runs(folders, cache, evaluate):
    """Scores of all finished runs, those of new ones added to a file.

    Arguments
    ---------
    folders : iterable of pathlib.Path
        Output folders of train.py. One without ``results.json`` is not
        finished and left out.
    cache : pathlib.Path
        An ``.npz`` file, made if missing. Delete it where a run was repeated.
    evaluate : callable
        Takes a folder, returns the scores of the study's trials,
        ``numpy.ndarray [T]``.

    Returns
    -------
    dict
        Name of the run -> its scores.
    """
    known = dict(np.load(cache)) if cache.is_file() else {}
    for folder in folders:
        if folder.name in known or not (folder / "results.json").is_file():
            continue
        known[folder.name] = evaluate(folder)
        with atomic_write(cache, "wb") as stream:
            np.savez(stream, **known)
    return known


def compare_systems(scores, better, other, trials, among=None, draw_runs=False):
    """The mean difference of two systems over the seeds that both have.

    Arguments
    ---------
    scores : dict
        ``<system>_<seed>`` -> scores, ``numpy.ndarray [T]``.
    better, other : str
        The systems.
    trials : Trials
        The trials, with speakers.
    among : collection of str, optional
        The seeds that may take part; all as a default.
    draw_runs : bool
        Whether the interval is of runs, too (see ``paired_difference``).

    Returns
    -------
    dict or None
        ``better``, ``than``, ``seeds`` (their number), and ``difference``,
        ``ci_low``, ``ci_high`` of the EER in points, above 0 where ``better``
        is (95 %, speakers drawn anew, see ``paired_difference``); None if no
        seed has both.

    Example
    -------
    >>> from speechbrain_ssl.verification.trials import Trials
    >>> names = [f"s{s}/{u}" for s in range(20) for u in range(2)]
    >>> a, b = np.triu_indices(40, 1)
    >>> trials = Trials(a // 2 == b // 2, a, b, names)
    >>> noise = np.random.default_rng(0).normal(size=len(trials))
    >>> good, bad = 2 * trials.labels + noise, trials.labels + noise
    >>> scores = {"ssps_1": good, "simclr_1": bad, "ssps_2": good}
    >>> found = compare_systems(scores, "ssps", "simclr", trials)
    >>> found["seeds"], found["ci_low"] > 0
    (1, True)
    >>> compare_systems(scores, "ssps", "simclr", trials, among=["2"])
    """
    runs = [name.rsplit("_", 1) for name in scores]
    seeds = sorted(
        seed
        for system, seed in runs
        if system == better
        and [other, seed] in runs
        and (among is None or seed in among)
    )
    if not seeds:
        return None
    found, interval = paired_difference(
        [scores[f"{better}_{seed}"] for seed in seeds],
        [scores[f"{other}_{seed}"] for seed in seeds],
        trials,
        draw_runs=draw_runs,
    )
    return {
        "better": better,
        "than": other,
        "seeds": len(seeds),
        "difference": 100 * found,
        "ci_low": 100 * interval.low,
        "ci_high": 100 * interval.high,
    }
