"""Decide without labels whether SSPS may start, and with how many clusters.

``advise`` compares numbers of clusters K and of neighbours M. Training calls
``judge``: it decides by the configured K and M and reports on other values in
the log only, or it adopts the values that the rule prefers (``choose_clusters``
of SSPS).

The pseudo-positives of a weak encoder belong to other speakers, and training on
them makes it weaker still. Without labels one cannot see whether they are
right, but one can see whether *two independent crops of each utterance lead to
the same pseudo-positives*. Let the reference embeddings of crop A and of crop B
be clustered separately. With pseudo-positives drawn by the clusters of A,

    overlap = P(the clusters of B allow the pseudo-positive drawn by A)
    chance  = P(the clusters of B allow an utterance drawn at random)
    lift    = overlap / chance

Assume S speakers with equally many utterances, pseudo-positives that are right
with probability p in either view, and errors that are independent between the
views. A pseudo-positive is then confirmed either because its speaker is right,
or by accident:

    lift = S p^2 + (1 - p)^2 S / (S - 1)
    p    = (1 + sqrt((S - 1) (lift - 1))) / S

whatever the size of the clusters. This p is called ``expected``. S is a guess;
if it is wrong by a factor of two, p is wrong by a factor of 1.4. If speakers
have unequal numbers of utterances, S is the effective number of speakers:
1 / P(two utterances are of one speaker).

Measured on 3947 utterances of speechocean762 and LibriSpeech (421 speakers,
effectively 200), with five encoders on clean and on degraded audio (nine
cases), K from 100 to 1600, M from 0 to 2: lift and accuracy (by labels) have a
rank correlation of 0.92 over all cases, 0.99 within a case, and 0.87 between
cases for a given K and M. Other criteria correlate less over all cases: the
mean cosine of pseudo-positives in the other view, relative to that of two crops
of one utterance, 0.67; the EER of two crops of one utterance, -0.19.

Limits of the rule:

* Errors of the two views are not independent, since both crops of an utterance
  share the recording. On clean audio, from 0.2 on, ``expected`` was 0.84 to
  0.97 of the accuracy (medians). Where each utterance had been degraded in its
  own way, it was two to three times the accuracy (up to 0.34, against 0.17 at
  most), so there it is an upper bound. In results/ssps_conditions, with
  encoders of 13 to 14 % EER and a condition for each utterance, over three
  encoders, K from 400 to 2500 and M 0 and 1, the rank correlation was 0.97.
  Given the effective number of speakers (187), ``expected`` was 1.4 times the
  accuracy; given the actual number (414), it differed from the accuracy by 0.03
  on average. So guess high.
* Whether right pseudo-positives improve training was not measured. ``least =
  0.5`` is a default of ours. In the first measurement, accuracy was 0.56 or
  more wherever ``expected`` reached 0.5 (eight candidates of two encoders). In
  results/ssps_conditions one candidate of 36 reached it, with an accuracy of
  0.45, and the one SimCLR-SSPS run that was left to the rule gained as much as
  with values chosen by labels.
* Nearest neighbours in place of clusters cannot be judged this way: on degraded
  audio two crops agreed on similar-sounding utterances, which were right in 9
  to 26 % of cases, while the same formula gave 44 to 72 %.
"""

import dataclasses
import math

import torch

from speechbrain_ssl.clustering.replicated import clusters_of_all
from speechbrain_ssl.clustering.rows import ClusteringError, unit_rows
from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.positives.neighbours import nearest_clusters

#: Candidates that reach this fraction of the best one count as equally good.
TIE = 0.9

#: SSPS may start if ``expected`` is at least this; see above.
LEAST = 0.5


@dataclasses.dataclass
class Advice:
    """Hold the advised K and M, and the reason for them.

    Attributes
    ----------
    clusters, neighbours : int
        K and M for SSPS.
    expected : float
        Estimated share of right pseudo-positives with this K and M.
    start : bool
        Whether SSPS may start.
    reason : str
        A sentence for the log.
    table : list of dict
        One row per candidate: ``clusters``, ``neighbours``, ``overlap``,
        ``chance``, ``lift``, ``expected``.
    """

    clusters: int
    neighbours: int
    expected: float
    start: bool
    reason: str
    table: list


@torch.no_grad()
def advise(
    references_a,
    references_b,
    speaker_count,
    clusters,
    neighbours=(0, 1),
    least=LEAST,
    iterations=10,
    merge_ratio=None,
    seed=0,
):
    """Decide whether SSPS may start, and with which K and M.

    This takes two k-means for each number of clusters. On a large training set,
    a part of the utterances suffices. Take whole folders rather than some
    utterances of each, so that speakers keep their number of utterances, and
    give the numbers of clusters and speakers of that part. In a distributed run
    all processes call this with the same references, and share the work.

    Among candidates within a tenth of the best, M >= 1 is preferred to M = 0 (a
    neighbour cluster tends to be another recording, which the paper found to
    matter), then fewer clusters, then the smaller M.

    Arguments
    ---------
    references_a, references_b : torch.Tensor or numpy.ndarray
        Embeddings ``[utterances, size]`` of two crops of each utterance. The
        crops do not overlap and are not augmented, such as those of
        ``HalvesDataset`` with one crop per half.
    speaker_count : int
        Estimated number of speakers.
    clusters : sequence of int
        Candidates for K.
    neighbours : sequence of int
        Candidates for M.
    least : float
        SSPS may start if ``expected`` is at least this.
    iterations : int
        Number of k-means iterations.
    merge_ratio : float, optional
        Number of small clusters that each cluster is merged from (SSPS's
        ``merge_from`` divided by ``clusters``).
    seed : int
        Seed of the initial centroids.

    Returns
    -------
    Advice
        The preferred candidate, whether SSPS may start, and the table.

    Raises
    ------
    ConfigError
        If the references are not of the same utterances, or no candidate can
        be tried.
    ClusteringError
        If a reference is zero or not finite.

    Example
    -------
    >>> voices = torch.nn.functional.one_hot(torch.arange(60) % 6).float()
    >>> views = [voices + 0.05 * torch.randn(60, 6) for _ in range(2)]
    >>> advice = advise(*views, speaker_count=6, clusters=[12])
    >>> advice.start, advice.clusters
    (True, 12)
    """
    views = [
        unit_rows(view, single_process=True)
        for view in (references_a, references_b)
    ]
    total = len(views[0])
    if views[0].shape != views[1].shape:
        raise ConfigError(
            f"references of shape {tuple(views[0].shape)} and "
            f"{tuple(views[1].shape)}: they must be of two crops of the same "
            "utterances, by the same encoder"
        )
    pairs = [
        (k, m)
        for k in sorted(set(clusters))
        for m in sorted(set(neighbours))
        if 0 <= m < k < total
    ]
    if not pairs or not speaker_count >= 1:
        raise ConfigError(
            f"clusters {list(clusters)} with neighbours {list(neighbours)} "
            f"cannot be tried on {total} utterances of {speaker_count} speakers: "
            "there must be fewer neighbours than clusters, and fewer clusters "
            "than utterances"
        )
    table, made = [], {}
    for k, m in pairs:
        if k not in made:
            made = {
                k: [
                    _clusters(view, k, iterations, merge_ratio, seed + turn)
                    for turn, view in enumerate(views)
                ]
            }
        table.append(_row(k, m, made[k], speaker_count))
    chosen = _preferred(table, least)
    start, reason = _verdict(chosen, speaker_count, least)
    return Advice(
        chosen["clusters"],
        chosen["neighbours"],
        chosen["expected"],
        start,
        reason,
        table,
    )


def fewest_utterances(neighbours):
    """Return how many utterances ``judge`` needs for M neighbours."""
    return max(3, neighbours + 2)


def judge(ssps, references_a, references_b, utterances, seed=0):
    """Decide whether SSPS may start with its configured K and M.

    The log also reports on K / 2, 2 K and fewer neighbours, and on the values
    that the rule prefers; with ``choose_clusters`` the rule adopts those. If
    the references cover only a part of the training set, the numbers of
    clusters and of speakers are scaled to that part, so that clusters keep
    their size.

    This takes two clusterings for each number of clusters, 3.5 times the cost
    of K alone. If clusters are merged, 2 K is not tried, since Ward's method
    would take four times the memory that the run itself takes.

    Arguments
    ---------
    ssps : speechbrain_ssl.positives.ssps.SSPS
        The sampling rule; it must have a ``speaker_count``.
    references_a, references_b : torch.Tensor
        As in ``advise``; the same in all processes.
    utterances : int
        Number of utterances in the whole training set.
    seed : int
        Seed of the initial centroids.

    Returns
    -------
    Advice
        The K and M to start with; all numbers of clusters are those of the
        whole training set. ``start`` is False if no clusters can be made, as
        with the equal rows of a collapsed encoder.

    Example
    -------
    >>> from speechbrain_ssl.positives.ssps import SSPS
    >>> voices = torch.nn.functional.one_hot(torch.arange(60) % 6).float()
    >>> views = [voices + 0.05 * torch.randn(60, 6) for _ in range(2)]
    >>> ssps = SSPS(12, queue=8, start_epoch=2, neighbours=0, speaker_count=6)
    >>> judge(ssps, *views, utterances=60).start
    True
    """
    total, most = len(references_a), ssps.neighbours

    def too_early(why):
        reason = f"too early for SSPS: {why}"
        return Advice(ssps.clusters, most, 0.0, False, reason, [])

    if total < fewest_utterances(most):
        return too_early(
            f"of {utterances} utterances only {total} have two halves that can "
            "be compared"
        )
    part = total / utterances
    configured, *others = ssps.candidates()
    configured = round(configured * part)
    # In a small part, keep at least as many clusters as drawing requires.
    configured = max(min(2, ssps.clusters), most + 1, configured)
    configured = min(configured, total - 1)
    # Number of clusters in this part -> number in the whole training set.
    names = {round(k * part): k for k in others} | {configured: ssps.clusters}
    try:
        advice = advise(
            references_a,
            references_b,
            max(2, round(ssps.speaker_count * part)),
            list(names),
            range(most + 1),
            iterations=ssps.iterations,
            merge_ratio=ssps.merge_from and ssps.merge_from / ssps.clusters,
            seed=seed,
        )
    except ClusteringError as error:
        return too_early(error)
    rows = [{**row, "clusters": names[row["clusters"]]} for row in advice.table]
    wanted = names[advice.clusters], advice.neighbours
    taken = wanted if ssps.choose_clusters else (ssps.clusters, most)
    [row] = (r for r in rows if (r["clusters"], r["neighbours"]) == taken)
    start, reason = _verdict(row, ssps.speaker_count, LEAST)
    tried = "; ".join(
        f"K = {row['clusters']}, M = {row['neighbours']}: "
        f"{100 * row['expected']:.1f} %"
        for row in rows
    )
    verb = "takes" if ssps.choose_clusters else "would take"
    reason += (
        f". Of the candidates ({tried}) the rule {verb} K = {wanted[0]} and "
        f"M = {wanted[1]}"
    )
    return Advice(*taken, row["expected"], start, reason, rows)


def _preferred(table, least):
    """Choose among the candidates that count as equally good (``TIE``)."""
    best = max(row["expected"] for row in table)
    # If the best candidate may start, so must the one that is chosen.
    equal = max(TIE * best, least) if best >= least else TIE * best
    return min(
        (row for row in table if row["expected"] >= equal),
        key=lambda row: (
            row["neighbours"] == 0,
            row["clusters"],
            row["neighbours"],
        ),
    )


def _verdict(row, speaker_count, least):
    """Return whether a row of the table permits a start, and a sentence why."""
    start = row["expected"] >= least
    reason = (
        f"{'SSPS may start' if start else 'too early for SSPS'}: with K = "
        f"{row['clusters']} and M = {row['neighbours']} two crops of an "
        f"utterance lead to the same pseudo-positives {row['lift']:.1f} times "
        f"as often as chance, which for {speaker_count} speakers suggests "
        f"{100 * row['expected']:.1f} % right pseudo-positives; "
        f"{100 * least:.0f} % are required"
    )
    if not start:
        reason += "; train the baseline for longer, or on more data"
    return start, reason


def _clusters(rows, clusters, iterations, merge_ratio, seed):
    """Cluster one view in the way SSPS clusters its memory."""
    merge_from = None
    if merge_ratio is not None:
        merge_from = min(len(rows), round(merge_ratio * clusters))
    return clusters_of_all(
        rows,
        torch.arange(len(rows), device=rows.device),
        clusters,
        merge_from=merge_from,
        iterations=iterations,
        seed=seed,
    )


def _row(clusters, neighbours, found, speaker_count):
    """Compute a candidate's table row, averaged over both directions."""
    near = [
        nearest_clusters(f.centroids, f.sizes, neighbours)
        if neighbours
        else torch.arange(clusters, device=f.sizes.device)[:, None]
        for f in found
    ]
    figures = [
        _overlap(found[drawn], near[drawn], found[judge], near[judge])
        for drawn, judge in ((0, 1), (1, 0))
    ]
    overlap, chance = torch.tensor(figures).mean(0).tolist()
    lift = overlap / chance if chance > 0 else 0.0
    return {
        "clusters": clusters,
        "neighbours": neighbours,
        "overlap": overlap,
        "chance": chance,
        "lift": lift,
        "expected": expected_share(lift, speaker_count),
    }


def expected_share(lift, speaker_count):
    """Compute the estimated share p of right pseudo-positives from the lift.

    The formula is in the module's docstring.

    Arguments
    ---------
    lift : float
        The lift of a candidate, as in the table of an ``Advice``.
    speaker_count : int
        Estimated number of speakers S.

    Returns
    -------
    float
        p, at most 1.

    Example
    -------
    >>> expected_share(lift=10.0, speaker_count=10)
    1.0
    """
    above = (speaker_count - 1) * max(0.0, lift - 1)
    return min(1.0, (1 + math.sqrt(above)) / speaker_count)


def _overlap(drawn, near_drawn, judge, near_judge):
    """Return how often the judge allows a drawn utterance, and a random one.

    Both are exact expectations; nothing is sampled. An utterance is never its
    own pseudo-positive. It could be drawn only with M = 0, so it is subtracted
    from both counts.
    """
    a, b = drawn.assignments, judge.assignments
    total, count = len(a), len(judge.sizes)
    cells, sizes = torch.unique(a * count + b, return_counts=True)
    # For utterance i, drawn cluster u and allowed cluster v: members of both.
    from_, to = near_drawn[a], near_judge[b]
    wanted = from_[:, :, None] * count + to[:, None, :]
    wanted[
        (from_[:, :, None] < 0) | (to[:, None, :] < 0).expand_as(wanted)
    ] = -1
    place = torch.searchsorted(cells, wanted).clamp(max=len(cells) - 1)
    both = torch.where(cells[place] == wanted, sizes[place], 0).sum(2)
    own = (from_ == a[:, None]).long()
    pool = torch.where(from_ < 0, 0, drawn.sizes[from_.clamp(min=0)]) - own
    # Average over the drawn clusters that have another member to draw.
    there = pool > 0
    share = ((both - own) / pool.clamp(min=1) * there).sum(1)
    share = share / there.sum(1).clamp(min=1)
    drawable = there.any(1)
    overlap = share[drawable].mean() if drawable.any() else share.new_zeros(())
    allowed = torch.where(to < 0, 0, judge.sizes[to.clamp(min=0)]).sum(1)
    allowed = allowed - (to == b[:, None]).any(1).long()
    chance = allowed.double().mean() / (total - 1)
    return float(overlap), float(chance)
