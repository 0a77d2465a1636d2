"""The list of utterances: what is read, what is refused, what it costs."""

import os

import numpy as np
import pandas as pd
import pytest

from speechbrain_ssl.data.manifest import (
    Manifest,
    StringColumn,
    utterance_key,
    write_manifest,
)
from speechbrain_ssl.errors import ManifestError

ROWS = [
    {"ID": "u1", "duration": "1.5", "wav": "/abs/1.wav", "spk_id": "anna"},
    {"ID": "u2", "duration": "2", "wav": "rel/2.wav", "spk_id": "bert"},
    {"ID": "007", "duration": "0.25", "wav": "$data_root/3.wav", "spk_id": ""},
]


def csv(folder, columns, rows=None, name="m.csv"):
    """Writes rows by hand, columns in the order given."""
    lines = [",".join(columns)]
    for row in ROWS if rows is None else rows:
        lines.append(",".join(row[c] for c in columns))
    path = folder / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def contents(manifest):
    return [
        (manifest.ids[i], manifest.path(i), float(manifest.durations[i]))
        for i in range(len(manifest))
    ]


def test_paths_absolute_relative_and_under_a_root(tmp_path):
    """The three forms a corpus comes in; an ID of digits stays a string."""
    path = csv(tmp_path, ["ID", "duration", "wav"])
    manifest = Manifest.read(path, data_root="/corpus")
    assert contents(manifest) == [
        ("u1", "/abs/1.wav", 1.5),
        ("u2", str(tmp_path / "rel/2.wav"), 2.0),
        ("007", "/corpus/3.wav", 0.25),
    ]
    assert manifest.durations.dtype == np.float32
    assert manifest.keys.tolist() == [
        utterance_key(i) for i in ("u1", "u2", "007")
    ]
    assert manifest.hours() == pytest.approx(3.75 / 3600)


def test_no_speaker_is_ever_read(tmp_path, monkeypatch):
    """Labels there, shuffled, poisoned or absent: the same manifest.

    A label that reached memory could reach training, and then "without labels"
    would be wrong.
    """
    shuffled = [
        {**row, "spk_id": name}
        for row, name in zip(ROWS, ["", "anna", "bert"], strict=True)
    ]
    # Not even decodable: whoever keeps this column has to notice.
    poisoned = [{**row, "spk_id": "POISON\x00\ufffd"} for row in ROWS]
    columns = ["spk_id", "ID", "duration", "wav"]
    tables = []
    read_csv = pd.read_csv

    def spy(*args, **kwargs):
        tables.append(read_csv(*args, **kwargs))
        return tables[-1]

    monkeypatch.setattr(pd, "read_csv", spy)
    found = [
        contents(Manifest.read(path, "/corpus"))
        for path in (
            csv(tmp_path, columns),
            csv(tmp_path, columns, shuffled),
            csv(tmp_path, columns, poisoned),
            csv(tmp_path, ["wav", "duration", "ID", "spk_id"]),
            csv(tmp_path, ["ID", "duration", "wav"]),
        )
    ]
    assert all(other == found[0] for other in found)
    assert len(tables) == 5
    for table in tables:
        assert sorted(table.columns) == ["ID", "duration", "wav"]
    manifest = Manifest.read(csv(tmp_path, columns, poisoned), "/corpus")
    held = b"".join(
        value.blob.tobytes()
        for value in vars(manifest).values()
        if isinstance(value, StringColumn)
    )
    assert b"anna" not in held and b"POISON" not in held


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"duration": "0"}, r"m\.csv, line 3: .*'0.0'.*correct it or remove"),
        ({"duration": "-1"}, r"m\.csv, line 3: .*'-1.0'"),
        ({"duration": "nan"}, r"m\.csv, line 3: .*'nan'"),
        ({"duration": "inf"}, r"m\.csv, line 3: .*'inf'"),
        ({"duration": ""}, r"m\.csv, line 3: .*''"),
        ({"duration": "3 s"}, r"m\.csv, line 3: .*'3 s'"),
        ({"ID": ""}, r"m\.csv, line 3: the column ID is empty; fill it in"),
        ({"wav": ""}, r"m\.csv, line 3: the column wav is empty; fill it in"),
        ({"ID": "u1"}, r"m\.csv, line 3: .*'u1'.*remove one or rename"),
    ],
)
def test_a_bad_row_is_named(tmp_path, change, message):
    """File, line and remedy: a corpus has a million rows."""
    rows = [ROWS[0], {**ROWS[1], **change}, ROWS[2]]
    with pytest.raises(ManifestError, match=message):
        Manifest.read(csv(tmp_path, ["ID", "duration", "wav"], rows), "/corpus")


def test_a_bad_file_is_named(tmp_path):
    with pytest.raises(ManifestError, match="no manifest .*none.csv; run the"):
        Manifest.read(tmp_path / "none.csv")
    path = csv(tmp_path, ["ID", "wav"])
    with pytest.raises(ManifestError, match=r"m\.csv .*needed .*'duration'"):
        Manifest.read(path)
    path = csv(tmp_path, ["ID", "duration", "wav"], rows=[])
    with pytest.raises(ManifestError, match=r"m\.csv lists no utterance"):
        Manifest.read(path)
    path.write_text("")
    with pytest.raises(ManifestError, match=r"m\.csv is not a manifest"):
        Manifest.read(path)
    path.write_bytes(b"ID,duration,wav\nu\xff,1,a.wav\n")
    with pytest.raises(ManifestError, match=r"m\.csv is not a manifest"):
        Manifest.read(path)
    path = csv(tmp_path, ["ID", "duration", "wav"])
    with pytest.raises(ManifestError, match=r"m\.csv .*\(data_folder\)"):
        Manifest.read(path)


def test_ids_are_unique_over_files(tmp_path):
    """Two files with one ID would share all random draws."""
    columns = ["ID", "duration", "wav"]
    first = csv(tmp_path, columns, name="a.csv")
    other = [{**row, "ID": "x" + row["ID"]} for row in ROWS]
    second = csv(tmp_path, columns, other, name="b.csv")
    assert len(Manifest.read([first, second], "/c")) == 6
    other[2]["ID"] = "u2"
    second = csv(tmp_path, columns, other, name="b.csv")
    with pytest.raises(ManifestError, match=r"b\.csv, line 4: .*'u2'"):
        Manifest.read([first, second], "/c")
    same = StringColumn.from_strings(["a", "b", "a"])
    with pytest.raises(ManifestError, match="'a' occurs more than once"):
        Manifest(same, same, np.ones(3))


def some_manifest(count, order=None):
    names = [f"speaker{i % 7}/utterance{i}" for i in range(count)]
    seconds = np.arange(count) % 10 + 1.0
    order = np.arange(count) if order is None else order
    names = [names[i] for i in order]
    return Manifest(
        StringColumn.from_strings(names),
        StringColumn.from_strings([f"/x/{n}.wav" for n in names]),
        seconds[order],
    )


def test_hold_out_depends_on_ids_alone():
    """Another order, or a corpus that has grown, holds out the same ones."""
    order = np.random.default_rng(0).permutation(300)
    splits = [m.hold_out(20, 4.0) for m in (some_manifest(300),)]
    splits.append(some_manifest(300, order).hold_out(20, 4.0))
    (train, valid), (train2, valid2) = splits
    assert (len(train), len(valid)) == (280, 20)
    assert set(contents(valid)) == set(contents(valid2))
    assert set(contents(train)) == set(contents(train2))
    everything = set(contents(some_manifest(300)))
    assert set(contents(train)) | set(contents(valid)) == everything
    assert valid.durations.min() >= 4.0
    # A shorter one with a smaller key stays in training.
    assert train.durations.min() == 1.0
    grown = set(contents(some_manifest(330).hold_out(20, 4.0)[1]))
    assert len(grown & set(contents(valid))) >= 14
    train, valid = some_manifest(5).hold_out(0)
    assert (len(train), len(valid)) == (5, 0)


def test_hold_out_passes_over_what_is_not_usable():
    """Asked in key order, no more often than needed; the rest is trained on."""
    manifest = some_manifest(300)
    order = np.argsort(manifest.keys).tolist()
    asked = []

    def usable(i):
        asked.append(i)
        return i not in order[1:3]

    train, valid = manifest.hold_out(5, 0.0, usable)
    assert asked == order[:7]
    chosen = sorted([order[0], *order[3:7]])
    assert contents(valid) == contents(manifest.select(chosen))
    assert manifest.path(order[1]) in {train.path(i) for i in range(295)}
    with pytest.raises(ManifestError, match="only 2 are usable.*lower"):
        manifest.hold_out(3, 0.0, lambda i: i < 2)


@pytest.mark.parametrize("block", [1, 4, 65536])
def test_select_in_any_order(monkeypatch, block):
    """Strings of any length, none included, and the keys that belong to them."""
    monkeypatch.setattr(StringColumn, "BLOCK", block)
    names = ["a", "ümlaut", "b" * 50, "", "c/d", "ß", "e f", "007", "x"]
    column = StringColumn.from_strings(names)
    manifest = Manifest(column, column, np.arange(9.0))
    for wanted in ([], [3], [8, 0, 3, 1, 2], list(range(9))):
        found = manifest.select(np.array(wanted, dtype=np.int32))
        assert contents(found) == [(names[i], names[i], i) for i in wanted]
        assert found.keys.tolist() == [utterance_key(names[i]) for i in wanted]


def test_hold_out_refuses_the_impossible():
    manifest = some_manifest(20)
    for count, seconds in ((20, 0.0), (25, 0.0), (3, 10.0)):
        with pytest.raises(ManifestError, match="lower `valid_utterances`"):
            manifest.hold_out(count, seconds)


def test_write_and_read_back(tmp_path):
    names = ["a", 'with "quotes"', "comma, and ümlaut", "007"]
    table = pd.DataFrame(
        {
            "wav": [f"/x/{n}.wav" for n in names],
            "ID": names,
            "duration": [1.0, 2.5, 3.0, 4.0],
        }
    )
    path = tmp_path / "new" / "m.csv"
    write_manifest(path, table)
    assert path.read_text("utf-8").startswith("ID,duration,wav\n")
    manifest = Manifest.read(path)
    assert [manifest.ids[i] for i in range(4)] == names
    assert manifest.path(2) == "/x/comma, and ümlaut.wav"


def test_write_refuses_a_speaker_column(tmp_path):
    """A training manifest of ours has no place for a label."""
    table = pd.DataFrame(
        {"ID": ["a"], "duration": [1.0], "wav": ["/a.wav"], "spk_id": ["s"]}
    )
    path = tmp_path / "m.csv"
    path.write_text("what was there")
    with pytest.raises(ManifestError, match="no other; got .*spk_id"):
        write_manifest(path, table)
    with pytest.raises(ManifestError, match="got ID, wav"):
        write_manifest(path, table[["ID", "wav"]])
    assert path.read_text() == "what was there"


def test_write_is_atomic(tmp_path, monkeypatch):
    """An interrupted prepare script must not leave half a corpus behind."""
    table = pd.DataFrame({"ID": ["a"], "duration": [1.0], "wav": ["/a.wav"]})
    path = tmp_path / "m.csv"
    path.write_text("what was there")

    def breaks(self, stream, **_):
        stream.write("ID,dur")
        raise KeyboardInterrupt

    monkeypatch.setattr(pd.DataFrame, "to_csv", breaks)
    with pytest.raises(KeyboardInterrupt):
        write_manifest(path, table)
    assert path.read_text() == "what was there"
    assert os.listdir(tmp_path) == ["m.csv"]


def private_bytes():
    """What this process has written to and shares with no other."""
    with open("/proc/self/smaps_rollup") as stream:
        lines = dict(line.split(":") for line in stream if ":" in line[:40])
    return int(lines["Private_Dirty"].split()[0]) * 1024


@pytest.mark.slow
@pytest.mark.skipif(
    not os.path.exists("/proc/self/smaps_rollup"), reason="needs Linux"
)
def test_a_million_utterances_cost_a_worker_megabytes(tmp_path):
    """Forked workers share the columns, even after touching every one.

    A list of a million dictionaries costs each worker its own copy (reference
    counts are written at each access): gigabytes with a dozen of workers.
    """
    count = 1_000_000
    i = np.arange(count)
    speaker = pd.Series(i // 180).astype(str).str.zfill(5)
    name = "id" + speaker + "/" + pd.Series(i).astype(str).str.zfill(11)
    table = pd.DataFrame(
        {"ID": name, "duration": 4.0 + i % 7, "wav": "$data_root/" + name}
    )
    path = tmp_path / "million.csv"
    write_manifest(path, table)
    manifest = Manifest.read(path, "/some/where")
    del table, name, speaker
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            before = private_bytes()
            letters = 0
            for j in range(count):
                letters += len(manifest.path(j)) + len(manifest.ids[j])
            total = float(manifest.durations.sum()) + int(manifest.keys[-1])
            grown = private_bytes() - before
            os.write(writer, f"{grown} {letters} {total}".encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        grown, letters, _ = stream.read().split()
    os.waitpid(child, 0)
    assert int(letters) == len(manifest.ids.blob) + len(manifest.wavs.blob)
    assert int(grown) < 8e6
    arrays = [manifest.keys, manifest.durations]
    arrays += [manifest.ids.blob, manifest.ids.offsets]
    arrays += [manifest.wavs.blob, manifest.wavs.offsets]
    assert sum(a.nbytes for a in arrays) < 120e6


def test_a_path_with_a_drive_is_absolute(tmp_path, monkeypatch):
    """As Windows has it."""
    path = tmp_path / "a.csv"
    path.write_text("ID,duration,wav\nu1,1.0,C:\\noise\\a.wav\nu2,1.0,b.wav\n")
    monkeypatch.setattr(os.path, "isabs", lambda p: p[:1] == "/" or ":" in p)
    manifest = Manifest.read(path)
    assert manifest.path(0) == "C:\\noise\\a.wav"
    assert manifest.path(1) == f"{tmp_path}/b.wav"
