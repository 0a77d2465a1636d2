"""May SSPS start, and with how many clusters? An answer without labels.

``advise`` tries numbers of clusters and of neighbours, ``judge`` is what training
asks: the configured numbers decide, and what others would do is for the log; or
the rule takes what it prefers (``choose_clusters`` of SSPS).

Pseudo-positives from a weak encoder are other speakers, and training on them
makes it weaker still. Whether they are right cannot be seen without labels, but
this can: whether *two independent crops of each utterance lead to the same
partners*. Let the references of crop A and of crop B be clustered apart. With
partners drawn by the clusters of A,

    overlap = P(the clusters of B allow the partner that A has drawn)
    chance  = P(the clusters of B allow an utterance drawn at random)
    lift    = overlap / chance

Let there be S speakers of equal size. If partners are right with probability p
in either view, and errors of the two have nothing to do with each other, then
a partner is confirmed by way of its speaker, or by accident:

    lift = S p^2 + (1 - p)^2 S / (S - 1)
    p    = (1 + sqrt((S - 1) (lift - 1))) / S

whatever the size of the clusters. This p is what ``expected`` is. S is a guess;
if it is wrong by a factor of two, p is by 1.4. Of speakers of unequal size it
is the effective number that counts: 1 / P(two utterances are of one speaker).

Measured on 3947 utterances of speechocean762 and LibriSpeech (421 speakers,
200 by that measure), five encoders on clean and on degraded audio (nine
cases), K from 100 to 1600, M from 0 to 2. Lift and accuracy (by labels) have a
rank correlation of 0.92 over all cases, 0.99 within a case and 0.87 between
cases of one K and M. Other figures do worse over all cases: the mean cosine of
partners in the other view, relative to that of two crops of one utterance,
0.67; the EER of two crops of one utterance -0.19.

Its limits:

* Errors of the two views are not independent: both crops of an utterance share
  the recording. On clean audio, from 0.2 on, ``expected`` was 0.84 to 0.97 of
  the accuracy (medians). Where each utterance had been degraded in its own way
  it was two to three times the accuracy: up to 0.34, against 0.17 at most. It
  is a bound from above there.
  In results/ssps_conditions, with encoders of 13 to 14 % EER and a condition
  for each utterance, over three encoders, K from 400 to 2500 and M 0, 1, the
  rank correlation was 0.97; given the effective number of speakers (187)
  ``expected`` was 1.4 times the accuracy, given that of the heads (414) 0.03
  from it on average. So guess high.
* That right pseudo-positives help is not what was measured. ``least = 0.5`` is
  a default of ours. In the first measurement accuracy was 0.56 or more wherever
  ``expected`` reached it (eight candidates of two encoders); in
  results/ssps_conditions one candidate of 36 reached it, of accuracy 0.45, and
  the one SimCLR-SSPS that was left to the rule gained as much as with values
  chosen by labels.
* Nearest neighbours in place of clusters cannot be judged this way: on
  degraded audio two crops agreed on look-alikes, which were right in 9 to 26 %
  while the same formula said 44 to 72 %.
"""

import dataclasses
import math

import torch

from speechbrain_ssl.clustering.replicated import clusters_of_all
from speechbrain_ssl.clustering.rows import ClusteringError, unit_rows
from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.positives.neighbours import nearest_clusters

#: Candidates as good as the best within this factor count as equals.
TIE = 0.9

#: SSPS may start where ``expected`` is at least this, see above.
LEAST = 0.5


@dataclasses.dataclass
class Advice:
    """The K and M that are advised, and the reason.

    Attributes
    ----------
    clusters, neighbours : int
        K and M for SSPS.
    expected : float
        What stands for the share of right pseudo-positives with these.
    start : bool
        Whether SSPS may start.
    reason : str
        A sentence for the log.
    table : list of dict
        A row for each candidate: ``clusters``, ``neighbours``, ``overlap``,
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

    Costs two k-means for each number of clusters. On a large training set a
    part of the utterances will do: all of some folders, rather than some of
    each, so that speakers stay as large as they are, and with numbers of
    clusters and speakers of that part. In a distributed run all processes call
    it, with the same references, and share the work.

    Of the candidates that are as good as the best within a tenth, one with
    M >= 1 is preferred to M = 0 (a neighbour cluster tends to be another
    recording, which is what the paper found to count), then fewer clusters,
    then the smaller M.

    Arguments
    ---------
    references_a, references_b : torch.Tensor or numpy.ndarray
        Embeddings ``[utterances, size]`` of two crops of each utterance that
        do not overlap, such as those of ``HalvesDataset`` with one crop per
        half; without augmentation.
    speaker_count : int
        A guess of the number of speakers.
    clusters : sequence of int
        Candidates for K.
    neighbours : sequence of int
        Candidates for M.
    least : float
        SSPS may start where ``expected`` is at least this.
    iterations : int
        Of k-means.
    merge_ratio : float, optional
        Of how many small clusters each one is made (SSPS's ``merge_from``
        over ``clusters``).
    seed : int
        Of the first centroids.

    Returns
    -------
    Advice

    Raises
    ------
    ConfigError
        If the references are not of the same utterances, or no candidate can
        be tried.
    ClusteringError
        If a reference has no direction.

    Example
    -------
    >>> voices = torch.nn.functional.one_hot(torch.arange(60) % 6).float()
    >>> views = [voices + 0.05 * torch.randn(60, 6) for _ in range(2)]
    >>> advice = advise(*views, speaker_count=6, clusters=[12])
    >>> advice.start, advice.clusters
    (True, 12)
    """
    views = [
        unit_rows(view, alone=True) for view in (references_a, references_b)
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
    """Decide whether SSPS may start with the K and M it is configured with.

    For the log it also says how K / 2 and 2 K and fewer neighbours would do,
    and which of all these the rule would take; with ``choose_clusters`` it
    takes them. Where a part of the training set is at hand, the numbers of
    clusters and of speakers are those of that part: clusters stay as large as
    they are.

    Costs the two clusterings of each number of clusters, 3.5 times those of K
    alone. Not 2 K where clusters are merged: Ward's would take four times the
    memory that the run itself takes.

    Arguments
    ---------
    ssps : speechbrain_ssl.positives.ssps.SSPS
        With a ``speaker_count``.
    references_a, references_b : torch.Tensor
        As for ``advise``, and in all processes as well.
    utterances : int
        Of the whole training set.
    seed : int
        Of the first centroids.

    Returns
    -------
    Advice
        With the K and M to start with, and all numbers of clusters those of
        the whole training set. No start where no clusters can be made, such as
        of the equal rows of a collapsed encoder.

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
    # A small part must not have fewer clusters than a draw needs.
    configured = max(min(2, ssps.clusters), most + 1, configured)
    configured = min(configured, total - 1)
    # Clusters of this part -> of the training set.
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
        f". Of what was tried ({tried}) the rule {verb} K = {wanted[0]} and M = "
        f"{wanted[1]}"
    )
    return Advice(*taken, row["expected"], start, reason, rows)


def _preferred(table, least):
    """Choose a candidate among those as good as the best within ``TIE``."""
    best = max(row["expected"] for row in table)
    # What is preferred among equals must not cost the start.
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
    """Decide from a row of the table, and give the reason in a sentence."""
    start = row["expected"] >= least
    reason = (
        f"{'SSPS may start' if start else 'too early for SSPS'}: with K = "
        f"{row['clusters']} and M = {row['neighbours']} two crops of an "
        f"utterance lead to the same partners {row['lift']:.1f} times as often "
        f"as chance, which for {speaker_count} speakers stands for "
        f"{100 * row['expected']:.1f} % right pseudo-positives; "
        f"{100 * least:.0f} % are asked for"
    )
    if not start:
        reason += "; train the baseline for longer, or on more data"
    return start, reason


def _clusters(rows, clusters, iterations, merge_ratio, seed):
    """Cluster a view as SSPS clusters its memory."""
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
    """Compute a candidate's figures, averaged over both directions."""
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
    """Compute the p at the head of this file, at most 1.

    Arguments
    ---------
    lift : float
        Of a candidate, as in the table of an ``Advice``.
    speaker_count : int
        A guess of the number of speakers.

    Returns
    -------
    float

    Example
    -------
    >>> expected_share(lift=10.0, speaker_count=10)
    1.0
    """
    above = (speaker_count - 1) * max(0.0, lift - 1)
    return min(1.0, (1 + math.sqrt(above)) / speaker_count)


def _overlap(drawn, near_drawn, judge, near_judge):
    """Return how often the judge allows a drawn partner, and a random one.

    Expectations, not samples. An utterance is no partner of its own; it only
    comes up with M = 0, where both sides count it out.
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
    # The mean over the drawn clusters that have somebody to draw.
    there = pool > 0
    share = ((both - own) / pool.clamp(min=1) * there).sum(1)
    share = share / there.sum(1).clamp(min=1)
    drawable = there.any(1)
    overlap = share[drawable].mean() if drawable.any() else share.new_zeros(())
    allowed = torch.where(to < 0, 0, judge.sizes[to.clamp(min=0)]).sum(1)
    allowed = allowed - (to == b[:, None]).any(1).long()
    chance = allowed.double().mean() / (total - 1)
    return float(overlap), float(chance)
