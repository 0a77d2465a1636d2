"""The nearest of stored rows, against all cosines computed at once."""

import numpy as np
import pytest

from speechbrain_ssl.embedding.nearest import nearest, open_columns
from speechbrain_ssl.errors import ConfigError


def test_nearest(tmp_path):
    """Over several pieces of a mapped file, of rows of any norm."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(5000, 8)).astype(np.float32)
    rows *= rng.uniform(0.1, 9, size=(5000, 1)).astype(np.float32)
    rows[7] = 0
    path = tmp_path / "rows.npz"
    np.savez(path, files=np.array(["é"] * 5000), rows=rows)
    mapped = open_columns(path)["rows"]
    assert isinstance(mapped, np.memmap)
    query = rng.normal(size=8)
    cosines = rows @ query / np.linalg.norm(query)
    cosines /= np.maximum(np.linalg.norm(rows, axis=1), 1e-12)
    for count in (1, 10, 6000):
        places, found = nearest(mapped, query, count)
        wanted = np.argsort(-cosines)[:count]
        assert found == pytest.approx(cosines[wanted], abs=1e-5)
        assert cosines[places] == pytest.approx(found, abs=1e-5)
        assert len(set(places.tolist())) == min(count, 5000)


def test_the_columns(tmp_path):
    """Of any shape, equal to what numpy loads."""
    path = tmp_path / "a.npz"
    saved = {
        "files": np.array(["a.wav", "ä ö.wav"]),
        "rows": np.arange(6.0).reshape(2, 3),
        "model": np.array("digest"),
        "none": np.zeros((0, 4)),
    }
    np.savez(path, **saved)
    found = open_columns(path)
    assert list(found) == list(saved)
    for name, value in saved.items():
        assert np.array_equal(found[name], value)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "a.npz"
    for write in (
        lambda: None,
        lambda: path.write_text("no archive"),
        lambda: np.savez_compressed(path, rows=np.eye(9)),
        lambda: np.savez(path, rows=np.array([{}], dtype=object)),
    ):
        write()
        with pytest.raises(ConfigError, match=r"a\.npz holds no embeddings"):
            open_columns(path)
