"""Two encoders on the same halves: the verdict and its interval."""

import numpy as np
import pytest

from speechbrain_ssl.verification.label_free import label_free_scores
from speechbrain_ssl.verification.label_free_comparison import (
    compare_label_free,
    in_words,
)


def crops(spread, utterances=80, size=24, seed=0):
    """Four crops of each utterance, around a point of its own."""
    rng = np.random.default_rng(seed)
    center = rng.normal(size=(utterances, 1, size))
    noise = np.random.default_rng(seed + 1).normal(size=(utterances, 4, size))
    return (center + spread * noise).astype(np.float32)


def test_better_and_worse():
    """With more noise the halves of an utterance are less alike."""
    good, bad = crops(1.0), crops(2.0)
    for before, after, verdict in (
        (good, bad, "worse"),
        (bad, good, "better"),
        (good, good, "not distinguishable"),
        (good, crops(1.02), "not distinguishable"),
    ):
        found = compare_label_free(before, after)
        assert found["verdict"] == verdict
        now, then = label_free_scores(after), label_free_scores(before)
        for name in ("pseudo_eer", "lidar", "rankme"):
            assert found[name] == now[name]
            assert found[f"start_{name}"] == then[name]
        gain = then["pseudo_eer"] - now["pseudo_eer"]
        assert found["pseudo_eer_gain"] == pytest.approx(gain)
        assert found["gain_low"] <= gain <= found["gain_high"]
        assert in_words(found).startswith(f"{verdict}: pseudo-EER ")


def test_the_bootstrap_is_over_utterances():
    """A difference in three utterances of eighty is no difference."""
    before = crops(0.8)
    after = before.copy()
    after[:3, 2:] = -after[:3, 2:]
    found = compare_label_free(before, after)
    assert found["pseudo_eer_gain"] < 0
    assert found["verdict"] == "not distinguishable"
    assert found["gain_high"] >= 0 > found["gain_low"]


def test_pairs_belong_together():
    """The same difficulty in both encoders cancels out."""
    before, after = crops(1.5), crops(1.5)
    after[:, 2:] += 0.5 * (before[:, :2] - after[:, 2:])
    found = compare_label_free(before, after)
    wide = np.hypot(*(_width(rows) for rows in (before, after)))
    assert found["verdict"] == "better"
    assert found["gain_high"] - found["gain_low"] < wide


def _width(rows):
    """Width of the interval of one encoder alone: against a perfect one."""
    perfect = np.repeat(rows[:, :1], 4, axis=1)
    found = compare_label_free(perfect, rows)
    return found["gain_high"] - found["gain_low"]
