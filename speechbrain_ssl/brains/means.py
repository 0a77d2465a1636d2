"""Average scalars over steps and over processes.

``run_log`` uses these means for the lines of the training log.
"""

import torch

from speechbrain_ssl import distributed


def _numbers(values):
    """Turn numbers and one-element tensors into numbers, in one transfer."""
    there = [v for v in values if _is_on_device(v)]
    if there:
        there = iter(torch.stack([v.float().view(()) for v in there]).tolist())
    return [next(there) if _is_on_device(v) else float(v) for v in values]


def _is_on_device(value):
    return torch.is_tensor(value) and value.device.type != "cpu"


class RunningMeans:
    """Averages each scalar over all values added since the last ``reset``.

    ``add`` does not wait for the device: tensors stay there until ``read``.

    Example
    -------
    >>> means = RunningMeans()
    >>> means.add(loss=torch.tensor(1.0))
    >>> means.add(loss=torch.tensor(3.0))
    >>> means.read()
    {'loss': 2.0}
    """

    def __init__(self):
        self.reset()

    def reset(self):
        """Discard all values."""
        self._sums, self._counts = {}, {}

    def add(self, **scalars):
        """Add a value (a number or a one-element tensor) to each named mean."""
        for name, value in scalars.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
            self._counts[name] = self._counts.get(name, 0) + 1

    def _global_sums(self):
        """Return the sums as numbers, averaged over processes.

        This is a collective: all processes must call it.
        """
        names = list(self._sums)
        values = _numbers(list(self._sums.values()))
        if distributed.is_distributed() and values:
            # fp32: some devices have no fp64.
            values = distributed.mean_over_ranks(
                torch.tensor(values, device=distributed.collective_device())
            ).tolist()
        return dict(zip(names, values, strict=True))

    def read(self):
        """Return the means over all processes, as plain numbers.

        All processes must call it.
        """
        return {
            name: value / self._counts[name]
            for name, value in self._global_sums().items()
        }

    def state(self):
        """Return sums and counts for a checkpoint, in plain Python.

        All processes must call it.
        """
        return {"sums": self._global_sums(), "counts": dict(self._counts)}

    def load(self, state):
        """Restore the sums and counts that ``state`` returned."""
        self._sums = dict(state["sums"])
        self._counts = dict(state["counts"])
