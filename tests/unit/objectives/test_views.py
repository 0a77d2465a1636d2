"""Pairs of crops against loops over them."""

import math

import pytest
import torch

from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.objectives.base import Branch
from speechbrain_ssl.objectives.views import (
    entropy,
    mean_over_pairs,
    pair_cross_entropy,
    two_views,
)


def pairs(globals_, crops, skip_same):
    """The pairs (q, v) that count."""
    return [
        (q, v)
        for q in range(globals_)
        for v in range(crops)
        if not (skip_same and v == q)
    ]


@pytest.mark.parametrize("skip_same", [True, False])
@pytest.mark.parametrize("globals_, crops", [(2, 2), (2, 6), (1, 4), (3, 3)])
def test_products_and_cross_entropies_of_pairs(globals_, crops, skip_same):
    torch.manual_seed(0)
    logits = 5 * torch.randn(3, crops, 7)
    targets = torch.softmax(3 * torch.randn(3, globals_, 7), -1)
    products, losses = [], []
    for b in range(3):
        for q, v in pairs(globals_, crops, skip_same):
            products.append(targets[b, q] @ logits[b, v])
            log = (logits[b, v].exp() / logits[b, v].exp().sum()).log()
            losses.append(-(targets[b, q] * log).sum())
    torch.testing.assert_close(
        mean_over_pairs(targets, logits, skip_same),
        torch.stack(products).mean(),
    )
    torch.testing.assert_close(
        pair_cross_entropy(logits, targets, skip_same),
        torch.stack(losses).mean(),
    )


@pytest.mark.parametrize("globals_, crops", [(1, 1), (2, 0)])
def test_no_pair_is_refused(globals_, crops):
    with pytest.raises(ConfigError, match="no pair"):
        mean_over_pairs(
            torch.ones(3, globals_, 2), torch.ones(3, crops, 2), crops > 0
        )


def test_two_views_are_the_first_and_the_second_crop():
    online = Branch(None, torch.randn(3, 2, 4).bfloat16(), None)
    target = Branch(None, torch.randn(3, 2, 4), None)
    left, right = two_views(online, target, "X")
    assert left.dtype == right.dtype == torch.float32
    assert torch.equal(left, online.projections[:, 0].float())
    assert torch.equal(right, target.projections[:, 1])
    for crops, globals_ in ((3, 3), (4, 2), (1, 1)):
        online.projections = torch.randn(3, crops, 4)
        target.projections = torch.randn(3, globals_, 4)
        with pytest.raises(ConfigError, match="X compares two crops"):
            two_views(online, target, "X")


def test_entropy():
    rows = torch.tensor([[0.25] * 4, [1.0, 0.0, 0.0, 0.0]])
    torch.testing.assert_close(entropy(rows), torch.tensor([math.log(4), 0.0]))
