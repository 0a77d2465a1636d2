"""Running means of scalars, over steps and over processes."""

import torch

from speechbrain_ssl import distributed


class RunningMeans:
    """Means since the last ``reset``.

    What is added stays on its device: reading a mean is what waits for it.

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
        """Forgets everything."""
        self._sums, self._counts = {}, {}

    def add(self, **scalars):
        """Adds a value (a number or a tensor of one element) to each mean."""
        for name, value in scalars.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
            self._counts[name] = self._counts.get(name, 0) + 1

    def _global_sums(self):
        """Sums as numbers, averaged over processes; all must call this."""
        names = list(self._sums)
        values = [float(self._sums[name]) for name in names]
        if distributed.is_distributed() and values:
            # fp32: some devices have no fp64.
            values = distributed.mean_over_ranks(
                torch.tensor(values, device=distributed.collective_device())
            ).tolist()
        return dict(zip(names, values, strict=True))

    def read(self):
        """The means over all processes, as plain numbers."""
        return {
            name: value / self._counts[name]
            for name, value in self._global_sums().items()
        }

    def state(self):
        """What a checkpoint has to keep, in plain Python."""
        return {"sums": self._global_sums(), "counts": dict(self._counts)}

    def load(self, state):
        """Takes up what ``state`` gave."""
        self._sums = dict(state["sums"])
        self._counts = dict(state["counts"])
