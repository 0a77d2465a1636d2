"""When SSPS may start: the figures by brute force, and what they say."""

import numpy as np
import pytest
import torch

from speechbrain_ssl.clustering.agglomerative import kmeans_then_merge
from speechbrain_ssl.clustering.kmeans import spherical_kmeans
from speechbrain_ssl.clustering.rows import ClusteringError
from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.positives.ssps import SSPS
from speechbrain_ssl.positives.start_rule import (
    advise,
    fewest_utterances,
    judge,
)


def two_views(voices, spread, utterances=240, speakers=12, seed=0):
    """Two crops of each utterance; the voices are 12 directions."""
    views = []
    for turn in (0, 1):
        clean, speaker = voices(utterances, speakers, size=16, spread=0)
        rng = np.random.default_rng(100 * seed + turn)
        noise = spread * rng.normal(size=clean.shape)
        views.append(clean + torch.from_numpy(noise).float())
    return views, speaker


def possible(found, neighbours):
    """Whom each utterance may draw, and with what weight; ``[N, N]``."""
    label, count = found.assignments.tolist(), len(found.sizes)
    similar = found.centroids @ found.centroids.T
    weights = np.zeros((len(label), len(label)))
    for i, own in enumerate(label):
        pools = [own]
        if neighbours:
            others = [c for c in range(count) if c != own and c in label]
            others.sort(key=lambda c, own=own: -float(similar[own, c]))
            pools = others[:neighbours]
        pools = [
            [j for j in range(len(label)) if label[j] == c and j != i]
            for c in pools
        ]
        pools = [pool for pool in pools if pool]
        for pool in pools:
            weights[i, pool] = 1 / len(pool) / len(pools)
    return weights


def merged(rows, clusters, ratio, seed):
    """Clusters as SSPS merges them."""
    return kmeans_then_merge(
        rows,
        ratio * clusters,
        clusters,
        iterations=10,
        seed=seed,
        init="k-means++",
        empty="reseed",
    )


@pytest.mark.parametrize(
    ("clusters", "neighbours", "ratio"),
    [(8, 0, None), (8, 2, None), (50, 1, None), (12, 0, 4)],
)
def test_figures_by_brute_force(voices, clusters, neighbours, ratio):
    """Every pair is looked at; the module works on counts."""
    views, _ = two_views(voices, spread=0.25, utterances=90)
    advice = advise(
        *views,
        speaker_count=12,
        clusters=[clusters],
        neighbours=[neighbours],
        merge_ratio=ratio,
    )
    [row] = advice.table
    drawn = [
        spherical_kmeans(view, clusters, 10, seed)
        if ratio is None
        else merged(view, clusters, ratio, seed)
        for seed, view in enumerate(views)
    ]
    drawn = [possible(found, neighbours) for found in drawn]
    overlaps, chances = [], []
    for here, there in (drawn, drawn[::-1]):
        somebody = here.sum(1) > 0
        overlaps.append((here * (there > 0)).sum(1)[somebody].mean())
        chances.append((there > 0).sum(1).mean() / 89)
    assert row["overlap"] == pytest.approx(np.mean(overlaps), rel=1e-5)
    assert row["chance"] == pytest.approx(np.mean(chances), rel=1e-5)
    assert row["lift"] == pytest.approx(row["overlap"] / row["chance"])
    # The equation of the lift, solved by trying.
    p = np.linspace(0, 1, 100_001)[100_000 // 12 :]
    wrong = (12 * p**2 + (1 - p) ** 2 * 12 / 11) - row["lift"]
    best = p[np.abs(wrong).argmin()]
    assert row["expected"] == pytest.approx(best, abs=1e-4)


def accuracy(rows, speaker, clusters, neighbours):
    """By labels: the share of right pseudo_positives."""
    weights = possible(spherical_kmeans(rows, clusters, 10), neighbours)
    same = speaker[:, None] == speaker
    return (weights * same).sum() / weights.sum()


def test_follows_the_accuracy(voices):
    """From useless to perfect embeddings; no label is looked at."""
    expected, right = [], []
    for spread in (4.0, 0.6, 0.45, 0.3, 0.05):
        views, speaker = two_views(voices, spread)
        advice = advise(*views, speaker_count=12, clusters=[24], neighbours=[0])
        expected.append(advice.expected)
        right.append(accuracy(views[0], speaker, 24, 0))
    assert expected == sorted(expected) and right == sorted(right)
    # Errors of the two views are independent here.
    np.testing.assert_allclose(expected, right, atol=0.12)


def test_says_no_to_noise_and_yes_to_voices(voices):
    noise, _ = two_views(voices, spread=4.0)
    advice = advise(*noise, speaker_count=12, clusters=[12, 24, 48])
    assert not advice.start and advice.expected < 0.5
    assert "too early for SSPS" in advice.reason and "longer" in advice.reason
    clear, _ = two_views(voices, spread=0.1)
    advice = advise(*clear, speaker_count=12, clusters=[12, 24, 72])
    assert advice.start and advice.expected > 0.9
    assert "SSPS may start: with K = " in advice.reason
    # With 12 clusters a neighbour is another voice, with 72 it is not: then
    # it is preferred among equals.
    row = {(r["clusters"], r["neighbours"]): r for r in advice.table}
    assert row[12, 1]["expected"] < 0.5 < row[12, 0]["expected"]
    assert row[72, 0]["expected"] > 0.95
    assert (advice.clusters, advice.neighbours) == (72, 1)
    assert advice == advise(*clear, speaker_count=12, clusters=[72, 12, 24, 24])


def test_a_tie_never_costs_the_start(voices):
    """The best passes: then what is preferred among equals has to, too."""
    views, _ = two_views(voices, spread=0.3)
    options = {
        "speaker_count": 12,
        "clusters": [16, 24, 48],
        "neighbours": [0, 1],
    }
    best = max(r["expected"] for r in advise(*views, **options).table)
    advice = advise(*views, least=best, **options)
    assert advice.start and advice.expected == best


def test_depends_on_neither_scale_nor_order(voices):
    views, _ = two_views(voices, spread=0.3)
    options = {"speaker_count": 12, "clusters": [24]}
    [row, _] = advise(*views, **options).table
    [scaled, _] = advise(3 * views[0], views[1].numpy(), **options).table
    assert scaled["lift"] == pytest.approx(row["lift"])
    [swapped, _] = advise(*views[::-1], **options).table
    assert swapped["lift"] == pytest.approx(row["lift"], rel=0.3)


def test_equal_rows_are_chance():
    """A collapsed encoder: every partner is as good as any."""
    rows = torch.ones(20, 4)
    advice = advise(rows, rows, speaker_count=5, clusters=[3], neighbours=[0])
    assert not advice.start
    assert advice.table[0]["lift"] == pytest.approx(1.0)
    assert advice.expected == pytest.approx(1 / 5, abs=1e-3)


def test_refusals(voices):
    (a, b), _ = two_views(voices, spread=0.3)
    with pytest.raises(ConfigError, match=r"\(240, 16\) and \(239, 16\)"):
        advise(a, b[1:], speaker_count=12, clusters=[24])
    with pytest.raises(ConfigError, match=r"clusters \[240\].*cannot be tried"):
        advise(a, b, speaker_count=12, clusters=[240])
    with pytest.raises(ConfigError, match="fewer neighbours than clusters"):
        advise(a, b, speaker_count=12, clusters=[2], neighbours=[2])
    with pytest.raises(ConfigError, match="of 0 speakers"):
        advise(a, b, speaker_count=0, clusters=[24])
    b[7] = 0
    with pytest.raises(ClusteringError, match="row 7 is zero"):
        advise(a, b, speaker_count=12, clusters=[24])


# -- SSPS as it is configured --------------------------------------------------


def configured(clusters, neighbours, speaker_count=12, **options):
    return SSPS(
        clusters,
        queue=40,
        start_epoch=2,
        neighbours=neighbours,
        speaker_count=speaker_count,
        **options,
    )


def verdict(ssps, *references, utterances):
    """Whether it may start, and why."""
    found = judge(ssps, *references, utterances=utterances)
    assert (found.clusters, found.neighbours) == (
        ssps.clusters,
        ssps.neighbours,
    )
    return found.start, found.reason


def test_the_configured_numbers_decide(voices):
    """And the log says which ones the rule would have taken."""
    views, _ = two_views(voices, spread=0.1)
    # A neighbour of one of 12 clusters is another voice.
    start, text = verdict(configured(12, 1), *views, utterances=240)
    assert not start
    assert "too early for SSPS: with K = 12 and M = 1" in text
    start, _ = verdict(configured(12, 0), *views, utterances=240)
    assert start
    wanted = advise(
        *views, speaker_count=12, clusters=[6, 12, 24], neighbours=[0, 1]
    )
    assert (wanted.clusters, wanted.neighbours) != (12, 1) and wanted.start
    tried = "; ".join(
        f"K = {row['clusters']}, M = {row['neighbours']}: "
        f"{100 * row['expected']:.1f} %"
        for row in wanted.table
    )
    assert len(wanted.table) == 6 and f"({tried})" in text
    assert text.endswith(
        f"would take K = {wanted.clusters} and M = {wanted.neighbours}"
    )


def test_the_rule_sets_the_numbers(voices):
    """Where it is told to; what was configured would not have done."""
    views, _ = two_views(voices, spread=0.1)
    wanted = advise(
        *views, speaker_count=12, clusters=[6, 12, 24], neighbours=[0, 1]
    )
    found = judge(configured(12, 1, choose_clusters=True), *views, 240)
    assert found.start and (found.clusters, found.neighbours) != (12, 1)
    assert found.clusters == wanted.clusters
    assert found.neighbours == wanted.neighbours
    assert f"takes K = {wanted.clusters} and" in found.reason
    # Of a part: in numbers of the whole training set.
    part = [view[:120] for view in views]
    found = judge(configured(24, 1, choose_clusters=True), *part, 240)
    assert found.clusters in (12, 24, 48)
    # From noise nothing is good enough.
    noise = [torch.randn(240, 16) for _ in range(2)]
    assert not judge(configured(12, 1, choose_clusters=True), *noise, 240).start


def test_numbers_that_are_adopted():
    """Half of the clusters are made of half as many smaller ones."""
    ssps = configured(12, 0, merge_from=30, choose_clusters=True)
    assert ssps.candidates() == [12, 6]
    ssps.adopt(6, 0)
    assert (ssps.clusters, ssps.merge_from) == (6, 15)
    ssps = configured(12, 1, choose_clusters=True)
    assert ssps.candidates() == [12, 6, 24]
    ssps.adopt(24, 0)
    assert (ssps.clusters, ssps.neighbours, ssps.merge_from) == (24, 0, None)


@pytest.mark.parametrize(
    ("chosen", "neighbours"),
    [(120, 1), (60, 7), (9, 3), (5, 3), (4, 2), (3, 0)],
)
def test_a_part_of_the_training_set(voices, chosen, neighbours):
    """Never fewer clusters than a draw needs, however small the part is."""
    views, _ = two_views(voices, spread=0.1)
    part = [view[:chosen] for view in views]
    ssps = configured(24, neighbours)
    _, text = verdict(ssps, *part, utterances=240)
    # By the numbers that the user knows.
    assert f"with K = 24 and M = {neighbours} two" in text


def test_the_guess_is_of_the_whole_training_set(voices):
    """Of a part of it, that part of the speakers are expected."""
    views, _ = two_views(voices, spread=0.3)
    small, large = configured(24, 1), configured(48, 1)
    small.speaker_count, large.speaker_count = 12, 24
    wanted = judge(small, *views, utterances=240)
    found = judge(large, *views, utterances=480)
    assert found.expected == wanted.expected
    # It depends on the guess.
    large.speaker_count = 12
    assert judge(large, *views, utterances=480).expected > wanted.expected


def test_too_few_utterances_put_it_off(voices):
    """What remains after unreadable ones are left out may be next to nothing."""
    views, _ = two_views(voices, spread=0.1)
    for neighbours, count in ((0, 2), (1, 2), (3, 4), (3, 0)):
        assert count == 0 or count == fewest_utterances(neighbours) - 1
        start, text = verdict(
            configured(24, neighbours),
            *[view[:count] for view in views],
            utterances=240,
        )
        assert not start and f"of 240 utterances only {count} have" in text


def test_merged_clusters_are_not_tried_with_twice_as_many(voices):
    """Memory and time of the merging grow with the square."""
    views, _ = two_views(voices, spread=0.1)
    ssps = configured(12, 0, merge_from=30)
    start, text = verdict(ssps, *views, utterances=240)
    assert start and "(K = 6, M = 0: " in text and "; K = 12, M = 0: " in text
    assert "K = 24" not in text


def test_a_collapsed_encoder_is_no_error(voices):
    """Its rows are equal: nothing can be merged, and SSPS must wait."""
    rows = torch.ones(240, 16)
    ssps = configured(12, 0, merge_from=30)
    start, text = verdict(ssps, rows, rows, utterances=240)
    assert not start and text.startswith("too early for SSPS: ")
    start, _ = verdict(configured(12, 0), rows, rows, utterances=240)
    assert not start
