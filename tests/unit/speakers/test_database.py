"""The database: round trip, duplicates, and what is refused."""

import numpy as np
import pytest

from speechbrain_ssl.errors import ConfigError, EmbeddingError
from speechbrain_ssl.speakers.database import Database


@pytest.fixture
def recordings(tmp_path):
    """Four files of different content."""
    paths = [tmp_path / f"{n}.wav" for n in range(4)]
    for path in paths:
        path.write_bytes(path.name.encode())
    return paths


@pytest.fixture
def rows():
    return np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)


def test_round_trip(recordings, rows, tmp_path):
    """The mean of unit rows, whatever their length, order and name."""
    names = ["Anna", "../né e.npz"]
    database = Database(tmp_path / "known", "digest")
    database.add(names[0], recordings[:3], rows[:3])
    database.add(names[1], recordings[3:], rows[3:])
    assert len(list((tmp_path / "known").iterdir())) == 2
    found, means = Database(tmp_path / "known", "digest").speakers()
    assert sorted(found) == sorted(names)
    units = rows[:3] / np.linalg.norm(rows[:3], axis=1, keepdims=True)
    mean = units.mean(axis=0)
    wanted = mean / np.linalg.norm(mean)
    assert means[found.index("Anna")] == pytest.approx(wanted, abs=1e-6)
    scaled = rows[[2, 0, 1]] * np.array([[1], [5], [9]], dtype=np.float32)
    database.add("Anna", [recordings[n] for n in (2, 0, 1)], scaled, True)
    found, means = Database(tmp_path / "known", "digest").speakers()
    assert means[found.index("Anna")] == pytest.approx(wanted, abs=1e-6)


def test_a_name_twice(recordings, rows, tmp_path):
    database = Database(tmp_path / "known", "digest")
    database.add("Anna", recordings[:1], rows[:1])
    (path,) = (tmp_path / "known").iterdir()
    before = path.read_bytes()
    database = Database(tmp_path / "known", "digest")
    with pytest.raises(ConfigError, match="Anna is in .* --replace"):
        database.add("Anna", recordings[1:2], rows[1:2])
    assert path.read_bytes() == before
    database.add("Anna", recordings[1:2], rows[1:2], replace=True)
    _, means = Database(tmp_path / "known", "digest").speakers()
    assert means[0] @ rows[1] > 0.999 * np.linalg.norm(rows[1])


def test_duplicates_are_noted(recordings, rows, tmp_path):
    database = Database(tmp_path / "known", "digest")
    assert database.add("Anna", recordings[:2], rows[:2]) == []
    first = recordings[0]
    (note,) = database.add("Ben", [first, recordings[2]], rows[:2])
    assert note == f"{first} is also a recording of Anna"
    third = recordings[3]
    (note,) = database.add("Eve", [third, third], rows[:2])
    assert note == f"{third} is the same recording as {third}"
    # Replacing a name by the same recordings is not a duplicate.
    assert database.add("Eve", [third], rows[:1], replace=True) == []


@pytest.mark.parametrize(
    "model, trimmed, match",
    [("other", False, "another model"), ("digest", True, "without --trim")],
)
def test_another_model(recordings, rows, tmp_path, model, trimmed, match):
    Database(tmp_path, "digest").add("Anna", recordings[:1], rows[:1])
    with pytest.raises(ConfigError, match=match):
        Database(tmp_path, model, trimmed)


@pytest.mark.parametrize("name", ["", " ", "a\nb", "a\0b", "é" * 33])
def test_what_is_no_name(recordings, rows, tmp_path, name):
    with pytest.raises(ConfigError, match="is not a name"):
        Database(tmp_path / "known", "d").add(name, recordings, rows)
    assert not (tmp_path / "known").exists()


def test_the_longest_name(recordings, rows, tmp_path):
    Database(tmp_path / "known", "d").add("é" * 32, recordings, rows)


def test_what_is_no_database(recordings, rows, tmp_path):
    with pytest.raises(ConfigError, match="there is no database"):
        Database(tmp_path / "nowhere", "d").speakers()
    with pytest.raises(ConfigError, match="is a file"):
        Database(recordings[0], "d")
    for content in (b"", b"PK\x03\x04 and no more", b"text"):
        (tmp_path / "Anna.npz").write_bytes(content)
        with pytest.raises(ConfigError, match="Anna.npz is not a speaker"):
            Database(tmp_path, "d")
    np.savez(tmp_path / "Anna.npz", embeddings=rows)
    with pytest.raises(ConfigError, match="Anna.npz is not a speaker"):
        Database(tmp_path, "d")


def test_embeddings_that_cancel_out(recordings, tmp_path):
    """They have no direction, so that no score would be a number."""
    database = Database(tmp_path, "d")
    opposite = np.array([[1.0, 0.0], [-1.0, 0.0]], dtype=np.float32)
    database.add("Anna", recordings[:2], opposite)
    with pytest.raises(EmbeddingError, match="'Anna' is zero"):
        database.speakers()
