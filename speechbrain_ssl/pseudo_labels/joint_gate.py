"""A loss gate for utterances with a voice and a face.

Han, Chen and Qian (2023, arXiv 2304.05754) extend DLG-LC from one to several
modalities. How the gates of the modalities combine is not public. With the
losses a_i of the voice and f_i of the face on the same pseudo-label, and the
thresholds tau that the dynamic loss gate fits to the log losses of a modality,
these are three readings, all of them ours:

    each    the voice is trained on if  log a_i < tau_a,
            the face if                 log f_i < tau_f
    both    both are trained on if      log a_i < tau_a and log f_i < tau_f
    sum     both are trained on if      log a_i + log f_i < tau_s

where tau_s is fitted to the sums. An utterance without a face is gated by its
voice alone, log a_i < tau_a, in every reading. That is ours, too.
"""

import torch

from speechbrain_ssl.checks import check_choice

READINGS = ("each", "both", "sum")


class JointLossGate(torch.nn.Module):
    """Decide for each modality which utterances to train on.

    Losses are dictionaries from modality to ``[n]`` in nats, with NaN where an
    utterance lacks that modality.

    Arguments
    ---------
    make_gate : callable
        ``make_gate()`` returns a new
        ``speechbrain_ssl.pseudo_labels.loss_gate.LossGate``: one is made for
        each modality and one for the sum of their log losses.
    reading : str
        ``"each"``, ``"both"`` or ``"sum"``; see the module's docstring.
    modalities : sequence of str
        Names of the modalities.

    Raises
    ------
    ConfigError
        If the reading is unknown.

    Example
    -------
    >>> from speechbrain_ssl.pseudo_labels.loss_gate import FixedLossGate
    >>> losses = {
    ...     "audio": torch.tensor([1.0, 1.0, 9.0, 1.0]),
    ...     "face": torch.tensor([1.0, 4.0, 4.0, float("nan")]),
    ... }
    >>> def kept(reading):
    ...     gate = JointLossGate(lambda: FixedLossGate(3.0), reading)
    ...     gate.prepare_epoch(1, losses)
    ...     return [mask.int().tolist() for mask in gate(losses).values()]
    >>> kept("each")
    [[1, 1, 0, 1], [1, 0, 0, 0]]
    >>> kept("both")
    [[1, 0, 0, 1], [1, 0, 0, 0]]
    """

    def __init__(self, make_gate, reading, modalities=("audio", "face")):
        super().__init__()
        check_choice("the joint loss gate", "reading", reading, READINGS)
        self.reading = reading
        self.modalities = tuple(modalities)
        self.gates = torch.nn.ModuleDict({m: make_gate() for m in modalities})
        self.sum_gate = make_gate()

    def prepare_epoch(self, epoch, previous):
        """Set all thresholds of an epoch; call it in all processes.

        Arguments
        ---------
        epoch : int
            The epoch that begins, counted from 1.
        previous : dict
            Losses of the previous epoch, ``[N]``; the same in all processes.

        Returns
        -------
        dict
            ``GateFit`` or None by modality; in the reading ``sum`` also that of
            the sums, under ``"sum"``.
        """
        fits = {
            m: gate.prepare_epoch(epoch, previous[m])
            for m, gate in self.gates.items()
        }
        if self.reading == "sum":
            fits["sum"] = self.sum_gate.prepare_epoch(epoch, product(previous))
        return fits

    @torch.no_grad()
    def mask(self, losses):
        """Return for each modality which utterances are kept.

        Arguments
        ---------
        losses : dict
            ``[n]`` by modality.

        Returns
        -------
        dict
            bool ``[n]`` by modality; False where the modality is missing.
        """
        below = {m: gate.mask(losses[m]) for m, gate in self.gates.items()}
        if self.reading == "each":
            return below
        missing = {m: losses[m].isnan() for m in self.gates}
        keep = torch.stack([below[m] | missing[m] for m in below]).all(dim=0)
        if self.reading == "sum":
            joint = product(losses)
            keep = torch.where(joint.isnan(), keep, self.sum_gate.mask(joint))
        return {m: keep & ~missing[m] for m in below}

    forward = mask

    def report(self, losses, correct=None, known=None):
        """Compute metrics of the gate over an epoch; see ``LossGate.report``.

        Arguments
        ---------
        losses : dict
            Losses of the epoch, ``[N]`` by modality.
        correct, known : array_like, optional
            As in ``LossGate.report``.

        Returns
        -------
        dict
            Those of the first modality have the names of ``LossGate.report``;
            those of the others begin with their modality (``face_gate_kept``).
            Each is over the utterances that have the modality.
        """
        masks = self.mask(losses)
        gates = dict(self.gates.items())
        if self.reading == "sum":
            gates = dict.fromkeys(gates, self.sum_gate)
        scalars = {}
        for m, gate in gates.items():
            prefix = "" if m == self.modalities[0] else f"{m}_"
            found = gate.report(losses[m], correct, known, masks[m])
            scalars |= {prefix + name: value for name, value in found.items()}
        return scalars


def product(losses):
    """Multiply the losses of all modalities.

    The logarithm of the product is the sum of the log losses, so a gate on the
    product is a gate on that sum.

    Arguments
    ---------
    losses : dict
        ``[n]`` by modality.

    Returns
    -------
    torch.Tensor
        ``[n]``, in nats to the power of the number of modalities; NaN where a
        modality is missing.

    Example
    -------
    >>> audio, face = torch.tensor([2.0, 2.0]), torch.tensor([3.0, float("nan")])
    >>> product({"audio": audio, "face": face}).tolist()
    [6.0, nan]
    """
    return torch.stack(list(losses.values())).prod(dim=0)
