"""A fraction of the labels that people gave."""

import numpy as np
import pytest

from speechbrain_ssl.data.manifest import Manifest, StringColumn
from speechbrain_ssl.errors import ConfigError, ManifestError
from speechbrain_ssl.pseudo_labels.given import GivenLabels

#: Utterances of each speaker; 9 utterances have none.
SIZES = [1, 2, 10, 5, 30, 12, 7, 3, 20, 10]
UNLABELLED = 9


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Manifest, file of labels, and the labels (-1 for none)."""
    labels = np.repeat(np.arange(len(SIZES)), SIZES)
    labels = np.concatenate([labels, np.full(UNLABELLED, -1)])
    labels = np.random.default_rng(0).permutation(labels)
    names = [f"u{i}" for i in range(len(labels))]
    path = tmp_path_factory.mktemp("given") / "speakers.csv"
    lines = [
        f"{name},s{label}\n"
        for name, label in zip(names, labels, strict=True)
        if label >= 0
    ]
    path.write_text("ID,spk_id\n" + "".join(lines))
    names = StringColumn.from_strings(names)
    return Manifest(names, names, np.ones(len(labels))), path, labels


def test_all_of_them(corpus):
    """Both units agree at a fraction of one."""
    manifest, path, labels = corpus
    for unit in ("speakers", "utterances"):
        found = GivenLabels(str(path), of=unit).read(manifest, seed=1)
        assert np.array_equal(found, labels)


@pytest.mark.parametrize("fraction, count", [(0.1, 1), (0.3, 3), (0.96, 10)])
def test_speakers(corpus, fraction, count):
    """So many speakers, and all of their utterances."""
    manifest, path, labels = corpus
    given = GivenLabels(str(path), fraction=fraction)
    found = given.read(manifest, seed=1)
    chosen = set(found[found >= 0].tolist())
    assert len(chosen) == count
    assert np.array_equal(found >= 0, np.isin(labels, list(chosen)))
    assert np.array_equal(found[found >= 0], labels[found >= 0])


def test_never_no_speaker(corpus):
    manifest, path, _ = corpus
    found = GivenLabels(str(path), fraction=1e-6).read(manifest, seed=1)
    assert len(set(found.tolist()) - {-1}) == 1


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.5, 0.9])
def test_utterances(corpus, fraction):
    """So many of every speaker; at least one, and none without a label."""
    manifest, path, labels = corpus
    given = GivenLabels(str(path), fraction=fraction, of="utterances")
    found = given.read(manifest, seed=1)
    for speaker, size in enumerate(SIZES):
        wanted = max(1, round(fraction * size))
        assert (found == speaker).sum() == wanted
    assert np.array_equal(found[found >= 0], labels[found >= 0])
    assert (found[labels < 0] == -1).all()


@pytest.mark.parametrize("unit", ["speakers", "utterances"])
def test_the_seed_decides(corpus, unit):
    """The same one gives the same; others give others; no global draw."""
    manifest, path, _ = corpus
    given = GivenLabels(str(path), fraction=0.5, of=unit)
    first = given.read(manifest, seed=3)
    np.random.seed(99)
    assert np.array_equal(first, given.read(manifest, seed=3))
    others = [given.read(manifest, seed=s) for s in range(4, 8)]
    assert any(not np.array_equal(first, other) for other in others)


def test_more_contains_less(corpus):
    """A larger fraction of speakers is the smaller one and more."""
    manifest, path, _ = corpus
    kept = [
        set(GivenLabels(str(path), fraction=f).read(manifest, 1).tolist())
        for f in (0.2, 0.5, 0.8)
    ]
    assert kept[0] < kept[1] < kept[2]


def test_what_was_seen_is_said():
    assert GivenLabels("x").labels_seen == "100 % of the speakers"
    few = GivenLabels("x", fraction=0.1, of="utterances")
    assert few.labels_seen == "10 % of the utterances"


@pytest.mark.parametrize(
    "options, message",
    [
        (
            {"fraction": 0},
            "fraction must be a number above 0 and of at most 1, got 0",
        ),
        ({"fraction": 1.1}, "above 0 and of at most 1"),
        ({"fraction": float("nan")}, "above 0 and of at most 1"),
        (
            {"of": "sessions"},
            "of must be one of speakers, utterances; got 'sessions'",
        ),
    ],
)
def test_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        GivenLabels("x", **options)


def test_a_missing_column_is_named(corpus):
    manifest, path, _ = corpus
    with pytest.raises(ManifestError, match="columns ID and person"):
        GivenLabels(str(path), column="person").read(manifest, seed=1)
