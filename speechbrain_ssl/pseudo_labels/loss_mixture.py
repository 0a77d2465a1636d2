"""Fit two Gaussians to log losses, and find where they cross.

The crossing is the dynamic loss gate's threshold tau (see ``loss_gate``).

With weights w, means mu_1 < mu_2 and variances v, and x = mu_1 + t (mu_2 -
mu_1), the log ratio of the two densities is

    f(t) = A t^2 + B t + C,    d = mu_2 - mu_1,
    A = d^2 / (2 v_2) - d^2 / (2 v_1),    B = - d^2 / v_2,
    C = d^2 / (2 v_2) + log(w_1 / w_2) + log(v_2 / v_1) / 2

f decreases from t = 0 to t = 1, so there is exactly one crossing between the
means if f(0) > 0 > f(1), and otherwise none. If there is one, it is at

    t = 2 C / (- B + sqrt(B^2 - 4 A C))

which also holds for equal variances (A = 0).
"""

import dataclasses
import math

import numpy as np
import torch
from sklearn.mixture import GaussianMixture

#: Smallest number of losses that the mixture is fitted to.
MIN_POINTS = 20

#: If there are more losses, the mixture is fitted to this many quantiles.
MAX_POINTS = 100_000


@dataclasses.dataclass(frozen=True)
class GateFit:
    """Hold two Gaussians fitted to log losses, and where they cross.

    Attributes
    ----------
    weights, means, variances : tuple of float
        Those of the two components, the one with the lower mean first. All are
        NaN if nothing could be fitted.
    threshold : float
        tau, in log nats. If there is no threshold (see ``fallback``), it is
        infinity, which keeps everything.
    points : int
        Number of losses that the mixture was fitted to.
    fallback : str or None
        The reason why there is no threshold; None if there is one.
    """

    weights: tuple
    means: tuple
    variances: tuple
    threshold: float
    points: int
    fallback: str | None = None

    def densities(self, x):
        """Compute the weighted densities of both components, for a plot.

        Arguments
        ---------
        x : array_like
            Log losses, ``[n]``.

        Returns
        -------
        numpy.ndarray
            float64 ``[2, n]``; the sum of the two integrates to 1.

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
    """Find the point between the means where weighted densities are equal.

    Arguments
    ---------
    weights, means, variances : sequence of float
        Two of each; the first mean is the lower one.

    Returns
    -------
    float or None
        The point, or None if one component is the denser one at both means or
        the means are equal.

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


def fit_threshold(losses):
    """Fit the mixture to the logarithms of losses, and find tau.

    The mixture is scikit-learn's, with the settings of the one public
    re-implementation (``wavlm_ssl_sv``, Miara et al., 2024, arXiv 2406.02285).
    The values are sorted beforehand, so that the order of utterances does not
    matter. More than ``MAX_POINTS`` losses are replaced by that many evenly
    spaced quantiles, since fitting a million losses takes up to a minute per
    epoch. The fallbacks are this project's decision: tau is infinite, with the
    reason in ``fallback``, if

    * fewer than ``MIN_POINTS`` losses are positive and finite (all others,
      including the NaN of unseen utterances, are always ignored);
    * all losses are equal, up to a millionth in the logarithm;
    * the two components coincide, or do not cross between their means;
    * one Gaussian explains the losses as well by the Bayesian information
      criterion: one half of a single bell is no less trustworthy than the
      other.

    Arguments
    ---------
    losses : array_like
        ``[N]`` in nats; NaN for unseen utterances.

    Returns
    -------
    GateFit
        The components and the threshold.

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
    usable = usable_losses(losses)
    count = len(usable)
    if count < MIN_POINTS:
        return _no_threshold(
            f"only {count} of {len(losses)} losses are positive and finite; "
            f"{MIN_POINTS} are needed",
            count,
        )
    values = np.log(usable)
    if count > MAX_POINTS:
        ranks = (np.arange(MAX_POINTS) + 0.5) * count / MAX_POINTS
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
    weights, means, variances = (
        tuple(part[order].tolist())
        for part in (
            mixture.weights_,
            mixture.means_[:, 0],
            mixture.covariances_[:, 0, 0],
        )
    )
    threshold = crossing(weights, means, variances)
    reason = None
    if threshold is None:
        reason = "the two components do not cross between their means"
    elif mixture.bic(values[:, None]) >= _bic_of_one(values):
        reason = "one Gaussian explains the losses as well as two"
    return GateFit(
        weights,
        means,
        variances,
        threshold=math.inf if reason else threshold,
        points=len(values),
        fallback=reason,
    )


def usable_losses(losses):
    """Return the losses that have a logarithm, sorted.

    Arguments
    ---------
    losses : array_like
        ``[N]`` in nats; NaN for unseen utterances.

    Returns
    -------
    numpy.ndarray
        float64 ``[n]``, positive and finite, in ascending order.

    Example
    -------
    >>> usable_losses([3.0, float("nan"), 0.0, 1.0]).tolist()
    [1.0, 3.0]
    """
    if isinstance(losses, torch.Tensor):
        losses = losses.detach().cpu().numpy()
    losses = np.asarray(losses, dtype=np.float64).ravel()
    return np.sort(losses[np.isfinite(losses) & (losses > 0)])


def _bic_of_one(values):
    """Compute the Bayesian information criterion of one Gaussian."""
    count = len(values)
    deviance = count * (math.log(2 * math.pi * values.var()) + 1)
    return deviance + 2 * math.log(count)


def _no_threshold(reason, points):
    """Return a fit without components, which keeps everything."""
    nothing = (math.nan, math.nan)
    return GateFit(nothing, nothing, nothing, math.inf, points, reason)
