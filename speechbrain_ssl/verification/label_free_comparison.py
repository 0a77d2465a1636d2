"""Compare two encoders without labels, on the same held-out utterances."""

import numpy as np

from speechbrain_ssl.verification.bootstrap import paired_difference
from speechbrain_ssl.verification.label_free import (
    label_free_scores,
    pseudo_scores,
)
from speechbrain_ssl.verification.trials import Trials

BETTER, WORSE, UNCLEAR = "better", "worse", "not distinguishable"

#: The figures that a comparison and a log show.
LOGGED = ("pseudo_eer", "lidar", "rankme")


def compare_label_free(before, after):
    """Compare the pseudo-EERs of two encoders by a paired bootstrap.

    Utterances are resampled, the same for both encoders. The interval covers
    the choice of utterances. It does not cover that several of them may be of
    one speaker, nor that pseudo-EER is not the error rate across recordings.

    Arguments
    ---------
    before, after : numpy.ndarray
        Embeddings ``[utterances, crops, size]`` of the same crops by both
        encoders, as ``label_free_scores`` takes them; the sizes may differ.

    Returns
    -------
    dict
        ``pseudo_eer`` (percent), ``lidar`` and ``rankme`` of ``after``, the
        same of ``before`` as ``start_pseudo_eer`` and so on,
        ``pseudo_eer_gain`` (points that ``after`` is lower by),
        ``gain_low``, ``gain_high`` (its 95 % interval), and ``verdict``:
        ``"better"`` or ``"worse"`` if the interval is above or below zero, else
        ``"not distinguishable"``.

    Raises
    ------
    TrialError
        If there are too few utterances for an interval.
    """
    middle = before.shape[1] // 2
    count = len(before)
    left, right = np.divmod(np.arange(count**2), count)
    names = [f"{number}/{half}" for half in (0, 1) for number in range(count)]
    trials = Trials(left == right, left, count + right, names)
    scores = [
        pseudo_scores(rows[:, 0], rows[:, middle]).ravel()
        for rows in (after, before)
    ]
    gain, interval = paired_difference(*scores, trials)
    verdict = UNCLEAR
    if interval.low > 0:
        verdict = BETTER
    elif interval.high < 0:
        verdict = WORSE
    now, then = label_free_scores(after), label_free_scores(before)
    return {
        **{name: now[name] for name in LOGGED},
        **{f"start_{name}": then[name] for name in LOGGED},
        "pseudo_eer_gain": 100 * gain,
        "gain_low": 100 * interval.low,
        "gain_high": 100 * interval.high,
        "verdict": verdict,
    }


def in_words(found):
    """Say what ``compare_label_free`` has found in a sentence.

    Of several modalities (``brains.verdict.compare_modalities``) each is told.

    Example
    -------
    >>> in_words(
    ...     {
    ...         "verdict": "worse",
    ...         "pseudo_eer": 26.0,
    ...         "start_pseudo_eer": 19.0,
    ...         "gain_low": -9.2,
    ...         "gain_high": -4.9,
    ...     }
    ... )
    'worse: pseudo-EER 26.00 %, was 19.00 (95 % interval of the change 4.90 to 9.20)'
    """
    if "by" in found:
        told = (
            f"by {name} {in_words(one)}" for name, one in found["by"].items()
        )
        return f"{found['verdict']}: {'; '.join(told)}"
    # Added to zero, so that no -0.00 is shown.
    low, high = (0.0 - found[f"gain_{end}"] for end in ("high", "low"))
    return (
        f"{found['verdict']}: pseudo-EER {found['pseudo_eer']:.2f} %, was "
        f"{found['start_pseudo_eer']:.2f} (95 % interval of the change "
        f"{low:.2f} to {high:.2f})"
    )
