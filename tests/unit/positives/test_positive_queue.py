"""The ring of positive vectors against a plain list."""

import numpy as np
import pytest
import torch

from speechbrain_ssl.positives.queue import PositiveQueue

NOTHING = torch.iinfo(torch.int64).max


def vectors_of(numbers):
    return torch.tensor(numbers, dtype=torch.float32).view(-1, 1, 1)


@pytest.mark.parametrize("size", [7, 8, 20])
def test_a_ring_is_the_end_of_a_list(size):
    """Whatever the batch: the size need not be a multiple of it."""
    rng = np.random.default_rng(0)
    queue, history, count = PositiveQueue(size, 50, 1, 1), [], 0
    for batch in (3, 3, 3, 5, 1, 7, 2, 4):
        ids = rng.integers(0, 50, batch)
        numbers = list(range(count, count + batch))
        count += batch
        queue.push(torch.from_numpy(ids), vectors_of(numbers))
        history += zip(ids.tolist(), numbers, strict=True)
        held = [
            (i, int(v))
            for i, v in zip(queue.ids, queue.vectors.flatten(), strict=True)
            if i >= 0
        ]
        assert sorted(held) == sorted(history[-size:])


def test_more_rows_than_slots():
    queue = PositiveQueue(3, 10, 1, 1)
    queue.push(torch.arange(8), vectors_of(range(8)))
    assert sorted(queue.ids.tolist()) == [5, 6, 7]
    queue.push(torch.tensor([9]), vectors_of([9]))
    assert sorted(queue.ids.tolist()) == [6, 7, 9]


def test_sorted_by_group_with_the_newest_of_each():
    """Unfilled slots, utterances of no group, utterances that are twice in."""
    queue = PositiveQueue(8, 10, 1, 1)
    queue.push(torch.tensor([3, 9, 4, 3, 6]), vectors_of(range(5)))
    groups = torch.full((10,), 2)
    groups[4], groups[6], groups[3] = 0, -1, 1
    keys, slots = queue.sorted_by(groups)
    # 4 of group 0; 3 of group 1, its second vector; 9, the last utterance of
    # all, of group 2. The unfilled slots, -1, are not taken for it.
    assert keys.tolist() == [4, 13, 29] + [NOTHING] * 5
    assert queue.vectors[slots[:3]].flatten().tolist() == [2, 3, 1]
    empty, _ = PositiveQueue(4, 10, 1, 1).sorted_by(groups)
    assert empty.tolist() == [NOTHING] * 4


def test_newest_also_where_the_ring_has_wrapped():
    queue = PositiveQueue(4, 10, 1, 1)
    queue.push(torch.tensor([1, 2, 3]), vectors_of([0, 1, 2]))
    # Slot 3, then slot 0: the newer one of utterance 5 has the lower slot.
    queue.push(torch.tensor([5, 5]), vectors_of([3, 4]))
    keys, slots = queue.sorted_by(torch.zeros(10, dtype=torch.int64))
    assert keys[:3].tolist() == [2, 3, 5] and keys[3] == NOTHING
    assert queue.vectors[slots[:3]].flatten().tolist() == [1, 2, 4]


def test_memory_of_the_papers_queue():
    """51 MB for DINO's bottleneck where logits would take 13.1 GB."""
    with torch.device("meta"):
        queue = PositiveQueue(25_000, 1_092_009, 2, 256)
        logits = PositiveQueue(25_000, 1_092_009, 2, 65_536)
    assert queue.vectors.nbytes == pytest.approx(51.2e6)
    assert logits.vectors.nbytes == pytest.approx(13.1e9, rel=1e-2)
