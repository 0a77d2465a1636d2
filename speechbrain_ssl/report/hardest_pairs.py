"""Write the page on which a person hears the worst errors of an evaluation."""

import numpy as np

from speechbrain_ssl.report.blocks import section, write_page
from speechbrain_ssl.report.players import STYLE, buttons, player

FILE_NAME = "hardest_pairs.html"


def hardest_pairs(scores, labels, threshold, count):
    """Find the wrong decisions that are furthest from the threshold.

    Arguments
    ---------
    scores : numpy.ndarray
        ``[T]``.
    labels : numpy.ndarray
        bool ``[T]``, true for same-speaker trials.
    threshold : float
        Scores at or above it are accepted.
    count : int
        How many of each kind.

    Returns
    -------
    tuple of numpy.ndarray
        Positions of the false acceptances, the highest score first, and of the
        false rejections, the lowest first.

    Example
    -------
    >>> scores = np.array([0.9, 0.1, 0.8, 0.6, 0.2])
    >>> labels = np.array([True, True, False, False, True])
    >>> accepted, rejected = hardest_pairs(scores, labels, 0.5, 2)
    >>> accepted.tolist(), rejected.tolist()
    ([2, 3], [1, 4])
    """
    order = np.argsort(scores, kind="stable")
    accepted = scores[order] >= threshold
    alarms, misses = accepted & ~labels[order], ~accepted & labels[order]
    return order[alarms][::-1][:count], order[misses][:count]


def write_hardest_pairs(path, title, lists, count):
    """Write a page with the two recordings of each of the worst errors.

    Arguments
    ---------
    path : str or pathlib.Path
        The HTML file.
    title : str
        Heading of the page.
    lists : dict
        Name of a list to ``Trials``, the audio files beside
        ``Trials.recordings``, scores ``[T]`` and threshold.
    count : int
        Errors of each kind and list.
    """
    names, paths, sections = [], [], []
    for name, (trials, files, scores, threshold) in lists.items():
        path_of = dict(zip(trials.recordings, files, strict=True))
        for what, found in zip(
            ("two speakers, accepted", "one speaker, rejected"),
            hardest_pairs(scores, trials.labels, threshold, count),
            strict=True,
        ):
            cards = []
            for i in found:
                first = len(names)
                for side in (trials.left[i], trials.right[i]):
                    # A model has several recordings.
                    recordings = trials.members(trials.names[side])
                    names += recordings
                    paths += [path_of[recording] for recording in recordings]
                cards.append(
                    f'<div class="card"><h4>score {scores[i]:.3f}, threshold '
                    f"{threshold:.3f}</h4>"
                    f"{buttons(range(first, len(names)), names)}</div>"
                )
            body = f'<div class="cards">{"".join(cards)}</div>'
            if not cards:
                body = "<p>There is no such error.</p>"
            sections.append(section(f"{name}: {what}", body))
    write_page(
        path,
        title,
        [
            STYLE,
            "<p>Pairs of recordings that the plain cosine decides wrongly, the "
            "furthest from the threshold first. A wrong label in the list looks "
            "like an error, too: listen.</p>",
            *sections,
            player(path, names, paths),
        ],
    )
