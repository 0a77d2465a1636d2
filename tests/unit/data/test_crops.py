"""Where the crops of an utterance lie."""

import numpy as np
import pytest
import soundfile

from speechbrain_ssl.data.crops import CropPlan
from speechbrain_ssl.data.dataset import CropDataset
from speechbrain_ssl.data.manifest import Manifest, StringColumn
from speechbrain_ssl.errors import ConfigError

DINO = CropPlan(2, 3.0, 4, 2.0)


def test_groups():
    assert DINO.groups == ((2, 48000), (4, 32000))
    assert DINO.num_crops == 6
    assert CropPlan(2, 1.5).groups == ((2, 24000),)
    assert CropPlan(1, 1.0, sample_rate=8000).groups == ((1, 8000),)


@pytest.mark.parametrize("disjoint", [False, True])
@pytest.mark.parametrize("length", [48000, 48001, 79999, 80000, 300000])
def test_crops_lie_within_and_everywhere(length, disjoint):
    """In bounds always; and the first and last positions do occur."""
    plan = CropPlan(2, 3.0, 4, 2.0, disjoint=disjoint)
    low, high = [length, length], [0, 0]
    for key in range(1000):
        starts = plan.starts(length, (1, 1, key))
        assert [len(s) for s in starts] == [2, 4]
        for group, (_, size) in enumerate(plan.groups):
            assert starts[group].min() >= 0
            assert starts[group].max() + size <= length
            low[group] = min(low[group], starts[group].min())
            high[group] = max(high[group], starts[group].max() + size)
    assert low[0] <= 0.01 * length and high[0] >= 0.99 * length
    assert low[1] <= 0.01 * length and high[1] >= 0.99 * length


def test_crops_depend_on_their_address():
    first = DINO.starts(300000, (1, 2, 3))
    for other, same in (((1, 2, 3), True), ((1, 2, 4), False)):
        found = DINO.starts(300000, other)
        assert same == all(map(np.array_equal, first, found))
    for other in ((2, 2, 3), (1, 3, 3)):
        assert not np.array_equal(first[0], DINO.starts(300000, other)[0])
    # Crops of one utterance differ from one another.
    assert len(set(np.concatenate(first).tolist())) == 6


def test_disjoint_crops_never_overlap():
    """No sample is seen by both branches; either may come first."""
    plan = CropPlan(2, 3.0, 4, 2.0, disjoint=True)
    orders = []
    for length in (80000, 80001, 160000):
        for key in range(400):
            far, near = plan.starts(length, (1, 1, key))
            if far[0] < near[0]:
                assert far.max() + 48000 <= near.min()
            else:
                assert near.max() + 32000 <= far.min()
            orders.append(far[0] < near[0])
    assert 0.4 < np.mean(orders) < 0.6
    # Without the option they do overlap.
    plan = CropPlan(2, 3.0, 4, 2.0)
    far, near = plan.starts(80000, (1, 1, 0))
    assert (far[:, None] < near + 32000).all()


def test_two_disjoint_views_never_overlap():
    """Without local crops each global crop has a side of its own."""
    plan = CropPlan(2, 2.0, disjoint=True)
    orders = []
    for length in (64000, 64001, 200000):
        for key in range(400):
            ((first, second),) = plan.starts(length, (1, 1, key))
            assert abs(first - second) >= 32000
            assert 0 <= min(first, second)
            assert max(first, second) + 32000 <= length
            orders.append(first < second)
    assert 0.4 < np.mean(orders) < 0.6
    # Too short: both may lie anywhere.
    ((first, second),) = plan.starts(63999, (1, 1, 0))
    assert abs(first - second) < 32000


def test_an_utterance_too_short_to_be_disjoint():
    """Is cut as if the option were off: 5 s are needed."""
    on = CropPlan(2, 3.0, 4, 2.0, disjoint=True)
    off = CropPlan(2, 3.0, 4, 2.0)
    for key in range(20):
        a, b = on.starts(79999, (1, key)), off.starts(79999, (1, key))
        assert all(map(np.array_equal, a, b))


def test_chunk():
    plan = CropPlan(2, 3.0, chunk_seconds=20.0)
    assert plan.chunk(320000, 0.9) == (0, 320000)
    assert plan.chunk(100, 0.9) == (0, 100)
    hour = 3600 * 16000
    assert plan.chunk(hour, 0.0) == (0, 320000)
    start, count = plan.chunk(hour, 1 - 2**-53)
    assert (start + count, count) == (hour, 320000)
    assert plan.chunk(hour, 0.5)[0] == pytest.approx(hour / 2, rel=0.01)


def dataset(folder, seconds, plan):
    path = str(folder / "a.wav")
    wave = (np.arange(round(seconds * 16000)) % 30000).astype(np.int16)
    soundfile.write(path, wave, 16000, subtype="PCM_16")
    # The ID seeds all draws; the path is another one in every run.
    ids, paths = map(StringColumn.from_strings, (["a"], [path]))
    return CropDataset(Manifest(ids, paths, [seconds]), plan, seed=1)


def test_a_short_utterance_is_repeated(tmp_path):
    data = dataset(tmp_path, 0.7, CropPlan(2, 1.0, 1, 0.5))
    _, _, (far, near), bad = data[(1, 0)]
    assert (far.shape, near.shape, bad) == ((2, 16000), (1, 8000), [])
    whole = np.tile(np.arange(11200), 2)[:16000]
    assert (far * 32768).tolist() == [whole.tolist()] * 2


def test_an_hour_costs_no_more_than_a_chunk(tmp_path, monkeypatch):
    """At most ``chunk_seconds`` are read of a long file, each epoch others."""
    data = dataset(tmp_path, 600.0, CropPlan(2, 1.0, chunk_seconds=10.0))
    counts, seeks = [], []
    read, seek = soundfile.SoundFile.read, soundfile.SoundFile.seek

    def counting_read(self, frames=-1, *args, **kwargs):
        counts.append(frames)
        return read(self, frames, *args, **kwargs)

    def counting_seek(self, frames, *args, **kwargs):
        seeks.append(frames)
        return seek(self, frames, *args, **kwargs)

    monkeypatch.setattr(soundfile.SoundFile, "read", counting_read)
    monkeypatch.setattr(soundfile.SoundFile, "seek", counting_seek)
    for epoch in range(1, 6):
        data[(epoch, 0)]
    assert 5 * 16000 <= sum(counts) <= 5 * 160000
    assert len({s for s in seeks if s}) >= 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"global_crops": 0}, "at least one global crop.*got 0 and 0"),
        ({"local_crops": -1}, "no negative number of local ones"),
        ({"global_seconds": 0.05}, "at least 0.1 s"),
        ({"local_seconds": 0}, "at least 0.1 s"),
        ({"global_seconds": 30.0}, r"chunk_seconds \(20.0\).*30.0 s"),
        ({"disjoint": True, "global_crops": 3}, "or exactly two global ones"),
    ],
)
def test_senseless_plans_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        CropPlan(**arguments)
