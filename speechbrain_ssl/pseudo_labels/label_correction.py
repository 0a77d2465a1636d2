"""Label correction: replace the labels that the loss gate has dropped.

Han, Chen and Qian, 2022 (DLG-LC, arXiv 2208.01928) and 2023 (arXiv
2304.05754). With the loss l_i on the pseudo-label and the gate's threshold
tau on its logarithm, the network's own prediction p^_i on a clean view of the utterance (no
gradient), sharpened by a temperature c, and its prediction p_i on the
augmented view:

    p^_i = softmax(logits_i / c)
    L_LC = sum over i of  1[log l_i > tau, max(p^_i) > tau_2] H(p^_i | p_i)
    H(p^ | p) = - sum over k of  p^_k log p_k

    L = L_DLG + L_LC

The sources leave some details open; this implementation decides them as
follows:

* The logits are s cos(theta), without margin. The one public
  re-implementation (``wavlm_ssl_sv``, Miara et al., 2024, arXiv 2406.02285)
  uses products of vectors that are not normalised.
* A soft target is p^ itself, as above; a hard one is its largest class, as in
  the re-implementation. The sharper p^ is, the less they differ.
* p_i has the margin on the largest class of p^, for both kinds of target, and
  not on the old pseudo-label. (The re-implementation keeps it on the old label,
  so that the margin favours the class believed to be wrong.) ``margin=0`` at
  the call computes p_i without a margin.
* Both sums are normalised alike by ``masked_loss``: not at all (``"sum"``), or
  by the size of the batch (``"mean"``, as in the re-implementation).

The defaults, c = 1 and tau_2 = 0.8, are ours. The re-implementation's 0.1 and
0.5 are for logits whose scale nothing fixes: with Xavier's initial weights, and
embeddings as long as a batch norm makes them, they are about 3 times the
cosine, so that c = 0.1 multiplies it by about 30, as s = 32 and c = 1 do. At s
= 32 and c = 0.1 it is multiplied by 320, and the largest of 7 500 classes
exceeds one half for 95 % of random embeddings; for 26 % at c = 0.5, and for
0.15 % at c = 1 (192 dimensions). Plain cosines over 0.1 would err on the other
side: at 7 500 classes, a confidence of one half then takes a cosine of 0.92. c
= 1 is also the temperature that the classifier is trained at. tau_2 = 0.8 was
the better threshold in ``results/known_noise``.
"""

import dataclasses

import torch

from speechbrain_ssl.checks import check_choice, check_number
from speechbrain_ssl.pseudo_labels.loss_gate import masked_loss

TARGETS = ("soft", "hard")


@dataclasses.dataclass
class Correction:
    """Hold the losses of a batch on its corrected labels.

    Attributes
    ----------
    losses : torch.Tensor
        H(p^ | p) of each sample, with gradient, ``[n]``.
    accepted : torch.Tensor
        bool ``[n]``: samples that the gate has dropped and whose prediction is
        confident. Only these enter the loss.
    labels : torch.Tensor
        int64 ``[n]``: the most probable class of each prediction.
    confidence : torch.Tensor
        The probability of that class after sharpening, ``[n]``.
    """

    losses: torch.Tensor
    accepted: torch.Tensor
    labels: torch.Tensor
    confidence: torch.Tensor


class LabelCorrection(torch.nn.Module):
    """Compute the loss on the network's own confident predictions.

    It has no state. The caller decides from which epoch on it is used; before
    the gate's first epoch there is nothing to correct.

    Arguments
    ---------
    temperature : float
        c; values below 1 sharpen. See the module's docstring.
    threshold : float
        tau_2, in [0, 1): the probability that the most probable class must
        exceed.
    target : str
        ``"soft"`` or ``"hard"``.

    Raises
    ------
    ConfigError
        If an argument is out of its range.

    Example
    -------
    >>> from speechbrain_ssl.objectives.margin import AAMSoftmax
    >>> from speechbrain_ssl.pseudo_labels.loss_gate import FixedLossGate
    >>> aam, gate = AAMSoftmax(8, classes=5), FixedLossGate(3.0)
    >>> gate.prepare_epoch(1)
    >>> correct = LabelCorrection()
    >>> augmented, clean = torch.randn(4, 8), torch.randn(4, 8)
    >>> labels = torch.tensor([0, 1, 2, 2])
    >>> cosines = aam.cosines(augmented)
    >>> losses = aam.losses(cosines, labels)
    >>> keep = gate(losses)
    >>> correction = correct(aam, cosines, aam.logits(clean), keep)
    >>> combined_loss(losses, keep, correction).shape
    torch.Size([])
    """

    def __init__(self, temperature=1.0, threshold=0.8, target="soft"):
        super().__init__()
        owner = "label correction"
        check_number(owner, "temperature", temperature, above=0)
        check_number(
            owner,
            "threshold",
            threshold,
            least=0,
            below=1,
            remedy="it is a probability, and at 1 nothing exceeds it",
        )
        check_choice(owner, "target", target, TARGETS)
        self.temperature = temperature
        self.threshold = threshold
        self.target = target

    @torch.no_grad()
    def predict(self, logits):
        """Return the sharpened prediction p^.

        Arguments
        ---------
        logits : torch.Tensor
            Logits of the clean view, without margin, ``[n, classes]``.

        Returns
        -------
        torch.Tensor
            fp32 ``[n, classes]``, without gradient.

        Example
        -------
        >>> correct = LabelCorrection(temperature=0.5)
        >>> correct.predict(torch.tensor([[1.0, 0.0]])).round(decimals=3)
        tensor([[0.8810, 0.1190]])
        """
        return torch.softmax(logits.detach().float() / self.temperature, -1)

    def forward(self, aam, cosines, clean_logits, keep, margin=None):
        """Compute losses on corrected labels, and decide which are accepted.

        If only the dropped samples have a clean view, all arguments cover those
        samples, and ``keep`` is false throughout.

        Arguments
        ---------
        aam : speechbrain_ssl.objectives.margin.AAMSoftmax
            The classifier.
        cosines : torch.Tensor
            Cosines of the augmented view, with gradient, ``[n, classes]``.
        clean_logits : torch.Tensor
            ``aam.logits`` of the clean view, ``[n, classes]``. They receive no
            gradient; encode that view under ``torch.no_grad()``.
        keep : torch.Tensor
            bool ``[n]``: the gate's mask.
        margin : float, optional
            m in radians, on the corrected label; defaults to the classifier's.

        Returns
        -------
        Correction
            Losses, mask and predictions.
        """
        prediction = self.predict(clean_logits)
        return self.towards(prediction, aam, cosines, keep, margin)

    def towards(self, prediction, aam, cosines, keep, margin=None):
        """Compute losses towards a given prediction; see ``forward``.

        Arguments
        ---------
        prediction : torch.Tensor
            p^, fp32 ``[n, classes]``, without gradient.
        aam, cosines, keep, margin
            As in ``forward``.

        Returns
        -------
        Correction
            Losses, mask and predictions.
        """
        confidence, labels = prediction.max(dim=-1)
        if self.target == "hard":
            losses = aam.losses(cosines, labels, margin)
        else:
            logits = aam.logits_with_margin(cosines, labels, margin)
            # -p^ . log softmax(z) = logsumexp(z) - p^ . z
            losses = torch.logsumexp(logits, -1) - (prediction * logits).sum(-1)
        accepted = ~keep & (confidence > self.threshold)
        return Correction(losses, accepted, labels, confidence)


def combined_loss(losses, keep, correction=None, reduction="mean", size=None):
    """Compute L = L_DLG + L_LC, both under the same normalisation.

    Arguments
    ---------
    losses : torch.Tensor
        Losses on the pseudo-labels, ``[n]``.
    keep : torch.Tensor
        bool ``[n]``: the gate's mask.
    correction : Correction, optional
        None before label correction begins.
    reduction : str
        See ``masked_loss``. ``"kept"`` is the mean over kept samples plus the
        mean over corrected ones: a few corrected samples then weigh as much as
        all the kept ones together.
    size : int, optional
        Size of the whole batch, if ``correction`` covers only dropped samples.

    Returns
    -------
    torch.Tensor
        A scalar; 0 with a gradient of 0 if no sample is kept or accepted.

    Raises
    ------
    ConfigError
        If the reduction is unknown.

    Example
    -------
    >>> losses, keep = torch.tensor([1.0, 5.0]), torch.tensor([True, False])
    >>> anew = Correction(torch.tensor([1.0, 2.0]), ~keep, None, None)
    >>> float(combined_loss(losses, keep, anew, "sum"))
    3.0
    >>> float(combined_loss(losses, keep, anew))
    1.5
    """
    loss = masked_loss(losses, keep, reduction)
    if correction is not None:
        loss = loss + masked_loss(
            correction.losses, correction.accepted, reduction, size
        )
    return loss


def correction_report(accepted, predicted, labels, truth=None):
    """Compute metrics of label correction, over a batch or an epoch.

    For an epoch, concatenate its batches first: the mean of the batches'
    precisions is not the precision of the epoch.

    Arguments
    ---------
    accepted : array_like
        bool ``[n]``; ``Correction.accepted``.
    predicted, labels : array_like
        Integers ``[n]``: corrected and old pseudo-labels.
    truth : array_like, optional
        ``[n]``: the right class, -1 if unknown; for monitoring only. A
        corrected label is right if it equals this class; if classes are
        clusters, the caller decides which cluster is right.

    Returns
    -------
    dict
        ``corrected`` (share of all samples whose label was corrected),
        ``corrected_changed`` (share of these whose label has changed), and if
        ``truth`` is given ``corrected_precision`` (share of corrected samples
        whose new label is right, among those whose right class is known) and
        ``corrected_precision_before`` (share whose old label was right). A
        ratio with a zero denominator is omitted.

    Example
    -------
    >>> correction_report([False, True], [0, 1], [0, 0], truth=[0, 1])
    ... # doctest: +NORMALIZE_WHITESPACE
    {'corrected': 0.5, 'corrected_changed': 1.0,
     'corrected_precision': 1.0, 'corrected_precision_before': 0.0}
    """
    accepted = torch.as_tensor(accepted).cpu().bool()
    predicted = torch.as_tensor(predicted).cpu()[accepted]
    labels = torch.as_tensor(labels).cpu()[accepted]
    flags = {"corrected": accepted, "corrected_changed": predicted != labels}
    if truth is not None:
        truth = torch.as_tensor(truth).cpu()[accepted]
        known = truth >= 0
        flags["corrected_precision"] = (predicted == truth)[known]
        flags["corrected_precision_before"] = (labels == truth)[known]
    return {
        name: float(values.float().mean())
        for name, values in flags.items()
        if len(values)
    }
