"""Calibrate scores to log-likelihood ratios, and compute their costs.

A calibrated score is a log-likelihood ratio in nats: it measures by itself how
strongly a trial supports a single speaker, and the threshold of any operating
point follows from its costs and prior alone (``bayes_threshold``).

Calibration is learnt from labelled trials. Learn it on other speakers than
those it is used on; results on the trials it was learnt from are too good.
"""

import numpy as np

from speechbrain_ssl.errors import TrialError
from speechbrain_ssl.verification.metrics import operating_costs
from speechbrain_ssl.verification.scored_trials import ScoredTrials

# Weight of the squared slope against one trial's loss: scikit-learn's default.
# Where the classes do not overlap, nothing else bounds the slope.
_PENALTY = 1.0


def bayes_threshold(p_target=0.01, c_miss=1.0, c_fa=1.0):
    """Compute the ratio above which accepting costs less than rejecting.

    Arguments
    ---------
    p_target, c_miss, c_fa : float
        The operating point, as in ``operating_costs``.

    Returns
    -------
    float
        ``ln(c_fa * (1 - p_target)) - ln(c_miss * p_target)``.

    Raises
    ------
    ConfigError
        As ``operating_costs``.

    Example
    -------
    >>> bayes_threshold(0.5), round(bayes_threshold(0.01), 3)
    (0.0, 4.595)
    """
    reject_all, accept_all = operating_costs(p_target, c_miss, c_fa)
    return float(np.log(accept_all) - np.log(reject_all))


class Calibration:
    """Affine map of one or several scores to a log-likelihood ratio.

    Logistic regression, in which the targets together weigh ``p_target``
    (Brummer et al., *Fusion of heterogeneous speaker recognition systems*,
    2007, section IV). Several scores of a trial make it a fusion.

    Arguments
    ---------
    p_target : float
        Prior at which the fit is optimal. 0.5 is our default.

    Attributes
    ----------
    weights : numpy.ndarray
        ``[S]``, one for each score.
    offset : float
        Added to the weighted sum.

    Raises
    ------
    ConfigError
        If ``p_target`` is not between 0 and 1.

    Example
    -------
    >>> rng = np.random.default_rng(0)
    >>> labels = np.arange(4000) % 2 == 0
    >>> llr = rng.normal(size=4000) * 2 + np.where(labels, 2, -2)
    >>> calibration = Calibration().fit(llr / 10 + 3, labels)
    >>> bool(9 < calibration.weights[0] < 11)
    True
    """

    def __init__(self, p_target=0.5):
        # Raise unless it is a prior.
        bayes_threshold(p_target)
        self.p_target = p_target

    def fit(self, scores, labels):
        """Learn the map by logistic regression.

        Arguments
        ---------
        scores : array_like
            ``[T]``, or ``[S, T]`` for the scores of several systems.
        labels : array_like
            ``[T]``; true for targets.

        Returns
        -------
        Calibration
            The calibration itself.

        Raises
        ------
        TrialError
            If a score is not finite, a class is missing, or the shapes do not
            fit.
        """
        scores = _as_systems(scores)
        for system in scores:
            labels = ScoredTrials(system, labels).labels
        _check_finite(scores)
        prior = self.p_target
        share = labels.mean()
        mean, scale = scores.mean(axis=1), scores.std(axis=1)
        # Constant scores carry no information: slope 0, no division by 0.
        scale[scale == 0] = 1
        # Only where one is fitted, since the import takes a second.
        from sklearn.linear_model import LogisticRegression

        model = LogisticRegression(C=1 / _PENALTY, tol=1e-8, max_iter=1000)
        model.fit(
            ((scores - mean[:, None]) / scale[:, None]).T,
            labels,
            np.where(labels, prior / share, (1 - prior) / (1 - share)),
        )
        self.weights = model.coef_[0] / scale
        # The regression gives posterior odds at the prior of the fit.
        self.offset = float(
            model.intercept_[0]
            - self.weights @ mean
            + bayes_threshold(self.p_target)
        )
        return self

    def __call__(self, scores):
        """Map scores to log-likelihood ratios.

        Arguments
        ---------
        scores : array_like
            ``[T]`` or ``[S, T]``, as in ``fit``.

        Returns
        -------
        numpy.ndarray
            float64 ``[T]``, in nats.

        Raises
        ------
        TrialError
            If there are not as many systems as in ``fit``.
        """
        scores = _as_systems(scores)
        if len(scores) != len(self.weights):
            raise TrialError(
                f"{len(scores)} scores a trial, but the calibration was "
                f"learnt for {len(self.weights)}"
            )
        return self.weights @ scores + self.offset

    def threshold(self, p_target=0.01, c_miss=1.0, c_fa=1.0):
        """Find the raw score above which a trial is accepted at least cost.

        Arguments
        ---------
        p_target, c_miss, c_fa : float
            The operating point, as in ``bayes_threshold``.

        Returns
        -------
        float
            In the unit of the raw scores.

        Raises
        ------
        ConfigError
            As ``bayes_threshold``.
        TrialError
            If there are several scores a trial, or the weight is not
            positive: then there is no such score.
        """
        if len(self.weights) != 1 or not self.weights[0] > 0:
            raise TrialError(
                "only one score that rises with the log-likelihood ratio has a "
                f"threshold; the weights are {self.weights.tolist()}"
            )
        point = bayes_threshold(p_target, c_miss, c_fa)
        return float((point - self.offset) / self.weights[0])


def _as_systems(scores):
    """Convert scores to float64 ``[S, T]``."""
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim not in (1, 2):
        raise TrialError(
            "scores are [trials] or [systems, trials]; got shape "
            f"{scores.shape}"
        )
    return scores[None] if scores.ndim == 1 else scores


def _check_finite(scores):
    if np.isinf(scores).any():
        raise TrialError(
            "a calibration cannot be learnt from infinite scores; "
            f"{int(np.isinf(scores).sum())} of {scores.size} are"
        )


def cllr(scores, labels=None):
    """Compute the cost of log-likelihood ratios over all operating points.

        Cllr = (mean over targets of log2(1 + exp(-score))
                + mean over non-targets of log2(1 + exp(score))) / 2

    (Brummer and du Preez, *Application-independent evaluation of speaker
    detection*, 2006, equation 13). 0 is perfect; 1 is the cost of a score of 0
    for every trial; a bad calibration costs more than that.

    Arguments
    ---------
    scores : ScoredTrials or array_like
        ``[T]``, log-likelihood ratios in nats.
    labels : array_like, optional
        ``[T]``; true for targets. Not needed with ``ScoredTrials``.

    Returns
    -------
    float
        In bits.

    Raises
    ------
    TrialError
        As ``ScoredTrials``.

    Example
    -------
    >>> cllr([0.0, 0.0], [1, 0])
    1.0
    """
    scored = ScoredTrials.of(scores, labels)
    ratios = scored.scores.astype(np.float64)
    targets = np.logaddexp(0, -ratios[scored.labels]).mean()
    others = np.logaddexp(0, ratios[~scored.labels]).mean()
    return float((targets + others) / (2 * np.log(2)))


def pav(scores, labels=None):
    """Find the best log-likelihood ratios that keep the order of the scores.

    Pool adjacent violators: the non-decreasing posterior nearest to the labels
    (equal scores get equal ones), less the prior log-odds of the list.

    Arguments
    ---------
    scores : ScoredTrials or array_like
        ``[T]``.
    labels : array_like, optional
        ``[T]``; true for targets. Not needed with ``ScoredTrials``.

    Returns
    -------
    numpy.ndarray
        float64 ``[T]``; infinite for scores that are above (or below) all
        those of the other class.

    Raises
    ------
    TrialError
        As ``ScoredTrials``.

    Example
    -------
    >>> pav([0.1, 0.2, 0.3, 0.4], [0, 1, 0, 1]).tolist()
    [-inf, 0.0, 0.0, inf]
    """
    scored = ScoredTrials.of(scores, labels)
    counts = np.diff(scored.ends, prepend=-1)
    targets = np.diff(scored.targets_up_to, prepend=0)
    from sklearn.isotonic import isotonic_regression

    posterior = isotonic_regression(targets / counts, sample_weight=counts)
    posterior = np.clip(posterior, 0, 1)
    with np.errstate(divide="ignore"):
        ratio = np.log(posterior) - np.log1p(-posterior)
    prior = np.log(scored.labels.sum()) - np.log((~scored.labels).sum())
    found = np.empty(len(scored.scores))
    found[scored.order] = np.repeat(ratio - prior, counts)
    return found


def min_cllr(scores, labels=None):
    """Compute Cllr after the best calibration that keeps the scores' order.

    Arguments
    ---------
    scores : ScoredTrials or array_like
        ``[T]``, in any unit.
    labels : array_like, optional
        ``[T]``; true for targets. Not needed with ``ScoredTrials``.

    Returns
    -------
    float
        In bits, in ``[0, 1]``. ``cllr`` less this is the loss due to
        calibration.

    Raises
    ------
    TrialError
        As ``ScoredTrials``.

    Example
    -------
    >>> min_cllr([0.1, 0.2, 0.3, 0.4], [0, 1, 0, 1])
    0.5
    """
    scored = ScoredTrials.of(scores, labels)
    return cllr(pav(scored), scored.labels)


def act_dcf(scores, labels=None, p_target=0.01, c_miss=1.0, c_fa=1.0):
    """Compute the detection cost at the operating point's own threshold.

    Arguments
    ---------
    scores : ScoredTrials or array_like
        ``[T]``, log-likelihood ratios in nats.
    labels : array_like, optional
        ``[T]``; true for targets. Not needed with ``ScoredTrials``.
    p_target, c_miss, c_fa : float
        The operating point, as in ``operating_costs``.

    Returns
    -------
    float
        Normalised as ``min_dcf``, never below it, and above 1 where rejecting
        or accepting every trial would cost less.

    Raises
    ------
    TrialError
        As ``ScoredTrials``.
    ConfigError
        As ``bayes_threshold``.

    Example
    -------
    >>> act_dcf([-3.0, 1.0, -1.0, 3.0], [0, 0, 1, 1], p_target=0.5)
    1.0
    """
    threshold = bayes_threshold(p_target, c_miss, c_fa)
    reject_all, accept_all = operating_costs(p_target, c_miss, c_fa)
    scored = ScoredTrials.of(scores, labels)
    accepted = scored.scores >= threshold
    misses = reject_all * (~accepted[scored.labels]).mean()
    alarms = accept_all * accepted[~scored.labels].mean()
    return float((misses + alarms) / min(reject_all, accept_all))
