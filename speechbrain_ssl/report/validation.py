"""Draw the metrics of validation without labels, epoch by epoch."""

from speechbrain_ssl.report import figures
from speechbrain_ssl.report.blocks import grid, has, picture

_METRICS = (
    (
        "pseudo_eer",
        "Pseudo-EER",
        "pseudo-EER (%)",
        "Trials made without labels: the two halves of one held-out "
        "utterance against halves of two. It should fall. A bad sign is a "
        "rise while the loss falls; a very low value alone says little, since "
        "the channel may give the answer away.",
    ),
    (
        "lidar",
        "LiDAR",
        "LiDAR (effective dimensions)",
        "Effective number of directions that tell utterances apart, beyond "
        "what the crops of one utterance differ in. It need not rise: in most "
        "runs that got better it fell by some per cent. A bad sign is a fall "
        "to less than half: directions are being lost.",
    ),
    (
        "rankme",
        "RankMe",
        "RankMe (effective dimensions)",
        "Effective rank of the held-out embeddings. It need not rise: more "
        "often than not it falls somewhat while a run gets better. A bad sign "
        "is a fall towards 1: all embeddings lie on one line (dimensional "
        "collapse).",
    ),
    (
        "mean_cosine",
        "Mean cosine",
        "cosine of different utterances",
        "How alike different held-out utterances are on average. It should "
        "stay well below 1. A bad sign is a climb towards 1: all embeddings "
        "become the same (complete collapse).",
    ),
)


def validation_figures(metrics, hparams):
    """Draw the metrics of validation, with what to expect of them.

    Arguments
    ---------
    metrics : list of dict
        As ``read_metrics`` gives them.
    hparams : dict
        Of the run; ``expected_pseudo_eer`` may have ``low`` and ``high``
        (percent, after each epoch) and ``runs``, which they were seen in.

    Returns
    -------
    str
        HTML; empty if there are none.

    Example
    -------
    >>> html = validation_figures([{"epoch": 1, "pseudo_eer": 9.0}], {})
    >>> "Pseudo-EER: 9" in html
    True
    """
    expected = hparams.get("expected_pseudo_eer")
    # In another number of epochs the learning rate falls at another pace.
    if expected and len(expected["low"]) != hparams["number_of_epochs"]:
        expected = None
    parts = []
    for key, name, ylabel, caption in _METRICS:
        band = None
        if key == "pseudo_eer" and expected:
            band = expected["low"], expected["high"]
            caption += (
                f" Grey: {expected['runs']}, with this configuration as it "
                "comes. Other audio has another level; the shape should be alike."
            )
        if has(metrics, key):
            figure = figures.curves(
                metrics,
                {key: name},
                x="epoch",
                ylabel=ylabel,
                from_zero=True,
                band=band,
            )
            parts.append(picture(figure, caption))
    return grid(parts)
