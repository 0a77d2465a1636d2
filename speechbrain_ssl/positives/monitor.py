"""The share of pseudo-positives that are right. **For monitoring only.**

Labels come in here and figures go out; nothing that trains or selects may read
either.
"""

import torch


class PositiveMonitor:
    """Compares pseudo-positives with their anchors, by labels.

    With speakers it tells how often SSPS is right; with recordings, how often
    it brings nothing new.

    Arguments
    ---------
    columns : dict
        Name of a column to the class of every utterance of the manifest, int64
        ``[utterances]``; -1 where it is not known.
    device : str
        Where the partners are.

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

    def __call__(self, partners, anchors):
        """Compare the partners of a batch with their anchors.

        Arguments
        ---------
        partners : torch.Tensor
            Positions in the manifest, int64 ``[batch]``; -1 where there is
            none.
        anchors : torch.Tensor
            The samples' own positions, int64 ``[batch]``.

        Returns
        -------
        dict
            ``known_<column>``: the share of the batch that has a partner and
            where both classes are known. ``same_<column>``: the share where
            they are the same. ``same`` over ``known`` is the accuracy of the
            partners.
        """
        there = partners >= 0
        found = {}
        for name, classes in self.columns.items():
            own, other = classes[anchors], classes[partners.clamp(min=0)]
            known = there & (own >= 0) & (other >= 0)
            found[f"same_{name}"] = (known & (own == other)).float().mean()
            found[f"known_{name}"] = known.float().mean()
        return found
