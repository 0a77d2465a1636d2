"""The same crops whatever the machine, and what happens to bad files."""

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from speechbrain_ssl.data.audio import AudioFile, fit_length
from speechbrain_ssl.data.crops import CropPlan
from speechbrain_ssl.data.dataset import CropDataset
from speechbrain_ssl.data.draws import uniform
from speechbrain_ssl.data.halves import HalvesDataset
from speechbrain_ssl.data.manifest import Manifest, StringColumn
from speechbrain_ssl.data.sampling import EpochBatchSampler
from speechbrain_ssl.errors import AudioError, ConfigError
from speechbrain_ssl.positives.cluster_aware import ClusterAware

PLAN = CropPlan(2, 0.3, 2, 0.2)
COUNT = 16


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """Sixteen files of noise between 0.2 and 0.95 s."""
    folder = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(0)
    paths, seconds = [], []
    for i in range(COUNT):
        seconds.append(0.2 + 0.05 * i)
        paths.append(str(folder / f"{i}.wav"))
        wave = rng.normal(0, 0.1, round(seconds[-1] * 16000))
        soundfile.write(paths[-1], wave, 16000)
    column = StringColumn.from_strings(paths)
    names = StringColumn.from_strings([f"u{i}" for i in range(COUNT)])
    return Manifest(names, column, seconds)


def with_bad(manifest, bad, folder):
    """The manifest with some of its files missing."""
    paths = [
        str(folder / "gone.wav") if i in bad else manifest.path(i)
        for i in range(len(manifest))
    ]
    return Manifest(
        manifest.ids, StringColumn.from_strings(paths), manifest.durations
    )


def epoch_of(manifest, batch, epoch=1, workers=0, **options):
    """Index -> crops of each group, and the order they came in."""
    data = CropDataset(manifest, PLAN, seed=3)
    sampler = EpochBatchSampler(len(manifest), batch, seed=3, **options)
    sampler.set_epoch(epoch)
    loader = torch.utils.data.DataLoader(
        data,
        batch_sampler=sampler,
        collate_fn=data.collate,
        num_workers=workers,
    )
    crops, order = {}, []
    for found in loader:
        found.to("cpu")
        assert found.epoch == epoch
        assert np.array_equal(found.keys, manifest.keys[found.index.numpy()])
        for row, index in enumerate(found.index.tolist()):
            crops[index] = [group[row] for group in found.crops]
            order.append(index)
    return crops, order


def same(a, b):
    return set(a) == set(b) and all(
        torch.equal(x, y) for i in a for x, y in zip(a[i], b[i], strict=True)
    )


def test_crops_are_the_same_on_any_machine(manifest):
    """Workers, batch size and ranks change nothing that is learnt from."""
    crops, order = epoch_of(manifest, 4)
    assert sorted(order) == list(range(COUNT))
    assert crops[0][0].shape == (2, 4800) and crops[0][1].shape == (2, 3200)
    assert crops[0][0].dtype == torch.float32
    assert same(crops, epoch_of(manifest, 4, workers=2)[0])
    others, other_order = epoch_of(manifest, 8)
    assert same(crops, others) and order == other_order
    ranks = [epoch_of(manifest, 4, rank=r, world_size=2)[0] for r in range(2)]
    assert not set(ranks[0]) & set(ranks[1])
    assert same(crops, {**ranks[0], **ranks[1]})


def test_every_epoch_has_other_crops_in_another_order(manifest):
    (first, order1), (second, order2) = (
        epoch_of(manifest, 4, epoch) for epoch in (1, 2)
    )
    assert order1 != order2
    # The shortest is no longer than its crops: nothing to choose there.
    changed = [not torch.equal(first[i][1], second[i][1]) for i in first]
    assert sum(changed) >= COUNT - 2
    assert same(first, epoch_of(manifest, 4, 1)[0])


def test_crops_are_cut_from_the_utterance(manifest):
    data = CropDataset(manifest, PLAN, seed=3)
    whole, _ = soundfile.read(manifest.path(15), dtype="float32")
    _, _, groups, _ = data[(1, 15)]
    starts = PLAN.starts(len(whole), (3, 1, manifest.keys[15]))
    for group, begin in zip(groups, starts, strict=True):
        for crop, s in zip(group, begin, strict=True):
            assert np.array_equal(crop, whole[s : s + len(crop)])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_file_is_replaced_and_reported(manifest, tmp_path, workers):
    broken = with_bad(manifest, {5}, tmp_path)
    data = CropDataset(broken, PLAN, seed=3)
    loader = torch.utils.data.DataLoader(
        data,
        batch_sampler=[[(1, 4), (1, 5), (1, 6)]],
        collate_fn=data.collate,
        num_workers=workers,
    )
    (batch,) = loader
    assert batch.index[0] == 4 and batch.index[2] == 6
    assert batch.index[1] != 5
    [(path, reason)] = batch.bad
    assert path == broken.path(5) and "gone.wav" in reason
    # The one in its place comes with its own key and its own crops.
    other = int(batch.index[1])
    assert batch.keys[1] == manifest.keys[other]
    alone = data[(1, other)][2]
    crops = batch.to("cpu").crops[0]
    assert torch.equal(crops[1], torch.from_numpy(alone[0]))
    # The same one again, another one in another epoch.
    assert data[(1, 5)][1] == other
    assert len({data[(epoch, 5)][1] for epoch in range(1, 9)}) > 2


@pytest.mark.parametrize(
    "workers",
    # A worker that has raised takes torch five seconds to put away.
    [0, pytest.param(1, marks=pytest.mark.slow)],
)
def test_a_corpus_of_bad_files_ends_the_run(manifest, tmp_path, workers):
    """A wrong data folder is an error, not a loop without end."""
    broken = with_bad(manifest, set(range(COUNT)), tmp_path)
    data = CropDataset(broken, PLAN, seed=3)
    data.table = tmp_path / "missing_audio.csv"
    loader = torch.utils.data.DataLoader(
        data,
        batch_sampler=[[(1, 0)]],
        collate_fn=data.collate,
        num_workers=workers,
    )
    iterator = iter(loader)
    text = r"(?s)10 utterances.*gone\.wav.*missing_audio\.csv.*Che"
    with pytest.raises(AudioError, match=text):
        next(iterator)
    listed = pd.read_csv(data.table)
    assert set(listed["wav"]) == {broken.path(i) for i in range(COUNT)}


def batches(sampler):
    return [[index for _, index in batch] for batch in sampler]


@pytest.mark.parametrize("count", [64, 70])
def test_ranks_share_global_batches(count):
    """2 x 4 is 1 x 8: a run can move to another number of GPUs."""
    one = batches(EpochBatchSampler(count, 8, seed=1))
    two = [
        batches(EpochBatchSampler(count, 4, seed=1, rank=r, world_size=2))
        for r in range(2)
    ]
    assert [a + b for a, b in zip(*two, strict=True)] == one
    flat = [i for batch in one for i in batch]
    assert len(one) == 8 and len(set(flat)) == len(flat) == 64
    assert set(flat) <= set(range(count))


def test_what_is_dropped_changes_with_the_epoch():
    sampler = EpochBatchSampler(10, 4, seed=1)
    seen = set()
    for epoch in range(1, 20):
        sampler.set_epoch(epoch)
        seen |= {i for batch in batches(sampler) for i in batch}
        assert {e for batch in sampler for e, _ in batch} == {epoch}
    assert seen == set(range(10))


def test_seek_goes_on_where_it_stopped_once():
    """A resumed epoch sees the rest of it, the next one all of it."""
    sampler = EpochBatchSampler(40, 4, seed=1)
    whole = batches(sampler)
    sampler.seek(3)
    assert batches(sampler) == whole[3:]
    assert batches(sampler) == whole
    sampler.seek(10)
    assert batches(sampler) == []


def test_whole_optimiser_steps_only():
    """No batch is thrown away half accumulated."""
    sampler = EpochBatchSampler(100, 4, seed=1, multiple=8)
    assert len(sampler) == len(batches(sampler)) == 24
    with pytest.raises(ConfigError, match="31 utterances.*lower `batch_size`"):
        EpochBatchSampler(31, 4, seed=1, multiple=8)
    with pytest.raises(ConfigError, match="4 x 2 processes"):
        EpochBatchSampler(7, 4, seed=1, world_size=2)


def test_halves_come_from_their_halves(tmp_path):
    """Validation pairs must not overlap, or they would be trivially alike."""
    path = str(tmp_path / "a.wav")
    wave = np.concatenate([np.full(20000, 0.25), np.full(20000, -0.25)])
    soundfile.write(path, wave, 16000)
    column = StringColumn.from_strings([path])
    data = HalvesDataset(Manifest(column, column, [2.5]), 1.0, 3, seed=1)
    index, crops = data[0]
    assert index == 0 and crops.shape == (6, 16000)
    assert (crops[:3] == 0.25).all() and (crops[3:] == -0.25).all()
    assert np.array_equal(crops, data[0][1])
    batch = data.collate([data[0]])
    assert batch.crops[0].shape == (1, 6, 16000) and batch.epoch == 0


@pytest.mark.parametrize("form", ["wav", "flac"])
@pytest.mark.parametrize("samples", [2, 999, 3201, 6400, 50001])
def test_halves_are_read_in_part_and_the_same(tmp_path, form, samples):
    """As cut from the whole utterance, which may be an hour long."""
    path = str(tmp_path / f"a.{form}")
    noise = np.random.default_rng(0).normal(0, 0.1, samples)
    soundfile.write(path, noise, 16000)
    column = StringColumn.from_strings([path])
    manifest = Manifest(column, column, [samples / 16000])
    whole, _ = soundfile.read(path, dtype="float32")
    middle = samples // 2
    draws = uniform(4, manifest.keys[0], "halves", size=6)
    wanted = []
    for number, draw in enumerate(draws):
        half = whole[:middle] if number < 3 else whole[middle:]
        half = fit_length(half, max(len(half), 3200))
        start = int(draw * (len(half) - 3200 + 1))
        wanted.append(half[start : start + 3200])
    _, crops = HalvesDataset(manifest, 0.2, 3, seed=4)[0]
    assert crops.dtype == np.float32
    assert np.array_equal(crops, np.stack(wanted))


def test_usable_for_validation(manifest, tmp_path, caplog):
    """The bad file is named; many in a row are a corpus that has moved."""
    data = HalvesDataset(with_bad(manifest, {5}, tmp_path), 0.1)
    assert [data.usable(i) for i in (4, 5, 6)] == [True, False, True]
    assert "gone.wav" in caplog.text
    one = str(tmp_path / "one.wav")
    soundfile.write(one, np.zeros(1), 16000)
    column = StringColumn.from_strings([one])
    assert not HalvesDataset(Manifest(column, column, [1e-4])).usable(0)
    data = HalvesDataset(with_bad(manifest, set(range(16)), tmp_path), 0.1)
    with pytest.raises(AudioError, match="10 utterances in a row.*manifest"):
        for i in range(16):
            assert not data.usable(i)


def test_halves_refuse_a_bad_file(manifest, tmp_path):
    """Validation on other data than yesterday's is not comparable."""
    data = HalvesDataset(with_bad(manifest, {5}, tmp_path), 0.1)
    with pytest.raises(AudioError, match=r"gone\.wav"):
        data[5]


# -- crops of several utterances -----------------------------------------------


def cut_by_hand(manifest, source, anchor, epoch=2):
    """All crops of ``source``, at the places drawn for ``anchor``."""
    whole, _ = soundfile.read(manifest.path(source), dtype="float32")
    whole = fit_length(whole, max(len(whole), 4800))
    address = (3, epoch, manifest.keys[anchor])
    return [
        whole[s : s + length]
        for (_, length), starts in zip(
            PLAN.groups, PLAN.starts(len(whole), address), strict=True
        )
        for s in starts
    ]


def test_crops_of_pseudo_positives(manifest):
    """Each from its own utterance; the anchor's are what they were."""
    sources = np.array([12, 9, 14, 9])
    data = CropDataset(manifest, PLAN, 3)
    _, index, groups, bad = data[(2, 12, sources)]
    assert index == 12 and bad == []
    crops = [crop for group in groups for crop in group]
    for number, source in enumerate(sources):
        wanted = cut_by_hand(manifest, source, 12)[number]
        assert np.array_equal(crops[number], wanted)
    plain = data[(2, 12)][2]
    assert np.array_equal(groups[0][0], plain[0][0])
    assert not np.array_equal(groups[0][1], plain[0][1])
    itself = data[(2, 12, np.full(4, 12))]
    for one, other in zip(itself[2], plain, strict=True):
        assert np.array_equal(one, other)


def test_each_utterance_is_opened_once(manifest, monkeypatch):
    """And no more of it is read than what its crops lie in."""
    opened, counts = [], []
    read = AudioFile.read

    def counting_read(audio, start, count):
        opened.append(audio.path)
        counts.append(count)
        return read(audio, start, count)

    monkeypatch.setattr(AudioFile, "read", counting_read)
    data = CropDataset(manifest, PLAN, 3)
    data[(2, 15, np.array([9, 14, 13, 9]))]
    assert sorted(opened) == sorted(manifest.path(i) for i in (9, 13, 14))
    assert sorted(counts)[:2] == [3200, 4800]
    opened.clear()
    data = CropDataset(manifest, PLAN, 3, reference_seconds=0.3)
    data[(2, 12, np.array([9, 12, 9, 12]))]
    assert sorted(opened) == sorted(manifest.path(i) for i in (9, 12))


def test_a_bad_pseudo_positive_leaves_its_crops_to_the_anchor(
    manifest, tmp_path
):
    broken = with_bad(manifest, {5, 6}, tmp_path)
    sources = np.array([5, 9, 12, 5])
    data = CropDataset(broken, PLAN, 3)
    _, index, groups, bad = data[(2, 12, sources)]
    assert index == 12 and sources.tolist() == [5, 9, 12, 5]
    [(path, reason)] = bad
    assert path == broken.path(5) and "gone.wav" in reason
    crops = [crop for group in groups for crop in group]
    for number, source in enumerate([12, 9, 12, 12]):
        wanted = cut_by_hand(manifest, source, 12)[number]
        assert np.array_equal(crops[number], wanted)
    # Where the anchor cannot step in, another utterance takes its place, with
    # crops of its own.
    _, index, groups, bad = data[(2, 6, np.array([5, 9, 6, 5]))]
    assert index not in (5, 6)
    assert {broken.path(5), broken.path(6)} <= {path for path, _ in bad}
    for one, other in zip(groups, data[(2, index)][2], strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("workers", [0, 2])
def test_reference_crops(manifest, workers):
    """One more crop of the anchor, whatever its other crops come from."""
    data = CropDataset(manifest, PLAN, 3, reference_seconds=0.35)
    sources = np.array([9, 7, 9, 7])
    loader = torch.utils.data.DataLoader(
        data,
        batch_sampler=[[(2, 0, sources), (2, 13, sources)]],
        collate_fn=data.collate,
        num_workers=workers,
    )
    (batch,) = loader
    assert batch.reference.dtype == torch.int16
    batch.to("cpu")
    assert [tuple(c.shape) for c in batch.crops] == [(2, 2, 4800), (2, 2, 3200)]
    assert batch.reference.shape == (2, 5600)
    assert batch.reference.dtype == torch.float32
    for row, index in enumerate((0, 13)):
        whole, _ = soundfile.read(manifest.path(index), dtype="float32")
        whole = fit_length(whole, max(len(whole), 5600))
        draw = uniform(3, 2, manifest.keys[index], "reference")
        start = int(draw * (len(whole) - 5600 + 1))
        wanted = whole[start : start + 5600]
        assert np.array_equal(batch.reference[row].numpy(), wanted)
    plain = CropDataset(manifest, PLAN, 3)
    assert plain.collate([plain[(2, 0)]]).reference is None
    # Nor is it cut before an epoch needs it.
    data = CropDataset(
        manifest, PLAN, 3, reference_seconds=0.35, reference_from=3
    )
    assert data.collate([data[(2, 0)]]).reference is None
    assert data.collate([data[(3, 0)]]).reference.shape == (1, 5600)
    # It is drawn apart: the other crops do not move.
    alone = CropDataset(manifest, PLAN, 3, reference_seconds=0.35)
    for one, other in zip(alone[(2, 4)][2][:2], plain[(2, 4)][2], strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("spare", [0, 1, 2])
def test_reference_crops_lie_anywhere_in_the_utterance(tmp_path, spare):
    """Each place occurs, from the first to the last, and none beyond."""
    path = str(tmp_path / "a.wav")
    count = 3200 + spare
    ramp = np.arange(count, dtype=np.int16)
    soundfile.write(path, ramp, 16000, subtype="PCM_16")
    column = StringColumn.from_strings([path])
    manifest = Manifest(column, column, [count / 16000])
    plan = CropPlan(2, 0.1)
    data = CropDataset(manifest, plan, seed=3, reference_seconds=0.2)
    seen = set()
    for epoch in range(1, 41):
        crop = data[(epoch, 0)][2][-1] * 32768
        start = int(crop[0])
        assert crop.tolist() == list(range(start, start + 3200))
        seen.add(start)
    assert seen == set(range(spare + 1))


@pytest.mark.parametrize(
    "start", ["fork", pytest.param("spawn", marks=pytest.mark.slow)]
)
def test_workers_follow_a_new_clustering(manifest, start):
    """Workers that were started before it read what it assigns."""
    sampling = ClusterAware(clusters=3, start_epoch=2, every=1)
    sampling.set_up(COUNT, PLAN.local_crops, seed=3)

    def pseudo_positives(epoch, index):
        return sampling.pseudo_positives(
            epoch, index, manifest.keys[index], PLAN.num_crops, 2
        )

    data = CropDataset(manifest, PLAN, 3)
    sampler = EpochBatchSampler(COUNT, 4, 3, sources=pseudo_positives)
    loader = torch.utils.data.DataLoader(
        data,
        batch_sampler=sampler,
        collate_fn=data.collate,
        num_workers=1,
        persistent_workers=True,
        multiprocessing_context=start,
    )
    generator = torch.Generator().manual_seed(0)
    labels, others = [], 0
    for epoch in (1, 2, 3):
        if epoch > 1:
            rows = torch.randn(COUNT, 4, generator=generator)
            sampling.recluster(epoch, rows)
            labels.append(sampling.assignments.tolist())
        sampler.set_epoch(epoch)
        for batch in loader:
            crops = batch.to("cpu").crops[0]
            for row, i in enumerate(batch.index.tolist()):
                drawn = pseudo_positives(epoch, i)
                others += (drawn != i).sum()
                for number in range(2):
                    wanted = cut_by_hand(manifest, drawn[number], i, epoch)
                    found = crops[row, number].numpy()
                    assert np.array_equal(found, wanted[number])
    assert labels[0] != labels[1] and others > COUNT


# -- batches as 16-bit integers ------------------------------------------------


@pytest.mark.parametrize("workers", [0, 1])
def test_what_16_bits_cannot_hold_travels_as_it_is(tmp_path, workers):
    """Neither rounded nor clipped; what they can hold takes half the space."""
    rng = np.random.default_rng(1)
    loud = rng.normal(0, 1.0, 4800).astype(np.float32)
    quiet = rng.integers(-32768, 32768, 4800).astype(np.int16)
    quiet[:2] = -32768, 32767
    paths = [str(tmp_path / name) for name in ("loud.wav", "quiet.wav")]
    soundfile.write(paths[0], loud, 16000, subtype="FLOAT")
    soundfile.write(paths[1], quiet, 16000, subtype="PCM_16")
    assert np.abs(loud).max() > 2
    column = StringColumn.from_strings(paths)
    manifest = Manifest(column, column, [0.3, 0.3])
    data = CropDataset(manifest, CropPlan(1, 0.3), seed=3)
    halves = HalvesDataset(manifest, 0.15, crops_per_half=1)
    for dataset, address in ((data, lambda i: (1, i)), (halves, lambda i: i)):
        batches = torch.utils.data.DataLoader(
            dataset,
            batch_sampler=[
                [address(0)],
                [address(1)],
                [address(0), address(1)],
            ],
            collate_fn=dataset.collate,
            num_workers=workers,
        )
        first, second, both = [batch.crops[0].dtype for batch in batches]
        assert (first, both) == (torch.float32, torch.float32)
        assert second == torch.int16
        first, second, both = [
            batch.to("cpu").crops[0].flatten(1).numpy() for batch in batches
        ]
        assert np.array_equal(first[0], loud)
        assert np.array_equal(second[0], quiet / np.float32(32768))
        assert np.array_equal(both, np.concatenate([first, second]))
