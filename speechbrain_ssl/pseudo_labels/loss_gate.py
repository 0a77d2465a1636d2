"""Loss gates: decide which pseudo-labels to trust by their loss.

A network learns right labels before wrong ones, so their losses diverge during
training. With the loss l_i of sample i and a threshold tau on its logarithm,

    L_gate = sum over i of  1[log l_i < tau] l_i

Loss-Gated Learning (Tao et al., 2022) fixes tau beforehand. The dynamic loss
gate (Han, Chen and Qian, 2022, arXiv 2208.01928; 2023, arXiv 2304.05754) fits
a mixture of two Gaussians to the log losses of the previous epoch, and sets tau
to the point between their means where the weighted densities are equal
(``loss_mixture``).

A gate sets its threshold before each epoch, and then returns a mask for each
batch *from the current losses*: only the threshold comes from the previous
epoch.
"""

import logging
import math

import numpy as np
import torch
import torch.distributed as dist

from speechbrain_ssl import distributed
from speechbrain_ssl.checks import check_choice, check_int, check_number
from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.pseudo_labels.loss_mixture import (
    fit_threshold,
    usable_losses,
)

logger = logging.getLogger(__name__)

REDUCTIONS = ("mean", "sum", "kept")

#: A gate that keeps a smaller share than this gets a warning.
FEW = 0.3


class LossGate(torch.nn.Module):
    """Keep the samples whose loss is below a limit; the base of all gates.

    The limit is a buffer, so that a run that resumes in the middle of an epoch
    continues with the same limit.

    Attributes
    ----------
    limit : torch.Tensor
        exp(tau), in nats, float32; infinity keeps every finite loss.
    """

    #: What to change if the gate keeps too little, for a warning.
    remedy = "start it in a later epoch (`gate_epoch`)"

    def __init__(self):
        super().__init__()
        self.register_buffer("limit", torch.tensor(math.inf))
        self._epoch = None
        self._warned = False

    @property
    def threshold(self):
        """Return tau, in log nats; infinity if everything is kept."""
        limit = float(self.limit)
        return math.log(limit) if limit > 0 else -math.inf

    def prepare_epoch(self, epoch, previous=None):
        """Set the threshold of an epoch; call it in all processes.

        When a run resumes in the middle of an epoch, it may be called again,
        with the same result.

        Arguments
        ---------
        epoch : int
            The epoch that begins, counted from 1.
        previous : array_like, optional
            Losses of the previous epoch, ``[N]``, NaN for unseen utterances;
            the same in all processes.

        Returns
        -------
        GateFit or None
            The fit of a dynamic gate; None if nothing was fitted.
        """
        self._epoch, self._warned = epoch, False
        fit = self._set_limit(epoch, previous)
        if distributed.is_distributed():
            # Different machines may disagree in the last digit of a fit.
            dist.broadcast(self.limit, src=0)
        return fit

    def _set_limit(self, epoch, previous):
        """Set ``limit``; return a fit or None."""
        raise NotImplementedError

    @torch.no_grad()
    def mask(self, losses):
        """Return which losses are kept, without logging anything.

        Arguments
        ---------
        losses : torch.Tensor
            ``[n]``, in nats.

        Returns
        -------
        torch.Tensor
            bool ``[n]``; a loss that is NaN or infinite is not kept.
        """
        return losses.detach().float() < self.limit.to(losses.device)

    def forward(self, losses):
        """Return ``mask``; warn once per epoch if a batch keeps nothing."""
        keep = self.mask(losses)
        if not self._warned and not bool(keep.any()):
            self._warned = True
            logger.warning(
                "epoch %s: the gate keeps none of a batch of %d (log loss "
                "below %.3f); its loss is 0. Further such batches of this "
                "epoch are not reported",
                self._epoch,
                len(losses),
                self.threshold,
            )
        return keep

    def report(self, losses, correct=None, known=None, mask=None):
        """Compute metrics of the gate over an epoch from all of its losses.

        Call it before the next ``prepare_epoch``. It warns if a gate with a
        finite limit keeps everything, or less than ``FEW`` of the utterances.

        Arguments
        ---------
        losses : array_like
            Losses that the epoch's masks were computed from, ``[N]``, NaN for
            unseen utterances: the result of ``LossStore.finish_epoch``.
        correct : array_like, optional
            bool ``[N]``: whether an utterance's pseudo-label is right. For
            monitoring only; nothing else depends on it.
        known : array_like, optional
            bool ``[N]``: the utterances for which ``correct`` is known; all by
            default. Precision and recall are computed over these only.
        mask : array_like, optional
            bool ``[N]``: what was kept, if not this gate alone has decided it.

        Returns
        -------
        dict
            ``gate_threshold`` (log nats; absent if the gate keeps everything
            by design), ``gate_kept`` (share of the utterances seen), and if
            ``correct`` is given ``gate_precision`` (share of kept utterances
            whose label is right), ``gate_recall`` (share of right labels that
            are kept), ``gate_noise_precision`` (share of dropped utterances
            whose label is wrong) and ``gate_noise_recall`` (share of wrong
            labels that are dropped). A ratio with a zero denominator is
            omitted.

        Raises
        ------
        ValueError
            If ``correct`` does not have the losses' shape.

        Example
        -------
        >>> gate = FixedLossGate(3.0)
        >>> gate.prepare_epoch(1)
        >>> found = gate.report([1.0, 2.0, 9.0, 9.0], [True, False, False, 1])
        >>> found["gate_kept"], found["gate_precision"], found["gate_recall"]
        (0.5, 0.5, 0.5)
        """
        losses = torch.as_tensor(losses).detach().float().cpu()
        seen = ~losses.isnan()
        mask = self.mask(losses) if mask is None else mask.cpu()
        keep = mask[seen]
        scalars = {}
        if math.isfinite(self.threshold):
            scalars["gate_threshold"] = self.threshold
            self._warn_of_extremes(keep)
        _put_share(scalars, "gate_kept", keep)
        if correct is not None:
            right = torch.as_tensor(correct).cpu().bool()
            if right.shape != losses.shape:
                raise ValueError(
                    f"labels of shape {tuple(right.shape)} for losses of "
                    f"shape {tuple(losses.shape)}"
                )
            if known is not None:
                seen = seen & torch.as_tensor(known).cpu().bool()
            right, keep = right[seen], mask[seen]
            _put_share(scalars, "gate_precision", right[keep])
            _put_share(scalars, "gate_recall", keep[right])
            _put_share(scalars, "gate_noise_precision", ~right[~keep])
            _put_share(scalars, "gate_noise_recall", ~keep[~right])
        return scalars

    def _warn_of_extremes(self, keep):
        """Warn if a gate with a threshold has kept all or few utterances."""
        share = float(keep.float().mean()) if len(keep) else 1.0
        if len(keep) and (keep.all() or share < FEW):
            logger.warning(
                "epoch %s: the gate has kept %s of %d utterances (log loss "
                "below %.3f)%s",
                self._epoch,
                "all" if keep.all() else f"{100 * share:.0f} %",
                len(keep),
                self.threshold,
                "" if keep.all() else f"; {self.remedy}",
            )


def _put_share(scalars, name, flags):
    """Add the share of true flags, unless there are no flags."""
    if len(flags):
        scalars[name] = float(flags.float().mean())


class NoGate(LossGate):
    """Keep everything: the baseline without a gate.

    Example
    -------
    >>> gate = NoGate()
    >>> gate.prepare_epoch(1)
    >>> gate(torch.tensor([0.1, 100.0])).tolist()
    [True, True]
    """

    def _set_limit(self, epoch, previous):
        self.limit.fill_(math.inf)


class FixedLossGate(LossGate):
    """Gate by a fixed threshold on the loss: Loss-Gated Learning.

    Arguments
    ---------
    threshold : float or list of float
        Threshold in nats, on the loss and not on its logarithm: one for all
        rounds, or one per round (the last one then holds for all later rounds).
        LGL's code has 1, 3, 3, 5 and 6 for about 6 000 clusters, scale 30 and
        margin 0.2 (https://github.com/TaoRuijie/Loss-Gated-Learning); the
        paper's text has other values.
    start_epoch : int
        First epoch with the gate, counted from 1. LGL trains without the gate
        until the error on labelled trials has not fallen for 4 epochs; a fixed
        epoch needs no labels.
    round : int
        Number of the round, from 1.

    Raises
    ------
    ConfigError
        If a threshold is not above 0, or the epoch or the round below 1.

    Example
    -------
    >>> gate = FixedLossGate(3.0, start_epoch=2)
    >>> gate.prepare_epoch(1)
    >>> gate(torch.tensor([0.1, 100.0])).tolist()
    [True, True]
    >>> gate.prepare_epoch(2)
    >>> gate(torch.tensor([0.1, 100.0])).tolist()
    [True, False]
    """

    remedy = LossGate.remedy + ", or raise its threshold (`thresholds`)"

    def __init__(self, threshold, start_epoch=1, round=1):
        super().__init__()
        thresholds = np.atleast_1d(threshold).tolist()
        check_int("the fixed loss gate", "round", round, least=1)
        if not thresholds:
            raise ConfigError(
                "the fixed loss gate's threshold is an empty list; give one "
                "number, or one for each round"
            )
        for value in thresholds:
            check_number(
                "the fixed loss gate",
                "threshold",
                value,
                above=0,
                remedy="it is compared with the loss, in nats",
            )
        check_int("the fixed loss gate", "start_epoch", start_epoch, least=1)
        self.fixed = float(thresholds[min(round, len(thresholds)) - 1])
        self.start_epoch = start_epoch

    def _set_limit(self, epoch, previous):
        active = epoch >= self.start_epoch
        self.limit.fill_(self.fixed if active else math.inf)


class DynamicLossGate(LossGate):
    """Gate by a threshold fitted before each epoch: the dynamic loss gate.

    If a fit has no threshold, the previous threshold stays in force; if there
    is none yet, everything is kept. That is our decision: dropping the gate for
    one epoch in the middle would admit all wrong labels at once.

    ``least_kept`` is ours, too. While the losses of right and wrong labels have
    not separated yet, they form a single mode with a long tail to the left. Two
    Gaussians then share that mode, and cross where only a fifth is below.
    Neither the distance of the components, nor the number of modes, nor a
    comparison with a single skewed density tells this case apart in our
    recorded losses (``results/known_noise``): at 40 % wrong labels they say the
    same when the gate errs as when it is worth five points of EER. Therefore
    the gate does not ask why it would keep so little, but keeps at least this
    share, those with the lowest losses.

    Arguments
    ---------
    start_epoch : int
        First epoch with the gate, counted from 1; at least 2, since the gate
        reads the losses of the previous epoch. If it is too early, the losses
        of right and wrong labels have not separated yet.
    least_kept : float
        Smallest share of the previous epoch's losses that the threshold may be
        above, from 0 to below 1. 0 is the re-implementation's.

    Raises
    ------
    ConfigError
        If ``start_epoch`` is below 2, or ``least_kept`` out of its range.

    Example
    -------
    >>> gate = DynamicLossGate(start_epoch=2)
    >>> gate.prepare_epoch(1)
    >>> draws = np.random.default_rng(0)
    >>> losses = np.exp(draws.normal([[-3.0], [2.0]], 1.0, (2, 500)))
    >>> round(gate.prepare_epoch(2, losses.ravel()).threshold, 1)
    -0.4
    >>> gate(torch.tensor([0.1, 2.0])).tolist()
    [True, False]
    """

    remedy = LossGate.remedy + ", or raise `least_kept`"

    def __init__(self, start_epoch, least_kept=FEW):
        super().__init__()
        check_int(
            "the dynamic loss gate",
            "start_epoch",
            start_epoch,
            least=2,
            remedy="it reads the losses of the epoch before",
        )
        check_number(
            "the dynamic loss gate",
            "least_kept",
            least_kept,
            least=0,
            below=1,
            remedy="it is a share of the utterances",
        )
        self.start_epoch = start_epoch
        self.least_kept = least_kept

    def _set_limit(self, epoch, previous):
        if epoch < self.start_epoch:
            self.limit.fill_(math.inf)
            return None
        previous = [] if previous is None else previous
        fit = fit_threshold(previous)
        if fit.fallback is None:
            self.limit.fill_(math.exp(fit.threshold))
            self._keep_at_least(usable_losses(previous))
        else:
            logger.warning(
                "epoch %d: the loss gate has no new threshold, because %s; %s",
                epoch,
                fit.fallback,
                f"the last one stays in force, {self.threshold:.3f}"
                if math.isfinite(self.threshold)
                else "everything is kept",
            )
        return fit

    def _keep_at_least(self, losses):
        """Raise the limit until it is above a share of sorted losses."""
        limit = float(self.limit)
        below = np.searchsorted(losses, limit)
        wanted = int(self.least_kept * len(losses))
        if below >= wanted:
            return
        # The next loss is the first one that is dropped.
        self.limit.fill_(losses[wanted])
        logger.warning(
            "epoch %d: the two components of the losses cross at %.3f, where "
            "only %.0f %% of the utterances are below; the gate keeps %.0f %% "
            "(`least_kept`), with a threshold of %.3f. Right and wrong labels "
            "may not have separated yet: look at the histograms, and %s",
            self._epoch,
            math.log(limit),
            100 * below / len(losses),
            100 * self.least_kept,
            self.threshold,
            self.remedy,
        )


def masked_loss(losses, keep, reduction="mean", size=None):
    """Reduce the losses that are kept to a scalar.

    If none are kept, the scalar and its gradient are 0.

    Arguments
    ---------
    losses : torch.Tensor
        ``[n]``.
    keep : torch.Tensor
        bool ``[n]``.
    reduction : str
        ``"sum"`` is the plain sum of the equation. ``"mean"`` divides it by n,
        the size of the *whole* batch: a batch that keeps few samples has little
        weight, and the average over processes is the mean over the global
        batch. ``"kept"`` divides by the number kept, so that every batch has
        equal weight; over several processes it is a mean of such means.
    size : int, optional
        The size of the whole batch, if ``losses`` cover only a part of it.

    Returns
    -------
    torch.Tensor
        A scalar, with gradient.

    Raises
    ------
    ConfigError
        If the reduction is unknown.

    Example
    -------
    >>> losses, keep = torch.tensor([1.0, 5.0]), torch.tensor([True, False])
    >>> [float(masked_loss(losses, keep, name)) for name in REDUCTIONS]
    [0.5, 1.0, 1.0]
    """
    check_choice("the masked loss", "reduction", reduction, REDUCTIONS)
    # Select instead of multiplying by the mask: 0 times infinity is NaN.
    total = torch.where(keep, losses, torch.zeros_like(losses)).sum()
    if reduction == "mean":
        return total / max(len(losses) if size is None else size, 1)
    if reduction == "kept":
        return total / keep.sum().clamp(min=1)
    return total
