"""AAM-softmax: classification with an additive angular margin.

Deng et al., 2019 (ArcFace, arXiv 1801.07698, equation 3); with more than one
centre a class, Deng et al., 2020 (Sub-center ArcFace, ECCV). With the angle
theta_j between an embedding and class j, the scale s and the margin m:

    z_j = s cos(theta_j)  for j != y,      z_y = s cos(theta_y + m)
    l   = - log( exp(z_y) / sum over j of exp(z_j) )

With K centres w_jk of a class, cos(theta_j) is the largest cosine among them:
samples of a wrong label gather at a centre of their own.

cos(theta + m) is had from the cosine alone, as cos(theta) cos(m) -
sin(theta) sin(m). Beyond theta + m = pi it would rise again and reward a
larger angle; there cos(theta) - m sin(m) takes its place, as in the ArcFace
code and in SpeechBrain. That falls with theta too, and lies below what it
replaces (by 0.02 at m = 0.2, 0.12 at m = 0.5), so the target logit falls with
the angle everywhere.
"""

import math

import torch
import torch.nn.functional as F

from speechbrain_ssl.checks import check_int, check_number

# Stands for a class that is not there. Finite, so that no gradient is NaN.
_ABSENT = torch.finfo(torch.float32).min / 2


class AAMSoftmax(torch.nn.Module):
    """A classifier on cosines, with a margin on the angle of the target.

    The loss comes per sample, for a loss gate needs it so. The steps are apart:
    ``cosines`` is the one product with the class centres, and both ``losses``
    and ``logits_with_margin`` work on what it returns, with whatever labels.
    Label correction thus puts the margin on another label at no cost.

    Arguments
    ---------
    embedding_size : int
        Size of the encoder's output.
    classes : int
        Number of speakers or clusters.
    scale : float
        s. WeSpeaker has 32.
    margin : float
        m in radians, where none is given at the call. A scheduled margin is
        given at the call.
    sub_centers : int
        Centres K a class; 1 is plain AAM-softmax.

    Raises
    ------
    ConfigError
        If a size is below 1, the scale is not above 0, or the margin is not
        from 0 up to pi / 2.

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
        self, embedding_size, classes, scale=32.0, margin=0.2, sub_centers=1
    ):
        super().__init__()
        for name, value in (
            ("embedding_size", embedding_size),
            ("classes", classes),
            ("sub_centers", sub_centers),
        ):
            check_int("AAM-softmax", name, value, least=1)
        check_number("AAM-softmax", "scale", scale, above=0)
        self.classes = classes
        self.scale = scale
        self.margin = _checked(margin)
        self.sub_centers = sub_centers
        # Only the direction of a centre counts; normal draws are uniform in
        # direction.
        self.weight = torch.nn.Parameter(
            torch.nn.init.normal_(
                torch.empty(classes * sub_centers, embedding_size), std=0.01
            )
        )

    def cosines(self, embeddings):
        """Compute cosines with the classes, of the nearest sub-centre each.

        Arguments
        ---------
        embeddings : torch.Tensor
            ``[n, embedding size]``, of any norm.

        Returns
        -------
        torch.Tensor
            fp32 ``[n, classes]``, under autocast too: times a scale of 32, the
            rounding of bf16 (2^-9) would be a sixteenth of a nat.
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
        """Return logits without margin, s cos(theta), fp32 ``[n, classes]``."""
        return self.scale * self.cosines(embeddings)

    def logits_with_margin(self, cosines, labels, margin=None):
        """Compute the logits z of the equation.

        Arguments
        ---------
        cosines : torch.Tensor
            From ``cosines``, ``[n, classes]``.
        labels : torch.Tensor
            int64 ``[n]``: the classes that carry the margin.
        margin : float, optional
            m in radians; the one of the constructor if None.

        Returns
        -------
        torch.Tensor
            fp32 ``[n, classes]``.

        Raises
        ------
        ConfigError
            If the margin is not from 0 up to pi / 2.

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
        return self.scale * cosines.scatter(1, labels[:, None], target)

    def losses(self, cosines, labels, margin=None):
        """Compute the loss of each sample from cosines.

        It is computed as softplus(log sum over j != y of exp(z_j) - z_y). A
        cross entropy in fp32 has no values between 0 and 6e-8, and the loss
        gate reads the logarithm; this has the full precision of fp32 down to
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
    """Compute cos(theta + m) from cos(theta), falling with theta everywhere.

    Beyond theta + m = pi it goes on as cos(theta) - m sin(m); see the head of
    this file.

    Arguments
    ---------
    cosine : torch.Tensor
        cos(theta), of any shape.
    margin : float
        m in radians, from 0 up to pi / 2.

    Returns
    -------
    torch.Tensor
        Of the same shape.

    Example
    -------
    >>> at_right_angle = angular_margin(torch.zeros(()), margin=0.5)
    >>> round(float(at_right_angle), 4)
    -0.4794
    """
    # (1 - c)(1 + c) keeps the digits that 1 - c^2 loses near c = 1. The bound
    # makes the root's derivative at 0 a finite one.
    square = (1.0 - cosine) * (1.0 + cosine)
    sine = square.clamp(min=1e-12).sqrt()
    shifted = cosine * math.cos(margin) - sine * math.sin(margin)
    beyond = cosine <= -math.cos(margin)
    return torch.where(beyond, cosine - margin * math.sin(margin), shifted)


def _checked(margin):
    """Return the margin; refuse what is no acute angle."""
    check_number(
        "AAM-softmax",
        "margin",
        margin,
        least=0,
        below=math.pi / 2,
        remedy="it is an angle in radians, from 0 up to pi/2",
    )
    return float(margin)
