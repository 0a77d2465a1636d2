"""Measure the share of pseudo-positives that are right.

**For monitoring only.** This module reads labels and returns metrics for the
log. Nothing that trains or selects may read either of them.
"""

import torch


class PositiveMonitor:
    """Compare the labels of pseudo-positives with those of their anchors.

    Speaker labels show how often SSPS is right; recording labels show how often
    a pseudo-positive comes from the anchor's own recording.

    Arguments
    ---------
    columns : dict
        Maps the name of a column to the class of every utterance of the
        manifest, int64 ``[utterances]``; -1 for an unknown class.
    device : str
        Device of the pseudo-positives.

    Example
    -------
    >>> monitor = PositiveMonitor({"voice": [0, 0, 1]})
    >>> monitor(torch.tensor([1, 2, -1]), torch.tensor([0, 1, 2]))
    {'same_voice': tensor(0.3333), 'known_voice': tensor(0.6667)}
    """

    def __init__(self, columns, device="cpu"):
        self.columns = {
            name: torch.as_tensor(classes, device=device)
            for name, classes in columns.items()
        }

    def __call__(self, pseudo_positives, anchors):
        """Compare the pseudo-positives of a batch with their anchors.

        Arguments
        ---------
        pseudo_positives : torch.Tensor
            Positions of the pseudo-positives in the manifest, int64
            ``[batch]``; -1 for a sample without one.
        anchors : torch.Tensor
            The samples' own positions, int64 ``[batch]``.

        Returns
        -------
        dict
            ``known_<column>``: share of the batch that has a pseudo-positive
            and for which both classes are known. ``same_<column>``: share of
            the batch for which they are also equal. ``same`` divided by
            ``known`` is the accuracy of the pseudo-positives.
        """
        there = pseudo_positives >= 0
        found = {}
        for name, classes in self.columns.items():
            own, other = (
                classes[anchors],
                classes[pseudo_positives.clamp(min=0)],
            )
            known = there & (own >= 0) & (other >= 0)
            found[f"same_{name}"] = (known & (own == other)).float().mean()
            found[f"known_{name}"] = known.float().mean()
        return found
