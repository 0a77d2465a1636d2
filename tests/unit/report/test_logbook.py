"""What a kill and a resume leave of ``metrics.jsonl``."""

import errno
import json
import math

import numpy as np
import pytest
import torch

from speechbrain_ssl.errors import UserError
from speechbrain_ssl.report import logbook as logbook_module
from speechbrain_ssl.report.logbook import Logbook, plain, read_metrics


def write_steps(folder, steps):
    logbook = Logbook(folder)
    for step in steps:
        logbook.log("train", epoch=1, step=step, loss=1.0 / step)
    return logbook


def steps_of(logbook):
    return [line["step"] for line in read_metrics(logbook.path)]


def test_scalars_become_plain_numbers(tmp_path):
    logbook = Logbook(tmp_path / "made" / "when needed")
    logbook.log(
        "valid",
        epoch=np.int64(2),
        step=np.int32(7),
        count=np.int64(3),
        score=np.float32(0.5),
        array=np.array([0.25]),
        flag=np.bool_(True),
    )
    (line,) = read_metrics(logbook.path)
    assert line == {
        "stage": "valid",
        "epoch": 2,
        "step": 7,
        "count": 3,
        "score": 0.5,
        "array": 0.25,
        "flag": True,
    }
    assert isinstance(line["count"], int)


def test_torch_scalars():
    assert plain(torch.tensor(0.5, requires_grad=True)) == 0.5
    assert plain(torch.tensor(float("nan"))) is None
    with pytest.raises(TypeError, match="shape"):
        plain(torch.zeros(2))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_not_finite_is_null_and_keeps_its_key(tmp_path, bad):
    logbook = Logbook(tmp_path)
    logbook.log("train", 1, 1, loss=bad, other=np.float64(bad))
    text = logbook.path.read_text()
    assert "NaN" not in text and "Infinity" not in text
    assert json.loads(text)["loss"] is None
    assert json.loads(text)["other"] is None


def test_what_is_no_scalar_is_refused_and_not_written(tmp_path):
    logbook = Logbook(tmp_path)
    for value in ([1, 2], np.zeros(3), {}):
        with pytest.raises(TypeError):
            logbook.log("train", 1, 1, loss=value)
    assert not logbook.path.exists()


def test_rewind_removes_later_steps(tmp_path):
    logbook = write_steps(tmp_path, range(1, 11))
    logbook.rewind(6)
    assert steps_of(logbook) == [1, 2, 3, 4, 5, 6]
    for step in range(7, 11):
        logbook.log("train", 1, step, loss=0.0)
    assert steps_of(logbook) == list(range(1, 11))


def test_rewind_without_a_file(tmp_path):
    logbook = Logbook(tmp_path)
    logbook.rewind(0)
    assert not logbook.path.exists()


def test_every_way_to_tear_the_last_line(tmp_path):
    logbook = write_steps(tmp_path, [1, 2, 3])
    whole = logbook.path.read_bytes()
    last = whole.index(b"\n", whole.index(b"\n") + 1) + 1
    for length in range(last, len(whole) + 1):
        logbook.path.write_bytes(whole[:length])
        # Only the newline lacks from the last but one length on.
        expected = [1, 2, 3] if length >= len(whole) - 1 else [1, 2]
        assert steps_of(logbook) == expected
        # A new process, with and without a rewind.
        Logbook(tmp_path).rewind(3)
        assert steps_of(logbook) == expected
        assert logbook.path.read_bytes().endswith(b"\n")
        logbook.path.write_bytes(whole[:length])
        Logbook(tmp_path).log("train", 1, 4, loss=0.0)
        assert steps_of(logbook) == [*expected, 4]


def test_torn_within_a_character(tmp_path):
    logbook = Logbook(tmp_path)
    logbook.log("train", 1, 1, note="a")
    with open(logbook.path, "ab") as stream:
        stream.write('{"stage": "é'.encode()[:-1])
    assert steps_of(logbook) == [1]


def test_broken_before_the_end_is_an_error(tmp_path):
    logbook = write_steps(tmp_path, [1, 2])
    text = logbook.path.read_text()
    logbook.path.write_text("oops\n" + text)
    with pytest.raises(UserError, match="line 1"):
        read_metrics(logbook.path)


def test_full_disk_says_so_and_leaves_no_half_line(tmp_path, monkeypatch):
    logbook = write_steps(tmp_path, [1])

    class Full:
        def __init__(self, stream):
            self.stream = stream

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.stream.close()

        def write(self, data):
            self.stream.write(data[:5])
            self.stream.flush()
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(
        logbook_module,
        "open",
        lambda *arguments: Full(open(*arguments)),
        raising=False,
    )
    with pytest.raises(UserError, match="metrics.jsonl: no space is left"):
        logbook.log("train", 1, 2, loss=1.0)
    assert steps_of(logbook) == [1]
    assert logbook.path.read_bytes().endswith(b"}\n")
