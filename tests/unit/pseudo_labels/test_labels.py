"""Tables of labels, and what is made of them."""

import numpy as np
import pandas as pd
import pytest

from speechbrain_ssl.data.manifest import Manifest, StringColumn
from speechbrain_ssl.errors import ManifestError
from speechbrain_ssl.pseudo_labels.labels import (
    keep_sizes,
    majority_classes,
    read_labels,
    write_labels,
)


def manifest_of(count):
    """Utterances u0, u1, ..."""
    names = StringColumn.from_strings([f"u{i}" for i in range(count)])
    return Manifest(names, names, np.ones(count))


def table(path, text):
    """A CSV file."""
    path.write_text(text)
    return path


def test_what_is_written_is_read(tmp_path):
    """Utterances without a label are not in the file."""
    labels = np.array([3, -1, 0, 10, 2, 1, -1, 3])
    path = tmp_path / "labels.csv"
    write_labels(path, manifest_of(8), labels)
    assert path.read_text().splitlines()[:3] == ["ID,label", "u0,3", "u2,0"]
    found, names = read_labels(path, manifest_of(8))
    assert names == ["0", "1", "2", "3", "10"]
    assert found.tolist() == [3, -1, 0, 4, 2, 1, -1, 3]
    assert np.array(names, int)[found[labels >= 0]].tolist() == (
        labels[labels >= 0].tolist()
    )


def test_the_order_is_that_of_the_manifest(tmp_path):
    """Whatever the order of the lines, and of the columns."""
    path = tmp_path / "labels.csv"
    table(path, "more,spk,ID\n1,b,u2\n2,a,u0\n3,b,u1\n")
    labels, names = read_labels(path, manifest_of(4), "spk")
    assert (labels.tolist(), names) == ([0, 1, 1, -1], ["a", "b"])


def test_text_that_looks_like_numbers(tmp_path):
    """Sorted as numbers, but never taken for one another."""
    path = tmp_path / "labels.csv"
    huge = ["12345678901234567890", "12345678901234567891"]
    texts = ["10", "9", "1", "01", "1e1", *huge, "9"]
    lines = [f"u{i},{text}\n" for i, text in enumerate(texts)]
    table(path, "ID,label\n" + "".join(lines))
    labels, names = read_labels(path, manifest_of(8))
    assert [names[c] for c in labels] == texts
    assert len(names) == 7
    assert names[:3] == ["01", "1", "9"] and set(names[-2:]) == set(huge)
    # One that is no number: all are text; NA and nan are names as any.
    table(path, "ID,label\nu0,10\nu1,9\nu2,nan\nu3,NA\n")
    labels, names = read_labels(path, manifest_of(4))
    assert (labels.tolist(), names) == ([0, 1, 3, 2], ["10", "9", "NA", "nan"])


@pytest.mark.parametrize(
    "text, message",
    [
        ("ID,speaker\nu0,a\n", "columns ID and label are needed"),
        ("ID,label\n", "gives no utterance a label"),
        ("", "columns ID and label are needed"),
        ("ID,label\nu0,a\nu1,\n", "line 3: an empty cell"),
        ("ID,label\nu0,a\nu1,b\nu0,b\n", "line 4.*'u0' has a label already"),
        ("ID,label\nu0,a\nx,b\ny,b\n", r"line 3.*'x' is not in.*2 of 3"),
    ],
)
def test_refused_by_name(tmp_path, text, message):
    path = table(tmp_path / "some.csv", text)
    with pytest.raises(ManifestError, match=rf"some\.csv.*{message}"):
        read_labels(path, manifest_of(3))


def test_no_file(tmp_path):
    with pytest.raises(ManifestError, match=r"no labels .*absent\.csv"):
        read_labels(tmp_path / "absent.csv", manifest_of(2))


def test_a_file_of_a_larger_corpus(tmp_path):
    """Others may be in it, where that is allowed; nobody else may not."""
    path = table(tmp_path / "a.csv", "ID,label\nx,ann\nu1,bob\ny,bob\nu0,eve\n")
    with pytest.raises(ManifestError, match="line 2: the utterance 'x'"):
        read_labels(path, manifest_of(3))
    found, names = read_labels(path, manifest_of(3), others=True)
    assert found.tolist() == [1, 0, -1] and names == ["bob", "eve"]
    path = table(tmp_path / "b.csv", "ID,label\nx,ann\n")
    with pytest.raises(ManifestError, match="1 of 1 are not"):
        read_labels(path, manifest_of(3), others=True)


def test_small_clusters_lose_their_members():
    """Counted by hand; the rest is numbered anew in the old order."""
    labels = np.array([4, 4, 9, 0, 0, 0, -1, -1, -1, -1, 7, 7])
    assert keep_sizes(labels, 2).tolist() == [
        *[1, 1, -1, 0, 0, 0],
        *[-1, -1, -1, -1, 2, 2],
    ]
    everything = keep_sizes(labels, 1)
    assert sorted(set(everything.tolist())) == [-1, 0, 1, 2, 3]


def test_large_clusters_can_be_left_out():
    labels = np.repeat([3, 1, 4, 2], [2, 3, 5, 4])
    kept = keep_sizes(labels, 3, most=4)
    assert kept.tolist() == [-1] * 2 + [0] * 3 + [-1] * 5 + [1] * 4
    with pytest.raises(ManifestError, match="1 have from 5 to 9 members"):
        keep_sizes(labels, 5, most=9)


@pytest.mark.parametrize(
    "labels, least", [([0, 0, 1], 2), ([-1, -1], 1), ([5] * 9, 1)]
)
def test_fewer_than_two_clusters_are_refused(labels, least):
    with pytest.raises(ManifestError, match="nothing to tell apart.*min_clus"):
        keep_sizes(np.array(labels), least)


def by_loops(labels, speakers):
    """The same in plain Python."""
    counts = {}
    for label, speaker in zip(labels, speakers, strict=True):
        if speaker >= 0:
            counts.setdefault(label, {}).setdefault(speaker, 0)
            counts[label][speaker] += 1
    stands_for, best = {}, {}
    for label in sorted(counts):
        speaker = min(counts[label], key=lambda s: (-counts[label][s], s))
        stands_for[label] = speaker
        size = counts[label][speaker]
        if speaker not in best or size > best[speaker][1]:
            best[speaker] = (label, size)
    right, own = [], []
    for label, speaker in zip(labels, speakers, strict=True):
        own.append(speaker >= 0 and stands_for.get(label) == speaker)
        default = best.get(speaker, (-1, 0))[0] if speaker >= 0 else -1
        right.append(label if own[-1] else default)
    return right, own


@pytest.mark.parametrize("seed", range(8))
def test_majority_classes_are_those_of_a_loop(seed):
    """With unknown speakers, classes without any, and ties."""
    draws = np.random.default_rng(seed)
    labels = draws.integers(0, 9, 70)
    speakers = draws.integers(-1, 6, 70)
    speakers[labels == 4] = -1
    right, own = majority_classes(labels, speakers)
    wanted = by_loops(labels.tolist(), speakers.tolist())
    assert (right.tolist(), own.tolist()) == wanted


def test_majority_of_nobody():
    """No speaker is known: nothing can be said, and nothing fails."""
    right, own = majority_classes(np.array([0, 1]), np.array([-1, -1]))
    assert right.tolist() == [-1, -1] and not own.any()


def test_majority_does_not_depend_on_names():
    """Renamed speakers and permuted utterances give the same."""
    draws = np.random.default_rng(0)
    labels = np.repeat(np.arange(5), [9, 8, 7, 6, 5])
    speakers = np.where(draws.random(35) < 0.7, labels % 3, (labels + 1) % 3)
    right, own = majority_classes(labels, speakers)
    order = draws.permutation(35)
    again, mine = majority_classes(labels[order], 100 * speakers[order] + 7)
    assert again.tolist() == right[order].tolist()
    assert mine.tolist() == own[order].tolist()


def test_a_large_table(tmp_path):
    """A hundred thousand utterances are a matter of a second."""
    count = 100_000
    manifest = manifest_of(count)
    labels = np.random.default_rng(0).integers(0, 5000, count)
    write_labels(tmp_path / "l.csv", manifest, labels)
    found, names = read_labels(tmp_path / "l.csv", manifest)
    assert np.array_equal(np.array(names, int)[found], labels)
    assert len(pd.read_csv(tmp_path / "l.csv")) == count
    speakers = (labels + (np.arange(count) % 7 == 0)) % 4000
    _, own = majority_classes(labels, speakers)
    assert 0.8 < own.mean() < 0.9
