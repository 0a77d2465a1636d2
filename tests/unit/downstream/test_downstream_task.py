"""Labelled manifests: what is read, and what is refused in plain words."""

import re

import numpy as np
import pandas as pd
import pytest

from speechbrain_ssl.data.manifest import Manifest
from speechbrain_ssl.downstream.task import read_task, write_labelled
from speechbrain_ssl.errors import ConfigError, ManifestError

HEADER = "ID,duration,wav,spk_id,emotion,age\n"
ROWS = [
    "a,1.0,$data_root/a.wav,s1,sad,7",
    "b,2.0,$data_root/b.wav,s1,angry,7",
    "c,3.0,$data_root/c.wav,s2,,40",
    "d,4.0,$data_root/d.wav,s3,bored,18",
    "e,5.0,$data_root/e.wav,s3,sad,39.5",
]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "labelled.csv"
    path.write_text(HEADER + "\n".join(ROWS) + "\n")
    return path


def test_rows_stay_together(path):
    task = read_task(path, "emotion", "/x")
    assert task.classes == ["angry", "bored", "sad"]
    assert task.labels.tolist() == [2, 0, 1, 2]
    assert task.speakers.tolist() == ["s1", "s1", "s3", "s3"]
    assert task.paths([0, 3]) == ["/x/a.wav", "/x/e.wav"]
    assert task.manifest.durations.tolist() == [1, 2, 4, 5]
    assert task.column("age").tolist() == ["7", "7", "18", "39.5"]


def test_classes_choose_and_order(path):
    task = read_task(path, "emotion", "/x", classes=["sad", "angry"])
    assert task.classes == ["sad", "angry"]
    assert task.labels.tolist() == [0, 1, 0]
    assert [task.manifest.ids[i] for i in range(3)] == ["a", "b", "e"]


def test_bins_group_a_number(path):
    task = read_task(path, "age", "/x", bins=[18, 40])
    assert task.classes == ["below 18", "18 to below 40", "40 or more"]
    assert task.labels.tolist() == [0, 0, 2, 1, 1]
    # A group of which there is none is no class.
    task = read_task(path, "age", "/x", bins=[7.5, 30, 60])
    assert task.classes == ["below 7.5", "7.5 to below 30", "30 to below 60"]


def test_several_files_are_one(path, tmp_path):
    more = tmp_path / "more.csv"
    more.write_text("ID,duration,wav,spk_id,emotion\nf,1.0,f.wav,s9,sad\n")
    task = read_task([path, more], "emotion", "/x")
    assert task.speakers[-1] == "s9" and task.column("age")[-1] == ""
    assert task.paths([len(task) - 1]) == [str(tmp_path / "f.wav")]


@pytest.mark.parametrize(
    "change, keys, error, message",
    [
        (None, {"label": "mood"}, ManifestError, "no column `mood`"),
        (None, {"speaker_column": "x"}, ManifestError, "no column `x`"),
        (("s1,sad", ",sad"), {}, ManifestError, "`spk_id` is empty in 1 rows"),
        (None, {"classes": ["sad", "glad"]}, ConfigError, "the emotion glad"),
        (None, {"classes": ["sad"]}, ConfigError, "one class only (sad)"),
        (None, {"classes": ["sad", "sad"]}, ConfigError, "names one twice"),
        (None, {"label": "age", "bins": [4, 2]}, ConfigError, "rising"),
        (None, {"bins": [4]}, ManifestError, "'sad' in row 1 is not a number"),
        (("$data_root/a", "a"), {"data_root": None}, ManifestError, "$data_r"),
        (("a,1.0", "b,1.0"), {}, ManifestError, "'b' has occurred before"),
    ],
)
def test_what_is_refused(path, change, keys, error, message):
    if change:
        path.write_text(path.read_text().replace(*change))
    keys = {"label": "emotion", "data_root": "/x", **keys}
    with pytest.raises(error, match=re.escape(message)):
        read_task(path, **keys)


def test_no_label_at_all(path):
    table = pd.read_csv(path).assign(emotion="")
    table.to_csv(path, index=False)
    with pytest.raises(ManifestError, match="`emotion` .* empty throughout"):
        read_task(path, "emotion", "/x")


def test_what_is_written_is_read(tmp_path):
    table = pd.DataFrame(
        {
            "emotion": ["sad", "angry"],
            "ID": ["a", "b"],
            "wav": ["/a.wav", "/b.wav"],
            "duration": [1.0, 2.0],
            "spk_id": ["1", "2"],
        }
    )
    write_labelled(tmp_path / "x.csv", table)
    task = read_task(tmp_path / "x.csv", "emotion")
    assert task.speakers.tolist() == ["1", "2"]
    # Training without labels reads three columns of it, and no more.
    manifest = Manifest.read(tmp_path / "x.csv")
    assert set(vars(manifest)) == {"ids", "wavs", "durations", "keys"}
    with pytest.raises(ManifestError, match="spk_id is missing"):
        write_labelled(tmp_path / "x.csv", table.drop(columns="spk_id"))
    np.testing.assert_array_equal(task.labels, [1, 0])
