"""Loss gates: which pseudo labels to trust, by the loss they cause.

A network learns right labels before wrong ones; while it trains, the losses of
the two part. With the loss l_i of sample i and a threshold tau,

    L_gate = sum over i of  1[l_i < tau] l_i

Loss-Gated Learning (Tao et al., 2022) fixes tau beforehand. The dynamic loss
gate (Han, Chen and Qian, 2022, arXiv 2208.01928; 2023, arXiv 2304.05754) fits
a mixture of two Gaussians to the log losses of the epoch before, and takes for
tau the point between their means where the weighted densities are equal.

With weights w, means mu_1 < mu_2 and variances v, and x = mu_1 + t (mu_2 -
mu_1), the log ratio of the two densities is

    f(t) = A t^2 + B t + C,    d = mu_2 - mu_1,
    A = d^2 / (2 v_2) - d^2 / (2 v_1),    B = - d^2 / v_2,
    C = d^2 / (2 v_2) + log(w_1 / w_2) + log(v_2 / v_1) / 2

f falls all the way from t = 0 to t = 1, so there is one crossing between the
means if f(0) > 0 > f(1), and else none. Where there is one,

    t = 2 C / (- B + sqrt(B^2 - 4 A C))

which holds for equal variances (A = 0) too.

A gate is asked before an epoch for its threshold and then, batch by batch, for
a mask *with the current losses*: only the threshold is of the epoch before.
"""

import dataclasses
import logging
import math

import numpy as np
import torch
import torch.distributed as dist
from sklearn.mixture import GaussianMixture

from speechbrain_ssl import distributed
from speechbrain_ssl.errors import ConfigError

logger = logging.getLogger(__name__)

# Loss-Gated Learning's gates on the loss, one for each round, as its code has
# them (https://github.com/TaoRuijie/Loss-Gated-Learning).
LGL_THRESHOLDS = (1.0, 3.0, 3.0, 5.0, 6.0)

REDUCTIONS = ("mean", "sum", "kept")


# -- losses of an epoch --------------------------------------------------------


class LossStore(torch.nn.Module):
    """The loss of each utterance in this epoch and in the one before.

    Both are buffers, so that a checkpoint takes them along; NaN stands for an
    utterance not seen (``torch.equal`` is false of two such buffers).

    Arguments
    ---------
    size : int
        Number N of utterances in the manifest.

    Raises
    ------
    ConfigError
        If the size is below 1.

    Example
    -------
    >>> store = LossStore(3)
    >>> store.record(torch.tensor([2, 0]), torch.tensor([0.5, 4.0]))
    >>> store.finish_epoch().tolist()
    [4.0, nan, 0.5]
    >>> store.losses.tolist()
    [nan, nan, nan]
    """

    def __init__(self, size):
        super().__init__()
        if size < 1:
            raise ConfigError(
                f"a loss store of {size} utterances holds nothing"
            )
        for name in ("losses", "previous"):
            self.register_buffer(
                name, torch.full((size,), math.nan, dtype=torch.float32)
            )

    @torch.no_grad()
    def record(self, indices, losses):
        """Keeps losses of a batch; a repeated utterance has its last one.

        Arguments
        ---------
        indices : torch.Tensor
            int64 ``[n]``, positions in the manifest, from 0 to N - 1.
        losses : torch.Tensor
            ``[n]``, in nats.
        """
        device = self.losses.device
        self.losses[indices.to(device)] = losses.detach().float().to(device)

    @torch.no_grad()
    def synchronise(self):
        """Gives all processes the losses of all; call it on all of them.

        It may be called any number of times in an epoch. A checkpoint that
        only the first process writes is to be preceded by it. An utterance
        that several processes have seen gets the mean.
        """
        if not distributed.is_distributed():
            return
        seen = ~self.losses.isnan()
        sums = torch.stack([self.losses.nan_to_num(nan=0.0), seen.float()])
        dist.all_reduce(sums)
        # Nobody's is 0 / 0, which is NaN.
        self.losses.copy_(sums[0] / sums[1])

    @torch.no_grad()
    def finish_epoch(self):
        """Ends the epoch: what was recorded becomes ``previous``.

        Returns
        -------
        torch.Tensor
            float32 ``[N]``, the same in all processes.
        """
        self.synchronise()
        self.previous.copy_(self.losses)
        self.losses.fill_(math.nan)
        return self.previous


# -- threshold -----------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class GateFit:
    """Two Gaussians on log losses, and where they cross.

    Attributes
    ----------
    weights, means, variances : tuple of float
        Of the two components, the one of the lower mean first. All NaN where
        nothing could be fitted.
    threshold : float
        tau in log nats; infinity, which keeps everything, where ``fallback``
        says that there is none.
    points : int
        How many losses the mixture was fitted to.
    fallback : str or None
        Why there is no threshold.
    """

    weights: tuple
    means: tuple
    variances: tuple
    threshold: float
    points: int
    fallback: str | None = None

    def densities(self, x):
        """Weighted densities of both components, for a histogram.

        Arguments
        ---------
        x : array_like
            Log losses, ``[n]``.

        Returns
        -------
        numpy.ndarray
            float64 ``[2, n]``; the sum of both integrates to 1.

        Example
        -------
        >>> fit = GateFit((0.5, 0.5), (0.0, 1.0), (1.0, 1.0), 0.5, 100)
        >>> fit.densities([0.0, 0.5]).round(3).tolist()
        [[0.199, 0.176], [0.121, 0.176]]
        """
        x = np.asarray(x, dtype=np.float64)
        w, m, v = (
            np.array(values)[:, None]
            for values in (self.weights, self.means, self.variances)
        )
        return w * np.exp(-((x - m) ** 2) / (2 * v)) / np.sqrt(2 * np.pi * v)


def crossing(weights, means, variances):
    """The point between the means where the weighted densities are equal.

    Arguments
    ---------
    weights, means, variances : sequence of float
        Two of each; the first mean is the lower one.

    Returns
    -------
    float or None
        None if one component is the denser one at both means, or the means
        are equal.

    Example
    -------
    >>> crossing((0.5, 0.5), (0.0, 1.0), (1.0, 1.0))
    0.5
    >>> crossing((0.9, 0.1), (0.0, 1.0), (1.0, 1.0)) is None
    True
    """
    (w1, w2), (m1, m2), (v1, v2) = weights, means, variances
    if not (m1 < m2 and min(w1, w2, v1, v2) > 0):
        return None
    square = (m2 - m1) ** 2
    shift = math.log(w1 / w2) + math.log(v2 / v1) / 2
    at_first = square / (2 * v2) + shift
    at_second = -square / (2 * v1) + shift
    if not at_first > 0 > at_second:
        return None
    slope = -square / v2
    bend = square / (2 * v2) - square / (2 * v1)
    root = math.sqrt(slope**2 - 4 * bend * at_first)
    return m1 + (m2 - m1) * 2 * at_first / (root - slope)


def fit_threshold(
    losses, min_points=20, max_points=100_000, min_separation=0.0
):
    """Fits the mixture to the logarithms of losses, and finds tau.

    The mixture is scikit-learn's, with the settings of the one public
    re-implementation (``wavlm_ssl_sv``, Miara et al., 2024, arXiv 2406.02285).
    The values are sorted beforehand, so that the order of utterances does not
    count. Everything about fallbacks is this project's decision: tau is
    infinite, with the reason in ``fallback``, if

    * fewer than ``min_points`` losses are positive and finite (the others,
      NaN of unseen utterances among them, are left out always);
    * they are all equal, up to a millionth in the logarithm;
    * the mixture has not found two components, or does not cross between the
      means;
    * one Gaussian explains the losses as well, by the Bayesian information
      criterion: half of a bell is no reason to distrust the other half;
    * the components overlap more than ``min_separation`` allows.

    Arguments
    ---------
    losses : array_like
        ``[N]`` in nats; NaN for unseen.
    min_points : int
        Least number of losses to fit to.
    max_points : int
        With more losses, so many quantiles of them are fitted instead, evenly
        spaced: a million losses otherwise cost up to a minute an epoch.
    min_separation : float
        Least distance of the means, d sqrt(2 / (v_1 + v_2)) (Ashman et al.,
        1994, who call components above 2 well separated). A single skewed
        bulk of losses typically comes to 1 to 2. 0 leaves the criterion out.

    Returns
    -------
    GateFit
        Components and threshold.

    Example
    -------
    >>> draws = np.random.default_rng(0)
    >>> right, wrong = draws.normal(-3, 1, 600), draws.normal(2, 1, 400)
    >>> fit = fit_threshold(np.exp(np.concatenate([right, wrong])))
    >>> round(fit.threshold, 1), fit.fallback
    (-0.4, None)
    >>> fit_threshold([1.0, 2.0]).fallback
    'only 2 of 2 losses are positive and finite; 20 are needed'
    """
    if isinstance(losses, torch.Tensor):
        losses = losses.detach().cpu().numpy()
    losses = np.asarray(losses, dtype=np.float64).ravel()
    usable = np.sort(losses[np.isfinite(losses) & (losses > 0)])
    count = len(usable)
    if count < max(min_points, 2):
        return _no_threshold(
            f"only {count} of {len(losses)} losses are positive and finite; "
            f"{max(min_points, 2)} are needed",
            count,
        )
    values = np.log(usable)
    if count > max_points:
        ranks = (np.arange(max_points) + 0.5) * count / max_points
        values = values[ranks.astype(np.int64)]
    if values[-1] - values[0] < 1e-6:
        return _no_threshold("all losses are equal", len(values))
    mixture = GaussianMixture(
        n_components=2,
        covariance_type="full",
        tol=1e-5,
        max_iter=1000,
        random_state=0,
    ).fit(values[:, None])
    order = np.argsort(mixture.means_[:, 0])
    parts = tuple(
        tuple(part[order].tolist())
        for part in (
            mixture.weights_,
            mixture.means_[:, 0],
            mixture.covariances_[:, 0, 0],
        )
    )
    threshold = crossing(*parts)
    reason = None
    if threshold is None:
        reason = "the two components do not cross between their means"
    elif mixture.bic(values[:, None]) >= _bic_of_one(values):
        reason = "one Gaussian explains the losses as well as two"
    else:
        _, means, variances = parts
        apart = (means[1] - means[0]) * math.sqrt(2 / sum(variances))
        if apart < min_separation:
            reason = (
                f"the components are {apart:.2f} apart; "
                f"min_separation is {min_separation}"
            )
    return GateFit(
        *parts,
        threshold=math.inf if reason else threshold,
        points=len(values),
        fallback=reason,
    )


def _bic_of_one(values):
    """Bayesian information criterion of one Gaussian."""
    count = len(values)
    deviance = count * (math.log(2 * math.pi * values.var()) + 1)
    return deviance + 2 * math.log(count)


def _no_threshold(reason, points):
    """What stands for a mixture that was not fitted."""
    nothing = (math.nan, math.nan)
    return GateFit(nothing, nothing, nothing, math.inf, points, reason)


# -- gates ---------------------------------------------------------------------


class LossGate(torch.nn.Module):
    """Base of all gates: keeps the samples whose loss is below a limit.

    The limit is a buffer, so that a run that is taken up in the middle of an
    epoch goes on with the same one.

    Attributes
    ----------
    limit : torch.Tensor
        exp(tau), in nats, float32; infinity keeps every finite loss.
    """

    def __init__(self):
        super().__init__()
        self.register_buffer("limit", torch.tensor(math.inf))
        self._epoch = None
        self._warned = False

    @property
    def threshold(self):
        """tau, in log nats; infinity where everything is kept."""
        limit = float(self.limit)
        return math.log(limit) if limit > 0 else -math.inf

    def prepare_epoch(self, epoch, previous=None):
        """Sets the threshold of an epoch; call it in all processes.

        It may be called again in an epoch that is taken up, with the same
        result.

        Arguments
        ---------
        epoch : int
            The epoch that begins, counted from 1.
        previous : array_like, optional
            Losses of the epoch before, ``[N]``, NaN for unseen; the same in
            all processes.

        Returns
        -------
        GateFit or None
            What a dynamic gate has fitted, if it has.
        """
        self._epoch, self._warned = epoch, False
        fit = self._set_limit(epoch, previous)
        if distributed.is_distributed():
            # Two kinds of machine may differ in the last digit of a fit.
            dist.broadcast(self.limit, src=0)
        return fit

    def _set_limit(self, epoch, previous):
        """Sets ``limit``; returns a fit or None."""
        raise NotImplementedError

    @torch.no_grad()
    def mask(self, losses):
        """Which losses are kept, without any note of it.

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
        """As ``mask``; warns, once an epoch, where nothing is kept."""
        keep = self.mask(losses)
        if not self._warned and not bool(keep.any()):
            self._warned = True
            logger.warning(
                "epoch %s: the gate keeps none of a batch of %d (log loss "
                "below %.3f); its loss is 0. Further ones of this epoch are "
                "not reported",
                self._epoch,
                len(losses),
                self.threshold,
            )
        return keep

    def report(self, losses, correct=None, known=None):
        """What the gate has done in an epoch, from the losses of all of it.

        Call it before the next ``prepare_epoch``. It warns where a gate with a
        limit keeps nothing or everything.

        Arguments
        ---------
        losses : array_like
            Losses the epoch's masks were made of, ``[N]``, NaN for unseen:
            what ``LossStore.finish_epoch`` returns.
        correct : array_like, optional
            bool ``[N]``: whether an utterance's pseudo label is right. For
            monitoring only; it takes no part in anything.
        known : array_like, optional
            bool ``[N]``: of which utterances that is known; as a default, of
            all. The shares that need it are among these.

        Returns
        -------
        dict
            ``gate_threshold`` (log nats; absent where everything is kept by
            design), ``gate_kept`` (share of the utterances seen), and with
            labels ``gate_precision`` (share of the kept whose label is
            right), ``gate_recall`` (share of the right labels that are kept),
            ``gate_noise_precision`` (share of the dropped whose label is
            wrong) and ``gate_noise_recall`` (share of the wrong labels that
            are dropped). A share of nothing is absent.

        Raises
        ------
        ValueError
            If ``correct`` is not of the losses' shape.

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
        mask = self.mask(losses)
        keep = mask[seen]
        scalars = {}
        if math.isfinite(self.threshold):
            scalars["gate_threshold"] = self.threshold
            if len(keep) and (keep.all() or not keep.any()):
                logger.warning(
                    "epoch %s: the gate has kept %s of %d utterances (log loss "
                    "below %.3f)",
                    self._epoch,
                    "all" if keep.all() else "none",
                    len(keep),
                    self.threshold,
                )
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


def _put_share(scalars, name, flags):
    """Adds the share of true flags, unless there are no flags."""
    if len(flags):
        scalars[name] = float(flags.float().mean())


class NoGate(LossGate):
    """Keeps everything: the baseline without a gate.

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
    """A threshold on the loss given beforehand: Loss-Gated Learning.

    Arguments
    ---------
    threshold : float or list of float
        In nats, on the loss and not on its logarithm; one for all rounds, or
        one for each (the last holds for all further ones). ``LGL_THRESHOLDS``
        has the values of LGL's code, which are for about 6 000 clusters, scale
        30 and margin 0.2; the paper's text has others.
    start_epoch : int
        First epoch with the gate, counted from 1. LGL trains without it until
        the error on labelled trials has not fallen for 4 epochs; a fixed epoch
        needs no labels.
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

    def __init__(self, threshold, start_epoch=1, round=1):
        super().__init__()
        thresholds = np.atleast_1d(threshold).tolist()
        if round < 1:
            raise ConfigError(f"rounds are counted from 1; round is {round}")
        if not (thresholds and min(thresholds) > 0):
            raise ConfigError(
                "a fixed loss gate's threshold is on the loss, in nats, and "
                f"above 0; got {threshold}"
            )
        if start_epoch < 1:
            raise ConfigError(
                f"epochs are counted from 1; start_epoch is {start_epoch}"
            )
        self.fixed = float(thresholds[min(round, len(thresholds)) - 1])
        self.start_epoch = start_epoch

    def _set_limit(self, epoch, previous):
        active = epoch >= self.start_epoch
        self.limit.fill_(self.fixed if active else math.inf)


class DynamicLossGate(LossGate):
    """A threshold fitted before each epoch: the dynamic loss gate.

    Where a fit has no threshold, the last one stays in force; before there is
    any, everything is kept. That is our decision: to drop the gate for one
    epoch in the middle would let all wrong labels in at once.

    Arguments
    ---------
    start_epoch : int
        First epoch with the gate, counted from 1; at least 2, since it reads
        the epoch before. Too early, right and wrong labels have not parted.
    min_points, max_points, min_separation
        See ``fit_threshold``.

    Raises
    ------
    ConfigError
        If ``start_epoch`` is below 2.

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

    def __init__(
        self,
        start_epoch,
        min_points=20,
        max_points=100_000,
        min_separation=0.0,
    ):
        super().__init__()
        if start_epoch < 2:
            raise ConfigError(
                "the dynamic loss gate reads the losses of the epoch before: "
                f"start_epoch must be at least 2, got {start_epoch}"
            )
        self.start_epoch = start_epoch
        self.options = {
            "min_points": min_points,
            "max_points": max_points,
            "min_separation": min_separation,
        }

    def _set_limit(self, epoch, previous):
        if epoch < self.start_epoch:
            self.limit.fill_(math.inf)
            return None
        fit = fit_threshold(
            [] if previous is None else previous, **self.options
        )
        if fit.fallback is None:
            self.limit.fill_(math.exp(fit.threshold))
        else:
            logger.warning(
                "epoch %d: the loss gate has no new threshold, for %s; %s",
                epoch,
                fit.fallback,
                f"the last one stays, {self.threshold:.3f}"
                if math.isfinite(self.threshold)
                else "everything is kept",
            )
        return fit


# -- loss ----------------------------------------------------------------------


def masked_loss(losses, keep, reduction="mean", size=None):
    """The loss of what is kept; 0, with a gradient of 0, where nothing is.

    Arguments
    ---------
    losses : torch.Tensor
        ``[n]``.
    keep : torch.Tensor
        bool ``[n]``.
    reduction : str
        ``"sum"`` is the plain sum of the equation. ``"mean"`` divides it by n,
        the size of the *whole* batch: a batch that keeps little counts little,
        and the average over processes is the mean over the global batch.
        ``"kept"`` divides by the number kept, so that every batch counts
        alike; over several processes it is a mean of such means.
    size : int, optional
        The size of the batch, where ``losses`` are those of a part of it.

    Returns
    -------
    torch.Tensor
        A scalar, with gradient.

    Raises
    ------
    ConfigError
        If there is no such reduction.

    Example
    -------
    >>> losses, keep = torch.tensor([1.0, 5.0]), torch.tensor([True, False])
    >>> [float(masked_loss(losses, keep, name)) for name in REDUCTIONS]
    [0.5, 1.0, 1.0]
    """
    if reduction not in REDUCTIONS:
        raise ConfigError(
            f"reduction is one of {', '.join(REDUCTIONS)}; got {reduction!r}"
        )
    # Not a product: 0 times infinity is NaN.
    total = torch.where(keep, losses, torch.zeros_like(losses)).sum()
    if reduction == "mean":
        return total / max(len(losses) if size is None else size, 1)
    if reduction == "kept":
        return total / keep.sum().clamp(min=1)
    return total
