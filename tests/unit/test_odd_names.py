"""Names with odd characters survive all tables and lists, and any console."""

import csv
import io
import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import tiny

from speechbrain_ssl.brains.bad_audio import BadAudioReport
from speechbrain_ssl.brains.checkpointing import RunState
from speechbrain_ssl.cli.main import printable
from speechbrain_ssl.data.manifest import Manifest, write_manifest
from speechbrain_ssl.errors import TrialError
from speechbrain_ssl.files import atomic_write, write_csv
from speechbrain_ssl.prepare.rejected import rejected_table, write_rejected
from speechbrain_ssl.pseudo_labels.labels import read_labels, write_labels
from speechbrain_ssl.report.comparison import read_scores
from speechbrain_ssl.report.logbook import Logbook
from speechbrain_ssl.report.page import build_report
from speechbrain_ssl.verification.protocol import write_scores
from speechbrain_ssl.verification.trial_layouts import (
    fields_of,
    join_fields,
    read_enrolment,
)
from speechbrain_ssl.verification.trials import Trials, read_trials

#: As a file system permits them.
NAMES = [
    "a\rb.wav",
    "a\nb.wav",
    "a\r\nb.wav",
    "a\tb.wav",
    ' "quoted", it is ',
    "'",
    "#comment,with comma.wav",
    "NA",
    "\U0001f3a4 \u4e2d\u6587.wav",
    "\x01\x1a\x1b[31m\x7f.wav",
    "line\u2028separator\x85.wav",
    "no\xa0break.wav",
    "$data\\root",
]

#: Of these, the ones without a line end: a list has one trial in each line.
IN_LINES = [name for name in NAMES if not {"\r", "\n"} & set(name)]


@pytest.fixture
def manifest(tmp_path):
    table = pd.DataFrame({"ID": NAMES, "duration": 1.5, "wav": NAMES})
    write_manifest(tmp_path / "train.csv", table)
    return Manifest.read(tmp_path / "train.csv")


def test_manifest(manifest, tmp_path):
    assert [manifest.ids[i] for i in range(len(manifest))] == NAMES
    paths = [f"{tmp_path.resolve()}/{name}" for name in NAMES]
    assert [manifest.path(i) for i in range(len(manifest))] == paths
    # SpeechBrain reads manifests by this.
    with open(tmp_path / "train.csv", newline="", encoding="utf-8") as stream:
        assert [row["wav"] for row in csv.DictReader(stream)] == NAMES


def test_quotes_only_where_they_are_needed(tmp_path):
    """A manifest of usual names is the text that it always was."""
    path = tmp_path / "train.csv"
    table = pd.DataFrame({"ID": ["a"], "duration": [1.5], "wav": ["b c.wav"]})
    write_manifest(path, table)
    assert path.read_bytes() == b"ID,duration,wav\na,1.5,b c.wav\n"


def test_rejected(tmp_path):
    rows = [(name, "silent", f"of {name}") for name in sorted(NAMES)]
    rows.append(("z\udce9.wav", "unreadable", ""))
    write_rejected(tmp_path / "rejected.csv", rejected_table(rows))
    found = pd.read_csv(tmp_path / "rejected.csv", keep_default_na=False)
    assert found["wav"].to_list() == sorted([*NAMES, "z\\udce9.wav"])


def test_labels(manifest, tmp_path):
    labels = np.arange(len(NAMES)) % 3
    write_labels(tmp_path / "labels.csv", manifest, labels)
    assert (read_labels(tmp_path / "labels.csv", manifest)[0] == labels).all()
    # Names of speakers may be as odd.
    table = pd.DataFrame({"ID": NAMES, "spk_id": NAMES})
    write_csv(tmp_path / "speakers.csv", table)
    _, names = read_labels(tmp_path / "speakers.csv", manifest, "spk_id")
    assert names == sorted(NAMES)


def test_bad_audio(tmp_path):
    state = RunState()
    bad = [(name, f"truncated {name}") for name in [*NAMES, "\udce9.wav"]]
    for _ in range(2):
        # A resumed run knows what the table lists.
        report = BadAudioReport(tmp_path, 10**6, state)
        report.begin_epoch()
        report.limit = 100
        report.add(bad, epoch=1)
    with open(tmp_path / "bad_audio.csv", newline="", encoding="utf-8") as f:
        rows = [row["wav"] for row in csv.DictReader(f)]
    assert rows[: len(NAMES)] == NAMES and "\\udce9.wav" in rows


def test_trials_and_scores(tmp_path):
    lines = [["1", name, "b.wav"] for name in IN_LINES]
    lines += [["0", "c.wav", name] for name in IN_LINES]
    path = tmp_path / "trials.txt"
    path.write_text("\n".join(map(join_fields, lines)), encoding="utf-8")
    trials = read_trials(path)
    assert set(trials.names) == {*IN_LINES, "b.wav", "c.wav"}
    scores = np.arange(len(trials)) / 8
    write_scores(tmp_path / "scores.txt", trials, scores)
    again, found = read_scores(tmp_path / "scores.txt")
    assert again.names == trials.names and (found == scores).all()
    assert again.labels.tolist() == trials.labels.tolist()
    # And so does a list without labels.
    pairs = Trials(None, trials.left, trials.right, trials.names)
    write_scores(tmp_path / "scores.txt", pairs, scores)
    with open(tmp_path / "scores.txt", encoding="utf-8") as stream:
        fields = [fields_of(line) for line in stream]
    assert [f[0] for f in fields] == [trials.names[i] for i in trials.left]


@pytest.mark.parametrize(
    "line, fields",
    [
        ("1 a.wav b.wav", ["1", "a.wav", "b.wav"]),
        ("  1\ta.wav  b.wav \r\n", ["1", "a.wav", "b.wav"]),
        ("1\ta b.wav\tc  d.wav\n", ["1", "a b.wav", "c  d.wav"]),
        ('1,"a b.wav","c d.wav"\n', ["1", "a b.wav", "c d.wav"]),
        ('1, "a b.wav", c.wav', ["1", "a b.wav", "c.wav"]),
        ('"a b.wav","c, d.wav"', ["a b.wav", "c, d.wav"]),
        ('1 5"tape.wav b.wav', ["1", '5"tape.wav', "b.wav"]),
        ("1 a,b.wav c.wav", ["1", "a,b.wav", "c.wav"]),
        ('"' + "x" * 200_000, ['"' + "x" * 200_000]),
    ],
)
def test_fields_of_a_line(line, fields):
    assert fields_of(line) == fields


def test_spaces_are_explained(tmp_path):
    path = tmp_path / "trials.txt"
    path.write_text("1 my voice.wav b.wav\n")
    with pytest.raises(TrialError, match='spaces.*tabs.*1,"a b.wav","c d.wav"'):
        read_trials(path)
    path.write_text('m1,"a b.wav",c.wav\nm2\ta.wav\tb c.wav\n')
    assert read_enrolment(path) == {
        "m1": ("a b.wav", "c.wav"),
        "m2": ("a.wav", "b c.wav"),
    }


def test_a_lone_surrogate_breaks_no_report(tmp_path):
    """Python reads a name that is not UTF-8 as one."""
    name = os.fsdecode(b"caf\xe9")
    with atomic_write(tmp_path / "results.json") as stream:
        json.dump({"speaker": name}, stream, ensure_ascii=False)
    again = json.loads((tmp_path / "results.json").read_text("utf-8"))
    assert again == {"speaker": name}
    Logbook(tmp_path).log(f"train {name}", 1, 1, loss=1.0)
    text = (tmp_path / "metrics.jsonl").read_text("utf-8")
    assert json.loads(text)["stage"] == f"train {name}"
    rows = np.random.default_rng(0).normal(size=(30, 4))
    groups = [name if i % 2 else "bob" for i in range(30)]
    page = build_report(
        tmp_path,
        title=name,
        embeddings={
            "embeddings": rows,
            "names": groups,
            "groups": np.array(groups),
        },
    )
    assert "<h1>caf\\udce9</h1>" in page.read_text(encoding="utf-8")


def test_printable():
    line = "speaker 1\ta\r\x1b[31m\u4e2d.wav"
    assert printable(line) == "speaker 1\ta\\r\\x1b[31m\u4e2d.wav"


CODE = """
from speechbrain_ssl.runtime import set_up_process
set_up_process()
print("sp\\u00e9aker \\u4e2d \\udce9 \\U0001f3a4")
"""


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_console_that_cannot_show_a_name(encoding):
    """All programs call ``set_up_process`` first."""
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        env={**tiny.environment(), "PYTHONIOENCODING": encoding},
        capture_output=True,
        check=True,
    )
    shown = io.BytesIO(done.stdout).read().decode(encoding)
    wanted = "sp\\xe9aker" if encoding == "ascii" else "sp\u00e9aker"
    assert shown.split() == [wanted, "\\u4e2d", "\\udce9", "\\U0001f3a4"]
