"""A bar on a terminal, and now and then a line everywhere else."""

import sys

import pytest
import speechbrain.core
import tqdm

from speechbrain_ssl import progress
from speechbrain_ssl.config import run
from speechbrain_ssl.progress import ProgressLines, open_bar


@pytest.fixture
def clock(monkeypatch):
    """A clock that only the test moves."""
    times = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: times[0])
    monkeypatch.setattr(progress, "INTERVAL", 30.0)
    monkeypatch.setattr(ProgressLines, "last_line", times[0])

    def advance(seconds):
        times[0] += seconds

    return advance


def test_a_line_every_half_minute(capsys, clock):
    """And one at the end: what is done, the time it took, the time left."""
    bar = open_bar(total=200, desc="scan wav", unit=" files")
    for _ in range(100):
        bar.update()
        clock(1.0)
    assert capsys.readouterr().err.splitlines() == [
        "scan wav: 31 of 200 files (16%), 00:30 elapsed, 02:43 left",
        "scan wav: 61 of 200 files (30%), 01:00 elapsed, 02:16 left",
        "scan wav: 91 of 200 files (46%), 01:30 elapsed, 01:47 left",
    ]
    bar.update(100)
    capsys.readouterr()
    bar.close()
    bar.close()
    assert (
        capsys.readouterr().err
        == "scan wav: 200 of 200 files (100%), 01:40 elapsed\n"
    )


def test_what_is_quick_prints_nothing(capsys, clock):
    assert list(open_bar(range(5))) == [0, 1, 2, 3, 4]
    with open_bar(total=3) as bar:
        bar.update(3)
    assert capsys.readouterr().err == ""


def test_many_short_ones_print_as_rarely_as_a_long_one(capsys, clock):
    for epoch in range(1, 13):
        for _ in open_bar(range(10), desc=f"epoch {epoch}"):
            clock(1.0)
    assert capsys.readouterr().err.splitlines() == [
        "epoch 3: 10 of 10 steps (100%), 00:10 elapsed",
        "epoch 6: 10 of 10 steps (100%), 00:10 elapsed",
        "epoch 9: 10 of 10 steps (100%), 00:10 elapsed",
        "epoch 12: 10 of 10 steps (100%), 00:10 elapsed",
    ]


def test_without_a_total(capsys, clock):
    with open_bar(desc="list wav", unit=" files") as bar:
        clock(40)
        bar.update(7)
    assert capsys.readouterr().err == "list wav: 7 files, 00:40 elapsed\n"


def test_switched_off(capsys, clock):
    for _ in open_bar(range(5), disable=True):
        clock(100)
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    list(open_bar(range(5), desc="count"))
    assert "\rcount: 100%" in capsys.readouterr().err


def test_the_bar_of_speechbrain(capsys, clock, monkeypatch):
    """Stock SpeechBrain redraws the bar of an epoch at every step."""

    def epoch(_=None):
        with speechbrain.core.tqdm(
            range(100),
            initial=0,
            dynamic_ncols=True,
            disable=False,
            colour="",
        ) as bar:
            for step in bar:
                clock(1.0)
                bar.set_postfix(train_loss=2.0 + step)

    # Restores SpeechBrain's own afterwards.
    monkeypatch.setattr(speechbrain.core, "tqdm", tqdm.tqdm)
    epoch()
    assert capsys.readouterr().err.count("\r") > 90
    monkeypatch.setattr(sys, "argv", ["train.py"])
    run(epoch)
    text = capsys.readouterr().err
    assert "\r" not in text
    assert text.splitlines()[1] == (
        "progress: 31 of 100 steps (31%), 00:31 elapsed, 01:09 left, "
        "train_loss 32"
    )
    assert len(text.splitlines()) == 5
