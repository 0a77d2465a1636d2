"""Multi-crop scores against a loop over pairs of crops."""

import numpy as np
import pytest
import soundfile
import torch

from speechbrain_ssl.data.audio import fit_length
from speechbrain_ssl.embedding.cache import embed_cached
from speechbrain_ssl.embedding.crops import CropGrid, embed_crops
from speechbrain_ssl.embedding.extract import embed_files
from speechbrain_ssl.encoders.ecapa import FastECAPA
from speechbrain_ssl.encoders.features import LogMel
from speechbrain_ssl.errors import AudioError, ConfigError, EmbeddingError
from speechbrain_ssl.verification.multicrop import multicrop_rows
from speechbrain_ssl.verification.scoring import product_scores
from speechbrain_ssl.verification.trials import Trials

SECONDS = (0.3, 0.5, 1.2, 1.7)


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return FastECAPA(
        input_size=80,
        channels=[16, 16, 16, 16, 48],
        lin_neurons=8,
        attention_channels=8,
        se_channels=8,
    ).eval()


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("waves")
    rng = np.random.default_rng(0)
    found = []
    for number, seconds in enumerate(SECONDS):
        found.append(str(folder / f"{number}.wav"))
        wave = 0.1 * rng.normal(size=round(16000 * seconds))
        soundfile.write(found[-1], wave, 16000)
    return found


def by_hand(encoder, path, grid):
    """Unit embeddings of the crops of a file, one crop at a time."""
    wave, _ = soundfile.read(path, dtype="float32")
    length = round(16000 * grid.seconds)
    starts = [0]
    if len(wave) > length:
        room = len(wave) - length
        starts = [int(room * i / (grid.count - 1)) for i in range(grid.count)]
    found = []
    for start in starts:
        crop = fit_length(wave[start : start + length], length)
        with torch.no_grad():
            row = (
                encoder(LogMel()(torch.from_numpy(crop)[None])).numpy().ravel()
            )
        found.append(row / np.linalg.norm(row))
    return found


@pytest.mark.parametrize("batch_seconds", [0.1, 4.0, 100.0])
def test_scores_against_a_loop_over_pairs_of_crops(
    encoder, paths, batch_seconds
):
    grid = CropGrid(3, 0.5)
    crops = embed_crops(
        encoder,
        LogMel(),
        paths,
        grid,
        batch_seconds=batch_seconds,
        progress=False,
    )
    whole = embed_files(encoder, LogMel(), paths, progress=False)
    left, right = np.triu_indices(4, 1)
    trials = Trials(left >= 0, left, right, paths)
    found = product_scores(multicrop_rows(whole, crops), trials)
    unit = whole / np.linalg.norm(whole, axis=1, keepdims=True)
    expected = []
    for a, b in zip(left, right, strict=True):
        pairs = [
            float(x @ y)
            for x in by_hand(encoder, paths[a], grid)
            for y in by_hand(encoder, paths[b], grid)
        ]
        crop_score = sum(pairs) / len(pairs)
        expected.append((crop_score + float(unit[a] @ unit[b])) / 2)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_where_crops_lie():
    grid = CropGrid(15, 4.0)
    starts = grid.starts(10 * 16000, 16000)
    assert starts[0] == 0 and starts[-1] == 6 * 16000 and len(starts) == 15
    assert np.ptp(np.diff(starts)) <= 1
    assert grid.starts(64000, 16000).tolist() == [0]
    assert grid.starts(64001, 16000).tolist() == [0] * 14 + [1]
    assert CropGrid(1, 4.0).starts(99999, 16000).tolist() == [0]


def test_crops_have_a_cache_of_their_own(encoder, paths, tmp_path):
    cache, arguments = tmp_path / "crops.npz", (encoder, LogMel(), paths)
    one, made = embed_cached(
        cache, *arguments, grid=CropGrid(3, 0.5), progress=False
    )
    assert made == 4
    again, made = embed_cached(
        cache, *arguments, grid=CropGrid(3, 0.5), progress=False
    )
    assert made == 0 and (one == again).all()
    other, made = embed_cached(
        cache, *arguments, grid=CropGrid(2, 0.5), progress=False
    )
    assert made == 4 and (one[2:] != other[2:]).any()
    # Nor are crops taken for whole utterances.
    assert embed_cached(cache, *arguments, progress=False)[1] == 4


def test_a_silent_or_missing_file_is_named(encoder, paths, tmp_path):
    class Silent(torch.nn.Module):
        def forward(self, x, lengths):
            return x.mean(dim=(1, 2), keepdim=True).expand(-1, 1, 4) * 0

    with pytest.raises(EmbeddingError, match="0.wav' is zero"):
        embed_crops(Silent(), LogMel(), paths, CropGrid(2, 0.5), progress=False)
    with pytest.raises(AudioError, match="nowhere.wav"):
        embed_crops(
            encoder,
            LogMel(),
            [str(tmp_path / "nowhere.wav")],
            CropGrid(2, 0.5),
            progress=False,
        )


@pytest.mark.parametrize("count, seconds", [(0, 4.0), (3, 0.05), (3, np.nan)])
def test_crops_that_are_none(count, seconds):
    with pytest.raises(ConfigError, match="CropGrid's (count|seconds) must be"):
        CropGrid(count, seconds)


def test_tables_that_do_not_belong_together():
    with pytest.raises(EmbeddingError, match=r"\(2, 3\) and \(1, 3\)"):
        multicrop_rows(np.ones((2, 3)), np.ones((1, 3)))
