"""Running means: each value counts once, whatever happens in between."""

import json

import torch

from speechbrain_ssl.brains.means import RunningMeans


def filled(*losses):
    means = RunningMeans()
    for loss in losses:
        means.add(loss=torch.tensor(loss))
    return means


def test_each_scalar_has_its_own_count():
    """A scalar that only some steps have is averaged over those steps."""
    means = RunningMeans()
    for step, loss in enumerate((1.0, 2.0, 6.0)):
        means.add(loss=torch.tensor(loss))
        if step:
            means.add(coverage=step)
    assert means.read() == {"loss": 3.0, "coverage": 1.5}


def test_reading_changes_nothing():
    means = filled(1.0, 3.0)
    for _ in range(3):
        assert means.read() == {"loss": 2.0}
    means.add(loss=8.0)
    assert means.read() == {"loss": 4.0}


def test_reset_forgets_all():
    means = filled(1.0, 3.0)
    means.reset()
    assert means.read() == {}
    means.add(loss=5.0)
    assert means.read() == {"loss": 5.0}


def test_a_resumed_mean_is_that_of_the_whole():
    """``load`` replaces earlier values; JSON preserves the state."""
    kept = json.loads(json.dumps(filled(1.0, 2.0).state()))
    means = filled(100.0)
    means.load(kept)
    assert means.read() == {"loss": 1.5}
    means.add(loss=6.0)
    assert means.read() == filled(1.0, 2.0, 6.0).read()
    # The state is a copy that can be loaded again.
    assert kept == filled(1.0, 2.0).state()
