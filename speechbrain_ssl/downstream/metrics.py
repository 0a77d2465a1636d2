"""Compute metrics of the classification of utterances, with intervals.

All metrics are computed from the confusion matrix ``M`` (``M[t, p]`` utterances
of the class ``t`` were taken for ``p``), so that a resampling of speakers is a
sum of matrices and utterances are counted only once.

* micro-F1 = sum_c M[c, c] / sum M. Where each utterance has one label and gets
  one, precision and recall over all decisions are the same number, and micro-F1
  is the accuracy.
* unweighted average recall = mean over t of M[t, t] / sum_p M[t, p].
* macro-F1 = mean over c of 2 M[c, c] / (sum_p M[c, p] + sum_t M[t, c]).
"""

import numpy as np

FIGURES = ("micro_f1", "uar", "macro_f1")


def confusion_matrix(truth, predicted, classes):
    """Count the utterances of each true and predicted class.

    Arguments
    ---------
    truth, predicted : array_like
        Classes ``[N]``, int in ``[0, classes)``.
    classes : int
        Number of classes.

    Returns
    -------
    numpy.ndarray
        int64 ``[classes, classes]``, with the true class in rows.

    Example
    -------
    >>> confusion_matrix([0, 0, 1], [0, 1, 1], 2).tolist()
    [[1, 1], [0, 1]]
    """
    flat = np.asarray(truth) * classes + np.asarray(predicted)
    return np.bincount(flat, minlength=classes**2).reshape(classes, classes)


def figures_of(confusion):
    """Compute micro-F1, unweighted average recall and macro-F1.

    A class that never occurs has no recall and is left out of that mean; one
    that neither occurs nor is predicted is left out of the mean of F1.

    Arguments
    ---------
    confusion : numpy.ndarray
        ``[..., classes, classes]``.

    Returns
    -------
    dict
        ``micro_f1``, ``uar`` and ``macro_f1``, each ``[...]``, in ``[0, 1]``;
        NaN where nothing was counted.

    Example
    -------
    >>> figures = figures_of(np.array([[1, 1], [0, 1]]))
    >>> {name: round(float(value), 4) for name, value in figures.items()}
    {'micro_f1': 0.6667, 'uar': 0.75, 'macro_f1': 0.6667}
    """
    confusion = np.asarray(confusion, dtype=np.float64)
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    actual, claimed = confusion.sum(-1), confusion.sum(-2)
    # 0 / 0 gives NaN where nothing was counted.
    with np.errstate(invalid="ignore"):
        micro = hits.sum(-1) / actual.sum(-1)
    return {
        "micro_f1": micro,
        "uar": _mean_ratio(hits, actual),
        "macro_f1": _mean_ratio(2 * hits, actual + claimed),
    }


def _mean_ratio(above, below):
    """Average ``above / below`` over the last axis, where ``below`` > 0."""
    there = below > 0
    ratio = np.divide(above, below, out=np.zeros_like(above), where=there)
    with np.errstate(invalid="ignore"):
        return ratio.sum(-1) / there.sum(-1)


def bootstrap_figures(
    truth, predicted, units, classes, replicates=1000, confidence=0.95, seed=0
):
    """Compute percentile intervals by a bootstrap over speakers or folds.

    Utterances of one speaker fail together, so speakers are drawn with
    replacement, each with all its utterances. The interval does not cover that
    another training, with another seed or other speakers, gives other results.

    Arguments
    ---------
    truth, predicted : array_like
        Classes ``[N]``.
    units : array_like
        ``[N]``, the speaker (or the fold) of each utterance.
    classes : int
        Number of classes.
    replicates : int
        Number of times that units are drawn.
    confidence : float
        Share of the replicates that lie between the ends.
    seed : int
        Equal seeds give equal intervals, whatever the order of utterances.

    Returns
    -------
    dict
        Maps the name of a metric to (low, high); to None if there are fewer
        than two units.

    Example
    -------
    >>> truth = np.tile([0, 1], 20)
    >>> intervals = bootstrap_figures(truth, truth, np.arange(40) // 4, 2)
    >>> intervals["uar"]
    (1.0, 1.0)
    """
    names, unit = np.unique(np.asarray(units), return_inverse=True)
    if len(names) < 2:
        return dict.fromkeys(FIGURES)
    flat = (unit * classes + np.asarray(truth)) * classes + predicted
    per_unit = np.bincount(flat, minlength=len(names) * classes**2)
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(names), size=(replicates, len(names)))
    # How often each replicate contains each unit.
    drawn += len(names) * np.arange(replicates)[:, None]
    times = np.bincount(drawn.ravel(), minlength=replicates * len(names))
    matrices = times.reshape(replicates, -1) @ per_unit.reshape(len(names), -1)
    matrices = matrices.reshape(replicates, classes, classes)
    tail = (1 - confidence) / 2
    return {
        name: tuple(np.quantile(values, [tail, 1 - tail]).tolist())
        for name, values in figures_of(matrices).items()
    }


def summarise(task, folds, predictions, replicates=1000, seed=0):
    """Compute all metrics of a task, in percent, ready for JSON.

    Arguments
    ---------
    task : speechbrain_ssl.downstream.task.Task
        The task.
    folds : list of speechbrain_ssl.downstream.folds.Fold
        The folds; no utterance is in two test sides.
    predictions : list of numpy.ndarray
        For each fold the predicted classes of its test side.
    replicates : int
        Replicates of the bootstraps; with 0 there are no intervals.
    seed : int
        Seed of the bootstraps.

    Returns
    -------
    tuple
        Scalars (dict): each metric of ``FIGURES``, with ``_ci_low`` and
        ``_ci_high`` (over speakers) and ``_over_folds_ci_low``,
        ``_over_folds_ci_high``; ``majority`` (micro-F1 of always predicting
        the most frequent class); ``utterances``, ``speakers``, ``folds``. And
        the other results (dict): ``classes``, ``confusion`` and ``per_fold``.
    """
    count = len(task.classes)
    test = np.concatenate([fold.test for fold in folds])
    truth, predicted = task.labels[test], np.concatenate(predictions)
    confusion = confusion_matrix(truth, predicted, count)
    units = {
        "": task.speakers[test],
        "_over_folds": np.repeat(
            np.arange(len(folds)), [len(fold.test) for fold in folds]
        ),
    }
    scalars = {k: 100 * float(v) for k, v in figures_of(confusion).items()}
    for suffix, unit in units.items():
        intervals = dict.fromkeys(FIGURES)
        if replicates:
            intervals = bootstrap_figures(
                truth, predicted, unit, count, replicates, seed=seed
            )
        for name, ends in intervals.items():
            low, high = (None, None) if ends is None else ends
            key = f"{name}{suffix}_ci"
            scalars[f"{key}_low"] = None if low is None else 100 * low
            scalars[f"{key}_high"] = None if high is None else 100 * high
    scalars.update(
        majority=100 * float(confusion.sum(1).max() / confusion.sum()),
        utterances=len(test),
        speakers=len(np.unique(task.speakers[test])),
        folds=len(folds),
    )
    per_fold = []
    for fold, guess in zip(folds, predictions, strict=True):
        matrix = confusion_matrix(task.labels[fold.test], guess, count)
        found = {k: 100 * float(v) for k, v in figures_of(matrix).items()}
        speakers = np.unique(task.speakers[fold.test]).tolist()
        # Hundreds of names would not be readable.
        found["speakers"] = speakers if len(speakers) <= 20 else len(speakers)
        per_fold.append(
            {"fold": fold.name, "utterances": len(fold.test), **found}
        )
    return scalars, {
        "classes": list(task.classes),
        "confusion": confusion.tolist(),
        "per_fold": per_fold,
    }
