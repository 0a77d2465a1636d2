"""Lists of files: all kinds say the same, and what cannot be read is named."""

import gzip
import json

import pytest

from speechbrain_ssl.errors import ManifestError
from speechbrain_ssl.prepare.lists import list_entries, read_list


def lhotse(utterance, path, **source):
    """A line of Lhotse's recordings.jsonl."""
    source = {"type": "file", "channels": [0], "source": path, **source}
    recording = {
        "id": utterance,
        "sources": [source],
        "sampling_rate": 16000,
        "num_samples": 32000,
        "duration": 2.0,
        "channel_ids": [0],
    }
    return json.dumps(recording) + "\n"


#: The same two files.
LISTS = {
    "a.csv": "ID,duration,wav\nu1,2.0,a b.wav\nu2,3.0,sub/c.wav\n",
    "no_ids.csv": "PATH,speaker\r\na b.wav,x\r\nsub/c.wav,y\r\n",
    "tabs.tsv": "wav\tid\na b.wav\tu1\nsub/c.wav\tu2\n",
    "quotes.csv": '"ID","wav"\n"u1","a b.wav"\n\n"u2","sub/../sub/c.wav"\n',
    "paths.txt": "\ufeff\na b.wav\r\nsub/c.wav\r\n",
    "wav.scp": "u1 a b.wav\nu2  sub/c.wav\n",
    "recordings.jsonl": lhotse("u1", "a b.wav") + lhotse("u2", "sub/c.wav"),
}


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("compressed", [False, True])
def test_all_kinds_say_the_same(tmp_path, name, compressed):
    # A path with a space could also be an ID and a path.
    (tmp_path / "a b.wav").touch()
    data = LISTS[name].encode()
    if name == "wav.scp":
        (tmp_path / "a b.wav").unlink()
    path = tmp_path / name
    path.write_bytes(gzip.compress(data) if compressed else data)
    entries = read_list(path)
    assert [e.path for e in entries] == [
        str(tmp_path / "a b.wav"),
        str(tmp_path / "sub/c.wav"),
    ]
    ids = [None] * 2 if name in ("no_ids.csv", "paths.txt") else ["u1", "u2"]
    assert [e.id for e in entries] == ids
    folder, listing, by_file = list_entries(entries)
    assert folder == str(tmp_path)
    assert listing.files == ["a b.wav", "sub/c.wav"]
    if ids[0] is None:
        ids = ["a b", "sub/c"]
    assert by_file == dict(zip(listing.files, ids, strict=True))


@pytest.mark.parametrize("there", ["my calls/a b.wav", "c.wav", None])
def test_plain_paths_with_spaces_of_which_some_are_missing(tmp_path, there):
    """The first line alone would be an ID and a path."""
    lines = ["my calls/a.wav", "my calls/a b.wav", "c.wav", "d.wav", "e.wav"]
    if there:
        (tmp_path / there).parent.mkdir(exist_ok=True)
        (tmp_path / there).touch()
    path = tmp_path / "paths.txt"
    path.write_text("\n".join(lines))
    entries = read_list(path)
    assert [entry.text for entry in entries] == lines
    assert {entry.id for entry in entries} == {None}


def test_a_list_of_which_no_file_exists_is_read_by_most_lines(tmp_path):
    path = tmp_path / "wav.scp"
    path.write_text("u1 my calls/a.wav\nu2 b.wav\nu3 c.wav\n")
    assert [entry.id for entry in read_list(path)] == ["u1", "u2", "u3"]


def test_absolute_paths_and_lines(tmp_path):
    path = tmp_path / "l.csv"
    path.write_bytes(b'\n\nwav,ID\n/x/a.wav,u1\n\n"/x/y/b\n\r.wav",u2\n/c,u3\n')
    entries = read_list(path)
    assert [e.path for e in entries] == ["/x/a.wav", "/x/y/b\n\r.wav", "/c"]
    assert [e.line for e in entries] == [4, 6, 8]
    folder, listing, _ = list_entries(entries)
    assert folder == "/"
    assert listing.files == ["c", "x/a.wav", "x/y/b\n\r.wav"]


@pytest.mark.parametrize(
    "text, match",
    [
        (
            "u1 a.wav\nu2 sph2pipe -f wav b.sph |\n",
            "line 2: .*is a command.*no",
        ),
        ("u1 foo.ark:123\n", "line 1: .*archive"),
        ("u1 rec1 0.0 1.25\n", "line 1: .*segments.*only whole files"),
        ("u1 a.wav\n\nb.wav\n", "line 3: 'b.wav' is not an ID and a path"),
        ("u1 a.wav\nu1 b.wav\n", "line 2: the ID 'u1' is also in line 1"),
        ("a.wav\nb.wav\n./a.wav\n", "line 3: './a.wav' is also in line 1"),
        ("wav,ID\na.wav,\n", "line 2: an empty cell"),
        ("ID,wav\nu1\n", "line 2: an empty cell"),
        ("wav,start,stop\na.wav,1,2\n", "parts of files.*start and stop"),
        ("wav\n$data_root/a.wav\n", r"line 2: .*\$data_root.*relative to the"),
        ("wav,ID\n", "names no file"),
        ("ID;wav\nu1;a.wav\n", "line 1: semicolons.*by commas or tabs"),
        ("1 a.wav b.wav\n0 a.wav c.wav\n", "is a list of trials"),
        ("u1 u2 target\nu1 u3 nontarget\n", "is a list of trials"),
        ("label,first,second\n1,a.wav,b.wav\n", "is a list of trials"),
        ("\n \n", "is empty"),
        ("RIFF\0\0", "not text"),
        (lhotse("u1", "ffmpeg a.wav", type="command"), "source is a command"),
        (lhotse("u1", "s3://a.wav", type="url"), "line 1: .*source is a url"),
        ('{"id": "u1", "sources": []}\n', "not one file: its channels"),
        ('{"id": "u1", "supervisions": []}\n', "not a recording of Lhotse"),
        ('{"id": "u1"\n', "line 1: not a recording of Lhotse"),
        ('[\n{"id": "u1"}]\n', "line 1: not a recording of Lhotse"),
        ('wav\n"' + "x" * 200_000 + '"\n', "line .*is it a CSV file"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, text, match):
    path = tmp_path / "list.txt"
    path.write_text(text)
    with pytest.raises(ManifestError, match=match) as caught:
        read_list(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("data", [b"RIFF\xff\xfe", b"\x1f\x8b\x08 cut"])
def test_what_is_no_text(tmp_path, data):
    path = tmp_path / "list.txt"
    path.write_bytes(data)
    with pytest.raises(ManifestError, match="neither a folder nor a list"):
        read_list(path)


def test_channels_in_files_of_their_own(tmp_path):
    line = json.loads(lhotse("u1", "a.wav"))
    line["sources"].append({**line["sources"][0], "source": "b.wav"})
    path = tmp_path / "recordings.jsonl"
    path.write_text(json.dumps(line))
    with pytest.raises(ManifestError, match="channels are separate files; mix"):
        read_list(path)
