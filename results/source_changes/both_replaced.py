"""SwAV with positives from other utterances, as this project had it before.

Positives replaced both crops in their codes and no crop in the predictions:

    L = - (P'_1 . log softmax(z_2 . c / tau)
           + P'_2 . log softmax(z_1 . c / tau)) / 2

``speechbrain_ssl.objectives.swav`` explains the symbols, and what the source does.
"""

from speechbrain_ssl.objectives import swav
from speechbrain_ssl.objectives.views import pair_cross_entropy


class SwAV(swav.SwAV):
    """Compute the SwAV loss with both crops replaced, in the codes only.

    It has the name of the original, because ``initial_checkpoint`` takes the heads
    of an objective of the same name only.
    """

    def forward(self, online, target):
        """Return the loss and no scalars; see ``SwAV.forward``."""
        codes = self._codes(target.projections.detach())
        logits = self.head.logits(online.projections) / self.temperature
        return pair_cross_entropy(logits, codes, skip_same=True), {}
