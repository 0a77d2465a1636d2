"""How often a pseudo-positive is right. **For monitoring only.**

Labels come in here and figures go out; nothing that trains or selects may read
either.
"""

import numpy as np
import torch


def monitor_accuracy(partners, anchors, labels):
    """Share of pseudo-positives with the label of their anchor.

    With speaker labels it is how often SSPS is right; with recording labels,
    how often it brings nothing new.

    Arguments
    ---------
    partners : torch.Tensor or numpy.ndarray
        Positions in the manifest, int64, of any shape; negative where there is
        none.
    anchors : torch.Tensor or numpy.ndarray
        The samples' own positions, of a shape that broadcasts against it.
    labels : numpy.ndarray or sequence
        The label of each utterance of the manifest.

    Returns
    -------
    float
        From 0 to 1; NaN where no sample has a partner.

    Example
    -------
    >>> partners, anchors = torch.tensor([1, 2, -1]), torch.tensor([0, 1, 2])
    >>> monitor_accuracy(partners, anchors, ["ann", "ann", "bob"])
    0.5
    """
    labels = np.asarray(labels)
    partners, anchors = np.broadcast_arrays(
        torch.as_tensor(partners).cpu().numpy(),
        torch.as_tensor(anchors).cpu().numpy(),
    )
    there = partners >= 0
    if not there.any():
        return float("nan")
    return float((labels[partners[there]] == labels[anchors[there]]).mean())
