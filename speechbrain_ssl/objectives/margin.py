"""AAM-softmax: classification with an additive angular margin.

Deng et al., 2019 (ArcFace, arXiv 1801.07698, equation 3); with more than one
centre per class, Deng et al., 2020 (Sub-center ArcFace, ECCV). With the angle
theta_j between an embedding and class j, the scale s and the margin m:

    z_j = s cos(theta_j)  for j != y,      z_y = s cos(theta_y + m)
    l   = - log( exp(z_y) / sum over j of exp(z_j) )

With K centres w_jk per class, cos(theta_j) is the largest cosine among them, so
that samples with a wrong label can gather at a centre of their own.

With an inter-top-k penalty (Zhao et al., 2021, arXiv 2109.01989) the k classes
j != y that are nearest to the embedding get a margin m' the other way, which
pushes away the classes that are confused most:

    z_j = s max(cos(theta_j), cos(theta_j - m'))

As in hyperion, from which the maximum is, m' grows with a scheduled margin: where
m is half of its full value, so is m'. If that full value is 0, m' does not change.

cos(theta + m) is computed from the cosine as cos(theta) cos(m) - sin(theta)
sin(m). Beyond theta + m = pi it would rise again and reward a larger angle, so
it is replaced there by cos(theta) - m sin(m), as in the code of ArcFace, of
Loss-Gated Learning and of SpeechBrain. That expression falls with theta too,
and lies below the one it replaces (by 0.02 at m = 0.2, 0.12 at m = 0.5), so the
target logit falls with the angle everywhere. WeSpeaker continues with
cos(theta) - (1 - cos(m)) instead, which has the same slope and no gap.
"""

import math

import torch
import torch.nn.functional as F

from speechbrain_ssl.checks import check_int, check_number

# Logit of an excluded class. It is finite, so that no gradient is NaN.
_ABSENT = torch.finfo(torch.float32).min / 2


class AAMSoftmax(torch.nn.Module):
    """Classify by cosine, with a margin on the angle of the target class.

    The loss is returned per sample, as a loss gate needs it. The steps are
    separate: ``cosines`` computes the product with the class centres once, and
    ``losses`` and ``logits_with_margin`` take its result together with any
    labels. Label correction can thus put the margin on another label at no
    extra cost.

    The centres start with Xavier's uniform distribution (Glorot and Bengio,
    2010), as in WeSpeaker; Loss-Gated Learning draws from the normal one with
    the same deviation. Their norms do not change a logit, but the shorter a
    centre is, the further a step of the optimiser turns it.

    Arguments
    ---------
    embedding_size : int
        Size of the encoder's output.
    classes : int
        Number of speakers or clusters.
    scale : float
        s; 32 in WeSpeaker.
    margin : float
        m in radians, used if a call gives none. A scheduled margin is given at
        the call.
    sub_centers : int
        Number K of centres per class; 1 is plain AAM-softmax.
    intertop_k : int
        k, the number of other classes with a penalty.
    intertop_margin : float
        m' in radians, where the margin is ``margin`` (everywhere if ``margin``
        is 0); 0: no penalty. 0.1 in hyperion.

    Raises
    ------
    ConfigError
        If a size is below 1, the scale is not above 0, or a margin is not in
        [0, pi / 2).

    Example
    -------
    >>> aam = AAMSoftmax(8, classes=5, sub_centers=2)
    >>> embeddings, labels = torch.randn(3, 8), torch.tensor([0, 4, 4])
    >>> aam(embeddings, labels, margin=0.1).shape
    torch.Size([3])
    >>> aam.logits(embeddings).shape
    torch.Size([3, 5])
    """

    def __init__(
        self,
        embedding_size,
        classes,
        scale=32.0,
        margin=0.2,
        sub_centers=1,
        intertop_k=5,
        intertop_margin=0.0,
    ):
        super().__init__()
        for name, value in (
            ("embedding_size", embedding_size),
            ("classes", classes),
            ("sub_centers", sub_centers),
            ("intertop_k", intertop_k),
        ):
            check_int("AAM-softmax", name, value, least=1)
        check_number("AAM-softmax", "scale", scale, above=0)
        self.classes = classes
        self.scale = scale
        self.margin = _checked(margin)
        self.sub_centers = sub_centers
        self.intertop_k = intertop_k
        self.intertop_margin = _checked(intertop_margin, "intertop_margin")
        self.weight = torch.nn.Parameter(
            torch.nn.init.xavier_uniform_(
                torch.empty(classes * sub_centers, embedding_size)
            )
        )

    def cosines(self, embeddings):
        """Compute the cosine with the nearest sub-centre of each class.

        Arguments
        ---------
        embeddings : torch.Tensor
            ``[n, embedding size]``, of any norm.

        Returns
        -------
        torch.Tensor
            fp32 ``[n, classes]``, even under autocast: multiplied by a scale
            of 32, bf16's rounding error (2^-9) would be a sixteenth of a nat.
        """
        with torch.autocast(embeddings.device.type, enabled=False):
            cosines = F.linear(
                F.normalize(embeddings.float(), dim=-1),
                F.normalize(self.weight.float(), dim=-1),
            )
        if self.sub_centers > 1:
            cosines = cosines.unflatten(1, (self.classes, self.sub_centers))
            cosines = cosines.amax(-1)
        return cosines

    def logits(self, embeddings):
        """Return logits s cos(theta) without margin, fp32 ``[n, classes]``."""
        return self.scale * self.cosines(embeddings)

    def logits_with_margin(self, cosines, labels, margin=None):
        """Compute the logits z of the equation.

        Arguments
        ---------
        cosines : torch.Tensor
            From ``cosines``, ``[n, classes]``.
        labels : torch.Tensor
            int64 ``[n]``: the classes that receive the margin.
        margin : float, optional
            m in radians; defaults to the constructor's.

        Returns
        -------
        torch.Tensor
            fp32 ``[n, classes]``.

        Raises
        ------
        ConfigError
            If the margin is not in [0, pi / 2).

        Example
        -------
        >>> aam = AAMSoftmax(2, classes=2, scale=1.0)
        >>> cosines = torch.tensor([[0.0, 0.5]])
        >>> label = torch.tensor([0])
        >>> logits = aam.logits_with_margin(cosines, label, margin=0.5)
        >>> [round(z, 4) for z in logits[0].tolist()]
        [-0.4794, 0.5]
        """
        margin = self.margin if margin is None else _checked(margin)
        cosine = cosines.gather(1, labels[:, None])
        target = angular_margin(cosine, margin)
        if self.intertop_margin:
            cosines = self._penalise_nearest(cosines, labels, margin)
        return self.scale * cosines.scatter(1, labels[:, None], target)

    def _penalise_nearest(self, cosines, labels, margin):
        """Raise the cosines of the k other classes that are nearest."""
        share = margin / self.margin if self.margin else 1.0
        penalty = share * self.intertop_margin
        count = min(self.intertop_k, self.classes - 1)
        others = cosines.detach().scatter(1, labels[:, None], _ABSENT)
        nearest = others.topk(count, dim=1).indices
        cosine = cosines.gather(1, nearest)
        shifted = cosine * math.cos(penalty) + _sine(cosine) * math.sin(penalty)
        return cosines.scatter(1, nearest, torch.maximum(cosine, shifted))

    def losses(self, cosines, labels, margin=None):
        """Compute the loss of each sample from cosines.

        The loss is computed as softplus(log sum over j != y of exp(z_j) - z_y).
        A cross entropy in fp32 has no values between 0 and 6e-8, and the loss
        gate takes the logarithm; this form keeps fp32's full precision down to
        exp(-80).

        Arguments
        ---------
        cosines : torch.Tensor
            From ``cosines``, ``[n, classes]``.
        labels : torch.Tensor
            int64 ``[n]``.
        margin : float, optional
            As in ``logits_with_margin``.

        Returns
        -------
        torch.Tensor
            fp32 ``[n]``, in nats.

        Raises
        ------
        ConfigError
            As ``logits_with_margin``.
        """
        logits = self.logits_with_margin(cosines, labels, margin)
        target = logits.gather(1, labels[:, None])[:, 0]
        others = logits.scatter(1, labels[:, None], _ABSENT)
        return F.softplus(torch.logsumexp(others, dim=1) - target)

    def forward(self, embeddings, labels, margin=None):
        """Compute losses ``[n]``; see ``cosines`` and ``losses``."""
        return self.losses(self.cosines(embeddings), labels, margin)


def angular_margin(cosine, margin):
    """Compute cos(theta + m) from cos(theta), monotonic in theta.

    Beyond theta + m = pi it continues as cos(theta) - m sin(m); see the
    module's docstring.

    Arguments
    ---------
    cosine : torch.Tensor
        cos(theta), of any shape.
    margin : float
        m in radians, in [0, pi / 2).

    Returns
    -------
    torch.Tensor
        Of the same shape as ``cosine``.

    Example
    -------
    >>> at_right_angle = angular_margin(torch.zeros(()), margin=0.5)
    >>> round(float(at_right_angle), 4)
    -0.4794
    """
    shifted = cosine * math.cos(margin) - _sine(cosine) * math.sin(margin)
    beyond = cosine <= -math.cos(margin)
    return torch.where(beyond, cosine - margin * math.sin(margin), shifted)


def _sine(cosine):
    """Return sin(theta) for cos(theta), theta from 0 to pi."""
    # (1 - c)(1 + c) keeps the digits that 1 - c^2 loses near c = 1. The clamp
    # keeps the derivative of the square root finite at 0.
    square = (1.0 - cosine) * (1.0 + cosine)
    return square.clamp(min=1e-12).sqrt()


def _checked(margin, name="margin"):
    """Return the margin, or raise if it is not in [0, pi / 2)."""
    check_number(
        "AAM-softmax",
        name,
        margin,
        least=0,
        below=math.pi / 2,
        remedy="it is an angle in radians, from 0 up to pi/2",
    )
    return float(margin)
