"""No folder of the machine a model was made on is published with it."""

import copy
import shlex

import pytest

from speechbrain_ssl.publishing.record import without_folders


@pytest.mark.parametrize(
    "given, wanted",
    [
        ("train.py a.yaml --seed=1", "train.py a.yaml --seed=1"),
        ("python /home/me/train.py", "python /path/to/train.py"),
        ("x --data=/home/me/corpora/", "x --data=/path/to/corpora"),
        ("x --data=~/corpora", "x --data=/path/to/corpora"),
        ("x --data=~me/corpora", "x --data=/path/to/corpora"),
        ("x --data=/home/a=b/corpora", "x --data=/path/to/corpora"),
        ("x '--data=/home/my own/a b'", "x '--data=/path/to/a b'"),
        (
            "x '--lists=[/home/my own/a.txt,/home/b.txt, c.txt]'",
            "x '--lists=[/path/to/a.txt,/path/to/b.txt, c.txt]'",
        ),
        (
            "x '--lists={O: /home/O.txt, E: null}'",
            "x '--lists={O: /path/to/O.txt, E: null}'",
        ),
        ("x --model=../SSL/results/1", "x --model=../SSL/results/1"),
        ("x --model=me/model", "x --model=me/model"),
        ("x --url=https://some.org/a/b", "x --url=https://some.org/a/b"),
        ("a quote ' and /home/me/x", "a quote ' and /path/to/x"),
    ],
)
def test_commands(given, wanted):
    found = without_folders({"command": given})["command"]
    assert found == wanted
    if "quote" not in given:
        # Still one that a shell splits in the same places.
        assert len(shlex.split(found)) == len(shlex.split(given))
    assert without_folders({"command": found})["command"] == found


def test_a_whole_record():
    record = {
        "eer": 8.5,
        "command": None,
        "evaluations": [{"list": "O", "note": "scores in /home/me/x.txt"}],
        "training": {"command": "train.py --output_folder=/home/me/run"},
    }
    before = copy.deepcopy(record)
    assert without_folders(record) == {
        "eer": 8.5,
        "command": None,
        "evaluations": [{"list": "O", "note": "scores in /path/to/x.txt"}],
        "training": {"command": "train.py --output_folder=/path/to/run"},
    }
    assert record == before
