"""No folder of the machine a model was made on is published with it."""

import copy
import json
import shlex

import pytest

from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.publishing.record import read_record, without_folders


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


@pytest.mark.parametrize(
    "given, wanted",
    [
        ("x --hub_token=abc --seed=1", "x --hub_token=*** --seed=1"),
        ("x --password abc --seed=1", "x --password *** --seed=1"),
        ("x --api_key=abc", "x --api_key=***"),
        (
            "x '--hub={hf_token: abc, seed: 1}' --seed=1",
            "x '--hub={hf_token: ***, seed: 1}' --seed=1",
        ),
        # No secrets.
        ("x --keyword=abc --tokens_per_second", "x --keyword=abc"),
    ],
)
def test_secrets(given, wanted):
    """Values of options that hold a secret are cut from the command."""
    found = without_folders({"command": given})["command"]
    wanted = shlex.split(wanted)
    assert shlex.split(found)[: len(wanted)] == wanted


def test_secret_keys():
    """So are those of keys, wherever they are."""
    secrets = {"HF_TOKEN": "abc", "passwords": ["abc"], "tokens": 3}
    found = without_folders({"a": {**secrets, "seed": 1}})
    shown = {"HF_TOKEN": "***", "passwords": "***", "tokens": 3}
    assert found == {"a": {**shown, "seed": 1}}


@pytest.mark.parametrize(
    "record, named",
    [
        ({"threshold": "0.3"}, "`threshold` must be a number"),
        ({"threshold": float("nan")}, "`threshold` must be a number"),
        ({"eer": 10**400}, "`eer` must be a number"),
        ({"label_free_threshold": "x"}, "`label_free_threshold` must be a"),
        ({"evaluations": {"eer": 1}}, "`evaluations` must be a list"),
        ({"evaluations": [1]}, "`evaluations` must be a list"),
        (
            {"evaluations": [{"list": "O", "scoring": "cosine"}]},
            "needs list, scoring, eer_percent",
        ),
        (
            {
                "evaluations": [
                    {"list": "O", "scoring": "", "eer_percent": None}
                ]
            },
            "needs list, scoring, eer_percent",
        ),
        (
            {"evaluations": [{"list": "O", "scoring": True, "eer_percent": 1}]},
            "`scoring` must be a text",
        ),
        ({"eer": 1, "ci_low": 0.5}, "`ci_low` and `ci_high` need each other"),
        ({"labels_seen": True}, None),
        (
            {"evaluations": [{"list": [1], "scoring": "", "eer_percent": 1}]},
            "`list` must be a text",
        ),
        ({"training": []}, None),
        ({"training": [1]}, "`training` must be an object"),
        ({"labels_seen": {"a": 1}}, "`labels_seen` must be a text"),
        ({"eer": None, "threshold": 0.3, "seed": [1]}, None),
    ],
)
def test_record_of_a_stranger(tmp_path, record, named):
    """Wrong types are refused with the key, and not by a traceback later."""
    path = tmp_path / "results.json"
    path.write_text(json.dumps(record))
    if named is None:
        assert read_record(path) == record
        return
    with pytest.raises(ConfigError, match=named) as caught:
        read_record(path)
    assert str(path) in str(caught.value)
