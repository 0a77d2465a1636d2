"""Too little shared memory is noticed before training, or explained."""

import collections
import shutil

import numpy as np
import pytest
import soundfile
import torch

from speechbrain_ssl import config, shared_memory
from speechbrain_ssl.data.crops import CropPlan
from speechbrain_ssl.data.loaders import make_loaders
from speechbrain_ssl.data.manifest import Manifest, StringColumn
from speechbrain_ssl.errors import ConfigError

Usage = collections.namedtuple("Usage", "total used free")


@pytest.fixture
def manifest(tmp_path):
    """Twenty utterances of a second, in 16 bits."""
    paths = [str(tmp_path / f"{i}.wav") for i in range(20)]
    rng = np.random.default_rng(0)
    for path in paths:
        soundfile.write(path, rng.normal(0, 0.1, 16000), 16000)
    column = StringColumn.from_strings(paths)
    return Manifest(column, column, [1.0] * len(paths))


@pytest.fixture
def free(monkeypatch, tmp_path):
    """``free(bytes)`` sets the free space of the shared memory."""
    monkeypatch.setattr(shared_memory, "FOLDER", str(tmp_path))

    def set_free(count):
        usage = Usage(64_000_000, 0, count)
        monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)

    return set_free


def load(manifest, **options):
    keys = {"valid_utterances": 4, "valid_seconds": 0.1, **options}
    return make_loaders(manifest, CropPlan(2, 0.5), 1, 8, **keys)


def test_too_little_for_the_batches(manifest, free, monkeypatch):
    """8 utterances x 2 crops x 8000 samples x 2 bytes, for 4 x 2 batches."""
    needed = 8 * 2 * 8000 * 2 * 4 * 2
    free(needed)
    load(manifest, num_workers=4)
    free(needed - 1)
    match = (
        r"workers \(4\) .* 2 batches of 0 MB .* 2 MB in all.*--shm-size.*num_w"
    )
    with pytest.raises(ConfigError, match=match):
        load(manifest, num_workers=4)
    load(manifest, num_workers=3)
    load(manifest, num_workers=0)
    # All processes of a machine share it.
    free(2 * needed - 1)
    load(manifest, num_workers=4)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=r"workers \(8\)"):
        load(manifest, num_workers=4)


def test_floats_in_the_second_half_of_the_list(manifest, free):
    """A batch that holds any travels as floats, in twice the space."""
    needed = 8 * 2 * 8000 * 2 * 4 * 2
    free(needed)
    for i in range(10, 20):
        path = manifest.path(i)
        soundfile.write(path, np.full(16000, 1e-6), 16000, subtype="FLOAT")
    load(manifest, num_workers=2)
    with pytest.raises(ConfigError, match="shared memory"):
        load(manifest, num_workers=4)


def test_too_little_for_reference_crops_or_validation(manifest, free):
    """Both may need more than a batch of crops does."""
    free(8 * 2 * 8000 * 2 * 2)
    load(manifest, num_workers=1)
    with pytest.raises(ConfigError, match="shared memory"):
        load(manifest, num_workers=1, reference_seconds=0.1, reference_from=9)
    with pytest.raises(ConfigError, match="shared memory"):
        load(manifest, num_workers=1, valid_utterances=10, valid_seconds=0.5)


def test_where_there_is_no_such_folder(manifest, free, monkeypatch):
    free(0)
    monkeypatch.setattr(shared_memory, "FOLDER", "/no/such/folder")
    load(manifest, num_workers=4)


@pytest.mark.parametrize(
    "text",
    [
        "DataLoader worker (pid 7) is killed by signal: Bus error. It is "
        "possible that dataloader's workers are out of shared memory.",
        "unable to open shared memory object </torch_7> in read-write mode: "
        "No space left on device (28)",
        "unable to allocate shared memory(shm) for file </torch_7>: No space "
        "left on device (28)",
        "unable to write to file </torch_7_1>: No space left on device (28)",
    ],
)
def test_what_torch_says_is_explained(text, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["train.py"])
    monkeypatch.setattr("speechbrain.core.tqdm", None)

    def main(argv):
        try:
            raise RuntimeError(text)
        except RuntimeError as error:
            raise RuntimeError("DataLoader worker exited") from error

    with pytest.raises(SystemExit):
        config.run(main)
    said = capsys.readouterr().err
    assert "out of shared memory (/dev/shm): start the container" in said
    assert "--shm-size" in said and "`num_workers: 0`" in said


def test_a_worker_that_finds_it_full_ends_the_run(manifest, monkeypatch):
    """Stock torch waits forever: the worker fails after it has collated."""

    def full(tensor):
        raise RuntimeError(
            "unable to allocate shared memory(shm) for file </t>"
        )

    monkeypatch.setattr(torch.Tensor, "share_memory_", full)
    train, _, valid = load(manifest, num_workers=1)
    for loader in (train, valid):
        with pytest.raises(RuntimeError) as caught:
            next(iter(loader))
        assert "ran out of" in shared_memory.explain(caught.value)
    alone, _, _ = load(manifest, num_workers=0)
    next(iter(alone))


def test_other_errors_are_not(monkeypatch):
    monkeypatch.setattr("sys.argv", ["train.py"])
    monkeypatch.setattr("speechbrain.core.tqdm", None)

    def main(argv):
        torch.zeros(2) @ torch.zeros(3)

    with pytest.raises(RuntimeError, match="size"):
        config.run(main)
