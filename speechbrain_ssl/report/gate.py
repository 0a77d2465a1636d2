"""Write the records of the loss gate, and their section of a run's page.

``gate/epoch_00001.json`` and so on hold a histogram of the log losses of each
epoch, the mixture from which the threshold was computed, and the shares kept.
"""

import json
import pathlib

import numpy as np

from speechbrain_ssl.files import atomic_write
from speechbrain_ssl.report import figures, style
from speechbrain_ssl.report.blocks import grid, has, picture

FOLDER = "gate"

#: Number of epochs whose histogram is drawn; more would make the page too long.
MAX_EPOCHS = 6

_SHARES = {
    "gate_kept": "kept",
    "face_gate_kept": "kept, by face",
    "corrected": "corrected",
}
_MONITORED = {
    "gate_precision": "right among the kept",
    "face_gate_precision": "right among the kept, by face",
    "gate_recall": "kept among the right",
    "gate_noise_precision": "wrong among the dropped",
    "gate_noise_recall": "dropped among the wrong",
    "corrected_precision": "right among the corrected",
}

#: Further folders of a run with voices and faces: what their losses are of, and
#: the share that is kept. ``gate`` has those of the voices.
_FURTHER = {
    "gate_face": ("faces", "face_gate_kept"),
    "gate_sum": ("voices and faces", "gate_kept"),
}


def write_gate_epoch(
    folder,
    epoch,
    losses,
    threshold,
    fit,
    scalars,
    correct=None,
    known=None,
):
    """Write the losses and decisions of the gate in an epoch, for the report.

    Arguments
    ---------
    folder : pathlib.Path
        Folder of ``epoch_00001.json`` and so on.
    epoch : int
        Number of the epoch.
    losses : torch.Tensor
        ``[N]`` in nats, NaN for utterances that were not seen.
    threshold : float
        Log loss below which samples were kept; infinity for all.
    fit : GateFit or None
        The mixture that gave the threshold (fitted in the previous epoch).
    scalars : dict
        Shares that the gate reported.
    correct, known : torch.Tensor, optional
        bool ``[N]``, for monitoring: whether a label is right, and whether
        that is known. The histogram then covers only known ones.
    """
    losses = losses.double().cpu().numpy()
    usable = np.isfinite(losses) & (losses > 0)
    if known is not None:
        usable &= known.cpu().numpy()
    values = np.log(losses[usable])
    edges = np.histogram_bin_edges(values, 60) if len(values) else np.arange(2)
    record = {
        "epoch": epoch,
        "edges": np.round(edges, 4).tolist(),
        "counts": np.histogram(values, edges)[0].tolist(),
        "threshold": threshold if np.isfinite(threshold) else None,
        "fallback": None if fit is None else fit.fallback,
        "scalars": scalars,
    }
    if correct is not None:
        right = correct.cpu().numpy()[usable]
        record["counts_right"] = np.histogram(values[right], edges)[0].tolist()
    if fit is not None and np.isfinite(fit.means).all():
        record["mixture"] = {
            "weights": fit.weights,
            "means": fit.means,
            "variances": fit.variances,
        }
    with atomic_write(folder / f"epoch_{epoch:05d}.json") as stream:
        json.dump(record, stream)


def read_epochs(folder):
    """Read the records of all epochs, in their order.

    Arguments
    ---------
    folder : str or pathlib.Path
        The folder ``gate`` of a run.

    Returns
    -------
    list of dict
    """
    paths = sorted(pathlib.Path(folder).glob("epoch_*.json"))
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def loss_histogram(record, of="", kept="gate_kept"):
    """Draw the log losses of an epoch, both components and the threshold.

    Arguments
    ---------
    record : dict
        Record of one epoch, from ``read_epochs``.
    of : str
        What the losses are of, for the title.
    kept : str
        Which of the record's scalars is the share that is kept.

    Returns
    -------
    matplotlib.figure.Figure

    Example
    -------
    >>> record = {
    ...     "epoch": 3,
    ...     "edges": [0.0, 1.0, 2.0],
    ...     "counts": [3, 1],
    ...     "threshold": 1.0,
    ...     "fallback": None,
    ...     "scalars": {"gate_kept": 0.75},
    ... }
    >>> loss_histogram(record).axes[0].get_title(loc="left")
    'Epoch 3: 75.0 % kept'
    """
    figure, ax = style.new_figure()
    edges, counts = np.array(record["edges"]), np.array(record["counts"])
    total = max(counts.sum(), 1)
    share = 100 * counts / total
    if "counts_right" in record:
        right = 100 * np.array(record["counts_right"]) / total
        for values, colour, name in (
            (share - right, style.RED, "wrong label"),
            (right, style.BLUE, "right label"),
        ):
            ax.stairs(values, edges, fill=True, color=colour, alpha=0.3)
            ax.stairs(values, edges, color=colour, linewidth=1.3, label=name)
    else:
        ax.stairs(share, edges, fill=True, color=style.MUTED, alpha=0.3)
        ax.stairs(share, edges, color=style.MUTED, linewidth=1.3)
    mixture = record.get("mixture")
    if mixture is not None:
        # The mixture of the previous epoch, which gave the threshold.
        x = np.linspace(edges[0], edges[-1], 200)
        width = np.diff(edges).mean()
        for weight, mean, variance in zip(*mixture.values(), strict=True):
            density = np.exp(-0.5 * (x - mean) ** 2 / variance)
            density *= weight / np.sqrt(2 * np.pi * variance)
            ax.plot(x, 100 * width * density, color=style.INK, linewidth=1.4)
    if record["threshold"] is not None:
        ax.axvline(
            record["threshold"],
            color=style.INK,
            linewidth=1.1,
            linestyle=(0, (5, 3)),
        )
    if "counts_right" in record:
        style.legend(ax)
    title = f"Epoch {record['epoch']}{of and f', {of}'}"
    kept = record["scalars"].get(kept)
    if record["threshold"] is None:
        title += ": no threshold"
    elif kept is not None:
        title += f": {100 * kept:.1f} % kept"
    style.label(ax, title, "log of the loss (nats)", "utterances (%)")
    return figure


def chosen_epochs(records):
    """Choose the epochs to draw: the first, the last, and some between.

    Arguments
    ---------
    records : list
        Records of all epochs.

    Returns
    -------
    list

    Example
    -------
    >>> chosen_epochs(list(range(1, 16)))
    [1, 4, 7, 9, 12, 15]
    """
    if len(records) <= MAX_EPOCHS:
        return records
    places = np.linspace(0, len(records) - 1, MAX_EPOCHS).round().astype(int)
    return [records[i] for i in places]


def body(folder, metrics):
    """Format the body of the page's section on the gate.

    Arguments
    ---------
    folder : pathlib.Path
        The folder ``gate`` of a run.
    metrics : list of dict
        As ``read_metrics`` gives them.

    Returns
    -------
    str
        HTML, empty where the run had no gate.
    """
    parts = []
    for keys, title, caption, badge in (
        (
            _SHARES,
            "Share kept, share corrected",
            "Kept are the utterances whose loss is below the threshold. "
            "Corrected are those that are used after all, with the label that "
            "the network itself is confident of.",
            None,
        ),
        (
            _MONITORED,
            "Was it right?",
            "Compared with speaker labels, which are for the reader and took "
            "no part in training. The right members of a cluster are those of "
            "its most frequent speaker.",
            "for the reader",
        ),
    ):
        there = {k: name for k, name in keys.items() if has(metrics, k)}
        if there:
            drawn = figures.curves(
                metrics,
                there,
                "valid",
                x="epoch",
                title=title,
                ylabel="share",
                from_zero=True,
            )
            parts.append(picture(drawn, caption, badge))
    parts += _histograms(folder)
    for name, (of, kept) in _FURTHER.items():
        parts += _histograms(folder.with_name(name), of, kept)
    return grid(parts)


def _histograms(folder, of="", kept="gate_kept"):
    """Draw the losses of some epochs; nothing where there is no folder."""
    caption = (
        f"Losses of the epoch's {of or 'utterances'}. Lines: the two components "
        "of the previous epoch, and the threshold where they cross; left of it "
        "the labels are trusted."
    )
    if folder.name == "gate_sum":
        caption += " The log of both losses is the sum of their logs."
    parts = []
    for record in chosen_epochs(read_epochs(folder)):
        # Colours by label are for the reader; training used no label.
        badge = "for the reader" if "counts_right" in record else None
        drawn = loss_histogram(record, of, kept)
        parts.append(picture(drawn, caption, badge))
    return parts
